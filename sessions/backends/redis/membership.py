"""The nodes that share a Redis: leases, one channel for each node, and who has died.

Times, in seconds: a node renews its lease each 2, and it holds for 6. Each 0.5,
the channels and leases of others are looked at. A channel that nobody listens
to, in two looks, is a dead process's, whose socket the server has seen close:
that is noticed within 1.5. A lease that is gone, in looks at least 1 apart, is
that of a node which is frozen or cut off: noticed within 8. A node that loses its
channel and lives says so at once, in its lease, and counts by that alone until it
is heard again; so does one that finds, with the same looks, that nobody listens on
its own: it subscribes anew. Nobody is judged in the first 3 after this node has
reached Redis (again): after a restart of Redis everybody looks dead. Each 1, more
or less, what is followed is looked at (of much, some in turn), since what is told
may get lost; and a channel that is silent for 2 is asked whether it is still one.
"""

from __future__ import annotations

import asyncio
import os
import random
from collections.abc import Callable, Coroutine
from contextlib import suppress
from typing import Any, Final, cast

import structlog
from msgspec import Struct

from unbroken.sessions.backends.cluster import Neighbour
from unbroken.sessions.backends.redis.channels import Channels
from unbroken.sessions.backends.redis.connection import ERRORS, Client, is_watched, moves_of, unavailable
from unbroken.sessions.backends.redis.keys import Keys
from unbroken.sessions.backends.redis.rewriting import Rewriting
from unbroken.sessions.backends.redis.scripts import Caller, Scripts
from unbroken.sessions.backends.redis.subscription import Subscription
from unbroken.sessions.backends.redis.trouble import Trouble
from unbroken.sessions.backends.redis.vitals import Lease, Sign, Vitals
from unbroken.sessions.errors import StoreBusy, StoreUnavailable, UnknownFormat
from unbroken.sessions.format import FORMAT_1, Formats
from unbroken.sessions.ids import NodeId, SessionId

__all__ = ["Pace", "RedisMembership"]

_JOINING: Final = 5.0
_LEAVING: Final = 0.15
"""Of the half a second that a process's end has. A node that can't say that it leaves is found dead."""
_LEFT_KNOWN: Final = 10.0
"""How long others can see that a node has left, and is not dead."""
_BRIEF: Final = 1.0
"""A channel that was heard for so long is subscribed to again at once."""
_DEAF: Final = "deaf"
"""What is said in a lease of a node that lives, and that nobody may be seen to listen for."""
_DRAINING: Final = "draining"
"""Likewise, of one that takes no sessions."""
_WISH: Final = "!"
"""What a wish begins with on a node's channel; news don't."""
_HELLO: Final = "+"
"""Likewise, of one who has joined."""


class Pace(Struct, frozen=True, kw_only=True):
    """How often what is done, in seconds. All nodes should have the same."""

    beat: float = 2.0
    lease: float = 6.0
    look: float = 0.5
    missing: float = 1.0
    """Between the two looks that find no lease."""
    poll: float = 1.0
    settling: float = 3.0
    agreeing: float = 12.0
    """Who has reached Redis for so long has seen all who live: only then a later format is agreed on."""


class _Agreement(Struct, frozen=True):
    """What nodes have agreed on to write, as it was when this one renewed its lease last."""

    written: int
    lowest: int
    highest: int
    """In formats from the lowest to this, something may be there."""
    count: int
    """Of the agreements there have been: it tells this one from one of the same format."""
    is_kept: int
    """1 if all living nodes write it, else 0."""

    @property
    def is_mixed(self) -> bool:
        """Whether there may be something in another format."""
        return not self.lowest == self.highest == self.written


class RedisMembership:
    """A node's :class:`~unbroken.sessions.backends.cluster.Cluster` in Redis.

    Args:
        client: How it is reached. The caller's, to close.
        keys: What things are called there.
        pace: How often what is done.
        formats: What this node reads; told what to write. None: this release's format alone.
        trouble: Told of what fails.
        kept: Seconds after the last node has gone in which it is known what they wrote: as long as sessions.

    """

    def __init__(
        self,
        client: Client,
        keys: Keys,
        pace: Pace | None = None,
        *,
        formats: Formats | None = None,
        trouble: Trouble | None = None,
        kept: int = 86_400,
    ) -> None:
        self._client = client
        self._pace = pace = pace or Pace()
        caller = cast(Caller, client)  # its methods are of both worlds, says redis-py
        self._scripts = Scripts(caller, 1, pace.beat)
        self._keys = keys
        self._channels = Channels(client, keys)
        self._subscription = Subscription(
            self._channels, silence=pace.beat, pause=pace.lease, on_text=self._heard
        )
        self._kept = kept
        self._formats = formats = formats or Formats(FORMAT_1)
        self._agreement = _Agreement(formats.oldest, formats.oldest, formats.oldest, 0, 0)
        self._rewriting = Rewriting(client, keys, formats, Scripts(caller, 1, pace.beat))
        self._rewritten = 0  # the count of the agreement that everything in the store is known to follow
        self._steady_since = float("inf")  # since when Redis was reached without an error
        self._node = NodeId("")
        self._is_cut_off = False
        self._trouble = trouble or Trouble()
        self._is_draining = False
        self._neighbour: Neighbour | None = None
        self._tasks: list[asyncio.Task[None]] = []
        self._beats_soon = asyncio.Event()
        self._moves = 0  # of the server, from one that Sentinels named to another
        self._nodes: set[NodeId] = set()  # all others there are
        self._others: set[NodeId] = set()  # those that were alive when last looked at
        self._watched: set[NodeId] = set()  # those that own something that matters here
        self._found_lost_again: set[NodeId] = set()  # since all were looked at last
        self._vitals = Vitals(listener_gap=pace.look * 0.9, lease_gap=pace.missing)
        self._draw = random.Random().random  # noqa: S311 - it only spreads what nodes do

    @property
    def is_cut_off(self) -> bool:
        """See :attr:`Cluster.is_cut_off`."""
        return self._is_cut_off

    @property
    def node(self) -> NodeId:
        """Whose it is: empty until that has joined."""
        return self._node

    @property
    def has_others(self) -> bool:
        """See :attr:`Cluster.has_others`."""
        return bool(self._others)

    def is_lost(self, node: NodeId) -> bool:
        """See :meth:`Cluster.is_lost`."""
        return self._vitals.is_lost(node)

    async def is_still_lost(self, node: NodeId) -> bool:
        """See :meth:`Cluster.is_still_lost`. It is looked at once between two looks at all nodes."""
        if self.is_lost(node) and node not in self._found_lost_again:
            with suppress(*ERRORS):
                if self._vitals.see(node, (await self._signs([node]))[node]):
                    self._nodes.add(node)
                else:
                    self._found_lost_again.add(node)
        return self.is_lost(node)

    async def join(self, node: NodeId, neighbour: Neighbour) -> None:
        """See :meth:`Cluster.join`."""
        self._node, self._neighbour = node, neighbour
        self._steady_since = asyncio.get_running_loop().time()
        try:
            async with asyncio.timeout(_JOINING):
                await self._subscription.open(node)
                self._check_formats(await self._beat())
                await self._look()
                for other in self._others:
                    await self._channels.tell(other, _HELLO + node)
        except ERRORS as exc:
            await self._subscription.aclose()
            raise (unavailable(exc) or StoreUnavailable(type(exc).__name__)) from None
        except UnknownFormat:
            await self._subscription.aclose()
            raise
        structlog.get_logger().info("node joined", node_id=node, others=len(self._others))
        self._vitals.settle(asyncio.get_running_loop().time() + self._pace.settling)
        for work in (self._listen, self._beat_on, self._look_on, self._poll_on):
            self._tasks.append(asyncio.create_task(self._for_ever(work)))
        aside = [self._rewrite_on, *([self._follow_on] if is_watched(self._client) else [])]
        for work in aside:  # whether Redis is there, for what nodes do in it, the others find out
            self._tasks.append(asyncio.create_task(self._for_ever(work, settles=False)))

    async def leave(self) -> None:
        """See :meth:`Cluster.leave`."""
        tasks, self._tasks = self._tasks, []
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)
            with suppress(*ERRORS):
                async with asyncio.timeout(_LEAVING):
                    keys = [self._keys.nodes, self._keys.lease(self._node)]
                    await self._scripts.call("leave", keys, self._node, int(_LEFT_KNOWN * 1000))
        await self._subscription.aclose()

    async def withdraw(self, *, is_draining: bool) -> None:
        """See :meth:`Cluster.withdraw`. Where that fails, the lease says it with its next renewal."""
        self._is_draining = is_draining
        with suppress(*ERRORS):
            await self._beat()

    async def wish(self, owner: NodeId, session_id: SessionId) -> None:
        """See :meth:`Cluster.wish`."""
        with suppress(*ERRORS):
            await self._channels.tell(owner, f"{_WISH}{self._node} {session_id}")

    async def watch(self, node: NodeId) -> None:
        """See :meth:`Cluster.watch`."""
        if node and node != self._node and not self.is_lost(node):
            self._watched.add(node)

    def _settle(self) -> None:
        self._steady_since = now = asyncio.get_running_loop().time()
        self._vitals.settle(now + self._pace.settling)

    def _note(self, exc: Exception, *, settles: bool) -> None:
        error = unavailable(exc) or StoreUnavailable(type(exc).__name__)
        self._trouble.note(error)
        if settles and not isinstance(error, StoreBusy):  # what this node's own calls wait for, others don't
            self._settle()

    async def _for_ever(self, work: Callable[[], Coroutine[Any, Any, None]], *, settles: bool = True) -> None:
        """Do *work* again and again, also while Redis is gone. If it *settles*, nobody is judged then."""
        task = asyncio.current_task()
        assert task is not None
        while not task.cancelling():  # the client may take a cancellation for its own, and go on
            try:
                await work()
            except ERRORS as exc:
                self._note(exc, settles=settles)
                await asyncio.sleep(0.1 + 0.2 * self._draw())
            except Exception as exc:  # noqa: BLE001 - the boundary: a node without this is cut off
                structlog.get_logger().error("membership failed", exc_info=exc)
                await asyncio.sleep(1.0)

    # What is told.

    async def _listen(self) -> None:
        """Hear what is told, until the connection breaks. Whoever listens again has missed something."""
        assert self._neighbour is not None
        loop = asyncio.get_running_loop()
        if self._subscription.current is None:
            await self._subscription.open(self._node)
            self._settle()
            self._neighbour.on_gap()
        began = loop.time()
        try:
            await self._subscription.hear()
        except ERRORS as exc:
            if loop.time() - began < _BRIEF:
                raise
            self._note(exc, settles=True)
        finally:
            self._beats_soon.set()  # before others have looked twice

    def _heard(self, text: str) -> None:
        assert self._neighbour is not None
        if text.startswith(_WISH):
            by, _, session_id = text[len(_WISH) :].partition(" ")
            self._neighbour.on_wish(SessionId(session_id), NodeId(by))
        elif text.startswith(_HELLO):
            joined = NodeId(text[len(_HELLO) :])
            self._nodes.add(joined)
            self._others.add(joined)
        else:
            self._neighbour.on_news([SessionId(each) for each in text.split()])

    # Who is there.

    async def _beat_on(self) -> None:
        self._beats_soon.clear()
        try:
            await self._beat()  # first: after an outage, others wait for it
        except ERRORS:
            self._is_cut_off = True
            raise
        self._is_cut_off = False
        with suppress(TimeoutError):
            async with asyncio.timeout(self._pace.beat):
                await self._beats_soon.wait()

    async def _beat(self) -> _Agreement:
        keys = [self._keys.nodes, self._keys.lease(self._node), self._keys.formats]
        milliseconds = int(self._pace.lease * 1000)
        formats, agreement = self._formats, self._agreement
        is_steady = asyncio.get_running_loop().time() - self._steady_since >= self._pace.agreeing
        # The process tells a person, or a script, which of several on a machine it is.
        about = f"{os.getpid()} {formats.oldest}-{formats.latest} {formats.written}"
        state = [_DEAF] * self._subscription.is_deaf + [_DRAINING] * self._is_draining
        *told, found = await self._scripts.call(
            "beat",
            keys,
            self._node,
            milliseconds,
            self._kept,
            " ".join([about, *state]),
            formats.oldest,
            formats.newest,
            formats.most_written,
            agreement.count,
            self._rewritten,
            int(is_steady),
            int(self._pace.agreeing * 1000),
        )
        known = {node for node in self._nodes if not self.is_lost(node)}  # another may have taken it out
        self._nodes = {NodeId(node.decode()) for node in found} - {self._node} | known
        self._note_agreement(agreed := _Agreement(*told))
        return agreed

    def _note_agreement(self, agreement: _Agreement) -> None:
        formats, before = self._formats, self._agreement
        is_read = formats.covers(agreement.lowest, agreement.highest)
        if self._tasks:  # else it hasn't joined, and is told so
            formats.note_outdated(not is_read)
        if not is_read:
            return  # it has no part in it
        self._agreement = agreement
        if before.count and before.written != agreement.written:
            structlog.get_logger().info("format agreed on", format=agreement.written, node_id=self._node)
        if before.is_mixed and not agreement.is_mixed:
            structlog.get_logger().info("sessions are in one format", format=agreement.written)
        formats.agree(agreement.written)

    def _check_formats(self, found: _Agreement) -> None:
        """Raise for a store that holds what this release can't read."""
        formats = self._formats
        if formats.covers(found.lowest, found.highest):
            return
        reads = f"Sessions in Redis are in format {found.lowest} to {found.highest}, and this release reads "
        reads += f"{formats.oldest} to {formats.newest}. "
        if found.highest > formats.newest:
            reads += (
                f"To come back to it, set UNBROKEN_STORE_FORMAT={formats.newest} on the nodes of the later "
                "release, and wait until their log says `sessions are in one format`."
            )
        else:
            reads += (
                "Run the release before this one first, and wait until its log says "
                "`sessions are in one format`."
            )
        raise UnknownFormat(reads)

    async def _rewrite_on(self) -> None:
        """Bring everything into one format, once all write it."""
        await asyncio.sleep(self._pace.beat)
        agreement = self._agreement
        if not (agreement.is_mixed and agreement.is_kept) or self._formats.is_outdated:
            return
        if await self._rewriting.run(self._node):
            self._rewritten = agreement.count  # told with the next beat
        else:  # another node is at it, or there is something that can't be read
            await asyncio.sleep(self._pace.lease * 10)

    async def _follow_on(self) -> None:
        """Find out whether another server has become the primary: what the one before says holds no more."""
        await asyncio.sleep(self._pace.look)
        with suppress(*ERRORS):  # without Sentinels, all stays as it is
            moves, self._moves = self._moves, await moves_of(self._client)
            if moves != self._moves:
                self._settle()
                self._beats_soon.set()

    async def _look_on(self) -> None:
        await asyncio.sleep(self._pace.look)
        await self._look()

    async def _look(self) -> None:
        """Find out who listens and whose lease holds, this node's own too, and what follows from it."""
        subscription = self._subscription.current
        self._found_lost_again.clear()
        signs = await self._signs([self._node, *(self._nodes | self._watched)])
        self._note_own(signs.pop(self._node), subscription)
        dead = self._vitals.look(signs, asyncio.get_running_loop().time())
        self._watched = {node for node in self._watched if not self.is_lost(node)}
        self._others = {
            node for node, sign in signs.items() if sign.lease == "held" and not self.is_lost(node)
        }
        assert self._neighbour is not None
        for node in dead:  # all, before anything can fail: nobody tells of them twice
            self._nodes.discard(node)
            self._neighbour.on_lost(node)
        for node in dead:
            await self._scripts.call("leave", [self._keys.nodes, self._keys.lease(node)], node, 0)

    def _note_own(self, sign: Sign, subscription: object | None) -> None:
        """See what others see of this node. What they might take for its death, it contradicts."""
        has_changed = self._subscription.check(subscription, is_seen=sign.listens)
        is_buried = sign.lease == "none" and not self._formats.is_outdated  # else it gets none
        if has_changed or is_buried:
            self._beats_soon.set()

    async def _signs(self, nodes: list[NodeId]) -> dict[NodeId, Sign]:
        leases = await self._client.mget([self._keys.lease(node) for node in nodes])
        listeners = await self._channels.listeners(nodes)
        return {
            node: Sign(listeners[node] > 0, _lease(lease), _is_said(_DEAF, lease))
            for node, lease in zip(nodes, leases, strict=True)
        }

    async def _poll_on(self) -> None:
        await asyncio.sleep(self._pace.poll * (0.75 + 0.5 * self._draw()))
        assert self._neighbour is not None
        self._neighbour.on_poll()


def _lease(value: Any) -> Lease:
    if value is None:
        return "none"
    if value == b"left":
        return "left"
    return "draining" if _is_said(_DRAINING, value) else "held"


def _is_said(word: str, value: Any) -> bool:
    return isinstance(value, bytes) and word.encode() in value.split()
