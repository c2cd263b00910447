"""What goes wrong: each fault begins, lasts, and is put right again by itself, whatever else goes wrong."""

from __future__ import annotations

import asyncio
import contextlib
import random
import shutil
import signal
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from tests.chaos.nodes import NodeProcess
from tests.chaos.overhearing import overheard
from tests.fakes.proxy import Way
from tests.fakes.valkey import Server

__all__ = ["FAULTS", "GENTLE", "OUTAGES", "STANDSTILLS", "Fault", "World"]

_LEASE: Final = 6.0

_MOST_AGAIN: Final = 200
"""Messages that are said once more."""


@dataclass(eq=False)
class World:
    """What faults are done to."""

    nodes: list[NodeProcess]
    valkey: Server
    folder: Path
    """The store's data."""
    draw: random.Random
    busy: set[str] = field(default_factory=set)
    """What a fault is being done to: nothing else may be, at the same time, that it could not bear."""
    lost: int = 0
    """How often the store has lost something."""
    begun: int = 0
    """How many faults have begun."""
    left: set[str] = field(default_factory=set)
    """Nodes that have ended in order while nothing else went wrong."""

    @asynccontextmanager
    async def alone(self, what: str) -> AsyncIterator[bool]:
        """Do something to *what* alone. False: something else is being done to it."""
        if what in self.busy:
            yield False
            return
        self.busy.add(what)
        self.begun += 1
        try:
            yield True
        finally:
            self.busy.discard(what)


Fault = Callable[[World, NodeProcess], Awaitable[bool]]
"""Returns whether it had any effect: there may have been nothing to do it to."""


async def _lasting(world: World, least: float, most: float) -> None:
    await asyncio.sleep(world.draw.uniform(least, most))


async def kill(world: World, node: NodeProcess) -> bool:
    """A process dies, and another takes its place."""
    was_up, before = node.is_up, node.pid
    await node.kill()
    await _lasting(world, 0.2, 2)
    await node.start()
    return was_up and node.pid != before


async def terminate(world: World, node: NodeProcess) -> bool:
    """A process is asked to end, as in a deploy."""
    was_up, before = node.is_up, node.pid
    ended, begun, is_alone = node.node_id(), world.begun, world.busy == {node.name}
    await node.terminate()
    if is_alone and world.begun == begun and not node.exits[-1]:
        world.left.add(ended)  # nothing else was the matter: it could give up all that it had
    await node.start()
    return was_up and node.pid != before


async def freeze(world: World, node: NodeProcess) -> bool:
    """A process stands still for longer than its lease holds, and goes on as if nothing had been."""
    return await _pause(world, node, _LEASE + 1, _LEASE + 3)


async def hiccup(world: World, node: NodeProcess) -> bool:
    """A process stands still for less."""
    return await _pause(world, node, 0.2, 3)


async def _pause(world: World, node: NodeProcess, least: float, most: float) -> bool:
    node.signal(signal.SIGSTOP)
    try:
        await _lasting(world, least, most)
        return node.is_stopped
    finally:
        node.signal(signal.SIGCONT)


async def partition(world: World, node: NodeProcess) -> bool:
    """A node is cut off from its store, without a word."""
    held = node.store.hold(world.draw.choice(("both", "up", "down")))
    try:
        await _lasting(world, 0.5, 9)
    finally:
        node.store.release()
        node.store.cut()  # what was held may be half a message
    return held > 0


async def refuse(world: World, node: NodeProcess) -> bool:
    """The store refuses a node."""
    node.store.refuse()
    cut = node.store.cut()
    try:
        await _lasting(world, 0.1, 4)
    finally:
        await node.store.accept()
    return cut > 0


async def cut_store(world: World, node: NodeProcess) -> bool:
    """A node's connections to its store break, also in the middle of a call."""
    return node.store.cut() > 0


async def deafen(world: World, node: NodeProcess) -> bool:
    """What a node is told gets lost."""
    held = node.store.strand("down", marked=True)
    try:
        await _lasting(world, 0.5, 4)
    finally:
        node.store.cut(marked=True)
    return held > 0


async def disorder(world: World, node: NodeProcess) -> bool:
    """What nodes are told comes again, late, and in another order than it was said."""
    async with overheard(world.valkey.port) as said:
        await _lasting(world, 0.5, 4)
    messages = said[-_MOST_AGAIN:]
    world.draw.shuffle(messages)
    for channel, message in messages:
        with contextlib.suppress(OSError):
            await asyncio.to_thread(world.valkey.command, "PUBLISH", channel, message)
    return len(messages) > 1


async def unsubscribe(world: World, node: NodeProcess) -> bool:
    """All lose the connection on which they are told something, and subscribe late."""
    before = node.store.shaped
    async with _carried(node, Way(latency=0.3, jitter=0.3)):
        killed = await _command(world, "CLIENT", "KILL", "TYPE", "pubsub")
        await _lasting(world, 0.5, 1.5)
    return killed[:1] == b":" and int(killed[1:]) > 0 and node.store.shaped > before


async def slow_store(world: World, node: NodeProcess) -> bool:
    """The way to the store is long, and now longer, now shorter: what is told on it comes late."""
    before = node.store.shaped
    async with _carried(node, Way(latency=0.05, jitter=0.2, slice=world.draw.choice((50, 1000, 65536)))):
        await _lasting(world, 0.5, 4)
    return node.store.shaped > before


@asynccontextmanager
async def _carried(node: NodeProcess, way: Way) -> AsyncIterator[None]:
    node.store.way = way
    try:
        yield
    finally:
        node.store.way = Way()


async def cut_clients(world: World, node: NodeProcess) -> bool:
    """All clients of a node lose their connections, without a word."""
    return node.door.cut() > 0


async def half_close(world: World, node: NodeProcess) -> bool:
    """One side of each connection to clients is told that the other says nothing more."""
    return node.door.half_close(world.draw.choice(("up", "down"))) > 0


async def half_open(world: World, node: NodeProcess) -> bool:
    """Clients of a node hear nothing, or aren't heard, and nobody tells them."""
    held = node.door.strand(world.draw.choice(("both", "up", "down")))
    try:
        await _lasting(world, 1, 6)
    finally:
        node.door.release()
        if world.draw.random() < 0.5:
            node.door.cut()
    return held > 0


async def slow_clients(world: World, node: NodeProcess) -> bool:
    """The way to clients is long and narrow."""
    before = node.door.shaped
    node.door.way = Way(latency=0.1, jitter=0.2, bandwidth=20_000, slice=world.draw.choice((1, 100, 4000)))
    try:
        await _lasting(world, 0.5, 4)
    finally:
        node.door.way = Way()
    return node.door.shaped > before


async def pause_store(world: World, node: NodeProcess) -> bool:
    """The store answers nobody for a while."""
    milliseconds = world.draw.randint(300, 3500)
    answer = await _command(world, "CLIENT", "PAUSE", str(milliseconds), "ALL")
    await asyncio.sleep(milliseconds / 1000)
    return answer == b"+OK\r\n"


async def flush_scripts(world: World, node: NodeProcess) -> bool:
    """The store forgets its scripts."""
    return await _command(world, "SCRIPT", "FLUSH") == b"+OK\r\n"


async def _command(world: World, *words: str) -> bytes:
    """Return what the store answers; nothing: it is gone, or stands still."""
    try:
        return await asyncio.to_thread(world.valkey.command, *words)
    except OSError:
        return b""


async def restart_store(world: World, node: NodeProcess) -> bool:
    """The store crashes, and comes back with all that it had confirmed."""
    async with world.alone("store") as is_free:
        if is_free:
            await _crash(world, lambda: None)
    return is_free


async def lose_tail(world: World, node: NodeProcess) -> bool:
    """The store crashes, and comes back as it was a while ago."""
    before = world.folder.parent / "before"

    def rewind() -> None:
        world.valkey.forget()
        shutil.copytree(before, world.folder)

    async with world.alone("store") as is_free:
        if is_free:
            await asyncio.to_thread(shutil.rmtree, before, ignore_errors=True)
            await asyncio.to_thread(shutil.copytree, world.folder, before)
            await _lasting(world, 0.1, 3)
            world.lost += 1
            await _crash(world, rewind)
    return is_free


async def empty_store(world: World, node: NodeProcess) -> bool:
    """The store crashes, and comes back with nothing."""
    async with world.alone("store") as is_free:
        if is_free:
            world.lost += 1
            await _crash(world, world.valkey.forget)
    return is_free


async def _crash(world: World, between: Callable[[], None]) -> None:
    await asyncio.to_thread(world.valkey.kill)
    await _lasting(world, 0.1, 3)
    await asyncio.to_thread(between)
    await asyncio.to_thread(world.valkey.start)


FAULTS: Final[dict[str, tuple[Fault, int]]] = {
    "kill -9": (kill, 6),
    "SIGTERM": (terminate, 5),
    "SIGSTOP beyond the lease": (freeze, 4),
    "SIGSTOP within it": (hiccup, 4),
    "partition from the store": (partition, 5),
    "store refuses": (refuse, 3),
    "store's connections reset": (cut_store, 6),
    "news lost": (deafen, 5),
    "news again, late and in disorder": (disorder, 4),
    "subscriptions lost": (unsubscribe, 4),
    "store slow": (slow_store, 5),
    "clients cut": (cut_clients, 6),
    "clients half-closed": (half_close, 3),
    "clients half-open": (half_open, 4),
    "clients slow": (slow_clients, 4),
    "CLIENT PAUSE": (pause_store, 4),
    "SCRIPT FLUSH": (flush_scripts, 2),
    "store restarts with its data": (restart_store, 3),
    "store loses its tail": (lose_tail, 2),
    "store restarts empty": (empty_store, 1),
}
"""Each fault by its name, with how often it comes, compared to others."""

GENTLE: Final = (
    "kill -9",
    "SIGTERM",
    "news lost",
    "news again, late and in disorder",
    "clients cut",
    "clients half-closed",
    "clients half-open",
    "SCRIPT FLUSH",
)
"""Those in which every node that lives can ask its store, and knows what it owns."""

STANDSTILLS: Final = ("SIGSTOP beyond the lease", "SIGSTOP within it")
"""Those after which a node may take itself for the owner of what others have taken."""

OUTAGES: Final = (
    "partition from the store",
    "store refuses",
    "store slow",
    "CLIENT PAUSE",
    "store restarts with its data",
    "store loses its tail",
    "store restarts empty",
)
"""Those in which an owner may go on alone. What it said may be lost, and said again by whoever takes
its session meanwhile: clients are told to start over."""
