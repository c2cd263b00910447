"""Silence: for how long clients in mid-answer hear nothing new when their node is killed, frozen or drained.

All answers, 20 words a second each, run on one of three nodes. Its clients go to the others at once: where
it is killed or drained as soon as their connection ends; a frozen node's connections stay as they are, so
there they leave by themselves at that moment, as if a balancer's checks had found out. A silence is the
longest time between two words that a client hears one after the other, from the fault to the answer's
end; by that it is at least the pace's 50 ms. A node that is killed takes its answers along: nodes attempt
a turn twice here, and what ends the silence is the first word of the second attempt.
"""

from __future__ import annotations

import signal
import time
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from tests.bench.nodes import nodes_of, played
from tests.bench.report import Goal, Result, median_of, percentile
from tests.bench.roaming import Ask, Roamer, living, wait_for
from tests.bench.suites.base import Bench
from tests.bench.workload import Order, answer_text

__all__ = ["longest", "run"]

_STREAMS = 100
_RATE = 20
_PATIENCE = 60.0


@dataclass(frozen=True, slots=True)
class _Fault:
    """What happens to the node."""

    name: str
    signal: int
    seconds: int
    """How long an answer takes: a drain's closes are spread over five seconds."""
    most: float
    """Seconds that 99 of 100 silences may take."""


_FAULTS = (
    _Fault("kill", signal.SIGKILL, 4, 2.0),
    _Fault("freeze", signal.SIGSTOP, 4, 8.0),
    _Fault("drain", signal.SIGTERM, 9, 1.0),
)


def run(bench: Bench) -> list[Result]:
    """See the module's text."""
    rounds, streams = (1, 30) if bench.is_quick else (3, _STREAMS)
    results: list[Result] = []
    for fault in _FAULTS:
        found = [played(_measured(bench, fault, streams)) for _ in range(rounds)]
        for name, share in (("p50", 0.5), ("p99", 0.99)):
            samples = [percentile(silences, share) for silences in found]
            goal = Goal("at most", fault.most) if name == "p99" else None
            results.append(median_of(f"silence.{fault.name}.{name}", "s", samples, goal))
    return results


async def _measured(bench: Bench, fault: _Fault, streams: int) -> list[float]:
    """Return the silences of one such fault, sorted."""
    order = Order("spread", _RATE, _RATE * fault.seconds)
    asked = Ask(order.text, answer_text(order.count).decode(), attempts=2)
    async with nodes_of(bench.launcher, 3, {"UNBROKEN_TURN_ATTEMPTS": "2"}) as nodes:
        owner, *others = nodes.servers
        roamers = [Roamer(number, [owner.port]) for number in range(streams)]
        async with living(roamers):
            await wait_for((each.welcome for each in roamers), "connected", _PATIENCE)
            for roamer in roamers:
                roamer.ask(asked)
            await wait_for((each.begun for each in roamers), "being answered", _PATIENCE)
            for number, roamer in enumerate(roamers):
                there = [other.port for other in others]
                roamer.ports = there if number % 2 else there[::-1]
            at = time.monotonic()
            owner.signal(fault.signal)
            if fault.signal == signal.SIGSTOP:
                for roamer in roamers:
                    roamer.drop()
            await wait_for((each.answered for each in roamers), "answered", _PATIENCE)
    ends = [tuple(attempt.status for attempt in roamer.attempts.values()) for roamer in roamers]
    silences = sorted(longest(roamer.arrivals, at) for roamer in roamers)
    said = ", ".join(f"{ends.count(each)} {' then '.join(each)}" for each in sorted(set(ends)))
    bench.say(
        f"silence: {fault.name}: p50 {percentile(silences, 0.5):.2f} s, most {silences[-1]:.2f} s; {said}"
    )
    return silences


def longest(arrivals: Sequence[float], since: float) -> float:
    """Return the longest time between two of *arrivals* that follow one another, from *since* on."""
    moments = [since, *(at for at in arrivals if at > since)]
    return max((later - earlier for earlier, later in pairwise(moments)), default=0.0)
