"""Resume: how long it takes a client in mid-answer to be shown what it has missed, on another node.

Answers run on one of two nodes, 20 words a second each, in sessions of ten messages. One client after
another is cut off and comes back a moment later: every other one to the node that doesn't know its session
yet, the rest to the same node. Measured from the beginning of the connection, handshake and all, to the
first event that was missed. A node reads the session before it answers the handshake: ``shown``, from the
handshake's end on, is what is left to do then.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from tests.bench.nodes import nodes_of, played
from tests.bench.report import Goal, Result, compared, median_of, percentile
from tests.bench.roaming import Ask, Resumed, Roamer, living, wait_for
from tests.bench.suites.base import Bench
from tests.bench.workload import Order, answer_text

__all__ = ["converse", "run"]

_STREAMS = 200
_RATE = 20
_TURNS = 5
_WORDS = 40
_AT_ONCE = 200
_AWAY = 0.2
"""Seconds for which a client is away: some words are missed."""
_STEP = 0.015
"""Seconds between two that leave."""
_PATIENCE = 60.0
_CONNECTING = 0.05
"""Seconds that a client may take more, on a machine that others use too."""


def run(bench: Bench) -> list[Result]:
    """See the module's text."""
    rounds, streams = (1, 60) if bench.is_quick else (3, _STREAMS)
    pairs = [played(_measured(bench, streams)) for _ in range(rounds)]
    results: list[Result] = []
    for name, share, most in (("p50", 0.5, 20.0), ("p99", 0.99, 200.0)):
        other, same = ([_quantile([each.whole for each in pair[i]], share) for pair in pairs] for i in (0, 1))
        goal = Goal("at most", most)
        results += compared(f"resume.{name}", "ms", other, same, own_goal=goal, peer="same_node")
        shown = [_quantile([each.shown for each in pair[0]], share) for pair in pairs]
        results.append(median_of(f"resume.{name}.shown", "ms", shown))
    return results


def _quantile(seconds: Sequence[float], share: float) -> float:
    """Return it in milliseconds."""
    return 1000 * percentile(sorted(seconds), share)


async def _measured(bench: Bench, streams: int) -> tuple[list[Resumed], list[Resumed]]:
    """Return how long it took on the other node, and on the same."""
    async with nodes_of(bench.launcher, 2) as nodes:
        here, there = nodes.ports
        roamers = [Roamer(number, [here]) for number in range(streams)]
        async with living(roamers):
            await converse(roamers, _TURNS)
            seconds = int(streams * _STEP + _AWAY) + 4
            await _answering(roamers, seconds)
            returning: list[asyncio.Task[None]] = []
            for number, roamer in enumerate(roamers):
                roamer.ports = [(there, here)[number % 2]]
                returning.append(asyncio.create_task(_away(roamer)))
                await asyncio.sleep(_STEP)
            await asyncio.gather(*returning)
            await wait_for((each.caught_up for each in roamers), "back", _PATIENCE)
            await wait_for((each.answered for each in roamers), "answered", seconds + _PATIENCE)
    refused = [why for roamer in roamers for why in roamer.refusals]
    found = [each for roamer in roamers[::2] for each in roamer.resumed]
    same = [each for roamer in roamers[1::2] for each in roamer.resumed]
    other, own = (_quantile([each.whole for each in side], 0.5) for side in (found, same))
    bench.say(f"resume: p50 {other:.1f} ms on another node, {own:.1f} on the same; refusals {refused}")
    return found, same


async def _away(roamer: Roamer) -> None:
    roamer.leave()
    await asyncio.sleep(_AWAY)
    roamer.come_back()


async def converse(roamers: Sequence[Roamer], turns: int) -> None:
    """Wait until all are connected, and let each have so many short answers: some clients at a time."""
    await wait_for((each.welcome for each in roamers), "connected", _PATIENCE + len(roamers) * _CONNECTING)
    asked = Ask(Order("burst", 0, _WORDS).text, answer_text(_WORDS).decode())
    for first in [*range(0, len(roamers), _AT_ONCE)] * turns:
        some = roamers[first : first + _AT_ONCE]
        for roamer in some:
            roamer.ask(asked)
        await wait_for((each.answered for each in some), "answered", _PATIENCE)


async def _answering(roamers: Sequence[Roamer], seconds: int) -> None:
    """Have all of them answered, for so many *seconds*, and wait until each has got something."""
    order = Order("spread", _RATE, _RATE * seconds)
    asked = Ask(order.text, answer_text(order.count).decode())
    for roamer in roamers:
        roamer.ask(asked)
    await wait_for((each.begun for each in roamers), "being answered", _PATIENCE)
