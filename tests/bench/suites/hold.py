"""Hold: ten thousand connections that do nothing, and among them a thousand that read an answer.

Every answer is checked word by word. At the end each idle connection must still
take an item: one that was dropped or forgotten meanwhile fails the suite.
"""

from __future__ import annotations

from tests.bench.load import Load
from tests.bench.machine import raise_file_limit
from tests.bench.pacing import pace
from tests.bench.report import Result, median_of
from tests.bench.suites.base import Bench
from tests.bench.wire import ITEM_DONE, create_item, request_of
from tests.bench.workload import Order

__all__ = ["run"]

_IDLE, _STREAMS = 10_000, 1_000
_RATE = 8
"""Words a second: so many streams of 20 are more than one core carries beside other work."""
_FILES = 16_384
_SETTINGS = {"UNBROKEN_MAX_SESSIONS": "20000"}
_UNITS = {"cpu": "% of a core", "p50": "us", "p99": "us", "agent_late_p99": "us", "pace": "% of full pace"}


def run(bench: Bench) -> list[Result]:
    """See the module's text."""
    idle, streams, seconds = (1_000, 100, 3) if bench.is_quick else (_IDLE, _STREAMS, 30)
    raise_file_limit(_FILES)
    request = request_of([create_item(Order("burst", 1, 1))])
    with bench.start("ours", _SETTINGS) as server, Load(server.port) as still, Load(server.port) as load:
        before = server.resident()
        still.open(idle, timeout=300)
        load.open(streams)
        still.answer_pings()
        load.companions.append(still)
        figures = pace(bench, server, load, rate=_RATE, seconds=seconds, spread=3.0)
        for client in still.clients:
            still.ask(client, request, ITEM_DONE)
        still.drive(timeout=120)
        resident = server.resident() - before
    bench.say(f"hold: {idle:,} idle, {streams:,} streams, p99 {figures['p99']:,.0f} us")
    return [
        median_of("hold.idle", "connections", [idle]),
        median_of("hold.streams", "whole answers", [streams]),
        median_of("hold.memory", "MiB", [resident / (1 << 20)]),
        *(median_of(f"hold.{name}", unit, [figures[name]]) for name, unit in _UNITS.items()),
    ]
