"""Many answers at once, each at the pace of a reader: what they cost, and how old their words are."""

from __future__ import annotations

import time
from collections.abc import Callable

from tests.bench.answers import PacedAnswer
from tests.bench.load import Client, Load
from tests.bench.report import percentile
from tests.bench.server import Server
from tests.bench.suites.base import Bench, Watch
from tests.bench.wire import RESPONSE_DONE, answer_request
from tests.bench.workload import Order

__all__ = ["pace"]

_PERCENTILES = {"p50": 0.5, "p99": 0.99, "p99.9": 0.999}


def pace(
    bench: Bench,
    server: Server,
    load: Load,
    *,
    rate: int,
    seconds: int,
    spread: float = 1.0,
    request: Callable[[Order], bytes] = answer_request,
) -> dict[str, float]:
    """Let each client of *load* have an answer of *rate* words a second for so many *seconds*.

    *request* makes what is sent for each.

    They begin one after the other within *spread* seconds. Every answer is
    checked whole. Measured while all of them run: ``cpu`` in per cent of a core
    at the full pace, ``pace`` and ``others`` in per cent, the ages of words and
    ``agent_late_p99`` in microseconds. Of the whole: ``tokens``, the words for each
    CPU second, also where words come so late that little of them falls into that time.
    """
    order = Order("paced", rate, rate * seconds)
    clients = load.clients
    answers: list[PacedAnswer] = []
    begun = time.monotonic()
    watch: Watch | None = None
    first: list[int] = []  # how many words of each answer had come when all of them ran
    last: list[int] = []  # and when the first of them ended

    def start() -> float | None:
        nonlocal watch
        passed = time.monotonic() - begun
        due = min(len(clients), int(passed / spread * len(clients)) + 1)
        while len(answers) < due:
            answer = PacedAnswer(order.count)
            load.ask(clients[len(answers)], request(order), RESPONSE_DONE, answer)
            answers.append(answer)
        if len(answers) < len(clients):
            return 0.001
        if watch is None:
            watch = Watch(server)
            first.extend(len(answer.ages) for answer in answers)
        return None

    def end(_: Client) -> None:
        if watch is not None and not last:
            watch.stop()
            last.extend(len(answer.ages) for answer in answers)

    cpu = server.cpu()
    load.drive(timeout=3 * seconds + spread + 30, on_done=end, starter=start)
    assert watch is not None
    cpu = server.cpu() - cpu
    bench.load_shares.append(watch.load_cpu / watch.seconds)
    ages: list[int] = []
    lateness: list[int] = []
    for answer, begin, stop in zip(answers, first, last, strict=True):
        ages += answer.ages[begin:stop]
        lateness += _lateness(answer, rate)[begin:stop]
    ages.sort()
    lateness.sort()
    full = len(clients) * rate
    figures = {
        "tokens": len(clients) * order.count / cpu,
        "cpu": 100 * watch.cpu / len(ages) * full,
        "pace": 100 * len(ages) / watch.seconds / full,
        "others": 100 * watch.others / watch.seconds,
    }
    figures |= {name: percentile(ages, share) / 1000 for name, share in _PERCENTILES.items()}
    # How late the agent itself got to run: a loop that is busy elsewhere shows here, not in the ages.
    figures["agent_late_p99"] = percentile(lateness, 0.99) / 1000
    return figures


def _lateness(answer: PacedAnswer, rate: int) -> list[int]:
    step = 1_000_000_000 // rate
    first = answer.yielded[0]
    return [at - first - number * step for number, at in enumerate(answer.yielded)]
