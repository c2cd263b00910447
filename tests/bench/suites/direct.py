"""Direct: how much later words come by way of us than straight from the upstream, at 1, 16 and 64 streams.

Both sides are asked the same over Chat Completions, a question after the other in so many streams at once,
each in a connection of its own; the upstream stamps its words, 20 a second. An answer lasts for a second,
so that 64 streams bring 64 questions a second; where there is but one stream it has three words.
``first``: from the question to its first word. ``word``: from the upstream's write to the client's read, of
those behind it. Figures are by how much a percentile is longer by way of us, with all defaults, in the same
round; beside a LiteLLM proxy, where there is one (``--litellm FILE``, or ``litellm`` on the path).
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from itertools import count
from typing import Final

from tests.bench.answers import PassedOn
from tests.bench.http_load import HttpLoad
from tests.bench.load import LoadError
from tests.bench.report import Goal, Result, median_of, percentile
from tests.bench.suites.base import Bench
from tests.bench.suites.doors import CHAT
from tests.bench.suites.litellm import KEY, litellm_settings, our_settings
from tests.bench.workload import Order

__all__ = ["run"]

_GOALS: Final = {1: 3_000.0, 16: 3_000.0, 64: 10_000.0}
"""Microseconds that the 99th percentile may be later, by how many streams there are at once."""
_WORDS: Final = {1: 3, 16: 20, 64: 20}
"""How many an answer has."""
_RATE: Final = 20
_TIMEOUT: Final = 60.0


def run(bench: Bench) -> list[Result]:
    """See the module's text."""
    rounds, fewest = (1, 60) if bench.is_quick else (3, 200)
    numbers = count()
    seen: dict[tuple[str, int], list[dict[str, list[float]]]] = {}
    with ExitStack() as stack:
        os.sched_setaffinity(0, {bench.launcher.cores.load})
        upstream = stack.enter_context(_upstream())
        address = f"http://127.0.0.1:{upstream}/v1"
        ports = {"direct": upstream}
        ports["ours"] = stack.enter_context(bench.launcher.start("ours", our_settings(address))).port
        if bench.litellm is not None:
            settings = litellm_settings(bench, address)
            ports["litellm"] = stack.enter_context(bench.launcher.start("litellm", settings)).port
        for port in ports.values():
            _ask(port, 16, 40, numbers)
        for number in range(rounds):
            for streams in _GOALS:
                for side, port in ports.items():
                    try:
                        found = _ask(port, streams, max(fewest, 10 * streams), numbers)
                    except LoadError as error:
                        if side != "litellm":
                            raise
                        bench.notes.append(f"LiteLLM with {streams} streams: {error}")
                        continue
                    seen.setdefault((side, streams), []).append(found)
            bench.say(f"direct {number + 1}/{rounds}")
    return [
        result
        for side in list(ports)[1:]
        for streams in _GOALS
        if len(seen.get((side, streams), ())) == rounds
        for result in _added(side, streams, seen[side, streams], seen["direct", streams])
    ]


def _added(
    side: str, streams: int, there: list[dict[str, list[float]]], direct: list[dict[str, list[float]]]
) -> list[Result]:
    results = []
    for what in ("first", "word"):
        for name, share in (("p50", 0.5), ("p99", 0.99)):
            goal = Goal("at most", _GOALS[streams]) if name == "p99" and side == "ours" else None
            added = [
                percentile(one[what], share) - percentile(other[what], share)
                for one, other in zip(there, direct, strict=True)
            ]
            results.append(median_of(f"direct.{side}.{streams}.{what}.{name}", "us added", added, goal))
    return results


def _ask(port: int, streams: int, questions: int, numbers: count[int]) -> dict[str, list[float]]:
    """Return the microseconds to first words, and of the others' ways, sorted."""
    order = Order("paced", _RATE, _WORDS[streams])
    answers: list[tuple[int, PassedOn]] = []
    begun = time.monotonic()
    with HttpLoad(port, CHAT) as load:
        while len(answers) < questions or load.left:
            while len(answers) < questions and load.left < streams:
                answer = PassedOn(order.count)
                said = f"This is question {next(numbers)}.\n{order.text}"
                body = {"model": "bench", "messages": [{"role": "user", "content": said}], "stream": True}
                answers.append((time.monotonic_ns(), answer))
                load.ask(json.dumps(body).encode(), KEY, answer)
            load.turn(0.01)
            if time.monotonic() - begun > _TIMEOUT + questions / streams * order.count / _RATE:
                raise LoadError(f"{load.left} streams were not answered in time")
    first = [(answer.read[0] - at) / 1000 for at, answer in answers]
    later = [age / 1000 for _, answer in answers for age in answer.ages[1:]]
    return {"first": sorted(first), "word": sorted(later)}


@contextmanager
def _upstream() -> Iterator[int]:
    """Run the upstream on this core, the load's, and give its port."""
    command = [sys.executable, "-m", "tests.bench.paced_upstream"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        yield int(process.stdout.readline())
    finally:
        process.terminate()
        process.communicate()
