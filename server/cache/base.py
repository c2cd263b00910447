"""What the cache keeps, and where: the interface of its stores.

A place is everything that decides what an answer is good for beside the conversation: whose it is,
model, parameters, instructions, version. Each place's answers, and the index of its questions, are
objects of their own, and in Redis keys of their own: there is no filter that a lookup could forget.

::

    Exception
    +-- CacheUnavailable    a store or an embedder is down, late or busy: the turn goes on as a miss
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal, Protocol, TypeAlias

from msgspec import Struct

from unbroken.sessions.items import Usage

if TYPE_CHECKING:
    from unbroken.server.cache.index import PlaceIndex

__all__ = [
    "Answer",
    "AnswerStore",
    "CacheUnavailable",
    "Found",
    "Neighbour",
    "Slot",
    "StoreLimits",
    "Tier",
    "Veto",
]

Tier: TypeAlias = Literal["exact", "semantic", "flight"]
"""How an answer was come by: the same words; other words for the same; or somebody asked at the same time."""

_ENTRY_COST: Final = 512
"""Bytes that an answer takes beside its text, roughly."""


_QUESTION_COST: Final = 512
"""Bytes that a question takes beside its text and vector, roughly."""


class CacheUnavailable(Exception):
    """It can't be looked up, or kept, for the moment. The text says why, and holds no address."""


class Answer(Struct, frozen=True, array_like=True):
    """An answer that was given in full."""

    pieces: tuple[str, ...]
    """As the agent gave them."""
    usage: Usage | None
    """What it cost then, by the agent's account."""
    stored_at: float
    """Seconds since the epoch."""

    @property
    def text(self) -> str:
        """All of it."""
        return "".join(self.pieces)

    @property
    def size(self) -> int:
        """Bytes it takes, roughly."""
        return _ENTRY_COST + sum(len(piece.encode()) + 8 for piece in self.pieces)


@dataclass(frozen=True, slots=True)
class Slot:
    """Where an answer belongs. The names are digests: what they stand for can't be read from them."""

    place: str
    """What its index and its bounds go by."""
    key: str
    """The question in the place, with all that was said before it."""
    tenant: str
    """By which an operator has answers forgotten."""


@dataclass(frozen=True, slots=True)
class Neighbour:
    """A question that was answered, as its place's index has it."""

    key: str
    text: str
    vector: bytes
    """Its embedding: little-endian 16-bit floats, of length 1 together."""
    signature: bytes = b""
    """What its wording has in common with those that may ask the same. Empty: nobody has said."""

    @property
    def size(self) -> int:
        """Bytes it takes in an index, roughly: also a row of floats twice as wide, and a free one."""
        return (
            _QUESTION_COST
            + len(self.text.encode("utf-8", "surrogatepass"))
            + len(self.key)
            + 5 * len(self.vector)
        )


@dataclass(frozen=True, slots=True)
class Found:
    """What a lookup came to."""

    answer: Answer | None
    epoch: str
    """Which answers count now. One that is kept later, of a question that was asked now, is kept under it:
    so an answer that was on its way while an operator had everything forgotten is never given."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StoreLimits:
    """How much is kept. When it is too much, what was kept longest ago goes first."""

    lifetime: float = 3600.0
    """Seconds for which an answer is good."""
    entries: int = 100_000
    bytes: int = 256 << 20
    """In memory, with the questions; in Redis these are apart, and a node's copies of them have as much."""
    place_entries: int = 1000
    """Of one place; its index has as many questions at most."""
    place_bytes: int = 16 << 20


class AnswerStore(Protocol):
    """Keeps answers. Guarantees:

    - What is found was kept for exactly this slot, within its lifetime, under the epoch that counts now.
    - Its bounds hold after each :meth:`keep`; in Redis, for all nodes together.
    - Every method raises :class:`CacheUnavailable`, soon, for what isn't a bug.
    """

    async def find(self, slot: Slot) -> Found:
        """Return the answer of *slot*, if there is one."""

    async def keep(self, slot: Slot, answer: Answer, epoch: str, neighbour: Neighbour | None) -> None:
        """Keep *answer*; with *neighbour*, add its question to the place's index."""

    async def index(self, place: str) -> PlaceIndex | None:
        """Return the index of one place's questions; None: there is none. Some answers may be gone."""

    async def forget(self, tenant: str | None) -> None:
        """Have no answer count that was kept, or asked for, before: of *tenant*, or of all."""

    @property
    def entries(self) -> int:
        """Answers, as far as this node knows."""

    @property
    def size(self) -> int:
        """Bytes they take, as far as this node knows."""

    @property
    def index_size(self) -> int:
        """Bytes that indexes take in this process."""


class Veto:
    """Says that an answer may not be given to anybody else. Whoever sees a reason notes it; the first counts.

    A filter that changed the answer, a guard that flagged its question: they are given this with the turn.
    """

    __slots__ = ("_reason", "at_end", "found")

    def __init__(self) -> None:
        self._reason: str | None = None
        self.at_end: Callable[[], str | None] | None = None
        """Asked for a reason once the whole answer is there."""
        self.found: Callable[[str], Awaitable[bool]] | None = None
        """Looks through the whole text of an answer that would be kept, and says whether it mustn't be.
        Nobody who waits for the answer waits for that."""

    def note(self, reason: str) -> None:
        """Speak against it. *reason* is of a closed list: a label of a metric."""
        if self._reason is None:
            self._reason = reason

    @property
    def reason(self) -> str | None:
        """Why it may not be given, as far as is known by now."""
        return self._reason or (None if self.at_end is None else self.at_end())
