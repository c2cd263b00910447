"""Several nodes over one store, in one process: their worlds, and what goes wrong between them."""

from __future__ import annotations

import asyncio
import contextlib
import copy
from collections.abc import AsyncIterator, Iterable
from typing import Any

from tests.fakes.store import DistantStore
from tests.fakes.tally import DistantTally, SharedTally
from tests.sessions.conversation import ALICE, Client, World, limits_of, settle
from unbroken.server.protocols.cursor import parse_cursor
from unbroken.sessions.actor import Actor
from unbroken.sessions.backends.cluster import Neighbour
from unbroken.sessions.backends.index import SessionIndex
from unbroken.sessions.backends.memory import MemoryStore
from unbroken.sessions.backends.memory_outbox import MemoryOutbox
from unbroken.sessions.backends.outbox import OutboxLimits
from unbroken.sessions.errors import SessionNotFound
from unbroken.sessions.ids import NodeId, SessionId, new_node_id
from unbroken.sessions.items import SessionConfig
from unbroken.sessions.node import Node, NodeLimits
from unbroken.sessions.responder import Output

__all__ = [
    "Town",
    "actor_on",
    "answered",
    "asked",
    "begin_outage",
    "come_back",
    "distant",
    "go",
    "knock",
    "move",
    "open_town",
    "orphaned",
    "polls",
    "stored_text",
    "tab_on",
    "texts",
]


class House:
    """One node's :class:`~unbroken.sessions.backends.cluster.Cluster`."""

    def __init__(self, town: Town) -> None:
        self.town = town
        self.node: NodeId | None = None

    is_cut_off = False

    @property
    def has_others(self) -> bool:
        return len(self.town.neighbours.keys() - self.town.draining - {self.node}) > 0

    async def join(self, node: NodeId, neighbour: Neighbour) -> None:
        self.node = node
        self.town.neighbours[node] = neighbour

    async def leave(self) -> None:
        if self.node is not None:
            self.town.neighbours.pop(self.node, None)
            self.town.lost.add(self.node)

    async def withdraw(self, *, is_draining: bool) -> None:
        assert self.node is not None
        (self.town.draining.add if is_draining else self.town.draining.discard)(self.node)

    async def wish(self, owner: NodeId, session_id: SessionId) -> None:
        assert self.node is not None
        self.town.wish(owner, session_id, self.node)

    async def watch(self, node: NodeId) -> None:
        pass

    def is_lost(self, node: NodeId) -> bool:
        return node in self.town.lost

    async def is_still_lost(self, node: NodeId) -> bool:
        return self.is_lost(node) and node not in self.town.woken


class Town:
    """Nodes that share one store. Fault verbs: :meth:`kill`, :attr:`is_silent`."""

    def __init__(
        self,
        *,
        seed: int | None = None,
        limits: NodeLimits | None = None,
        store: type[MemoryStore] = MemoryStore,
        index: SessionIndex | None = None,
    ) -> None:
        self.outbox = MemoryOutbox(OutboxLimits(part_bytes=1 << 30))
        """What nodes put there whose limits say so."""
        self.memory = store(tell=self._tell, outbox=self.outbox)
        self._copied_outbox: dict[str, Any] = {}
        self._seed = seed
        self.index = index
        self.tally = SharedTally(seed or 0)
        """What nodes have of each principal, where responses have a bound."""
        self.tallies: dict[World, DistantTally] = {}
        self.neighbours: dict[NodeId, Neighbour] = {}
        self.lost: set[NodeId] = set()
        self.woken: set[NodeId] = set()
        """Of these, those that live again, which nobody has noticed."""
        self.draining: set[NodeId] = set()
        self.worlds: list[World] = []
        self.is_silent = False
        """Whether all news and wishes get lost."""
        self._limits = limits or limits_of()
        self._open = contextlib.AsyncExitStack()

    async def node(self) -> World:
        """Start another node."""
        seed = self._seed
        store = self.memory if seed is None else DistantStore(self.memory, seed + 97 * len(self.worlds))
        tally = self.tally.at(new_node_id())
        is_bounded = self._limits.responses_per_principal > 0
        world = World(
            store, self._limits, cluster=House(self), tally=tally if is_bounded else None, index=self.index
        )
        self.worlds.append(world)
        self.tallies[world] = tally
        await self._open.enter_async_context(world.node)
        return world

    def kill(self, world: World) -> None:
        """End a node as ``kill -9`` does: it says nothing more to anybody, and nobody has noticed yet."""
        world.node._committers.close()
        world.node._tasks.is_open = False
        for task in world.node._tasks:
            task.cancel()
        self.neighbours.pop(world.node.id, None)
        caps = world.node.caps
        caps._note_open(False)
        for part in caps._parts.values():
            part.stop()

    def notice(self, world: World) -> None:
        """Have all others find *world*'s node dead, whether it is or not."""
        self.lost.add(world.node.id)
        self.tally.bury(self.tallies[world].node)
        for node, neighbour in list(self.neighbours.items()):
            if node != world.node.id:
                neighbour.on_lost(world.node.id)

    async def store_is_back(self) -> None:
        """Let the store be reached again, and every node notice it."""
        for world in self.worlds:
            distant(world).is_out = distant(world).loses_answers = False
        for _ in range(4):
            for world in self.worlds:
                world.clock.advance(2)
            await settle()

    def stored(self, client: Client) -> Any:
        """Return a client's session as the store holds it."""
        return self.memory._sessions[SessionId(client.session_id or "")]

    def copy(self) -> dict[SessionId, Any]:
        """Return what the store holds now. Its outbox is copied, too: of several, the latest copy counts."""
        self._copied_outbox = dict(self.outbox._kept)
        return dict(copy.deepcopy(self.memory._sessions))

    def lose(self, since: dict[SessionId, Any] | None = None) -> None:
        """Have the store lose everything, or all since it was copied."""
        self.memory._sessions = {} if since is None else copy.deepcopy(since)
        self.outbox._kept = {} if since is None else dict(self._copied_outbox)

    def poll(self) -> None:
        """Let the slow poll of all nodes come."""
        for neighbour in list(self.neighbours.values()):
            neighbour.on_poll()

    def _tell(self, node: NodeId, session_id: SessionId) -> None:
        asyncio.get_running_loop().call_soon(self._deliver, node, (session_id,))

    def _deliver(self, node: NodeId, session_ids: Iterable[SessionId]) -> None:
        neighbour = self.neighbours.get(node)
        if neighbour is not None and not self.is_silent:
            neighbour.on_news(session_ids)

    def wish(self, owner: NodeId, session_id: SessionId, by: NodeId) -> None:
        neighbour = self.neighbours.get(owner)
        if neighbour is not None and not self.is_silent:
            asyncio.get_running_loop().call_soon(neighbour.on_wish, session_id, by)

    def owner_of(self, client: Client) -> Node | None:
        """Return the node that takes itself for the owner of a client's session."""
        found = [world.node for world in self.worlds if self._owns(world, client)]
        assert len(found) <= 1 or self.lost
        return found[0] if found else None

    @staticmethod
    def _owns(world: World, client: Client) -> bool:
        actor = world.node.hub.get(SessionId(client.session_id or ""))
        return actor is not None and actor.is_owner and world.node._tasks.is_open


def distant(world: World) -> DistantStore:
    """Return a node's way to the store, where it is a long one."""
    assert isinstance(world.store, DistantStore)
    return world.store


@contextlib.asynccontextmanager
async def open_town(
    nodes: int = 2,
    *,
    seed: int | None = None,
    limits: NodeLimits | None = None,
    store: type[MemoryStore] = MemoryStore,
    index: SessionIndex | None = None,
) -> AsyncIterator[Town]:
    town = Town(seed=seed, limits=limits, store=store, index=index)
    async with town._open:
        for _ in range(nodes):
            await town.node()
        yield town
        await settle()


def actor_on(world: World, client: Client) -> Actor:
    """Return what a node has of a client's session: it runs it or follows it."""
    actor = world.node.hub.get(SessionId(client.session_id or ""))
    assert actor is not None
    return actor


async def move(client: Client, world: World) -> None:
    """Lose the connection, and come back to another node."""
    client.disconnect()
    await go(client, world)


async def go(client: Client, world: World) -> None:
    """Come to another node, as far as that knows: the old connection is not said to be gone."""
    client.world = world
    await client.resume()
    await settle()
    client.read()


async def come_back(client: Client, world: World) -> None:
    """Come to a node as :func:`knock` does, and see what there is."""
    await knock(client, world)
    await settle()
    client.read()


async def knock(client: Client, world: World) -> None:
    """Come to a node as its door lets a client in: what was empty, and isn't known there, is begun anew."""
    assert client.last_id is not None
    client.world = world
    session_id = SessionId(client.session_id or "")
    cursor = parse_cursor(client.last_id)
    assert cursor is not None
    position, _ = cursor
    try:
        await client.resume()
    except SessionNotFound:
        assert not position.seq
        client.attach(
            await world.node.create(
                ALICE,
                SessionConfig("m"),
                client.chain,
                session_id=session_id,
                incarnation=position.incarnation,
            ),
            position,
        )


async def tab_on(world: World, client: Client) -> Client:
    """Open another tab on a session."""
    tab = Client(world, client.session_id)
    await tab.connect()
    await settle()
    tab.read()
    return tab


async def polls(town: Town, count: int) -> None:
    """Let the slow poll of all nodes come so often, and what follows from it."""
    for _ in range(count):
        town.poll()
        await settle()


async def asked(town: Town, *said: Output) -> tuple[World, World, Client]:
    """Return two nodes, and a client of the first whose answer has begun: with *said*, else with ``ab``."""
    one, two = town.worlds[:2]
    client = await one.client()
    await client.ask()
    one.responder.last.say(*(said or ("a", "b")))
    await settle()
    client.read()
    return one, two, client


async def orphaned(town: Town, *said: Output) -> tuple[World, Client]:
    """Return a node, and a client that came to it in mid-answer: of another node, which has died since."""
    one, two, client = await asked(town, *said)
    await move(client, two)
    town.kill(one)
    town.notice(one)
    await settle()
    client.read()
    return two, client


async def answered(town: Town) -> tuple[World, World, Client]:
    """Return two nodes, and a client of the first that has been answered. It hasn't read the end."""
    one, two, client = await asked(town)
    one.responder.last.end()
    await settle()
    return one, two, client


async def begin_outage(world: World) -> None:
    """Have the store out of a node's reach for longer than writes wait for it."""
    distant(world).is_out = True
    world.node._outages.of(SessionId("")).note_failure(SessionId(""))  # somebody noticed
    for _ in range(6):
        await settle()
        world.clock.advance(0.6)
    await settle()


def texts(world: World, client: Client) -> list[str]:
    return [item.text for item in actor_on(world, client).session.items()]


def stored_text(town: Town, client: Client) -> str:
    """Return all deltas that the store holds."""
    stored = town.stored(client)
    return "".join(
        part for record in stored.log.read(stored.log.floor, 10**6) for part in getattr(record, "parts", ())
    )
