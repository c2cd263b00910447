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
from tests.fakes.proxy import Way
from tests.fakes.valkey import Server

__all__ = ["FAULTS", "Fault", "World"]

_LEASE: Final = 6.0


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

    @asynccontextmanager
    async def alone(self, what: str) -> AsyncIterator[bool]:
        """Do something to *what* alone. False: something else is being done to it."""
        if what in self.busy:
            yield False
            return
        self.busy.add(what)
        try:
            yield True
        finally:
            self.busy.discard(what)


Fault = Callable[[World, NodeProcess], Awaitable[None]]


async def _lasting(world: World, least: float, most: float) -> None:
    await asyncio.sleep(world.draw.uniform(least, most))


async def kill(world: World, node: NodeProcess) -> None:
    """A process dies, and another takes its place."""
    await node.kill()
    await _lasting(world, 0.2, 2)
    await node.start()


async def terminate(world: World, node: NodeProcess) -> None:
    """A process is asked to end, as in a deploy."""
    await node.terminate()
    await node.start()


async def freeze(world: World, node: NodeProcess) -> None:
    """A process stands still for longer than its lease holds, and goes on as if nothing had been."""
    await _pause(world, node, _LEASE + 1, _LEASE + 3)


async def hiccup(world: World, node: NodeProcess) -> None:
    """A process stands still for less."""
    await _pause(world, node, 0.2, 3)


async def _pause(world: World, node: NodeProcess, least: float, most: float) -> None:
    node.signal(signal.SIGSTOP)
    try:
        await _lasting(world, least, most)
    finally:
        node.signal(signal.SIGCONT)


async def partition(world: World, node: NodeProcess) -> None:
    """A node is cut off from its store, without a word."""
    node.store.hold(world.draw.choice(("both", "up", "down")))
    try:
        await _lasting(world, 0.5, 9)
    finally:
        node.store.release()
        node.store.cut()  # what was held may be half a message


async def refuse(world: World, node: NodeProcess) -> None:
    """The store refuses a node."""
    node.store.refuse()
    node.store.cut()
    try:
        await _lasting(world, 0.1, 4)
    finally:
        await node.store.accept()


async def cut_store(world: World, node: NodeProcess) -> None:
    """A node's connections to its store break, also in the middle of a call."""
    node.store.cut()


async def deafen(world: World, node: NodeProcess) -> None:
    """What a node is told gets lost."""
    node.store.strand("down", marked=True)
    try:
        await _lasting(world, 0.5, 4)
    finally:
        node.store.cut(marked=True)


async def unsubscribe(world: World, node: NodeProcess) -> None:
    """All lose the connection on which they are told something, and subscribe late."""
    async with _carried(node, Way(latency=0.3, jitter=0.3)):
        with contextlib.suppress(OSError):
            await asyncio.to_thread(world.valkey.command, "CLIENT", "KILL", "TYPE", "pubsub")
        await _lasting(world, 0.5, 1.5)


async def slow_store(world: World, node: NodeProcess) -> None:
    """The way to the store is long, and now longer, now shorter: what is told on it comes late."""
    async with _carried(node, Way(latency=0.05, jitter=0.2, slice=world.draw.choice((50, 1000, 65536)))):
        await _lasting(world, 0.5, 4)


@asynccontextmanager
async def _carried(node: NodeProcess, way: Way) -> AsyncIterator[None]:
    node.store.way = way
    try:
        yield
    finally:
        node.store.way = Way()


async def cut_clients(world: World, node: NodeProcess) -> None:
    """All clients of a node lose their connections, without a word."""
    node.door.cut()


async def half_close(world: World, node: NodeProcess) -> None:
    """One side of each connection to clients is told that the other says nothing more."""
    node.door.half_close(world.draw.choice(("up", "down")))


async def half_open(world: World, node: NodeProcess) -> None:
    """Clients of a node hear nothing, or aren't heard, and nobody tells them."""
    node.door.strand(world.draw.choice(("both", "up", "down")))
    try:
        await _lasting(world, 1, 6)
    finally:
        node.door.release()
        if world.draw.random() < 0.5:
            node.door.cut()


async def slow_clients(world: World, node: NodeProcess) -> None:
    """The way to clients is long and narrow."""
    node.door.way = Way(latency=0.1, jitter=0.2, bandwidth=20_000, slice=world.draw.choice((1, 100, 4000)))
    try:
        await _lasting(world, 0.5, 4)
    finally:
        node.door.way = Way()


async def pause_store(world: World, node: NodeProcess) -> None:
    """The store answers nobody for a while."""
    with contextlib.suppress(OSError):
        milliseconds = str(world.draw.randint(300, 3500))
        await asyncio.to_thread(world.valkey.command, "CLIENT", "PAUSE", milliseconds, "ALL")


async def flush_scripts(world: World, node: NodeProcess) -> None:
    """The store forgets its scripts."""
    with contextlib.suppress(OSError):
        await asyncio.to_thread(world.valkey.command, "SCRIPT", "FLUSH")


async def restart_store(world: World, node: NodeProcess) -> None:
    """The store crashes, and comes back with all that it had confirmed."""
    async with world.alone("store") as is_free:
        if is_free:
            await _crash(world, lambda: None)


async def lose_tail(world: World, node: NodeProcess) -> None:
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


async def empty_store(world: World, node: NodeProcess) -> None:
    """The store crashes, and comes back with nothing."""
    async with world.alone("store") as is_free:
        if is_free:
            world.lost += 1
            await _crash(world, world.valkey.forget)


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
