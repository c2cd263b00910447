"""Notices long pieces of the instructions, word for word, while an answer comes. No I/O, no clock.

A few words in common mean nothing, and leave. From the :data:`RUN`-th word of a piece on it is a
finding: neither that word nor what follows of the piece leaves, where that is to be prevented. Only
the word that is being said is held. Case, punctuation and spacing don't matter.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Iterator
from itertools import islice, pairwise
from typing import Final

from unbroken.server.guards.leaks.entities import Action

__all__ = ["RUN", "Instructions", "Verbatim"]

RUN: Final = 12
"""Words in sequence that are no accident."""

_MOST_WORDS: Final = 5000
"""Of instructions; what is beyond isn't watched for."""

_AT_ONCE: Final = 256
"""Words of instructions that are read in one step."""

_MOST_HELD: Final = 64
"""Characters of a word. A longer one counts as several."""

_WORD: Final = re.compile(rf"[^\W_]{{1,{_MOST_HELD}}}+")


class Instructions:
    """What is watched for: read once, in steps, and used for any number of answers.

    Takes about 280 bytes a word.
    """

    def __init__(self, text: str) -> None:
        self._unread: Iterator[re.Match[str]] | None = islice(_WORD.finditer(text), _MOST_WORDS)
        self._last: list[str] = []  # the words that runs which go on begin with
        self.pairs: set[int] = set()
        """Hashes of two words in sequence."""
        self.runs: set[int] = set()
        """The same, of :data:`RUN`."""

    def __bool__(self) -> bool:
        return bool(self.runs)

    @property
    def is_whole(self) -> bool:
        """Whether all has been read."""
        return self._unread is None

    def read_on(self) -> None:
        """Read on, for half a millisecond or so."""
        if self._unread is None:
            return
        new = [found[0].lower() for found in islice(self._unread, _AT_ONCE)]
        words = self._last + new
        self.pairs.update(map(hash, pairwise(words)))
        self.runs.update(map(hash, zip(*(words[place:] for place in range(RUN)), strict=False)))
        self._last = words[1 - RUN :]
        if len(new) < _AT_ONCE:
            self._unread, self._last = None, []


class Verbatim:
    """Watches one stream.

    Args:
        instructions: What for.
        action: What is done about it.
        placeholder: What stands in its place, where it is redacted.

    """

    def __init__(self, instructions: Instructions, action: Action, placeholder: str) -> None:
        self._instructions = instructions
        self._action = action
        self._placeholder = placeholder
        self.found = 0
        """Pieces of the instructions."""
        self.is_blocked = False
        self._held = ""  # the beginning of a word
        self._last = ""  # the word before
        self._pairs = 0  # words in sequence, each of which stands behind the one before there too
        self._words: deque[str] = deque(maxlen=RUN)
        self._is_inside = False

    def feed(self, text: str) -> str:
        """Take in text, and return what may leave."""
        return self._pass(self._held + text, is_last=False)

    def flush(self) -> str:
        """Return what is held, as it leaves when nothing follows."""
        released = self._pass(self._held, is_last=True)
        self._last, self._pairs, self._is_inside = "", 0, False
        return released

    @property
    def held(self) -> int:
        """How many characters are held."""
        return len(self._held)

    def _pass(self, text: str, *, is_last: bool) -> str:
        self._held = ""
        if self.is_blocked:
            return ""
        pairs = self._instructions.pairs
        out: list[str] = []
        kept = 0  # up to where text has left, or been left out
        for found in _WORD.finditer(text):
            end = found.end()
            if end == len(text) and not is_last:
                begin = found.start()
                if end - begin < _MOST_HELD:
                    self._part(text[kept:begin], out)
                    self._held = text[begin:]
                    return "".join(out)
            word = found[0].lower()
            self._words.append(word)
            self._pairs = self._pairs + 1 if hash((self._last, word)) in pairs else 0
            self._last = word
            is_inside = self._pairs >= RUN - 1 and hash(tuple(self._words)) in self._instructions.runs
            if is_inside and not self._is_inside:
                self.found += 1
                if self._action != "flag":
                    out.append(self._left(text[kept : found.start()]))
                    kept = found.start()
                if self._action == "block":
                    self.is_blocked = True
                    return "".join(out)
                if self._action == "redact":
                    out.append(self._placeholder)
            elif self._is_inside and not is_inside and self._action == "redact":
                self._part(text[kept : found.start()], out)
                out.append(" ")
                kept = found.start()
            self._is_inside = is_inside
        self._part(text[kept:], out)
        return "".join(out)

    def _part(self, text: str, out: list[str]) -> None:
        """Put to *out* what leaves of *text*: nothing, within a piece that is redacted."""
        if self._is_inside and self._action == "redact":
            self._dropped(len(text))
        else:
            out.append(self._left(text))

    def _left(self, text: str) -> str:
        """Return *text* as it leaves."""
        return text

    def _dropped(self, count: int) -> None:
        """Be told that the next *count* characters don't leave."""
