"""The nodes that share a Redis: leases, one channel for each node, and who has died.

Times, in seconds: a node renews its lease each 2, and it holds for 6. Channels
of other nodes are looked at each 0.5: one that nobody listens to twice in
succession is a dead process's, whose socket the server has seen close. A lease
that is gone twice in succession is that of a node which is frozen or cut off.
Nobody is judged in the first 3 after this node has reached Redis (again):
after a restart of Redis everybody looks dead. Each 1, more or less, what is
followed is looked at, since what is told may get lost.
"""

from __future__ import annotations

import asyncio
import random
from collections import OrderedDict
from collections.abc import Callable, Coroutine
from contextlib import suppress
from typing import Any, Final

import structlog
from redis.asyncio.client import PubSub
from redis.exceptions import RedisError

from unbroken.sessions.backends.cluster import Neighbour
from unbroken.sessions.backends.redis.connection import Client, unavailable
from unbroken.sessions.backends.redis.keys import Keys
from unbroken.sessions.backends.redis.scripts import Scripts
from unbroken.sessions.errors import StoreUnavailable
from unbroken.sessions.ids import NodeId, SessionId

__all__ = ["RedisMembership"]

_BEAT: Final = 2.0
_LEASE: Final = 6.0
_LOOK: Final = 0.5
_POLL: Final = 1.0
_SETTLING: Final = 3.0
_DEATHS_KEPT: Final = 1024
_WISH: Final = "!"
"""What a wish begins with on a node's channel; news don't."""


class RedisMembership:
    """A node's :class:`~unbroken.sessions.backends.cluster.Cluster` in Redis.

    Args:
        client: How it is reached. The caller's, to close.
        keys: What things are called there.

    """

    def __init__(self, client: Client, keys: Keys) -> None:
        self._client = client
        self._scripts = Scripts(client)  # type: ignore[arg-type]  # its methods are of both worlds, says redis-py
        self._keys = keys
        self._node = NodeId("")
        self._neighbour: Neighbour | None = None
        self._tasks: list[asyncio.Task[None]] = []
        self._pubsub: PubSub | None = None
        self._others: set[NodeId] = set()  # those that have a lease
        self._watched: set[NodeId] = set()  # those that own something that matters here
        self._suspects: dict[NodeId, float] = {}  # without a listener, or a lease, when last looked at
        self._lost: OrderedDict[NodeId, None] = OrderedDict()
        self._settled_at = float("inf")  # when nodes may be judged
        self._draw = random.Random().random  # noqa: S311 - it only spreads what nodes do

    @property
    def has_others(self) -> bool:
        """See :attr:`Cluster.has_others`."""
        return bool(self._others - set(self._lost))

    def is_lost(self, node: NodeId) -> bool:
        """See :meth:`Cluster.is_lost`."""
        return node in self._lost

    async def join(self, node: NodeId, neighbour: Neighbour) -> None:
        """See :meth:`Cluster.join`."""
        self._node, self._neighbour = node, neighbour
        try:
            await self._subscribe()
            await self._beat()
        except (RedisError, OSError) as exc:
            raise (unavailable(exc) or StoreUnavailable(type(exc).__name__)) from None
        self._settle()
        for work in (self._listen, self._beat_on, self._look_on, self._poll_on):
            self._tasks.append(asyncio.create_task(self._for_ever(work)))

    async def leave(self) -> None:
        """See :meth:`Cluster.leave`."""
        tasks, self._tasks = self._tasks, []
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)
            with suppress(RedisError, OSError, TimeoutError):
                async with asyncio.timeout(1.0):
                    keys = [self._keys.nodes, self._keys.lease(self._node)]
                    await self._scripts.call("leave", keys, self._node)
        if self._pubsub is not None:
            with suppress(RedisError, OSError):
                await self._pubsub.aclose()  # type: ignore[no-untyped-call]
            self._pubsub = None

    async def wish(self, owner: NodeId, session_id: SessionId) -> None:
        """See :meth:`Cluster.wish`."""
        with suppress(RedisError, OSError):
            await self._client.publish(self._keys.channel(owner), f"{_WISH}{self._node} {session_id}")

    async def watch(self, node: NodeId) -> None:
        """See :meth:`Cluster.watch`."""
        if node not in self._lost and node != self._node:
            self._watched.add(node)

    def _settle(self) -> None:
        self._suspects.clear()
        self._settled_at = asyncio.get_running_loop().time() + _SETTLING

    async def _for_ever(self, work: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Do *work* again and again, also while Redis can't be reached."""
        while True:
            try:
                await work()
            except (RedisError, OSError, StoreUnavailable):
                self._settle()
                await asyncio.sleep(0.1 + 0.2 * self._draw())
            except Exception as exc:  # noqa: BLE001 - the boundary: a node without this is cut off
                structlog.get_logger().error("membership failed", exc_info=exc)
                await asyncio.sleep(1.0)

    # What is told.

    async def _subscribe(self) -> None:
        if self._pubsub is not None:
            with suppress(RedisError, OSError):
                await self._pubsub.aclose()  # type: ignore[no-untyped-call]
        self._pubsub = pubsub = self._client.pubsub()
        await pubsub.subscribe(self._keys.channel(self._node))
        async with asyncio.timeout(_BEAT):
            while (await pubsub.get_message(timeout=_BEAT) or {}).get("type") != "subscribe":
                pass

    async def _listen(self) -> None:
        """Hear what is told, until the connection breaks; then subscribe again."""
        assert self._pubsub is not None
        try:
            while True:
                message = await self._pubsub.get_message(ignore_subscribe_messages=True, timeout=30.0)
                if message is not None:
                    self._heard(message["data"].decode())
        except (RedisError, OSError):
            await asyncio.sleep(0.05 + 0.1 * self._draw())
            await self._subscribe()
            self._settle()
            assert self._neighbour is not None
            self._neighbour.on_gap()

    def _heard(self, text: str) -> None:
        assert self._neighbour is not None
        if text.startswith(_WISH):
            by, _, session_id = text[len(_WISH) :].partition(" ")
            self._neighbour.on_wish(SessionId(session_id), NodeId(by))
        else:
            self._neighbour.on_news([SessionId(each) for each in text.split()])

    # Who is there.

    async def _beat_on(self) -> None:
        await asyncio.sleep(_BEAT)
        await self._beat()

    async def _beat(self) -> None:
        prefix = self._keys.lease(NodeId(""))
        milliseconds = int(_LEASE * 1000)
        found = await self._scripts.call("beat", [self._keys.nodes], prefix, self._node, milliseconds, "1")
        nodes = {NodeId(node.decode()): bool(holds) for node, holds in found}
        nodes.pop(self._node, None)
        self._others = {node for node, holds in nodes.items() if holds}
        for node, holds in nodes.items():
            if holds:
                self._clear(node, "lease")
            else:
                await self._suspect(node, "lease", _BEAT / 2)
        for node in self._watched - set(nodes):  # it has left, or Redis has forgotten it
            await self._suspect(node, "lease", _BEAT / 2)

    async def _look_on(self) -> None:
        """Find out who listens: the server closes a dead process's connections at once."""
        await asyncio.sleep(_LOOK)
        nodes = list(self._others | self._watched)
        if not nodes:
            return
        counted = await self._listeners(nodes)
        for node in nodes:
            if counted.get(node, 0):
                self._clear(node, "listener")
            else:
                await self._suspect(node, "listener", _LOOK * 0.9)

    async def _listeners(self, nodes: list[NodeId]) -> dict[NodeId, int]:
        channels = {self._keys.channel(node).encode(): node for node in nodes}
        counted: dict[NodeId, int] = dict.fromkeys(nodes, 0)
        for channel, count in await self._client.pubsub_numsub(*channels):
            if channel in channels:
                counted[channels[channel]] += int(count)
        return counted

    def _clear(self, node: NodeId, of: str) -> None:
        self._suspects.pop(NodeId(f"{of} {node}"), None)
        if of == "lease":
            self._lost.pop(node, None)

    async def _suspect(self, node: NodeId, of: str, least: float) -> None:
        """Note that *node* gives no sign; the second time, at least so much later, it is dead."""
        now = asyncio.get_running_loop().time()
        if node in self._lost or now < self._settled_at:
            return
        since = self._suspects.setdefault(NodeId(f"{of} {node}"), now)
        if now - since < least:
            return
        self._lost[node] = None
        while len(self._lost) > _DEATHS_KEPT:
            self._lost.popitem(last=False)
        self._suspects.pop(NodeId(f"listener {node}"), None)
        self._suspects.pop(NodeId(f"lease {node}"), None)
        self._watched.discard(node)
        self._others.discard(node)
        await self._scripts.call("leave", [self._keys.nodes, self._keys.lease(node)], node)
        assert self._neighbour is not None
        self._neighbour.on_lost(node)

    async def _poll_on(self) -> None:
        await asyncio.sleep(_POLL * (0.75 + 0.5 * self._draw()))
        assert self._neighbour is not None
        self._neighbour.on_poll()
