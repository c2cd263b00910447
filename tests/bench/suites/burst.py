"""Burst: 200 connections, each asked for 200 words at once; words per CPU second of the whole server.

Three ways in which an agent may deliver, the same on both sides:

- ``each``: the loop runs after every word, so each one arrives by itself;
- ``chunk``: 20 words at a time, as an upstream's read brings several. Still one frame per word;
- ``all``: the whole answer at once. Here our server merges what has piled up into fewer frames.
"""

from __future__ import annotations

from contextlib import ExitStack

from tests.bench.bursts import answers
from tests.bench.load import Load
from tests.bench.report import Goal, Result, compared, median_of
from tests.bench.server import Kind, Server
from tests.bench.suites.base import KINDS, Bench
from tests.bench.workload import Order

__all__ = ["run"]

WORDS = 200
_QUICK_WORDS = 60
_CONNECTIONS = 200
_ANSWERS: dict[Kind, int] = {"ours": 1, "bare": 4}
"""Of each connection in a round: about as long for one as for the other."""
_PATTERNS = {
    "each": (1, Goal("at least", 1.0)),
    "chunk": (20, Goal("at least", 1.0)),
    "all": (0, Goal("at least", 3.0)),
}


def run(bench: Bench) -> list[Result]:
    """See the module's text."""
    rounds, words = (2, _QUICK_WORDS) if bench.is_quick else (5, WORDS)
    results: list[Result] = []
    rates: dict[str, dict[Kind, list[float]]] = {}
    with ExitStack() as stack:
        servers: dict[Kind, Server] = {kind: stack.enter_context(bench.start(kind)) for kind in KINDS}
        for pattern, (per_turn, goal) in _PATTERNS.items():
            order = Order("burst", per_turn, words)
            rates[pattern] = {kind: [] for kind in KINDS}
            merged: list[float] = []
            with ExitStack() as connections:
                loads = {
                    kind: connections.enter_context(Load(server.port)) for kind, server in servers.items()
                }
                for kind, load in loads.items():
                    load.companions = [other for other in loads.values() if other is not load]
                    load.open(_CONNECTIONS)
                    answers(load, order, 1)  # the first one warms up
                    servers[kind].settle()
                for number in range(rounds):
                    for kind, load in loads.items():
                        with bench.measured(servers[kind]) as watch:
                            frames = answers(load, order, _ANSWERS[kind])
                        count = words * _CONNECTIONS * _ANSWERS[kind]
                        rates[pattern][kind].append(count / watch.cpu)
                        if kind == "ours":
                            merged.append(count / frames)
                    ours, bare = (rates[pattern][kind][-1] for kind in KINDS)
                    bench.say(f"burst.{pattern} {number + 1}/{rounds}: {ours:,.0f} to {bare:,.0f}")
            for server in servers.values():
                server.settle()
            results += compared(
                f"burst.{pattern}", "tokens/CPU-s", rates[pattern]["ours"], rates[pattern]["bare"], goal
            )
            results.append(median_of(f"burst.{pattern}.ours.merged", "tokens/frame", merged))
    # The strictest comparison: the peer never lets its loop run, and ours does after each word.
    strict = [a / b for a, b in zip(rates["each"]["ours"], rates["all"]["bare"], strict=True)]
    results.append(median_of("burst.each_to_all.ratio", "x bare", strict))
    return results
