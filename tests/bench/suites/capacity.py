"""Capacity: how many paced answers, 20 words a second each, one core carries.

It carries them if 99 of 100 words are read within 5 ms of the moment at which
the agent wanted to yield them, and the full pace is kept. An agent that gets
to run late counts: to a reader it is all the same. The number grows by steps
until that fails twice in a row.
"""

from __future__ import annotations

from tests.bench.load import Load
from tests.bench.pacing import pace
from tests.bench.report import Goal, Result, compared
from tests.bench.server import Kind, Server
from tests.bench.suites.base import KINDS, Bench

__all__ = ["run"]

_RATE = 20
_LATEST = 5_000.0
"""Microseconds."""
_PACE = 99.0
"""Per cent of the full one."""
_FIRST = 400
_MOST = 3_500
"""More than any server in Python carries, and less than the load's open files."""
_BUSY = 0.95
"""Share of its core above which the load itself may be what is late."""
_GOAL = Goal("at least", 0.5)


def run(bench: Bench) -> list[Result]:
    """See the module's text."""
    rounds, seconds, step = (1, 2, 1.5) if bench.is_quick else (2, 5, 1.15)
    carried: dict[Kind, list[float]] = {kind: [] for kind in KINDS}
    for number in range(rounds):
        for kind in KINDS:
            carried[kind].append(_carried(bench, kind, seconds, step))
        ours, bare = (carried[kind][-1] for kind in KINDS)
        bench.say(f"capacity {number + 1}/{rounds}: {ours:,.0f} to {bare:,.0f} streams")
    return compared("capacity", "streams", carried["ours"], carried["bare"], _GOAL)


def _carried(bench: Bench, kind: Kind, seconds: int, step: float) -> int:
    carried, wanted = 0, _FIRST
    with bench.start(kind) as server, Load(server.port) as load:
        while wanted <= _MOST:
            load.open(wanted - len(load.clients))
            if not any(_is_carried(bench, server, load, seconds) for _ in range(2)):
                break
            carried, wanted = wanted, int(wanted * step)
    if not carried:
        raise RuntimeError(f"{kind} doesn't carry even {_FIRST} streams: is the machine busy?")
    return carried


def _is_carried(bench: Bench, server: Server, load: Load, seconds: int) -> bool:
    server.settle()
    streams = len(load.clients)
    figures = pace(bench, server, load, rate=_RATE, seconds=seconds, spread=streams / 400)
    late = figures["p99"] + figures["agent_late_p99"]
    is_carried = late < _LATEST and figures["pace"] >= _PACE
    if not is_carried and bench.load_shares[-1] > _BUSY:
        bench.notes.append(f"capacity of {server.kind} is bounded by the load, which was busy")
    words = f"{'carries' if is_carried else 'fails'} {streams:,} streams"
    bench.say(f"capacity: {server.kind} {words}: {late:,.0f} us, pace {figures['pace']:.1f}%")
    return is_carried
