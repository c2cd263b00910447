"""Doors: what a word costs by server-sent events, beside what it costs over a WebSocket, in the same run.

A hundred answers at once, 20 words a second each, from one server without policies: over Realtime's
WebSocket, as streams of Responses, whose pieces are padded, as by default, and of stateless Chat. Measured
over the whole of each round: the server's CPU time for a word, and how old words are when they are read.
"""

from __future__ import annotations

import json
import re
import time
from itertools import count
from typing import Final

from tests.bench.answers import PacedAnswer, PassedOn
from tests.bench.http_load import HttpLoad, Way
from tests.bench.load import Load, LoadError
from tests.bench.pacing import pace
from tests.bench.report import Goal, Result, compared, percentile
from tests.bench.server import Server
from tests.bench.suites.base import Bench
from tests.bench.workload import Order

__all__ = ["CHAT", "run"]

_STREAMS: Final = 100
_RATE: Final = 20

RESPONSES: Final = Way("/v1/responses", re.compile(rb'"delta":"([^"]*)"'), b'"response.completed"')

CHAT: Final = Way("/v1/chat/completions", re.compile(rb'"content":"([^"]*)"'), b"data: [DONE]")


def run(bench: Bench) -> list[Result]:
    """See the module's text."""
    rounds, seconds = (1, 3) if bench.is_quick else (3, 10)
    sides: dict[str, list[dict[str, float]]] = {"sse": [], "chat": [], "websocket": []}
    numbers = count()
    with bench.start("ours") as server:
        for number in range(rounds):
            sides["sse"].append(_by_events(bench, server, RESPONSES, seconds, numbers))
            sides["chat"].append(_by_events(bench, server, CHAT, seconds, numbers))
            with Load(server.port) as load:
                load.open(_STREAMS)
                server.settle()
                paced = pace(bench, server, load, rate=_RATE, seconds=seconds)
            sides["websocket"].append({"cpu": 1e6 / paced["tokens"], "p99": paced["p99"]})
            shown = (
                f"{kind} {side[-1]['cpu']:.0f} us, p99 {side[-1]['p99']:.0f}" for kind, side in sides.items()
            )
            bench.say(f"doors {number + 1}/{rounds}: {', '.join(shown)}")
    results: list[Result] = []
    for kind, prefix in (("sse", "doors"), ("chat", "doors.chat")):
        for name, unit, goal in (("cpu", "us a word", Goal("at most", 2.0)), ("p99", "us", None)):
            ours, peer = ([figures[name] for figures in sides[each]] for each in (kind, "websocket"))
            results += compared(f"{prefix}.{name}", unit, ours, peer, goal, peer="websocket")
    return results


def _by_events(bench: Bench, server: Server, way: Way, seconds: int, numbers: count[int]) -> dict[str, float]:
    order = Order("paced", _RATE, _RATE * seconds)
    asked: dict[str, object] = {"model": "default", "stream": True}
    if way is CHAT:
        asked["messages"] = [{"role": "user", "content": order.text}]
    else:
        asked |= {"input": order.text, "store": True}
    body = json.dumps(asked).encode()
    kind = PassedOn if way is CHAT else PacedAnswer
    answers: list[PacedAnswer] = []
    server.settle()
    begun = time.monotonic()
    with bench.measured(server) as watch, HttpLoad(server.port, way) as load:
        while len(answers) < _STREAMS or load.left:
            due = min(_STREAMS, int((time.monotonic() - begun) * _STREAMS) + 1)
            while len(answers) < due:
                answers.append(kind(order.count))
                load.ask(body, f"bench-key-{next(numbers)}", answers[-1])
            load.turn(0.005 if len(answers) < _STREAMS else 0.05)
            if time.monotonic() - begun > 3 * seconds + 30:
                raise LoadError(f"{load.left} streams were not answered in time")
    ages = sorted(age for answer in answers for age in answer.ages)
    return {"cpu": watch.cpu / _STREAMS / order.count * 1e6, "p99": percentile(ages, 0.99) / 1000}
