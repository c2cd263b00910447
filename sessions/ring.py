"""What an owner writes by itself while its store is out of reach: numbered here, and durable nowhere.

When the store is back, it is asked to take the entries as they are
(:meth:`~unbroken.sessions.backends.base.SessionStore.rejoin`). Until then their
nonces are known to this node alone, so that a cursor behind them can't be used
anywhere else by mistake.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Final

from unbroken.sessions.backends.base import InputKey, Receipt
from unbroken.sessions.entries import Body, Deltas, Entry, Submitted, encode_entry
from unbroken.sessions.errors import MessageIdReused, StoreUnavailable
from unbroken.sessions.event_log import Position
from unbroken.sessions.ids import Nonce

__all__ = ["Ring"]

_PIECE_COST: Final = 64
"""Bytes that a piece takes beside its text, roughly."""


class Ring:
    """The entries of one session behind *after*, as far as *limit* bytes allow.

    The keys of inputs are known from here on only: one that the store took before, and that is sent
    again, is written twice. Where it made an item, the item's id still tells.
    """

    def __init__(self, after: Position, limit: int) -> None:
        self.after: Final = after
        """The last place that the store has confirmed."""
        self.entries: list[Entry] = []
        self.keys: dict[int, InputKey] = {}
        """Of the inputs among them, by their numbers."""
        self.consumed = 0
        """The last input that was answered."""
        self._head = after.seq
        self._room = limit
        self._names: dict[str, int] = {}
        self._draw = random.Random().getrandbits  # noqa: S311 - as a store's: it tells branches apart

    @property
    def is_full(self) -> bool:
        """Whether it takes nothing more: what is said waits for the store."""
        return self._room <= 0

    def confirm(self, count: int, after: Position) -> Ring:
        """Return what is left when the store has taken the first *count* entries, up to *after*."""
        rest = Ring(after, self._room + sum(map(_size, self.entries[:count])))
        rest.entries = self.entries[count:]
        rest.consumed = self.consumed
        rest._head = self._head
        rest.keys = {seq: key for seq, key in self.keys.items() if seq > after.seq}
        rest._names = {key.name: seq for seq, key in rest.keys.items()}
        return rest

    def write(self, bodies: Sequence[Body]) -> list[Entry]:
        """Number *bodies* as one batch. They are outputs, which the bound doesn't cut in two."""
        nonce = Nonce(self._draw(32))
        entries: list[Entry] = []
        for body in bodies:
            entry = Entry(self._head + 1, nonce, body)
            self._head = entry.last
            self._room -= _size(entry)
            entries.append(entry)
        self.entries += entries
        return entries

    def submit(self, key: InputKey | None, submitted: Submitted) -> Receipt:
        """Number an input, once per key.

        Raises:
            MessageIdReused: The key was seen with another digest.
            StoreUnavailable: There is no room for it.

        """
        known = None if key is None else self._names.get(key.name)
        if key is not None and known is not None:
            if self.keys[known].digest != key.digest:
                raise MessageIdReused
            return Receipt(known, duplicate=True, entry=None)
        if self.is_full:
            raise StoreUnavailable
        (entry,) = self.write([submitted])
        if key is not None:
            self.keys[entry.seq] = key
            self._names[key.name] = entry.seq
        return Receipt(entry.seq, duplicate=False, entry=entry)


def _size(entry: Entry) -> int:
    body = entry.body
    if type(body) is Deltas:
        return sum(map(len, body.parts)) + _PIECE_COST * len(body.parts)
    return len(encode_entry(entry))
