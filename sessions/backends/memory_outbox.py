"""An outbox in this process's memory: what is there when the process dies is gone, as its sessions are."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from unbroken.sessions.backends.outbox import OutboxLimits, Parcel, Shelf
from unbroken.sessions.finished import FinishedTurn, encode_turn

__all__ = ["MemoryOutbox"]


class MemoryOutbox:
    """An :class:`~unbroken.sessions.backends.outbox.Outbox` with one part. No call ever suspends.

    Args:
        limits: What it holds. Nothing expires in it.
        now: The time, in seconds since 1970.

    """

    def __init__(self, limits: OutboxLimits, now: Callable[[], float] = time.time) -> None:
        self._most = limits.part_bytes
        self._now = now
        self._kept: dict[str, Parcel] = {}  # the oldest first
        self._size = 0
        self._count = 0
        self.on_news: Callable[[int], None] = _nothing
        """See :attr:`Outbox.on_news`."""
        self.on_lost: Callable[[int], None] = _nothing
        """See :attr:`Outbox.on_lost`."""

    def __len__(self) -> int:
        return len(self._kept)

    def put(self, finished: Sequence[FinishedTurn], *, is_attended: bool) -> None:
        """Take turns in, as far as there is room. *is_attended*: other nodes follow the session."""
        lost = 0
        for turn in finished:
            data = encode_turn(turn)
            if self._size + len(data) > self._most:
                lost += 1
                continue
            self._count += 1
            attended = turn.is_attended or is_attended
            parcel = Parcel(0, f"{self._count:016d}", data, attended, self._now())
            self._kept[parcel.key] = parcel
            self._size += len(data)
        if lost:
            self.on_lost(lost)
        if lost < len(finished):
            self.on_news(0)

    async def shelves(self) -> list[Shelf]:
        """See :meth:`Outbox.shelves`."""
        if not self._kept:
            return []
        oldest = next(iter(self._kept.values()))
        return [Shelf(0, len(self._kept), oldest.since)]

    async def take(self, part: int, limit: int, *, after: str = "") -> list[Parcel]:
        """See :meth:`Outbox.take`."""
        if part:
            return []
        return [parcel for key, parcel in self._kept.items() if key > after][:limit]

    async def settle(self, parcels: Sequence[Parcel]) -> None:
        """See :meth:`Outbox.settle`."""
        for parcel in parcels:
            if self._kept.pop(parcel.key, None) is not None:
                self._size -= len(parcel.data)


def _nothing(_: int) -> None:
    pass
