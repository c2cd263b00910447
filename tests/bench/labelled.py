"""Texts with labelled spans, and how well the leak filter finds them again."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from unbroken.server.guards.leaks.entities import ENTITIES, Action, Actions, Entity
from unbroken.server.guards.leaks.scanner import Scanner
from unbroken.server.guards.leaks.stream import LeakFilter

__all__ = ["Labelled", "Scores", "Span", "read", "score"]

_NAMES: Final[dict[str, Entity]] = {
    "EMAIL_ADDRESS": "email",
    "PHONE_NUMBER": "phone",
    "CREDIT_CARD": "card",
    "IBAN_CODE": "iban",
    "US_SSN": "national_id",
    "IP_ADDRESS": "ip",
}
_REDACT: Final[Action] = "redact"
_ACTIONS: Final[Actions] = dict.fromkeys(ENTITIES, _REDACT)
_PIECE: Final = 4
_MARK: Final = re.compile("\x01([a-z_]+)\x02")

Span = tuple[int, int, Entity]


@dataclass(frozen=True, slots=True)
class Labelled:
    """A text, and what is in it."""

    text: str
    spans: list[Span]


@dataclass(slots=True)
class Scores:
    """What was found, found in vain, and missed, of each kind."""

    found: Counter[Entity] = field(default_factory=Counter)
    in_vain: Counter[Entity] = field(default_factory=Counter)
    missed: Counter[Entity] = field(default_factory=Counter)

    def precision(self, entity: Entity) -> float:
        """Return how much of what was found is one; 1 where nothing was found."""
        whole = self.found[entity] + self.in_vain[entity]
        return self.found[entity] / whole if whole else 1.0

    def recall(self, entity: Entity) -> float:
        """Return how much of what there is was found; 1 where there was nothing."""
        whole = self.found[entity] + self.missed[entity]
        return self.found[entity] / whole if whole else 1.0

    def f1(self, entity: Entity) -> float:
        """Return the harmonic mean of precision and recall; 1 where there was nothing to find."""
        twice = 2 * self.found[entity]
        whole = twice + self.in_vain[entity] + self.missed[entity]
        return twice / whole if whole else 1.0


def read(path: Path) -> Iterator[Labelled]:
    """Yield the texts in a file of JSON lines, as Presidio's generator writes them."""
    for line in path.read_text("utf-8").splitlines():
        row = json.loads(line)
        spans = [
            (span["start_position"], span["end_position"], _NAMES[span["entity_type"]])
            for span in row["spans"]
            if span["entity_type"] in _NAMES
        ]
        yield Labelled(row["full_text"], spans)


def score(texts: Iterable[Labelled]) -> Scores:
    """Filter *texts*, four characters at a time. What is found has both its ends right, by a character."""
    scanner, scores = Scanner(_ACTIONS), Scores()
    for labelled in texts:
        left = list(labelled.spans)
        for start, end, entity in _found(scanner, labelled.text):
            match = next(
                (s for s in left if s[2] == entity and abs(s[0] - start) <= 1 and abs(s[1] - end) <= 1), None
            )
            if match is None:
                scores.in_vain[entity] += 1
            else:
                left.remove(match)
                scores.found[entity] += 1
        scores.missed.update(entity for _, _, entity in left)
    return scores


def _found(scanner: Scanner, text: str) -> Iterator[Span]:
    """Yield what was replaced, by what is left around it."""
    stream = LeakFilter(scanner, _ACTIONS, lambda entity, _: f"\x01{entity}\x02")
    pieces = [text[place : place + _PIECE] for place in range(0, len(text), _PIECE)]
    out = "".join(map(stream.feed, pieces)) + stream.flush()
    first, *rest = _MARK.split(out)
    position = len(first)
    for name, after in zip(rest[::2], rest[1::2], strict=True):
        end = text.find(after, position + 1) if after else len(text)
        yield position, end, next(entity for entity in ENTITIES if entity == name)
        position = end + len(after)
