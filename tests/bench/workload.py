"""What is asked of a server under measurement, in words that the agent, the bare peer and the load share."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Final, Literal

__all__ = ["Order", "answer_text", "stamp_of", "stamped", "word"]

_STEMS: Final = (
    " the", " conversation", " of", " a", " server", " that", " goes", " on", " after", " every",
    " restart", " is", " never", " lost", " nor", " repeated",
)  # fmt: skip


_LETTERS: Final = str.maketrans("0123456789", "abcdefghij")
_DIGITS: Final = str.maketrans("abcdefghij", "0123456789")

_TIME: Final = 13
"""Letters that a time takes."""


@dataclass(frozen=True, slots=True)
class Order:
    """One answer, to be produced in a certain way. Written into the last line of the user's message.

    ``burst``: as fast as can be; *rate* words, and then the loop gets to run;
    0 stands for all of them. ``spread``: the same words, *rate* of them a
    second. ``paced``: *rate* words a second, each stamped with the time at
    which the agent yields it.
    """

    kind: Literal["burst", "spread", "paced"]
    rate: int
    count: int

    @property
    def text(self) -> str:
        return f"{self.kind} {self.rate} {self.count}"

    @classmethod
    def parse(cls, text: str) -> Order:
        match text.rpartition("\n")[2].split():
            case [("burst" | "spread" | "paced") as kind, rate, count]:
                return cls(kind, int(rate), int(count))
            case _:
                raise ValueError(f"not an order: {text!r}")


@lru_cache(maxsize=1024)
def word(number: int) -> str:
    """Return an answer's word of that *number*: no other has the same, so a lost or swapped one shows.

    It has no digits: most words of what agents say have none, and guards look closer at those that do.
    """
    return f"{_STEMS[number % len(_STEMS)]}{number}".translate(_LETTERS)


def answer_text(count: int) -> bytes:
    """Return a whole burst answer."""
    return "".join(map(word, range(count))).encode()


def stamped(number: int, now: int) -> str:
    """Return a paced answer's word: its number and the time, CLOCK_MONOTONIC, to a microsecond.

    In letters: sixteen digits might be a card's. One word without a hyphen, and no longer than the longest
    that people use: nearly all that agents say is so, and guards look closer at the rest. It ends with its
    space, so that nothing that looks for whole words has to wait for the next one.
    """
    return f"{now // 1000:0{_TIME}d}{number} ".translate(_LETTERS)


def stamp_of(word: bytes) -> tuple[int, int]:
    """Return a stamped word's number and time."""
    digits = word.decode().translate(_DIGITS)
    return int(digits[_TIME:]), int(digits[:_TIME]) * 1000
