"""Many answers at once, each at the pace of a reader: what they cost, and how old their words are."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable

from tests.bench.answers import PacedAnswer
from tests.bench.load import Client, Load
from tests.bench.pulse import Pulse
from tests.bench.report import percentile
from tests.bench.server import Server
from tests.bench.suites.base import Bench, Watch
from tests.bench.wire import RESPONSE_DONE, answer_request
from tests.bench.workload import Order

__all__ = ["pace", "steady"]

_GOLDEN = 0.618034
"""Multiples of it spread evenly between 0 and 1, however many there are."""
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
    parts = [
        (answer, slice(*cut)) for answer, cut in zip(answers, zip(first, last, strict=True), strict=True)
    ]
    return {"tokens": len(clients) * order.count / cpu} | _figures(watch, parts, rate, len(clients) * rate)


def steady(
    bench: Bench, server: Server, load: Load, *, rate: int, seconds: int, request: Callable[[Order], bytes]
) -> dict[str, float]:
    """Keep each client of *load* in one answer after another, of *rate* words a second for so many *seconds*.

    They begin one after the other within that time, and go on as they began: as many questions come
    as answers end. Their words fall anywhere between each other's, as those of people who don't know of each
    other do: begun at even distances, that are a multiple of a word's, all would speak at one moment. Every
    answer is checked whole. Measured for as long again: as for :func:`pace`; and ``calm_p99`` and
    ``calm_late_p99``, of the words during which the server's core was not slow by itself.
    """
    order = Order("paced", rate, rate * seconds)
    clients = load.clients
    starts = [seconds * number / len(clients) + number * _GOLDEN % 1 / rate for number in range(len(clients))]
    running: dict[int, PacedAnswer] = {}
    begins: dict[PacedAnswer, int] = {}  # of those that are measured, how many words had come before
    ends: dict[PacedAnswer, int] = {}
    begun = time.monotonic()
    watch: Watch | None = None

    def ask(client: Client) -> None:
        answer = running[client.fd] = PacedAnswer(order.count)
        load.ask(client, request(order), RESPONSE_DONE, answer)
        if watch is not None:
            begins[answer] = 0

    def start() -> float | None:
        nonlocal watch
        passed = time.monotonic() - begun
        while len(running) < len(clients) and starts[len(running)] <= passed:
            ask(clients[len(running)])
        if watch is None and passed >= seconds:
            watch = Watch(server)
            begins.update((answer, len(answer.ages)) for answer in running.values())
        if watch is not None and not ends and passed >= 2 * seconds:
            watch.stop()
            ends.update((answer, len(answer.ages)) for answer in begins)
        return None if ends else 0.001 if len(running) < len(clients) else 0.01

    with bench.pulse() as taking:
        load.drive(
            timeout=6 * seconds + 30, on_done=lambda client: None if ends else ask(client), starter=start
        )
    assert watch is not None
    bench.load_shares.append(watch.load_cpu / watch.seconds)
    parts = [(answer, slice(begin, ends[answer])) for answer, begin in begins.items()]
    return _figures(watch, parts, rate, len(clients) * rate) | _calm_figures(taking.pulse, parts, rate)


def _figures(
    watch: Watch, parts: Iterable[tuple[PacedAnswer, slice]], rate: int, full: int
) -> dict[str, float]:
    ages: list[int] = []
    lateness: list[int] = []
    for answer, part in parts:
        ages += answer.ages[part]
        lateness += _lateness(answer, rate)[part]
    ages.sort()
    lateness.sort()
    figures = {
        "cpu": 100 * watch.cpu / len(ages) * full,
        "pace": 100 * len(ages) / watch.seconds / full,
        "others": 100 * watch.others / watch.seconds,
    }
    figures |= {name: percentile(ages, share) / 1000 for name, share in _PERCENTILES.items()}
    # How late the agent itself got to run: a loop that is busy elsewhere shows here, not in the ages.
    figures["agent_late_p99"] = percentile(lateness, 0.99) / 1000
    return figures


def _calm_figures(pulse: Pulse, parts: Iterable[tuple[PacedAnswer, slice]], rate: int) -> dict[str, float]:
    ways: list[tuple[int, int]] = []
    waits: list[tuple[int, int]] = []
    for answer, part in parts:
        late = _lateness(answer, rate)
        for at, age, behind in zip(answer.yielded[part], answer.ages[part], late[part], strict=True):
            ways.append((at, at + age))
            waits.append((at - max(0, behind), at))
    return {
        "calm_p99": pulse.sifted(ways).calm_percentile(0.99),
        "calm_late_p99": pulse.sifted(waits).calm_percentile(0.99),
        "slowness": pulse.slowness,
    }


def _lateness(answer: PacedAnswer, rate: int) -> list[int]:
    step = 1_000_000_000 // rate
    if not answer.yielded:
        return []
    first = answer.yielded[0]
    return [at - first - number * step for number, at in enumerate(answer.yielded)]
