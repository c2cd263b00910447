"""The rules of ``rules.toml``, and what they find in one view of a text."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from importlib.resources import files
from typing import Any, Final

from unbroken.server.guards.injection.base import Evidence, Origin
from unbroken.server.guards.injection.normal_form import NormalForm
from unbroken.server.guards.injection.spoofing import MARKS, marks
from unbroken.server.guards.injection.views import View
from unbroken.server.guards.injection.words import Matcher, Vocabulary, slices, tokens

__all__ = ["BadRules", "Rule", "Rulebook", "names_of", "read_rules"]

_USUAL: Final = (Origin.USER, Origin.TOOL)

_HIDDEN: Final = 0.75
"""What is left of the doubts about something that was found where only a decoder looks."""

_UNSEEN: Final = frozenset({"tags", "selectors"})
_UNSEEN_WEIGHT: Final = 0.75
"""Of text in characters that nobody sees: what it says to whom hardly matters."""

_HIDDEN_TEXT: Final = "hidden-text"

_MENTIONED: Final = 0.6
"""What a finding weighs inside quotation marks, in a text about such things."""

_QUOTED: Final = re.compile(
    r"\"[^\"\n]{4,300}\"|“[^“”\n]{4,300}”|«[^«»\n]{4,300}»|`[^`\n]{4,300}`|(?<!\w)'[^'\n]{4,300}'(?!\w)"
)

_MENTIONS: Final = re.compile(
    r"explain|means?|meaning|phrases?|sentence|examples?|attack(?:s|er)?|injections?|detect(?:s|ion|or|ing)?"
    r"|classify|article|essay|blog|paper|research|quoted?|filters?|dataset|words?|says?|saying|documentation"
    r"|tutorial|teach|slide|training|novel|bedeutet|satz|frase|signifie|significa"
)


class BadRules(ValueError):
    """The rules can't be read. The text says which, and what is wrong."""


@dataclass(frozen=True, slots=True)
class Rule:
    """One rule."""

    id: str
    category: str
    weight: float
    patterns: tuple[str, ...]
    origins: tuple[Origin, ...] = _USUAL
    attack: tuple[str, ...] = ()
    """Texts in which it must find something. There is at least one."""
    benign: tuple[str, ...] = ()
    """Their twins, in which it must not."""


def read_rules(text: str | None = None) -> tuple[Rule, ...]:
    """Return the rules in *text*, which is TOML. None: those that come with the server.

    Raises:
        BadRules: They can't be read.

    """
    if text is None:
        text = files("unbroken.server.guards.injection").joinpath("rules.toml").read_text("utf-8")
    try:
        content = tomllib.loads(text)
    except tomllib.TOMLDecodeError as exc:
        raise BadRules(f"The rules aren't TOML: {exc}") from None
    rules = tuple(_rule(each) for each in content.get("rule", ()))
    if len({rule.id for rule in rules}) < len(rules):
        raise BadRules("Two rules have one id.")
    return rules


def names_of(rules: Iterable[Rule]) -> frozenset[str]:
    """Return what logs call *rules*, the marks, and what else is no model."""
    return frozenset(rule.id for rule in rules) | MARKS | {_HIDDEN_TEXT}


def _rule(row: dict[str, Any]) -> Rule:
    name = row.get("id", "?")
    try:
        rule = Rule(
            id=row["id"],
            category=row["category"],
            weight=float(row["weight"]),
            patterns=tuple(row["patterns"]),
            origins=tuple(Origin(each) for each in row.get("origins", ("user", "tool"))),
            attack=tuple(row["attack"]),
            benign=tuple(row["benign"]),
        )
    except (KeyError, TypeError, ValueError) as exc:
        raise BadRules(f"Rule {name!r} lacks a field, or has a wrong one: {exc}") from None
    if not (0 < rule.weight < 1 and rule.patterns and rule.attack and rule.benign):
        raise BadRules(f"Rule {name!r} needs a weight between 0 and 1, patterns, and texts of both kinds.")
    return rule


class Rulebook:
    """Rules, ready to be applied. Immutable: any number of threads use it.

    Args:
        rules: The rules.
        form: What they are brought into.
        without: Ids of rules and names of marks that don't count.

    """

    def __init__(
        self,
        rules: Iterable[Rule],
        form: NormalForm,
        *,
        without: frozenset[str] = frozenset(),
    ) -> None:
        self.rules = tuple(rule for rule in rules if rule.id not in without)
        self._without = without
        self._owners = [rule for rule in self.rules for _ in rule.patterns]
        patterns = [pattern for rule in self.rules for pattern in rule.patterns]
        # A beginning keeps its star: the form of a star is a star.
        self.vocabulary = Vocabulary([form.of(pattern) for pattern in patterns])

    def examine(self, view: View, origin: Origin) -> tuple[Evidence, ...]:
        """Return what *view* of a text from *origin* holds. Linear in its length."""
        text = view.text
        weights: dict[str, float] = {}
        quotes = _Quotes(text)
        for name, start, weight in self._findings(text, origin):
            if name not in self._without:
                weighed = weight * (_MENTIONED if quotes.covers(start) else 1.0)
                weights[name] = max(weights.get(name, 0.0), weighed)
        if view.name in _UNSEEN and _HIDDEN_TEXT not in self._without:
            weights[_HIDDEN_TEXT] = _UNSEEN_WEIGHT
        if view.is_decoded:
            weights = {name: 1 - (1 - weight) * _HIDDEN for name, weight in weights.items()}
        return tuple(Evidence(name, weight, view.name) for name, weight in weights.items())

    def _findings(self, text: str, origin: Origin) -> Iterator[tuple[str, int, float]]:
        matcher, owners = Matcher(self.vocabulary), self._owners
        for offset, piece in slices(text):
            for match in matcher.feed(piece, offset):
                if origin in (rule := owners[match.pattern]).origins:
                    yield rule.id, match.start, rule.weight
        for mark in marks(text, origin):
            yield mark.name, mark.start, mark.weight


class _Quotes:
    """Which parts of a text are quoted, where the text is one that speaks about what it quotes."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._spans: list[tuple[int, int]] | None = None

    def covers(self, start: int) -> bool:
        """Return whether the character at *start* is quoted."""
        if self._spans is None:
            self._spans = self._find()
        return any(begin < start < end for begin, end in self._spans)

    def _find(self) -> list[tuple[int, int]]:
        text = self._text[:_LONGEST_MENTION]
        spans = [match.span() for match in _QUOTED.finditer(text)][:_MOST_QUOTES]
        if not spans:
            return []
        # What is said about them has to stand outside of them.
        outside = "".join(
            text[a:b]
            for a, b in zip(
                [0, *(end for _, end in spans)], [*(begin for begin, _ in spans), len(text)], strict=True
            )
        )
        return spans if any(_MENTIONS.fullmatch(word) for word in tokens(outside)) else []


_LONGEST_MENTION: Final = 16 * 1024
_MOST_QUOTES: Final = 64
