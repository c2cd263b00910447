"""Shared: what it costs that sessions are in Redis, beside the same server with them in memory.

500 answers at once, 20 words a second each, as in the paced suite: the words that a CPU second of the node's
carries, and the time from the agent's yield to the client's read, in which the word is written to the log
(``added``: by how much that is longer, in the same round). So many leave the node's core little to spare, and
most of that time is waiting for a turn: so it is told of 200 answers, too (``light``). Then the commands that
Redis is sent for a word, all else that the node asks included; and what an idle session of ten messages takes
there, as Redis itself counts it. Redis, a Valkey, runs on the load's core.
"""

from __future__ import annotations

import asyncio
import os
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path

from redis.asyncio import Redis

from tests.bench.bursts import answers
from tests.bench.load import Load
from tests.bench.nodes import Traffic, redis_settings
from tests.bench.pacing import pace
from tests.bench.report import Goal, Result, compared, median_of
from tests.bench.server import Server
from tests.bench.suites.base import Bench
from tests.bench.workload import Order
from tests.fakes.valkey import Server as Valkey

__all__ = ["run"]

_STREAMS = 500
_LIGHT = 200
_RATE = 20
_SESSIONS = 50
_TURNS = 5
_WORDS = 40
_REST_TIMEOUT = 60.0
"""A node looks for sessions to let go of every 15 seconds."""


def run(bench: Bench) -> list[Result]:
    """See the module's text."""
    rounds, seconds = (1, 3) if bench.is_quick else (3, 10)
    pairs: list[tuple[dict[str, float], dict[str, float]]] = []
    light: list[tuple[dict[str, float], dict[str, float]]] = []
    commands: list[float] = []
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        os.sched_setaffinity(0, {bench.launcher.cores.load})
        valkey = stack.enter_context(Valkey(folder / "valkey").running())
        redis = {**redis_settings(valkey), "UNBROKEN_RELEASE_AFTER": "1"}
        starts = [bench.launcher.start("ours", redis, name="redis"), bench.start("ours")]
        servers = [stack.enter_context(server) for server in starts]
        size = _session_size(servers[0], valkey)
        for number in range(rounds):
            pair: list[dict[str, float]] = []
            for server in servers:
                with Load(server.port) as load:
                    load.open(_STREAMS)
                    server.settle()
                    before = asyncio.run(Traffic.of(valkey.url))
                    pair.append(pace(bench, server, load, rate=_RATE, seconds=seconds))
                    if server is servers[0]:
                        called = asyncio.run(Traffic.of(valkey.url)).since(before).commands
                        commands.append(called / (_STREAMS * _RATE * seconds))
            pairs.append((pair[0], pair[1]))
            light.append((_light(bench, servers[0], seconds), _light(bench, servers[1], seconds)))
            shown = (
                f"{name} {pair[0][name]:.3g} to {pair[1][name]:.3g}" for name in ("tokens", "p50", "p99")
            )
            bench.say(f"shared {number + 1}/{rounds}: {', '.join(shown)}, {commands[-1]:.3f} commands a word")
    results: list[Result] = []
    ours, memory = ([pair[side]["tokens"] for pair in pairs] for side in (0, 1))
    results += compared("shared.tokens", "tokens/CPU-s", ours, memory, Goal("at least", 0.5), peer="memory")
    for prefix, rounds_of in (("shared", pairs), ("shared.light", light)):
        for name in ("p50", "p99"):
            ours, memory = [each[0][name] for each in rounds_of], [each[1][name] for each in rounds_of]
            results += compared(f"{prefix}.{name}", "us", ours, memory, peer="memory")
            added = [there - here for there, here in zip(ours, memory, strict=True)]
            results.append(median_of(f"{prefix}.added.{name}", "us", added))
    results.append(median_of("shared.commands", "per word", commands, Goal("at most", 0.15)))
    results.append(median_of("shared.session", "bytes", [size], Goal("at most", 8000)))
    return results


def _light(bench: Bench, server: Server, seconds: int) -> dict[str, float]:
    """Return what :func:`~tests.bench.pacing.pace` finds with fewer answers."""
    with Load(server.port) as load:
        load.open(_LIGHT)
        server.settle()
        return pace(bench, server, load, rate=_RATE, seconds=seconds)


def _session_size(server: Server, valkey: Valkey) -> float:
    """Return the bytes that an idle session takes after five questions and answers, all its keys together."""
    with Load(server.port) as load:
        load.open(_SESSIONS)
        answers(load, Order("burst", 0, _WORDS), _TURNS)
    return asyncio.run(_bytes_at_rest(valkey.url)) / _SESSIONS


async def _bytes_at_rest(url: str) -> int:
    """Return the bytes of all keys once the node has let go of its sessions."""
    client = Redis.from_url(url)
    deadline = time.monotonic() + _REST_TIMEOUT
    while owners := {await client.hget(key, "o") async for key in client.scan_iter("*:m")} - {b""}:
        if time.monotonic() > deadline:
            raise RuntimeError(f"the node doesn't let go of its sessions: {owners}")
        await asyncio.sleep(0.5)
    total = 0
    async for key in client.scan_iter("*"):
        total += await client.memory_usage(key) or 0
    await client.aclose()
    return total
