"""Answers in Redis, which nodes share. All keys have one hash tag: in a cluster, one server has them all.

===================  ======  =======================================================================
key                  type    what
===================  ======  =======================================================================
``P:{cache}:a:L:K``  string  the answer K of place L, under its epoch; ends with its lifetime
``P:{cache}:i:L``    stream  the index of one place: its questions with their embeddings
``P:{cache}:p:L``    zset    one place's answers, by when they end
``P:{cache}:all``    zset    all answers, likewise
``P:{cache}:sizes``  hash    their bytes, and the sums of these
``P:{cache}:e``      string  the epoch of all; ``P:{cache}:e:T`` that of a tenant
===================  ======  =======================================================================

A place's index is read into this node as it grows, and searched here.
"""

from __future__ import annotations

import asyncio
import functools
import secrets
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, cast

import msgspec

from unbroken.server.cache.base import Answer, CacheUnavailable, Found, Neighbour, Slot, StoreLimits
from unbroken.sessions.backends.redis.connection import Client, unavailable
from unbroken.sessions.backends.redis.keys import Keys
from unbroken.sessions.backends.redis.scripts import Caller, Scripts
from unbroken.sessions.backends.redis.trouble import reason_of
from unbroken.sessions.clock import Clock

if TYPE_CHECKING:
    from unbroken.server.cache.index import PlaceIndex

__all__ = ["RedisAnswers"]

_AT_ONCE: Final = 4
"""Calls under way: of the connections that are beside those for sessions' calls."""

_COPIES: Final = 32
"""Places whose index this node has. Of one more, the one that was asked for longest ago is dropped."""

_PAGE: Final = 200
"""Questions that are read at once: a fifth of a megabyte."""

_REST: Final = 1.0
"""Seconds for which a Redis that failed isn't asked: a turn must not wait for each in vain."""


class _Kept(msgspec.Struct, frozen=True, array_like=True):
    epoch: str
    answer: Answer


@dataclass(slots=True)
class _Copy:
    index: PlaceIndex
    last: str = "-"
    """The id of the last question that was read."""


class RedisAnswers:
    """An :class:`~unbroken.server.cache.base.AnswerStore` in Redis.

    Args:
        client: How it is reached. The caller's, to close.
        keys: What things are called there.
        clock: Where time comes from.
        limits: How much is kept.
        new_index: Makes the index of a place. None: there are none.
        patience: Seconds that a call waits for its turn.

    """

    def __init__(
        self,
        client: Client,
        keys: Keys,
        clock: Clock,
        limits: StoreLimits,
        new_index: Callable[[int], PlaceIndex] | None = None,
        *,
        patience: float = 2.0,
    ) -> None:
        self._client: Any = client  # its methods are of both worlds, says redis-py
        self._scripts = Scripts(
            cast(Caller, client), _AT_ONCE, patience, package="unbroken.server.cache", names=("keep",)
        )
        self._keys = keys
        self._clock = clock
        self._limits = limits
        self._new_index = new_index
        self._copies: OrderedDict[str, _Copy] = OrderedDict()
        self._rests_until = float("-inf")
        # Sessions' calls come first: these never take more than was set aside for them.
        self._places = asyncio.Semaphore(_AT_ONCE)
        self._entries = self._size = 0

    async def find(self, slot: Slot) -> Found:
        """See :meth:`AnswerStore.find`."""
        name = self._keys.cached
        asked = [name("e"), name(f"e:{slot.tenant}"), name(f"a:{slot.place}:{slot.key}")]
        everybody, tenant, body = await self._call(lambda: self._client.mget(asked))
        epoch = f"{(everybody or b'').decode()}.{(tenant or b'').decode()}"
        if body is None:
            return Found(None, epoch)
        try:
            kept = msgspec.msgpack.decode(body, type=_Kept)
        except msgspec.DecodeError:
            return Found(None, epoch)  # another release's
        # An epoch that was forgotten doesn't outlive a lifetime that was longer then.
        is_good = kept.epoch == epoch and self._clock.time() < kept.answer.stored_at + self._limits.lifetime
        return Found(kept.answer if is_good else None, epoch)

    async def keep(self, slot: Slot, answer: Answer, epoch: str, neighbour: Neighbour | None) -> None:
        """See :meth:`AnswerStore.keep`. One of an epoch that is over is kept in vain: it isn't found."""
        limits, name = self._limits, self._keys.cached
        if answer.size > min(limits.bytes, limits.place_bytes):
            return
        keys = [
            name(f"a:{slot.place}:{slot.key}"),
            name("all"),
            name("sizes"),
            name(f"p:{slot.place}"),
            name(f"i:{slot.place}"),
        ]
        args: list[Any] = [
            name(""),
            slot.place,
            slot.key,
            msgspec.msgpack.encode(_Kept(epoch, answer)),
            answer.size,
            max(1, int(limits.lifetime * 1000)),
            limits.entries,
            limits.bytes,
            limits.place_entries,
            limits.place_bytes,
        ]
        if neighbour is not None:
            args += (neighbour.text, neighbour.vector, neighbour.signature)
        self._entries, self._size = await self._call(lambda: self._scripts.call("keep", keys, *args))

    async def index(self, place: str) -> PlaceIndex | None:
        """See :meth:`AnswerStore.index`. Reads what is new; cut off, it goes on there next time."""
        if self._new_index is None:
            return None
        copy = self._copies.get(place)
        if copy is None:
            copy = self._copies[place] = _Copy(self._new_index(self._limits.place_entries))
        self._copies.move_to_end(place)
        while len(self._copies) > _COPIES:
            self._copies.popitem(last=False)
        name = self._keys.cached(f"i:{place}")
        while True:
            begin = copy.last if copy.last == "-" else f"({copy.last}"
            page = await self._call(functools.partial(self._client.xrange, name, begin, "+", _PAGE))
            for entry, fields in page:
                copy.index.add(
                    Neighbour(
                        fields[b"k"].decode(), fields[b"t"].decode(), fields[b"v"], fields.get(b"s", b"")
                    )
                )
                copy.last = entry.decode()
            if len(page) < _PAGE:
                self._let_go()
                return copy.index

    def _let_go(self) -> None:
        """Forget copies of indexes that were asked longest ago, while all together take too much."""
        while self.index_size > self._limits.bytes and len(self._copies) > 1:
            self._copies.popitem(last=False)

    async def forget(self, tenant: str | None) -> None:
        """See :meth:`AnswerStore.forget`."""
        name = self._keys.cached("e" if tenant is None else f"e:{tenant}")
        # It outlives every answer of before; and no epoch comes twice.
        lifetime = int(2000 * self._limits.lifetime) + 60_000
        await self._call(lambda: self._client.set(name, secrets.token_hex(8), px=lifetime))

    @property
    def entries(self) -> int:
        """See :attr:`AnswerStore.entries`. All nodes', when this one kept one last."""
        return self._entries

    @property
    def size(self) -> int:
        """See :attr:`AnswerStore.size`. Likewise."""
        return self._size

    @property
    def index_size(self) -> int:
        """See :attr:`AnswerStore.index_size`."""
        return sum(copy.index.size for copy in self._copies.values())

    async def _call(self, call: Callable[[], Any]) -> Any:
        if self._clock.monotonic() < self._rests_until:
            raise CacheUnavailable("Redis has just failed")
        try:
            async with self._places:
                return await call()
        except Exception as exc:
            error = unavailable(exc)
            if error is None:
                raise
            self._rests_until = self._clock.monotonic() + _REST
            # What the client says may quote an address with a password.
            raise CacheUnavailable(f"Redis can't be used: {reason_of(error)}") from None
