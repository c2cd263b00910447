"""The outbox in Redis: a stream for each bucket of sessions, and how many bytes it takes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Final, cast

from unbroken.sessions.backends.outbox import OutboxLimits, Parcel, Shelf
from unbroken.sessions.backends.redis.connection import Client, server_of, unavailable
from unbroken.sessions.backends.redis.keys import BUCKETS, Keys
from unbroken.sessions.backends.redis.packing import packed, unpacked
from unbroken.sessions.backends.redis.scripts import Caller, Scripts
from unbroken.sessions.backends.redis.trouble import Trouble
from unbroken.sessions.errors import StoreUnavailable
from unbroken.sessions.finished import FinishedTurn, encode_turn
from unbroken.sessions.ids import SessionId

__all__ = ["Packing", "RedisOutbox"]

_AT_ONCE: Final = 2
"""Calls: turns are kept in the background, and sessions' writes go first."""

_PARTS_AT_ONCE: Final = 16
"""Of 256, that one script looks at: it keeps all others waiting meanwhile."""


class RedisOutbox:
    """An :class:`~unbroken.sessions.backends.outbox.Outbox` in Redis. The store's scripts put turns there.

    Args:
        client: How it is reached. The caller's, to close.
        keys: What things are called there.
        limits: What each bucket's holds.
        trouble: Told of calls that fail.
        is_cluster: Whether only keys of one bucket may be read in one call.
        patience: Seconds after which a call is given up.

    """

    def __init__(
        self,
        client: Client,
        keys: Keys,
        limits: OutboxLimits,
        *,
        trouble: Trouble | None = None,
        is_cluster: bool = False,
        patience: float = 2.0,
    ) -> None:
        self._client: Any = client  # its methods are of both worlds, says redis-py
        self._server_of = partial(server_of, client)
        self._scripts = Scripts(cast(Caller, client), _AT_ONCE, 4 * patience, server_of=self._server_of)
        self._keys = keys
        self.limits: Final = limits
        self._trouble = trouble or Trouble()
        self._at_once = 1 if is_cluster else _PARTS_AT_ONCE
        self.on_news: Callable[[int], None] = _nothing
        """See :attr:`Outbox.on_news`."""
        self.on_lost: Callable[[int], None] = _nothing
        """See :attr:`Outbox.on_lost`."""

    # For the store.

    def keys_of(self, session_id: SessionId) -> tuple[str, str]:
        """Return the keys of the outbox that a session's turns go into."""
        return self._keys.outbox(self._keys.bucket(session_id))

    def arguments(self, finished: Sequence[FinishedTurn]) -> list[bytes | int]:
        """Return what a script is given that puts turns there: the bounds, and each with who attended it."""
        found: list[bytes | int] = [self.limits.part_bytes, self.limits.lifetime]
        for turn in finished:
            found += (_packed(turn), int(turn.is_attended))
        return found

    def note(self, session_id: SessionId, count: int, lost: int) -> None:
        """Note that a script has put *count* turns there, but for those *lost*."""
        if lost:
            self.on_lost(lost)
        if lost < count:
            self.on_news(self._keys.bucket(session_id))

    # For whoever keeps turns.

    async def shelves(self) -> list[Shelf]:
        """See :meth:`Outbox.shelves`."""
        found: list[Shelf] = []
        failed: dict[str, StoreUnavailable] = {}  # by the server: it isn't asked for each of its parts
        for start in range(0, BUCKETS, self._at_once):
            keys = [self._keys.outbox(start + index)[0] for index in range(self._at_once)]
            if (server := self._server_of(keys[0])) in failed:
                continue
            try:
                told = await self._call(lambda keys=keys: self._scripts.call("shelves", keys))  # type: ignore[misc]
            except StoreUnavailable as exc:
                failed[server] = exc
                continue
            for index, count, first in zip(told[::3], told[1::3], told[2::3], strict=True):
                found.append(Shelf(start + index - 1, count, _moment(first.decode())))
        if failed and not found:
            raise next(iter(failed.values()))
        return found

    async def take(self, part: int, limit: int, *, after: str = "") -> list[Parcel]:
        """See :meth:`Outbox.take`."""
        out, _ = self._keys.outbox(part)
        low = f"({after}" if after else "-"
        told = await self._call(lambda: self._client.xrange(out, min=low, count=limit))
        return [
            Parcel(part, key.decode(), unpacked(fields[b"t"]), fields[b"a"] == b"1", _moment(key.decode()))
            for key, fields in told
        ]

    async def settle(self, parcels: Sequence[Parcel]) -> None:
        """See :meth:`Outbox.settle`."""
        if parcels:
            keys = list(self._keys.outbox(parcels[0].part))
            await self._call(lambda: self._scripts.call("settle", keys, *(parcel.key for parcel in parcels)))

    async def _call(self, call: Callable[[], Any]) -> Any:
        try:
            return await call()
        except Exception as exc:
            error = unavailable(exc)
            if error is None:
                raise
            self._trouble.note(error)
            raise error from None  # what it quotes may be an address with a password


class Packing:
    """The turns that one call of the append script brings along, for several sessions.

    Args:
        keys: Those of the call, which grow.

    """

    def __init__(self, keys: list[str]) -> None:
        self._keys = keys
        self.turns: list[bytes] = []
        """The arguments behind the first."""
        self.bounds: tuple[int, ...] = ()
        """What an outbox holds; nothing where there are no turns."""

    def add(
        self, outbox: RedisOutbox, session_id: SessionId, finished: Sequence[FinishedTurn]
    ) -> tuple[int, list[int]]:
        """Take a session's turns along. Return where its outbox is among the keys, and where they are."""
        self._keys += outbox.keys_of(session_id)
        limits = outbox.limits
        self.bounds = limits.part_bytes, limits.lifetime
        places: list[int] = []
        for turn in finished:
            self.turns.append(_packed(turn))
            places += (len(self.turns) + 1, int(turn.is_attended))
        return len(self._keys) - 1, places


def _packed(turn: FinishedTurn) -> bytes:
    return packed(encode_turn(turn))


def _moment(key: str) -> float:
    return int(key.partition("-")[0]) / 1000


def _nothing(_: int) -> None:
    pass
