"""What is looked for, in order of precedence, and what can be done about it."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final, Literal, NamedTuple, TypeAlias

from unbroken.server.leak_settings import ACTIONS, ENTITIES, Action, Entity

__all__ = [
    "ACTIONS",
    "DEFAULT_ACTIONS",
    "ENTITIES",
    "Action",
    "Actions",
    "Entity",
    "Match",
    "merged",
    "severity",
]

Actions: TypeAlias = Mapping[Entity, Action]

DEFAULT_ACTIONS: Final[Actions] = MappingProxyType(
    {
        "canary": "block",
        "secret": "redact",
        "card": "redact",
        "iban": "redact",
        "national_id": "redact",
        # What answers are full of for good reasons: a shop's address, the phone number that was asked for.
        "email": "flag",
        "ip": "flag",
        "coordinates": "ignore",
        "phone": "flag",
        # A model has to read each sentence for these.
        "address": "ignore",
        "name": "ignore",
        "instructions": "flag",
    }
)


class Match(NamedTuple):
    """Something that was found: characters *start* to *end* of the text that was searched."""

    start: int
    end: int
    entity: Entity
    rest: Literal["", "word", "key"] = ""
    """What follows and belongs to it, though it was not searched: as much of a word as looks the same,
    where the kind has no greatest length; or a private key's body."""


_SEVERITY: Final = {"block": 2, "redact": 1}
_RANKS: Final = {entity: rank for rank, entity in enumerate(ENTITIES)}


def merged(matches: list[Match], actions: Actions) -> list[Match]:
    """Return *matches* in order, with those that overlap made into one.

    It covers all of them, so that nothing of any is left, and is called what the one is that weighs
    most: by what is done about it, then by its length, then by its place in :data:`ENTITIES`. Of what
    may pass, nothing is left where it overlaps what may not.
    """
    if len(matches) < 2:
        return matches
    kept = [match for match in matches if _severity(match, actions)]
    weak = [match for match in matches if not _severity(match, actions)]
    whole = _joined(kept, actions)
    whole += [
        match
        for match in _joined(weak, actions)
        if not any(match.start < other.end and other.start < match.end for other in whole)
    ]
    return sorted(whole)


def _severity(match: Match, actions: Actions) -> int:
    return severity(match.entity, actions)


def severity(entity: Entity, actions: Actions) -> int:
    """Return how much is done about *entity*; 0: it may pass."""
    return _SEVERITY.get(actions.get(entity, "ignore"), 0)


def _joined(matches: list[Match], actions: Actions) -> list[Match]:
    def weight(match: Match) -> tuple[int, int, int]:
        return _severity(match, actions), match.end - match.start, -_RANKS[match.entity]

    whole: list[Match] = []
    heaviest: list[Match] = []  # of each cluster
    for match in sorted(matches):
        if whole and match.start < whole[-1].end:
            last = whole[-1]
            heaviest[-1] = max(heaviest[-1], match, key=weight)
            ends = [each.rest for each in (last, match) if each.end == max(last.end, match.end)]
            rest = "key" if "key" in (last.rest, match.rest) else max(ends)
            whole[-1] = Match(last.start, max(last.end, match.end), heaviest[-1].entity, rest)
        else:
            whole.append(match)
            heaviest.append(match)
    return whole
