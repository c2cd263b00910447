"""Answers in this process's memory."""

from __future__ import annotations

import secrets
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, TypeVar

from unbroken.server.cache.base import Answer, Found, Neighbour, Slot, StoreLimits
from unbroken.sessions.clock import Clock

if TYPE_CHECKING:
    from unbroken.server.cache.index import PlaceIndex

__all__ = ["MemoryAnswers"]

_T = TypeVar("_T")

_TENANTS_FORGOTTEN: Final = 10_000
"""Of which it is remembered. Of one more, everything is forgotten instead."""


@dataclass(frozen=True, slots=True)
class _Kept:
    slot: Slot
    answer: Answer
    epoch: str
    until: float
    size: int


@dataclass(slots=True)
class _Place:
    kept: OrderedDict[str, _Kept] = field(default_factory=OrderedDict)
    index: PlaceIndex | None = None
    size: int = 0


class MemoryAnswers:
    """An :class:`~unbroken.server.cache.base.AnswerStore` of one node.

    Args:
        clock: Where time comes from.
        limits: How much is kept.
        new_index: Makes the index of a place. None: there are none.

    """

    def __init__(
        self, clock: Clock, limits: StoreLimits, new_index: Callable[[int], PlaceIndex] | None = None
    ) -> None:
        self._clock = clock
        self._limits = limits
        self._new_index = new_index
        self._places: dict[str, _Place] = {}
        self._order: OrderedDict[tuple[str, str], None] = OrderedDict()  # as they were kept
        self._size = self._index_size = 0  # of all; of that the part which indexes take
        self._epoch = ""
        self._epochs: dict[str, str] = {}  # of tenants

    async def find(self, slot: Slot) -> Found:
        """See :meth:`AnswerStore.find`."""
        epoch = self._epoch_of(slot)
        place = self._places.get(slot.place)
        kept = None if place is None else place.kept.get(slot.key)
        if kept is None:
            return Found(None, epoch)
        if kept.epoch != epoch or self._clock.monotonic() >= kept.until:
            self._drop(slot.place, slot.key)
            return Found(None, epoch)
        return Found(kept.answer, epoch)

    async def keep(self, slot: Slot, answer: Answer, epoch: str, neighbour: Neighbour | None) -> None:
        """See :meth:`AnswerStore.keep`."""
        limits, size = self._limits, answer.size
        whole = size if neighbour is None or self._new_index is None else size + neighbour.size
        if epoch != self._epoch_of(slot) or whole > min(limits.bytes, limits.place_bytes):
            return
        place = self._places.setdefault(slot.place, _Place())
        if (old := place.kept.pop(slot.key, None)) is not None:  # its question stays in the index
            place.size -= old.size
            self._size -= old.size
            del self._order[slot.place, slot.key]
        kept = _Kept(slot, answer, epoch, self._clock.monotonic() + limits.lifetime, size)
        place.kept[slot.key] = kept
        place.size += size
        self._size += size
        self._order[slot.place, slot.key] = None
        if neighbour is not None and self._new_index is not None:
            if place.index is None:
                place.index = self._new_index(limits.place_entries)
            self._indexed(place, place.index.add, neighbour)
        while len(place.kept) > limits.place_entries or place.size > limits.place_bytes:
            self._drop(slot.place, next(iter(place.kept)))
        while len(self._order) > limits.entries or self._size > limits.bytes:
            self._drop(*next(iter(self._order)))

    async def index(self, place: str) -> PlaceIndex | None:
        """See :meth:`AnswerStore.index`."""
        found = self._places.get(place)
        return None if found is None else found.index

    async def forget(self, tenant: str | None) -> None:
        """See :meth:`AnswerStore.forget`."""
        epoch = secrets.token_hex(8)
        if tenant is None or len(self._epochs) >= _TENANTS_FORGOTTEN:
            self._epoch = epoch
            self._epochs.clear()
            self._places.clear()
            self._order.clear()
            self._size = self._index_size = 0
            return
        self._epochs[tenant] = epoch
        gone = [
            (name, key)
            for name, place in self._places.items()
            for key, kept in place.kept.items()
            if kept.slot.tenant == tenant
        ]
        for name, key in gone:
            self._drop(name, key)

    @property
    def entries(self) -> int:
        """See :attr:`AnswerStore.entries`."""
        return len(self._order)

    @property
    def size(self) -> int:
        """See :attr:`AnswerStore.size`."""
        return self._size

    @property
    def index_size(self) -> int:
        """See :attr:`AnswerStore.index_size`."""
        return self._index_size

    def _epoch_of(self, slot: Slot) -> str:
        return f"{self._epoch}.{self._epochs.get(slot.tenant, '')}"

    def _indexed(self, place: _Place, change: Callable[[_T], None], what: _T) -> None:
        """Have a place's index change, and count what it takes then."""
        assert place.index is not None
        before = place.index.size
        change(what)
        by = place.index.size - before
        place.size += by
        self._size += by
        self._index_size += by

    def _drop(self, name: str, key: str) -> None:
        place = self._places.get(name)
        kept = None if place is None else place.kept.pop(key, None)
        if place is None or kept is None:
            return
        place.size -= kept.size
        self._size -= kept.size
        del self._order[name, key]
        if place.index is not None:
            self._indexed(place, place.index.discard, key)
        if not place.kept:
            del self._places[name]
