"""Turns that have ended and are to be kept elsewhere: what a store holds of them until somebody has done so.

A turn is put there in the very step that writes the entry which ends it, so that none is forgotten whose node
dies in between. Any node may take it out. A store that has no outbox does none of this, and it costs nothing.

Guarantees:

Atomicity
    A turn is in the outbox if, and only if, the entry that ends it was written; or there was no room for it.
At least once
    What was taken stays until it is settled: two nodes may take the same, and a turn may be put there twice.
    Whoever keeps turns knows them by session and response.
Bounds
    An outbox has parts, and each so many bytes. What doesn't fit isn't taken in; what is there stays.
    Whoever wrote is told how many were left out. What nobody takes for :attr:`OutboxLimits.lifetime` may be
    forgotten.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

__all__ = ["Outbox", "OutboxLimits", "Parcel", "Shelf"]


@dataclass(frozen=True, slots=True, kw_only=True)
class OutboxLimits:
    """What an outbox holds."""

    part_bytes: int = 1 << 20
    """Of one part, as the store keeps them."""
    lifetime: int = 7 * 86_400
    """Seconds for which a part is kept that nothing is put into."""


@dataclass(frozen=True, slots=True)
class Parcel:
    """One turn, as it lies there."""

    part: int
    key: str
    """What it is called in its part. Later ones are greater."""
    data: bytes
    """See :func:`~unbroken.sessions.finished.decode_turn`."""
    is_attended: bool
    """Whether anybody was connected to the session, on any node, when the turn ended."""
    since: float
    """When it was put there, in seconds since 1970 by the store's clock."""


@dataclass(frozen=True, slots=True)
class Shelf:
    """A part of an outbox that holds something."""

    part: int
    count: int
    since: float
    """When the oldest was put there, in seconds since 1970 by the store's clock."""


class Outbox(Protocol):
    """Holds turns until they are kept elsewhere. The module's text says what is guaranteed."""

    on_news: Callable[[int], None]
    """Called with the part when this node has put something there. A hint."""
    on_lost: Callable[[int], None]
    """Called with how many turns this node had no room for there."""

    async def shelves(self) -> list[Shelf]:
        """Return the parts that hold something, as far as they can be reached.

        Raises:
            StoreUnavailable: None can that holds something.

        """

    async def take(self, part: int, limit: int, *, after: str = "") -> list[Parcel]:
        """Return the oldest of a part, behind *after*. They stay there.

        Raises:
            StoreUnavailable: They can't be had.

        """

    async def settle(self, parcels: Sequence[Parcel]) -> None:
        """Remove what is kept elsewhere by now, all of one part. Harmless for what is gone.

        Raises:
            StoreUnavailable: They may be there still.

        """
