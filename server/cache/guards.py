"""Whether two questions that lie close together ask the same: a second look, at words, after the embedding's.

Embeddings put opposites beside each other ("turn on the light", "turn off the
light"), and whatever differs by a number, a name or the order of its words. So
a near question counts as the same only if nothing is left that could make a
difference: both have the same numbers, dates, names, negations and question
words, and the same words that carry meaning, in the same order where order
tells who does what. What is left over on either side refuses. That costs hits,
which are asked again; a wrong answer is worse.

The lists are English. In a language that they don't know, every word carries
meaning, and only what is said in the same words passes.
"""

from __future__ import annotations

import itertools
import re
import unicodedata
from collections import Counter
from dataclasses import dataclass
from functools import cached_property
from typing import Final, Literal, TypeAlias

from unbroken.server.cache.lexicon import (
    AMOUNTS,
    ASKING,
    DATES,
    EMPTY,
    EQUAL,
    FIRST,
    NEGATIONS,
    NUMBERS,
    OPEN,
    SECOND,
)

__all__ = ["Difference", "Wording", "difference"]

Difference: TypeAlias = Literal["negation", "number", "symbol", "date", "name", "asking", "word", "order"]
"""What tells two questions apart."""

_WORD: Final = re.compile(r"[^\W_]+(?:['\u2019][^\W_]+)*[+#]*")
_SENTENCE_START: Final = re.compile(r"(?:^|[.!?:\n]\s*|[-*]\s+|[\"\u201c(]\s*)(?=[^\W_])")

_NUMERAL: Final = re.compile(r"[-+]?[^\W\d_]?\d[\d.,:/]*(?:[^\W_]*)")
"""A number, with what is written at its sides: a sign, a currency's or a unit's letters."""

_SYMBOL: Final = re.compile(r"[^\w\s.,;:!?'\"\u2018\u2019\u201c\u201d()\[\]\u2026/\u2013\u2014-]|/(?=\W)")
"""What isn't punctuation: currencies, percent, operators."""

_CONTRACTIONS: Final = {
    "cant": ("can", "not"),
    "cannot": ("can", "not"),
    "wont": ("will", "not"),
    "dont": ("do", "not"),
    "doesnt": ("does", "not"),
    "didnt": ("did", "not"),
    "isnt": ("is", "not"),
    "arent": ("are", "not"),
    "shouldnt": ("should", "not"),
    "couldnt": ("could", "not"),
    "wouldnt": ("would", "not"),
}
"""As some people write them; with an apostrophe, they are taken apart anyway."""

_TAIL: Final = re.compile(r"'(?:s|re|ve|m|d|ll)\b")


@dataclass(frozen=True)
class Wording:
    """A question, taken apart."""

    text: str

    @cached_property
    def words(self) -> tuple[str, ...]:
        """Its words, folded, with contractions written out."""
        plain = _folded(self.text).replace("can't", "can not").replace("won't", "will not")
        found = _WORD.findall(_TAIL.sub("", plain.replace("n't", " not")))
        return tuple(part for word in found for part in _CONTRACTIONS.get(word, (word,)))

    @cached_property
    def numbers(self) -> tuple[str, ...]:
        """Its numbers, in figures, in order; those in words behind the others."""
        written = (number.strip(".,:/") for number in _NUMERAL.findall(_folded(self.text)))
        figures = [re.sub(r",(?=\d{3})", "", number) for number in written]
        return (*figures, *(NUMBERS[word] for word in self.words if word in NUMBERS))

    @cached_property
    def symbols(self) -> Counter[str]:
        """Its characters that are neither letters, figures nor punctuation."""
        return Counter(_SYMBOL.findall(self.text))

    @cached_property
    def dates(self) -> Counter[str]:
        """What it says of days and times."""
        return Counter(_stem(word) for word in self.words if word in DATES)

    @cached_property
    def negations(self) -> int:
        """How often it says no."""
        return sum(word in NEGATIONS for word in self.words)

    @cached_property
    def asking(self) -> tuple[bool, frozenset[str]]:
        """Whether it asks for more than yes or no, and what for."""
        words = self.words
        amounts = {
            second for first, second in itertools.pairwise(words) if first == "how" and second in AMOUNTS
        }
        return not OPEN.isdisjoint(words), frozenset(ASKING.intersection(words) | amounts)

    @cached_property
    def doer(self) -> bool | None:
        """Where it speaks of both who asks and who is asked: whether who asks comes first."""
        said = [word in FIRST for word in self.words if word in FIRST or word in SECOND]
        return said[0] if len(set(said)) == 2 else None

    @cached_property
    def names(self) -> frozenset[str]:
        """The words that are written with capitals, but for those that begin a sentence with only one."""
        starts = {match.end() for match in _SENTENCE_START.finditer(self.text)}
        found: set[str] = set()
        for match in _WORD.finditer(self.text):
            word = match.group()
            rest = word[1:] if match.start() in starts else word
            if word[0] != "I" or len(word.partition("'")[0]) > 1:
                found.update(_WORD.findall(_TAIL.sub("", _folded(word))) if rest != rest.lower() else ())
        return frozenset(found)

    @cached_property
    def content(self) -> tuple[str, ...]:
        """The stems of the words that carry meaning and are none of the above, in order."""
        return tuple(
            _stem(word)
            for word in self.words
            if not (word in EMPTY or word in NUMBERS or word in NEGATIONS or any(map(str.isdigit, word)))
        )


def difference(one: Wording, other: Wording) -> Difference | None:
    """Return what tells two questions apart; None: nothing does, and one's answer is the other's."""
    if one.negations != other.negations:
        return "negation"
    if one.numbers != other.numbers:
        return "number"
    if one.symbols != other.symbols:
        return "symbol"
    if one.dates != other.dates:
        return "date"
    if not (one.names <= set(other.words) and other.names <= set(one.words)):
        return "name"
    if one.asking != other.asking:
        return "asking"
    if not one.content or Counter(one.content) != Counter(other.content):
        return "word"
    if one.doer is not other.doer and one.doer is not None and other.doer is not None:
        return "order"
    if one.content == other.content:
        return None
    # "How do I stop the pump?", "How does the pump stop?"
    if _CONDITIONS.intersection(one.words) and one.content != other.content:
        return "order"  # what depends on what
    has_same_doer = FIRST.isdisjoint(one.words) == FIRST.isdisjoint(other.words)
    # A comma says where a clause ends, were it of one word.
    least = 1 if "," in one.text or "," in other.text else _CLAUSE
    return None if has_same_doer and _is_turned(one.content, other.content, least) else "order"


_CLAUSE: Final = 2
"""Words that carry meaning: the least that a clause has, if there is no comma."""

_CONDITIONS: Final = frozenset({"if", "when", "unless", "because", "than", "before", "after", "until", "to"})
"""Words by which it matters what comes first."""


def _is_turned(one: tuple[str, ...], other: tuple[str, ...], least: int) -> bool:
    """Whether two lists of the same words differ at most in which clause, of *least* words, comes first.

    Two words that changed places may be all the difference.
    """
    return any(
        one[start:] + one[:start] == other
        for start in range(len(one))
        if not start or min(start, len(one) - start) >= least
    )


def _folded(text: str) -> str:
    return unicodedata.normalize("NFKC", text).replace("\u2019", "'").casefold()


def _stem(word: str) -> str:
    """Return what a word has in common with its other forms: rough, and the same for both questions."""
    if (known := EQUAL.get(word)) is not None:
        return known
    if len(word) > 4 and word.endswith("ies"):
        word = word[:-3] + "y"
    elif len(word) > 4 and word.endswith(("sses", "xes", "ches", "shes")):
        word = word[:-2]
    elif len(word) > 3 and word.endswith("s") and not word.endswith(("ss", "us", "is")):
        word = word[:-1]
    elif len(word) > 5 and word.endswith("ing"):
        word = _undoubled(word[:-3])
    elif len(word) > 4 and word.endswith("ed"):
        word = _undoubled(word[:-2])
    if len(word) > 4 and word.endswith("e"):
        word = word[:-1]
    return EQUAL.get(word, word)


def _undoubled(word: str) -> str:
    is_doubled = len(word) > 2 and word[-1] == word[-2] and word[-1] not in "ls"
    return word[:-1] if is_doubled else word
