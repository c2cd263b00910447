"""Paced: 500 answers at once, 20 words a second each, as people read them.

Measured while all of them run: the server's CPU time per word, given as its
share of a core at the full pace (a starved server delivers less, and must not
look frugal for it); and the time of each word from the agent's yield to the
client's read, which waits eagerly. The clients begin one after the other
within a second, so that no server is helped or hurt by timers falling together.

Latencies mean little when something else wants the same cores. So a pair of
rounds during which others used more of them than a little is measured again,
some times. If none stays undisturbed, all are reported, and the latency's
target is not judged.
"""

from __future__ import annotations

import time
from contextlib import ExitStack

from tests.bench.load import Load
from tests.bench.pacing import pace
from tests.bench.report import Goal, Result, compared, median_of
from tests.bench.server import Kind, Server
from tests.bench.suites.base import KINDS, Bench

__all__ = ["run"]

_STREAMS = 500
_RATE = 20
_DISTURBED = 10.0
"""Per cent of a core that others may use in a round, of the server's and the load's together."""
_PATIENCE = 35.0
"""Seconds for each wanted pair, after which no other is tried."""
_UNITS = {
    "cpu": "% of a core",
    "p50": "us",
    "p99": "us",
    "p99.9": "us",
    "agent_late_p99": "us",
    "pace": "% of full pace",
    "others": "% of a core",
}
_ABSOLUTE = ("agent_late_p99", "pace", "others")
"""Figures that say how the measurement went, and whose ratio says nothing."""
_GOALS = {"cpu": Goal("at most", 1.5), "p99": Goal("at most", 1.5)}


def run(bench: Bench) -> list[Result]:
    """See the module's text."""
    wanted, seconds = (1, 3) if bench.is_quick else (3, 10)
    pairs: list[dict[Kind, dict[str, float]]] = []
    calm: list[dict[Kind, dict[str, float]]] = []
    with ExitStack() as stack:
        servers: dict[Kind, Server] = {kind: stack.enter_context(bench.start(kind)) for kind in KINDS}
        give_up = time.monotonic() + (0 if bench.is_quick else _PATIENCE * wanted)
        while len(pairs) < wanted or (len(calm) < wanted and time.monotonic() < give_up):
            pair: dict[Kind, dict[str, float]] = {}
            for kind, server in servers.items():
                with Load(server.port) as load:
                    load.open(_STREAMS)
                    server.settle()
                    pair[kind] = pace(bench, server, load, rate=_RATE, seconds=seconds)
            pairs.append(pair)
            is_calm = max(side["others"] for side in pair.values()) <= _DISTURBED
            if is_calm:
                calm.append(pair)
            shown = (f"{name} {pair['ours'][name]:.3g} to {pair['bare'][name]:.3g}" for name in _UNITS)
            bench.say(f"paced {len(pairs)}{'' if is_calm else ' (disturbed)'}: {', '.join(shown)}")
    goals = dict(_GOALS)
    if not calm:
        del goals["p99"]
        bench.notes.append("no paced round was undisturbed: its latencies are not judged")
    results: list[Result] = []
    for name, unit in _UNITS.items():
        ours, bare = ([pair[kind][name] for pair in calm or pairs] for kind in KINDS)
        if name in _ABSOLUTE:
            results.append(median_of(f"paced.{name}.ours", unit, ours))
            results.append(median_of(f"paced.{name}.bare", unit, bare))
        else:
            results += compared(f"paced.{name}", unit, ours, bare, goals.get(name))
    return results
