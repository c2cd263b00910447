"""Cuts what leaves into what may leave at once and what a model has to read first. No I/O, no clock.

Names begin with a capital letter, addresses with one or with a number. What comes before the first of
these in a sentence leaves at once; from there on the sentence is held to its end, which is seen by its
own mark and the gap behind it, or by the line's end. One that doesn't end is cut after at most
:data:`MOST_HELD` characters. All this depends on the text alone, never on the pieces it came in.
"""

from __future__ import annotations

import re
from typing import Final, NamedTuple

__all__ = ["MOST_HELD", "ORDINARY", "Passage", "Sentences"]

MOST_HELD: Final = 512
"""Characters of a sentence."""

_CONTEXT: Final = 256
"""Characters of the same sentence that have left, and that the model is shown again."""

_ORDINARY_WORDS: Final = """
a about after all also an and another any are as at be because before both but by can could did do
does each either every few first for from had has have he her here hers his how however i if in into
is it its just let like many maybe might more most my neither no nor not now of off on once one only
or other our out over perhaps please same second several she should since so some such than that the
their them then there these they third this those though thus to too until up us very was we well
were what when where which while who whose why with without would yes yet you your
"""
ORDINARY: Final = frozenset(_ORDINARY_WORDS.split())
"""Words that say nothing about who is spoken of, whatever they begin with."""

_ABBREVIATIONS_WORDS: Final = """
adm apt ave blvd bldg capt co col corp ct dept dr e.g est fig gen gov hon hwy i.e inc jr lt ltd ln
mr mrs ms mt nr pl prof rd rev sen sgt sq sr st ste vs
"""
_ABBREVIATIONS: Final = frozenset(_ABBREVIATIONS_WORDS.split())
"""Words whose full stop ends no sentence."""

_WORD: Final = re.compile(r"\S++")
_BREAKS: Final = "\n\r\v\f\x1c\x1d\x1e\x85\u2028\u2029"
_FULL_STOPS: Final = "\u3002\uff01\uff1f"
"""Of scripts that leave no gap behind them."""
_FULL_STOP: Final = re.compile(f"[{_FULL_STOPS}]")
_CAPITAL: Final = re.compile(r"[A-Z0-9\u0080-\U0010ffff]")
"""What may be a capital letter, or a digit."""
_END: Final = re.compile(r"[.!?\u2026]++[\"'\u2019\u201d)\]*_`]*+\Z")
_NUMBERED: Final = re.compile(r"\W*+(?:(?>(?:[^\W\d_]\.)+)|\d{1,3}+\.)")
"""An initial, or the number of a point in a list."""
_BARE: Final = "\"'\u2018\u2019\u201c\u201d()[]{}*_`,;:.!?\u2026-\u2013\u2014#>"
_CONTRACTED: Final = re.compile(r"['\u2019](?:s|m|re|ve|d|ll|t)\Z")


class Passage(NamedTuple):
    """What is to leave next."""

    text: str
    context: str | None = None
    """What stands before it in its sentence, and has left. None: nobody has to read *text*."""
    written: tuple[str, ...] | None = None
    """How each of its characters is written. None: as it is."""

    def part(self, start: int, end: int) -> str:
        """Return characters *start* to *end*, as they are written."""
        return self.text[start:end] if self.written is None else "".join(self.written[start:end])


class Sentences:
    """Cuts one text. What it returns is the text, in order, once each."""

    def __init__(self) -> None:
        self._text = ""  # what hasn't been returned, and while it is cut, what has been just before
        self._at = 0  # where that begins
        self._seen = 0  # up to where it has been read
        self._is_held = False  # what begins there has to be read by a model
        self._before = ""  # what left last

    @property
    def held(self) -> int:
        """How many characters are held."""
        return len(self._text)

    def feed(self, text: str) -> list[Passage]:
        """Take in text, and return what may leave."""
        self._text += text
        return self._advance(is_last=False)

    def flush(self) -> list[Passage]:
        """Return what is held, as it leaves when nothing follows. The next text is another one."""
        passages = self._advance(is_last=True)
        self._before = ""
        return passages

    def cut(self) -> list[Passage]:
        """Return what may leave though its sentence hasn't ended.

        Words at the end that may be half a name stay, unless there is nothing else.
        """
        passages: list[Passage] = []
        if self._text:
            self._leave(_last_run(self._text) or len(self._text), passages, is_read=True)
            passages += self._advance(is_last=False)
        return passages

    def _advance(self, *, is_last: bool) -> list[Passage]:
        passages: list[Passage] = []
        while self._seen < len(self._text):
            if not (self._go_on if self._is_held else self._begin)(passages, is_last=is_last):
                break
        if is_last and self._at < len(self._text):
            self._leave(len(self._text), passages, is_read=True)
        self._text = self._text[self._at :]
        self._seen -= self._at
        self._at = 0
        return passages

    def _begin(self, passages: list[Passage], *, is_last: bool) -> bool:
        """Let go of all up to what has to be held. False: more has to come before that can be said."""
        text = self._text
        first = len(text)
        for found in _CAPITAL.finditer(text, self._at):
            if _begins(found[0]):
                first = found.start()
                break
        if first > self._at:
            self._leave(first, passages, is_read=False)
            return True
        end = _end_of_word(text, first, first + MOST_HELD)
        if end == len(text) and not is_last and end - first <= MOST_HELD:
            return False  # it may be an ordinary word
        if _is_ordinary(text[first:end]):
            self._leave(end, passages, is_read=False)
        else:
            self._is_held = True
        return True

    def _go_on(self, passages: list[Passage], *, is_last: bool) -> bool:
        """Read on in a sentence that is held. False: more has to come."""
        text, start = self._text, self._seen
        most = self._at + MOST_HELD
        if text[start].isspace():
            if text[start] in _BREAKS:
                self._leave(start, passages, is_read=True)
            elif start >= most:
                self._cut_window(passages)
            else:
                self._seen += 1
            return True
        end = _end_of_word(text, start, most)
        if (stop := _FULL_STOP.search(text, start, end)) is not None:
            end = stop.end()
        if end > most:
            self._cut_window(passages)
        elif stop is not None:
            self._leave(end, passages, is_read=True)
        elif end == len(text) and not is_last:
            return False
        elif _ends(text[start:end]):
            self._leave(end, passages, is_read=True)
        else:
            self._seen = end
        return True

    def _cut_window(self, passages: list[Passage]) -> None:
        window = self._text[self._at : self._at + MOST_HELD]
        self._leave(self._at + (_last_run(window) or MOST_HELD), passages, is_read=True)

    def _leave(self, end: int, passages: list[Passage], *, is_read: bool) -> None:
        """Let go of the text up to *end*, and begin anew behind it."""
        left = self._text[self._at : end]
        passages.append(Passage(left, _context_in(self._before) if is_read else None))
        self._before = (self._before + left[-_CONTEXT:])[-_CONTEXT:]
        self._at = self._seen = end
        self._is_held = False


def _begins(char: str) -> bool:
    return char.isupper() or char.istitle() or char.isdecimal()


def _end_of_word(text: str, start: int, most: int) -> int:
    """Return where the word at *start* ends; a place behind *most*, where it goes on there."""
    word = _WORD.match(text, start, most + 1)
    return start if word is None else word.end()


def _is_ordinary(word: str) -> bool:
    bare = word.strip(_BARE).lower()
    return bare in ORDINARY or _CONTRACTED.sub("", bare) in ORDINARY


def _ends(word: str) -> bool:
    """Return whether a sentence ends with *word*, behind which there is a gap."""
    if _END.search(word) is None or _NUMBERED.fullmatch(word) is not None:
        return False
    return word.strip(_BARE).lower() not in _ABBREVIATIONS


def _context_in(before: str) -> str:
    """Return what of *before*, the text that left last, is of the sentence that goes on."""
    start = max(map(before.rfind, _BREAKS + _FULL_STOPS)) + 1
    for word in _WORD.finditer(before, start):
        if word.end() < len(before) and _ends(word[0]):
            start = word.end()
    return before[start:].lstrip()


def _last_run(text: str) -> int:
    """Return where the words begin at the end of *text* that may be part of one name or address."""
    start = 0
    for word in _WORD.finditer(text):
        if not any(map(_begins, word[0].lstrip(_BARE)[:1])):
            start = word.end() + 1
    return min(start, len(text))
