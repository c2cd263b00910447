"""Whether two questions that lie close together ask the same: a second look, at words, after the embedding's.

Embeddings put opposites beside each other ("turn on the light", "turn off the
light"), and whatever differs by a number, a name, who does it, whether it may
or must be done, or the order of its words. So a near question counts as the
same only if nothing is left that could make a difference. What could isn't
listed: every word does, also the smallest ("a parcel to Spain", "a parcel in
Spain"), and all have to stand in the same order. What may differ is listed:

- a greeting ahead of the question, *please* and thanks behind it;
- articles, where there is a noun behind them;
- singular and plural, and what these make of a verb; not its tense;
- commas behind words, and the full stop, question or exclamation mark at the end. All other signs count, and
  between which words they stand: "6 - 2 + 1" isn't "6 + 2 - 1";
- contractions, and numbers that are written as words;
- *how do I*, *how can I* and *how to*;
- a few words that are said for each other, if no two of them are in the question;
- the capital letter of a sentence. Any other makes another word ("Can IT see it?"), but where three letters
  or more, all large or all small, have no vowel ("css");
- whether a clause such as "in Excel" comes first or last.

That costs hits, which are asked again; a wrong answer is worse. The lists are
English. In a language that they don't know, only what is said in the same words passes.
"""

from __future__ import annotations

import re
import unicodedata
from bisect import bisect_left
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from hashlib import blake2b
from typing import Final, Literal, TypeAlias

from unbroken.server.cache.lexicon import (
    ARTICLES,
    CONTRACTIONS,
    ENGLISH,
    EQUAL,
    NUMBERS,
    OWN_ARTICLE,
    PLACES,
    PLURALS_APART,
    RELATIONS,
    SUFFIXED_S,
)

__all__ = ["Difference", "Wording", "difference"]

Difference: TypeAlias = Literal["number", "symbol", "name", "word", "order"]
"""What tells two questions apart."""

_WORD: Final = re.compile(r"[^\W_]+(?:'[^\W_]+)*[+#]*")
_SENTENCE_START: Final = re.compile(r"(?:^|[.!?\n]\s*(?:[-*]\s+)?)(?=[^\W_])")

_NUMBER_WORDS: Final = re.compile(
    rf"\b(?:{'|'.join(NUMBERS)})(?:(?:-|\s+)(?:{'|'.join(NUMBERS)}))*\b", re.IGNORECASE
)
"""Numbers in words. In figures several would be several: twenty-one isn't 20-1."""
_THOUSANDS: Final = re.compile(r"(?<![\w.,(\[{])\d{1,3}(?:,\d{3})+(?![\w,)\]}])")
"""A number with commas. In brackets they are as likely a list's."""

_NUMERAL: Final = re.compile(r"[-+]?[^\W\d_]?\d[\d.,:/]*(?:[^\W_]*)")
"""A number, with what is written at its sides: a sign, a currency's or a unit's letters."""

_SYMBOL: Final = re.compile(r"\n[ \t]*|[^\w\s]|_")
"""Any sign, and where a line begins: in code its indentation says something."""

_NO_SYMBOL: Final = re.compile(
    r"""
    (?<= [^\W\d_] ) , (?= \s | \Z )                     # a comma between words
    | (?<= [^\W\d_] ) ' (?= [^\W\d_] )                  # a contraction's apostrophe
    | (?<= [^\W\d_]{2} ) [.?!]+ \Z | (?<= \d ) \.? \?? \Z | \? \Z      # 5! is a number of its own
    """,
    re.VERBOSE,
)
"""Signs that say nothing."""

_GREETING: Final = re.compile(
    r"""
    \s* (?: (?: hi | hello | hey ) (?: \s+ there )? \s* [,.!\n] \s*    # told from "what does hello mean"
        | please [,.]? \s+ | (?: um | uh | er ) [,.]+ \s+
        | so ,? \s+ (?= (?: how | what | where | when | who | why | which | can | is | are | do | does ) )
    )*
    """,
    re.IGNORECASE | re.VERBOSE,
)
_THANKS: Final = re.compile(
    r"""
    (?: (?<! \b yes ) (?<! \b no ) , \s* please
      | [.!?] \s* (?: thanks | thank \s you )
    ) \s* [.!?]* \s* \Z
    """,
    re.IGNORECASE | re.VERBOSE,
)

_TAIL: Final = re.compile(r"'(?:s|re|ve|m|d|ll)\Z")
_TAILS: Final = {"'re": "are", "'ve": "have", "'m": "am", "'d": "would", "'ll": "will"}

_HOW_TO: Final = frozenset({("how", "to"), ("how", "do", "i"), ("how", "can", "i")})


@dataclass(frozen=True, slots=True)
class _Word:
    """A word of a question."""

    stem: str
    """What it has in common with its other forms."""
    written: str
    """As it stands there."""
    start: int
    """Where it stands."""
    is_first: bool
    """Whether it begins a sentence: its first letter says nothing, then."""

    @property
    def is_name(self) -> bool:
        """Whether capitals may make another word of it."""
        told = self.written[1:] if self.is_first and self._is_spelt else self.written
        return told != told.lower() and self.written != "I" and (self._is_spelt or not self._is_in_one_case)

    @property
    def _is_spelt(self) -> bool:
        """Whether it has a vowel. What has none is an abbreviation, a unit or a sign."""
        return len(self.written) > 1 and not _VOWELS.isdisjoint(
            unicodedata.normalize("NFD", self.written.casefold())
        )

    @property
    def _is_in_one_case(self) -> bool:
        return (
            len(self.written) > 2
            and self.written.isalpha()
            and (self.written.isupper() or self.written.islower())
        )

    def is_written_as(self, other: _Word) -> bool:
        """Whether capitals make no other word of one than of the other."""
        if not (self.is_name or other.is_name):
            return True
        start = 1 if self._is_spelt and (self.is_first or other.is_first) else 0
        return self.written[start:] == other.written[start:]


_VOWELS: Final = frozenset("aeiouy")


@dataclass(frozen=True)
class Wording:
    """A question, taken apart."""

    text: str

    @cached_property
    def _plain(self) -> str:
        # What NFKC would make of 5\u00b2 is 52.
        plain = unicodedata.normalize("NFC", self.text).replace("\u2019", "'").strip()
        plain = _THANKS.sub("", plain[_GREETING.match(plain).end() :])  # type: ignore[union-attr]  # matches nothing, too
        plain = _NUMBER_WORDS.sub(lambda found: NUMBERS.get(found[0].lower(), found[0]), plain)
        return _THOUSANDS.sub(lambda found: found.group().replace(",", ""), plain)

    @cached_property
    def numbers(self) -> tuple[str, ...]:
        """Its numbers, in figures, in order."""
        return tuple(number.strip(".,:/") for number in _NUMERAL.findall(self._plain.casefold()))

    @cached_property
    def _signs(self) -> tuple[tuple[str, int], ...]:
        plain = self._plain
        void = {place for found in _NO_SYMBOL.finditer(plain) for place in range(*found.span())}
        found = _SYMBOL.finditer(plain)
        return tuple((sign.group(), sign.start()) for sign in found if sign.start() not in void)

    @cached_property
    def symbols(self) -> tuple[str, ...]:
        """Its characters that are neither letters nor figures and may make a difference, in order."""
        return tuple(sign for sign, _ in self._signs)

    @cached_property
    def places(self) -> tuple[int, ...]:
        """Behind how many of its words each of its symbols stands."""
        starts = [word.start for word in self.words]
        return tuple(bisect_left(starts, place) for _, place in self._signs)

    @cached_property
    def words(self) -> tuple[_Word, ...]:
        """Its words that may make a difference, in order."""
        found = list(self._spoken())
        words: list[_Word] = []
        for at, word in enumerate(found):
            following = found[at + 1].stem if at + 1 < len(found) else ""
            behind = self._plain[word.start + len(word.written) :].lstrip()
            is_article = word.stem in ARTICLES and not (following in OWN_ARTICLE or word.is_name)
            is_article = is_article and behind[:1].isalnum()  # before a sign it is a name: a + b
            if is_article and following:
                continue
            words.append(word)
            for length in (2, 3):
                if tuple(last.stem for last in words[-length:]) in _HOW_TO:
                    words[-length:] = [_Word("how to", "", words[-length].start, is_first=True)]
        return tuple(words)

    @cached_property
    def stems(self) -> tuple[str, ...]:
        """What the words have in common with their other forms."""
        return tuple(word.stem for word in self.words)

    @cached_property
    def signature(self) -> bytes:
        """Eight bytes: those of each question from which :func:`difference` tells it not, and of few more."""
        said = repr((self.numbers, self.symbols, sorted(self.stems)))
        return blake2b(said.encode("utf-8", "surrogatepass"), digest_size=8).digest()

    def _spoken(self) -> Iterator[_Word]:
        text = self._plain
        starts = {found.end() for found in _SENTENCE_START.finditer(text)}
        matches = list(_WORD.finditer(text))
        is_english = any(found.group().lower() in ENGLISH for found in matches)
        for found in matches:
            written, is_first = found.group(), found.start() in starts
            for part in _parts(written.casefold()):
                bare = _TAIL.sub("", written)
                yield _Word(_stem(part, is_english=is_english), bare, found.start(), is_first)


def difference(one: Wording, other: Wording) -> Difference | None:
    """Return what tells two questions apart; None: nothing does, and one's answer is the other's."""
    if one.numbers != other.numbers:
        return "number"
    if one.symbols != other.symbols:
        return "symbol"
    if not one.words or Counter(one.stems) != Counter(other.stems):
        apart = set(one.stems).symmetric_difference(other.stems)
        return (
            "name" if any(word.stem in apart and word.is_name for word in one.words + other.words) else "word"
        )
    turned = _turned(one, other)
    if turned is None or _swaps(turned, other.words):
        return "order"
    if one.symbols and (turned is not one.words or one.places != other.places):
        return "symbol"
    is_same = all(mine.is_written_as(its) for mine, its in zip(turned, other.words, strict=True))
    return None if is_same else "name"


def _turned(one: Wording, other: Wording) -> tuple[_Word, ...] | None:
    """Return the words of *one* in the order of *other*'s; None: they can't be had so without a difference.

    Only a clause may stand elsewhere, at the one end or at the other, and not where one depends on another.
    """
    if one.stems == other.stems:
        return one.words
    if RELATIONS.isdisjoint(one.stems):
        for start in range(1, len(one.words)):
            turned = one.stems[start:] + one.stems[:start]
            leading = one.stems if one.stems[0] in PLACES else turned
            if turned == other.stems and leading[0] in PLACES:
                return one.words[start:] + one.words[:start]
    return None


def _swaps(some: tuple[_Word, ...], others: tuple[_Word, ...]) -> bool:
    """Return whether words that are said for each other stand the other way round: "to film a movie"."""
    count = Counter(word.stem for word in some)
    return any(
        count[mine.stem] > 1 and mine.written.casefold() != its.written.casefold()
        for mine, its in zip(some, others, strict=True)
    )


def _parts(word: str) -> list[str]:
    """Return the words that a folded word is short for."""
    if (written_out := CONTRACTIONS.get(word)) is not None:
        return written_out.split()
    if word.endswith("n't"):
        return [word[:-3], "not"]
    found = _TAIL.search(word)
    if found is None:
        return [word]
    tail, bare = found.group(), word[: found.start()]
    if tail == "'s":
        return [bare, "is"] if bare in SUFFIXED_S else [bare]
    return [bare, _TAILS[tail]]


def _stem(word: str, *, is_english: bool) -> str:
    """Return what a word has in common with its plural, or with its singular."""
    if (known := EQUAL.get(word)) is not None:
        return known
    if not is_english or word in PLURALS_APART or word.endswith(("ss", "us", "is", "ics")):
        return word
    if len(word) > 5 and word.endswith("ies"):
        word = word[:-3] + "y"
    elif len(word) > 4 and word.endswith(("sses", "xes", "ches", "shes")):
        word = word[:-2]
    elif len(word) > 3 and word.endswith("s"):
        word = word[:-1]
    return EQUAL.get(word, word)
