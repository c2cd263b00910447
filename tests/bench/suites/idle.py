"""Idle: resident memory of the server per connection that does nothing, with the session behind it.

``empty`` ones were only opened, ``used`` ones have put one item into their
conversation. Each round has fresh servers: memory that was used once is not
given back. What the kernel holds for a socket is not counted.
"""

from __future__ import annotations

from tests.bench.load import Load
from tests.bench.report import Goal, Result, compared
from tests.bench.server import Kind
from tests.bench.suites.base import KINDS, Bench
from tests.bench.wire import ITEM_DONE, create_item, request_of
from tests.bench.workload import Order

__all__ = ["run"]

_WARM = 100
"""Connections opened first: what a server allocates once is no cost of a connection."""
_GOAL = Goal("at most", 40.0)


def run(bench: Bench) -> list[Result]:
    """See the module's text."""
    rounds, connections = (1, 500) if bench.is_quick else (2, 2000)
    results: list[Result] = []
    for use in ("empty", "used"):
        sizes: dict[Kind, list[float]] = {kind: [] for kind in KINDS}
        for number in range(rounds):
            for kind in KINDS:
                sizes[kind].append(_kib_per_connection(bench, kind, connections, use == "used"))
            ours, bare = (sizes[kind][-1] for kind in KINDS)
            bench.say(f"idle.{use} {number + 1}/{rounds}: {ours:.1f} to {bare:.1f} KiB")
        name, unit = f"idle.{use}", "KiB/connection"
        results += compared(name, unit, sizes["ours"], sizes["bare"], own_goal=_GOAL)
    return results


def _kib_per_connection(bench: Bench, kind: Kind, connections: int, is_used: bool) -> float:
    request = request_of([create_item(Order("burst", 1, 1))])
    with bench.start(kind) as server, Load(server.port) as load:
        before = 0
        for count in (_WARM, connections):
            before = server.resident()
            known = set(load.clients)
            load.open(count)
            if is_used:
                for client in load.clients:
                    if client not in known:
                        load.ask(client, request, ITEM_DONE)
                load.drive(timeout=60)
            server.settle()
        return (server.resident() - before) / connections / 1024
