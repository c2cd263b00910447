"""What an owner writes by itself while its store is out of reach: numbered here, and durable nowhere.

When the store is back, it is asked to take the entries as they are
(:meth:`~unbroken.sessions.backends.base.SessionStore.rejoin`). Until then their
nonces are known to this node alone, so that a cursor behind them can't be used
anywhere else by mistake.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from typing import Final

from msgspec import Struct
from msgspec.structs import replace

from unbroken.sessions.backends.base import Receipt, names_of, recalled
from unbroken.sessions.entries import Body, Deltas, Entry, InputKey, Submitted, encode_entry, numbered
from unbroken.sessions.errors import StoreUnavailable
from unbroken.sessions.event_log import Position
from unbroken.sessions.finished import FinishedTurn
from unbroken.sessions.ids import Incarnation, Nonce

__all__ = ["Anew", "Ring"]

_PIECE_COST: Final = 64
"""Bytes that a piece takes beside its text, roughly."""


class Anew(Struct, frozen=True):
    """A log that is to be begun anew: what has to be the same when that is asked for once more."""

    incarnation: Incarnation
    foreign: list[Submitted]
    """Inputs that others had written."""
    keeps_keys: bool
    """Whether what the store remembers of names may stay: all that they stand for is in the new log."""
    head: Position | None = None
    """Where the lost log ended when that was read; None: it couldn't be."""


class Ring:
    """The entries of one session behind *after*, as far as *limit* bytes allow.

    Args:
        after: The last place that the store has confirmed.
        limit: Bytes that are taken in.
        keys: Returns those of the inputs that are known here, by their numbers: one that the store took
            before is known again.

    """

    def __init__(self, after: Position, limit: int, keys: Callable[[], Mapping[int, InputKey]]) -> None:
        self.after: Final = after
        """The last place that the store has confirmed."""
        self.entries: list[Entry] = []
        self.finished: list[FinishedTurn] = []
        """The turns that ended with them, for the store's outbox."""
        self.consumed = 0
        """The last input that was answered."""
        self.anew: Anew | None = None
        """Set: the store was asked to begin the log anew, and may have done so."""
        self._head = after.seq
        self._room = limit
        self._known = keys
        self._names: dict[str, tuple[int, bytes]] | None = None  # not looked for until one is asked for
        self._doubtful: list[Submitted] = []  # without a name, and the store may have taken them too
        self._draw = random.Random().getrandbits  # noqa: S311 - as a store's: it tells branches apart

    @property
    def is_full(self) -> bool:
        """Whether it takes nothing more: what is said waits for the store."""
        return self._room <= 0

    def confirm(self, count: int, after: Position, *, turns: int) -> Ring:
        """Return what is left when the store has taken the first *count* entries, up to *after*, and of the
        turns that ended the first *turns*.
        """
        rest = Ring(after, self._room + sum(map(_size, self.entries[:count])), self._known)
        rest.entries = self.entries[count:]
        rest.finished = self.finished[turns:]
        rest.consumed = self.consumed
        rest._head = self._head
        rest._names = self._names
        rest._doubtful = self._doubtful
        return rest

    def write(self, bodies: Sequence[Body]) -> list[Entry]:
        """Number *bodies* as one batch. They are outputs, which the bound doesn't cut in two."""
        entries = numbered(bodies, self._head + 1, Nonce(self._draw(32)))
        for entry in entries:
            self._head = entry.last
            self._room -= _size(entry)
        self.entries += entries
        return entries

    def submit(self, submitted: Submitted, *, is_doubtful: bool = False) -> Receipt:
        """Number an input, once per key.

        *is_doubtful*: the store may have taken it, and its answer was lost.

        Raises:
            MessageIdReused: The key was seen with another digest.
            StoreUnavailable: There is no room for it.

        """
        key = submitted.key
        if key is not None and (receipt := recalled(key, self._names_known())) is not None:
            return receipt
        if self.is_full:
            raise StoreUnavailable
        if is_doubtful and key is None:
            self._doubtful.append(submitted)
        return Receipt(self._head + 1, duplicate=False, entry=self._write_input(submitted))

    def take_over(self, submitted: Submitted) -> list[Entry]:
        """Number an input that the store had taken, and lost: whatever room there is, as its sender has
        been told that it is in the log. Nothing, if it is here already.
        """
        key = submitted.key
        if key is not None and (known := self._names_known().get(key.name)) is not None:
            if known[1] == key.digest:
                return []
            submitted = replace(submitted, key=None)  # both were taken: both stay
        elif key is None and submitted in self._doubtful:
            self._doubtful.remove(submitted)
            return []
        return [self._write_input(submitted)]

    def _write_input(self, submitted: Submitted) -> Entry:
        (entry,) = self.write([submitted])
        if submitted.key is not None:
            self._names_known()[submitted.key.name] = entry.seq, submitted.key.digest
        return entry

    def _names_known(self) -> dict[str, tuple[int, bytes]]:
        if self._names is None:
            self._names = names_of(self._known())
        return self._names


def _size(entry: Entry) -> int:
    body = entry.body
    if type(body) is Deltas:
        return sum(map(len, body.parts)) + _PIECE_COST * len(body.parts)
    return len(encode_entry(entry))
