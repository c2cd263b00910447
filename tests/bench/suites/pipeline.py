"""Pipeline: what all policies together add, beside the same server without any. Both are over one Valkey.

With everything on the firewall acts, and each message waits for it; in ``shadow`` it only looks.

``first``: from the question to the first word of its answer, in a conversation of its own each, one after
the other; no answer is in the cache. ``added`` is by how much a percentile of that is longer, in the same
round. ``token``: the CPU time that a word more costs, whole process: that of long answers without that of
short ones, so that what is done once for each message isn't in it.

``paced``: answers at once, 20 words a second each and 200 words long, and each followed by the next
question, with everything on: from the agent's yield to the client's read, and how late the agent gets to
run, which is how long the loop is busy otherwise. ``streams`` is how many of them are carried within the
bounds on both: 400 are tried first, then fewer; the other figures are of as many as that. The goals are a
single node's, which has one core and no more; over Valkey, ``shared``, each word goes through another
process, and is seen by nobody before it is written there.

Goals are for ``calm`` figures: without the questions and words during which the core itself was slow, see
:mod:`tests.bench.pulse`. ``slowness`` is how much more CPU time the server needed for that.
"""

from __future__ import annotations

import json
import os
import tempfile
import time
from collections.abc import Mapping
from contextlib import ExitStack
from functools import partial
from itertools import count
from pathlib import Path
from typing import Final

from tests.bench.answers import BurstAnswer, FirstWord
from tests.bench.load import Load, LoadError
from tests.bench.nodes import redis_settings
from tests.bench.pacing import steady
from tests.bench.pulse import FIGURES, Waits
from tests.bench.questions import asked
from tests.bench.report import Goal, Result, compared, median_of
from tests.bench.server import Server
from tests.bench.suites.base import Bench
from tests.bench.wire import RESPONSE_DONE, create_message, create_response, request_of
from tests.bench.workload import Order, answer_text
from tests.fakes.valkey import Server as Valkey

__all__ = ["EVERYTHING", "run"]

_STREAMS: Final = (400, 300, 200, 100, 50)
_P99: Final = 10_000.0
_LATE: Final = 20_000.0
_RATE: Final = 20
_LONG: Final = 1000
_SECONDS: Final = 10
"""How long a paced answer lasts: what is asked for each second depends on it, so quick runs have the same."""
_TIMEOUT: Final = 120.0

EVERYTHING: Final[Mapping[str, str]] = {
    "UNBROKEN_FIREWALL": "on",
    "UNBROKEN_LEAKS": "on",
    "UNBROKEN_CACHE": "on",
    "UNBROKEN_CACHE_SEMANTIC": "on",
    # Everything is counted, and nobody comes to the end of it.
    "UNBROKEN_QUOTAS": json.dumps(
        {
            "default": {
                f"{whose}{what}": 10**12
                for whose in ("", "tenant_")
                for what in ("requests_per_minute", "tokens_per_minute", "tokens_per_day", "turns")
            }
        }
    ),
}
_NOTHING: Final[Mapping[str, str]] = {"UNBROKEN_LEAKS": "off", "UNBROKEN_FIREWALL": "off"}


def run(bench: Bench) -> list[Result]:
    """See the module's text."""
    rounds, questions, answers = (1, 80, 10) if bench.is_quick else (3, 300, 40)
    numbers = count()
    first: list[list[Waits]] = []
    tokens: list[float] = []
    paced: dict[str, list[dict[str, float]]] = {"paced": [], "shared": []}
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        os.sched_setaffinity(0, {bench.launcher.cores.load})
        valkey = stack.enter_context(Valkey(folder / "valkey").running())
        shared = redis_settings(valkey)
        full = stack.enter_context(bench.launcher.start("ours", {**shared, **EVERYTHING}, name="full"))
        plain = stack.enter_context(bench.launcher.start("ours", {**shared, **_NOTHING}, name="plain"))
        quiet = {**shared, **EVERYTHING, "UNBROKEN_FIREWALL": "shadow"}
        shadow = stack.enter_context(bench.launcher.start("ours", quiet, name="shadow"))
        alone = stack.enter_context(bench.launcher.start("ours", EVERYTHING, name="alone"))
        servers = (full, shadow, plain)
        for server in servers:
            _first_words(bench, server, 40, numbers)  # warms up
        for number in range(rounds):
            first.append([_first_words(bench, server, questions, numbers) for server in servers])
            costs = [_word_cost(server, answers, numbers) for server in (full, plain)]
            tokens.append(costs[0] - costs[1])
            for name, server in (("paced", alone), ("shared", full)):
                paced[name].append(_carried(bench, server, numbers))
            shown = " to ".join(f"{side.calm_percentile(0.99):.0f}" for side in first[-1])
            bench.say(
                f"pipeline {number + 1}/{rounds}: calm first p99 {shown} us, {tokens[-1]:.1f} us a word, "
                f"{paced['paced'][-1]['streams']:.0f} carried, shared {paced['shared'][-1]['streams']:.0f}"
            )
    return _results(first, tokens, paced)


def _results(
    first: list[list[Waits]], tokens: list[float], paced: Mapping[str, list[dict[str, float]]]
) -> list[Result]:
    results: list[Result] = []
    for name, figure in FIGURES.items():
        full, shadow, plain = ([figure(waits[side]) for waits in first] for side in range(3))
        results += compared(f"pipeline.first.{name}", "us", full, plain, peer="plain")
        goal = Goal("at most", 15_000) if name == "calm.p99" else None
        for kind, ours, aim in (("first", full, goal), ("shadow", shadow, None)):
            added = [there - here for there, here in zip(ours, plain, strict=True)]
            results.append(median_of(f"pipeline.{kind}.added.{name}", "us", added, aim))
    results.append(median_of("pipeline.token.added", "us CPU", tokens, Goal("at most", 20)))
    goals = {
        "streams": Goal("at least", _STREAMS[0]),
        "calm_p99": Goal("at most", _P99),
        "calm_late_p99": Goal("at most", _LATE),
    }
    units = {
        "streams": "answers",
        "p50": "us",
        "p99": "us",
        "agent_late_p99": "us",
        "calm_p99": "us",
        "calm_late_p99": "us",
        "cpu": "% of a core",
        "slowness": "x its best",
        "pace": "% of full pace",
    }
    for kind, rounds in paced.items():
        results += [
            median_of(
                f"pipeline.{kind}.{name}",
                unit,
                [figures[name] for figures in rounds],
                goals.get(name) if kind == "paced" else None,
            )
            for name, unit in units.items()
        ]
    return results


def _carried(bench: Bench, server: Server, numbers: count[int]) -> dict[str, float]:
    """Return the figures of as many answers as the server carries; else of the fewest, as none.

    Raises:
        LoadError: It fails with the fewest, too.

    """
    figures: dict[str, float] = {}
    for streams in _STREAMS:
        try:
            figures = _steady(bench, server, streams, numbers)
        except LoadError as exc:  # it refuses what it can't do
            bench.say(f"pipeline: {streams} aren't carried: {str(exc)[:200]}")
            if streams == _STREAMS[-1] and not figures:
                raise
            continue
        if figures["calm_p99"] <= _P99 and figures["calm_late_p99"] <= _LATE:
            return figures | {"streams": streams}
    return figures | {"streams": 0}


def _steady(bench: Bench, server: Server, streams: int, numbers: count[int]) -> dict[str, float]:
    with Load(server.port) as load:
        load.open(streams)
        server.settle()
        return steady(bench, server, load, rate=_RATE, seconds=_SECONDS, request=partial(_request, numbers))


def _first_words(bench: Bench, server: Server, questions: int, numbers: count[int]) -> Waits:
    """Return how long each answer's first word took."""
    order = Order("paced", _RATE, 1)
    spans: list[tuple[int, int]] = []
    with Load(server.port) as load:
        load.open(questions)
        server.settle()
        with bench.pulse() as taking:
            for client in load.clients:
                answer = FirstWord()
                begun = time.monotonic_ns()
                load.ask(client, _request(numbers, order), RESPONSE_DONE, answer)
                load.drive(timeout=_TIMEOUT)
                assert answer.at is not None, "it is checked at the end"
                spans.append((begun, answer.at))
    return taking.pulse.sifted(spans)


def _word_cost(server: Server, answers: int, numbers: count[int]) -> float:
    """Return the microseconds of CPU time that a word more costs."""
    used = {words: _cpu_of(server, answers, Order("burst", 1, words), numbers) for words in (1, _LONG)}
    return (used[_LONG] - used[1]) / answers / (_LONG - 1) * 1e6


def _cpu_of(server: Server, answers: int, order: Order, numbers: count[int]) -> float:
    """Return the CPU seconds that so many answers take, all at once."""
    expected = answer_text(order.count)
    with Load(server.port) as load:
        load.open(answers)
        server.settle()
        before = server.cpu()
        for client in load.clients:
            load.ask(client, _request(numbers, order), RESPONSE_DONE, BurstAnswer(expected))
        load.drive(timeout=_TIMEOUT, tick=True)
        server.settle()  # what is done after the last word counts, too
        return server.cpu() - before


def _request(numbers: count[int], order: Order) -> bytes:
    return request_of([create_message(asked(next(numbers), order)), create_response()])
