"""Storm: five thousand clients come back at once, to other nodes than before.

They are spread over three nodes; one of ten is in the middle of an answer, of a word a second. First all
sockets are cut, and each client goes to the next node; then a node is killed, and its clients go to the other
two. Every answer is checked, those that went on through the storms and, at the end, another one of each
client. Measured until the last client is shown its session, and, in mid-answer, something new: what Redis
is asked for a client that comes back, what is read from it, and the nodes' CPU time; all else that they do
meanwhile included, which is above all the words of five hundred answers, read where their clients now are.
"""

from __future__ import annotations

import signal
import time
from collections import Counter
from collections.abc import Callable, Sequence

from tests.bench.machine import raise_file_limit
from tests.bench.nodes import Nodes, nodes_of, played
from tests.bench.report import Goal, Result, median_of
from tests.bench.roaming import Ask, Roamer, living, wait_for
from tests.bench.suites.base import Bench
from tests.bench.suites.resume import converse
from tests.bench.workload import Order, answer_text

__all__ = ["run"]

_CLIENTS = 5_000
_ONE_OF = 10
"""So many of which one is in mid-answer."""
_SECONDS = 30
_FILES = 16_384
_PATIENCE = 240.0
_BOUNDS = {"commands": Goal("at most", 20), "read": Goal("at most", 16_384)}
_UNITS = {
    "clients": "came back",
    "seconds": "s until all",
    "refused": "connections",
    "cpu": "ms per client",
    "commands": "per client",
    "read": "bytes per client",
}


def run(bench: Bench) -> list[Result]:
    """See the module's text."""
    raise_file_limit(_FILES)
    clients = 500 if bench.is_quick else _CLIENTS
    found = played(_measured(bench, clients))
    return [
        median_of(f"storm.{storm}.{name}", unit, [figures[name]], _BOUNDS.get(name))
        for storm, figures in found.items()
        for name, unit in _UNITS.items()
    ]


async def _measured(bench: Bench, clients: int) -> dict[str, dict[str, float]]:
    """Return the figures of both storms."""
    async with nodes_of(bench.launcher, 3, {"UNBROKEN_TURN_ATTEMPTS": "2"}) as nodes:
        ports = nodes.ports
        roamers = [Roamer(number, [ports[number % 3]]) for number in range(clients)]
        async with living(roamers):
            await converse(roamers, 1)
            answering = roamers[::_ONE_OF]
            await _ask(answering)
            for number, roamer in enumerate(roamers):
                roamer.ports = [ports[(number + 1) % 3]]
            cut = await _storm(bench, "cut", nodes, roamers, lambda: _drop(roamers))
            await wait_for((each.answered for each in answering), "answered", _PATIENCE)

            await _ask(answering)
            there = [each for each in roamers if each.ports == [ports[0]]]
            for number, roamer in enumerate(there):
                roamer.ports = [ports[1 + number % 2]]
            owner, *others = nodes.servers
            left = Nodes(nodes.valkey, others)
            killed = await _storm(bench, "kill", left, there, lambda: owner.signal(signal.SIGKILL))
            await wait_for((each.answered for each in answering), "answered", _PATIENCE)
            await converse(roamers, 1)
    return {"cut": cut, "kill": killed}


async def _ask(roamers: Sequence[Roamer]) -> None:
    order = Order("spread", 1, _SECONDS)
    for roamer in roamers:
        roamer.ask(Ask(order.text, answer_text(order.count).decode(), attempts=2))
    await wait_for((each.begun for each in roamers), "being answered", _PATIENCE)


def _drop(roamers: Sequence[Roamer]) -> None:
    for roamer in roamers:
        roamer.drop()


async def _storm(
    bench: Bench, name: str, nodes: Nodes, roamers: Sequence[Roamer], begin: Callable[[], object]
) -> dict[str, float]:
    """Let it begin, and return what it came to when all were back."""
    answering = [each for each in roamers if not each.answered.is_set()]
    refused = sum(len(each.refusals) for each in roamers)
    before, cpu, at = await nodes.traffic(), nodes.cpu(), time.monotonic()
    begin()
    for roamer in roamers:
        roamer.welcome.clear()
        roamer.caught_up.clear()
    await wait_for((each.welcome for each in roamers), "back", _PATIENCE)
    await wait_for((each.caught_up for each in answering), "shown anything new", _PATIENCE)
    seconds, traffic = time.monotonic() - at, (await nodes.traffic()).since(before)
    cpu = nodes.cpu() - cpu
    reasons = Counter(why for each in roamers for why in each.refusals)
    figures = {
        "clients": len(roamers),
        "seconds": seconds,
        "refused": sum(len(each.refusals) for each in roamers) - refused,
        "cpu": 1000 * cpu / len(roamers),
        "commands": traffic.commands / len(roamers),
        "read": traffic.read / len(roamers),
    }
    shown = ", ".join(f"{key} {value:,.4g}" for key, value in figures.items())
    bench.say(f"storm: {name}: {shown}; refused so far: {dict(reasons)}")
    return figures
