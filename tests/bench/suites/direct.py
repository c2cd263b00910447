"""Direct: how much later words come by way of us than straight from the upstream, at 1, 16 and 64 streams.

Both sides are asked the same over Chat Completions, a question after the other in so many streams at once,
each in a connection of its own; the upstream stamps its words, 20 a second. Streams begin one after the
other, within the time that an answer takes: people don't ask in step. An answer has 60 words, which is three
seconds; where there is but one stream it has three. ``64-short``: with 20 words, so that 64 streams bring 64
questions a second, without a goal: it says what questions cost, and where the core is full.
``first``: from the question to its first word. ``word``: from the upstream's write to the client's read, of
those behind it. ``direct.upstream``: the same straight from there, which shows how restless the machine is;
``calm``: without what fell into its slow spells, see :mod:`tests.bench.pulse`. Goals are for these.
All others: by how much a percentile is longer by way of us, with all defaults, in the same round; beside a
LiteLLM proxy, where there is one (``--litellm FILE``, or ``litellm`` on the path).
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from itertools import count
from typing import Final

from tests.bench.answers import PassedOn
from tests.bench.http_load import HttpLoad
from tests.bench.load import LoadError
from tests.bench.pulse import FIGURES, Waits
from tests.bench.report import Goal, Result, median_of
from tests.bench.suites.base import Bench
from tests.bench.suites.doors import CHAT
from tests.bench.suites.litellm import KEY, litellm_settings, our_settings
from tests.bench.workload import Order

__all__ = ["run"]

_RATE: Final = 20


@dataclass(frozen=True, slots=True)
class _Case:
    streams: int
    words: int
    """Of an answer."""
    each: int
    """Questions of one stream; a third, where it has to be quick."""
    goal: float | None
    """Microseconds that the 99th percentile may be later."""


_CASES: Final = {
    "1": _Case(1, 3, 200, 3_000.0),
    "16": _Case(16, 60, 12, 3_000.0),
    "64": _Case(64, 60, 6, 10_000.0),
    "64-short": _Case(64, 20, 12, None),
}
_TIMEOUT: Final = 60.0


def run(bench: Bench) -> list[Result]:
    """See the module's text."""
    rounds, part = (1, 3) if bench.is_quick else (3, 1)
    numbers = count()
    seen: dict[tuple[str, str], list[dict[str, Waits]]] = {}
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
            _ask(bench, port, _Case(16, 20, 3, None), 3, numbers)
        for number in range(rounds):
            for name, case in _CASES.items():
                for side, port in ports.items():
                    try:
                        found = _ask(bench, port, case, case.each // part, numbers)
                    except LoadError as error:
                        if side != "litellm":
                            raise
                        bench.notes.append(f"LiteLLM with {name} streams: {error}")
                        continue
                    seen.setdefault((side, name), []).append(found)
            bench.say(f"direct {number + 1}/{rounds}")
    straight = [
        median_of(f"direct.upstream.{name}.{what}.{kind}", "us", [figure(one[what]) for one in found])
        for name in _CASES
        for found in [seen["direct", name]]
        for what in ("first", "word")
        for kind, figure in FIGURES.items()
    ]
    return straight + [
        result
        for side in list(ports)[1:]
        for name, case in _CASES.items()
        if len(seen.get((side, name), ())) == rounds
        for result in _added(
            f"direct.{side}.{name}",
            case.goal if side == "ours" else None,
            seen[side, name],
            seen["direct", name],
        )
    ]


def _added(
    prefix: str,
    bound: float | None,
    there: list[dict[str, Waits]],
    direct: list[dict[str, Waits]],
) -> list[Result]:
    results = []
    for what in ("first", "word"):
        for kind, figure in FIGURES.items():
            goal = None if bound is None or kind != "calm.p99" else Goal("at most", bound)
            added = [
                figure(one[what]) - figure(other[what]) for one, other in zip(there, direct, strict=True)
            ]
            results.append(median_of(f"{prefix}.{what}.{kind}", "us added", added, goal))
    return results


def _ask(bench: Bench, port: int, case: _Case, each: int, numbers: count[int]) -> dict[str, Waits]:
    """Return how long first words took, and the others' ways."""
    order = Order("paced", _RATE, case.words)
    lasts = order.count / _RATE
    answers: list[tuple[int, PassedOn]] = []
    begun = time.monotonic()
    with bench.pulse() as taking, HttpLoad(port, CHAT) as load:
        while len(answers) < case.streams * each or load.left:
            began = (time.monotonic() - begun) / lasts * case.streams + 1
            while len(answers) < case.streams * each and load.left < min(case.streams, int(began)):
                answer = PassedOn(order.count)
                said = f"This is question {next(numbers)}.\n{order.text}"
                body = {"model": "bench", "messages": [{"role": "user", "content": said}], "stream": True}
                answers.append((time.monotonic_ns(), answer))
                load.ask(json.dumps(body).encode(), KEY, answer)
            load.turn(0.01)
            if time.monotonic() - begun > _TIMEOUT + (each + 1) * lasts:
                raise LoadError(f"{load.left} streams were not answered in time")
    sift = taking.pulse.sifted
    return {
        "first": sift((at, answer.read[0]) for at, answer in answers),
        "word": sift(
            (at, at + age)
            for _, answer in answers
            for at, age in zip(answer.yielded[1:], answer.ages[1:], strict=True)
        ),
    }


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
