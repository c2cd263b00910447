"""Connect: connections that a server takes in a CPU second, from first byte to ``session.created``."""

from __future__ import annotations

from contextlib import ExitStack

from tests.bench.load import Load
from tests.bench.report import Goal, Result, compared
from tests.bench.server import Kind, Server
from tests.bench.suites.base import KINDS, Bench

__all__ = ["run"]


def run(bench: Bench) -> list[Result]:
    """See the module's text."""
    rounds, connections = (3, 400) if bench.is_quick else (7, 1000)
    rates: dict[Kind, list[float]] = {kind: [] for kind in KINDS}
    with ExitStack() as stack:
        servers: dict[Kind, Server] = {kind: stack.enter_context(bench.start(kind)) for kind in KINDS}
        for server in servers.values():
            with Load(server.port) as load:
                load.open(100)  # warms up
        for number in range(rounds):
            for kind, server in servers.items():
                server.settle()  # the last round's connections are still being closed
                with Load(server.port) as load:
                    with bench.measured(server) as watch:
                        load.open(connections)
                    rates[kind].append(connections / watch.cpu)
            ours, bare = (rates[kind][-1] for kind in KINDS)
            bench.say(f"connect {number + 1}/{rounds}: {ours:,.0f} to {bare:,.0f} per CPU second")
    return compared("connect", "per CPU-s", rates["ours"], rates["bare"], Goal("at least", 1.0))
