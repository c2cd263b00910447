"""Several nodes over one Valkey, each a process as anyone would start it."""

from __future__ import annotations

import asyncio
import os
import signal
import tempfile
from collections.abc import AsyncIterator, Coroutine, Mapping
from contextlib import ExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TypeVar

import uvloop
from redis.asyncio import Redis

from tests.bench.server import Launcher, Server
from tests.fakes.valkey import Server as Valkey

__all__ = ["Nodes", "Traffic", "nodes_of", "played", "redis_settings"]

_ValueT = TypeVar("_ValueT")

_CALLS: Final = ("evalsha", "eval", "publish", "spublish", "mget", "pubsub|numsub")
"""What nodes call. What scripts call in turn, and what asks for these very figures, doesn't count."""


_SETTLING: Final = 4.0


@dataclass(frozen=True, slots=True)
class Traffic:
    """What Redis has been asked and has answered since it began."""

    commands: int
    read: int
    """Bytes that were read from it, by whomever."""

    @classmethod
    async def of(cls, url: str) -> Traffic:
        client = Redis.from_url(url)
        try:
            stats, bytes_ = await client.info("commandstats"), await client.info("stats")
        finally:
            await client.aclose()
        called = (stats.get(f"cmdstat_{name}", {"calls": 0})["calls"] for name in _CALLS)
        return cls(sum(map(int, called)), int(bytes_["total_net_output_bytes"]))

    def since(self, before: Traffic) -> Traffic:
        """Return what came after *before*."""
        return Traffic(self.commands - before.commands, self.read - before.read)


@dataclass(frozen=True, slots=True)
class Nodes:
    """Nodes that are up, and their store."""

    valkey: Valkey
    servers: list[Server]

    @property
    def ports(self) -> list[int]:
        """Where clients come to them."""
        return [server.port for server in self.servers]

    def cpu(self) -> float:
        """Return the CPU seconds that all of them have used."""
        return sum(server.cpu() for server in self.servers)

    async def traffic(self) -> Traffic:
        """Return what the store has had to do so far."""
        return await Traffic.of(self.valkey.url)


def redis_settings(valkey: Valkey) -> dict[str, str]:
    """Return the settings of a node over *valkey*."""
    return {"UNBROKEN_REDIS_URL": valkey.url, "UNBROKEN_SECRET": 32 * "x"}


@asynccontextmanager
async def nodes_of(launcher: Launcher, count: int, settings: Mapping[str, str] = {}) -> AsyncIterator[Nodes]:
    """Run *count* nodes: they share the servers' core, and the store has the load's.

    They have been up for some seconds: in its first three, a node takes no other one for dead.
    """
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        os.sched_setaffinity(0, {launcher.cores.load})
        valkey = stack.enter_context(Valkey(folder / "valkey").running())
        # On a machine that others use too, a node that refuses new work would say nothing about this.
        chosen = {**redis_settings(valkey), "UNBROKEN_OVERLOAD_LAG": "0", **settings}
        servers = [launcher.start("ours", chosen, name=f"node{number}") for number in range(count)]
        for server in servers:
            stack.push(server.__exit__)
            stack.callback(server.signal, signal.SIGKILL)  # one that is frozen doesn't end otherwise
        await asyncio.gather(*[asyncio.to_thread(server.__enter__) for server in servers])
        await asyncio.sleep(_SETTLING)
        yield Nodes(valkey, servers)


def played(play: Coroutine[Any, Any, _ValueT]) -> _ValueT:
    """Run *play* to its end, on the loop that costs the load least."""
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(play)
