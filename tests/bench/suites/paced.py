"""Paced: 500 answers at once, 20 words a second each, as people read them.

Measured while all of them run: the server's CPU time per word, given as its
share of a core at the full pace (a starved server delivers less, and must not
look frugal for it); and the time of each word from the agent's yield to the
client's read, which waits eagerly. The clients begin one after the other
within a second, so that no server is helped or hurt by timers falling together.

Latencies mean little when something else wants the same cores. So a pair of
rounds during which others used more of them than a little is measured again,
some times. If none stays undisturbed, all are reported, and the latency's
target is not judged.
"""

from __future__ import annotations

import time
from contextlib import ExitStack

from tests.bench.answers import PacedAnswer
from tests.bench.load import Client, Load
from tests.bench.report import Goal, Result, compared, median_of, percentile
from tests.bench.server import Kind, Server
from tests.bench.suites.base import KINDS, Bench, Watch
from tests.bench.wire import RESPONSE_DONE, create_item, create_response, request_of
from tests.bench.workload import Order

__all__ = ["run"]

_STREAMS = 500
_RATE = 20
_SPREAD = 1.0
"""Seconds over which the streams begin."""
_PERCENTILES = {"p50": 0.5, "p99": 0.99, "p99.9": 0.999}
_DISTURBED = 10.0
"""Per cent of a core that others may use in a round, of the server's and the load's together."""
_PATIENCE = 35.0
"""Seconds for each wanted pair, after which no other is tried."""
_UNITS = {
    "cpu": "% of a core",
    "p50": "us",
    "p99": "us",
    "p99.9": "us",
    "agent_late_p99": "us",
    "pace": "% of full pace",
    "others": "% of a core",
}
_ABSOLUTE = ("agent_late_p99", "pace", "others")
"""Figures that say how the measurement went, and whose ratio says nothing."""
_GOALS = {"cpu": Goal("at most", 1.5), "p99": Goal("at most", 1.5)}


def run(bench: Bench) -> list[Result]:
    """See the module's text."""
    wanted, seconds = (1, 3) if bench.is_quick else (3, 10)
    pairs: list[dict[Kind, dict[str, float]]] = []
    calm: list[dict[Kind, dict[str, float]]] = []
    with ExitStack() as stack:
        servers: dict[Kind, Server] = {kind: stack.enter_context(bench.start(kind)) for kind in KINDS}
        give_up = time.monotonic() + (0 if bench.is_quick else _PATIENCE * wanted)
        while len(pairs) < wanted or (len(calm) < wanted and time.monotonic() < give_up):
            pair: dict[Kind, dict[str, float]] = {}
            for kind, server in servers.items():
                with Load(server.port) as load:
                    load.open(_STREAMS)
                    server.settle()
                    pair[kind] = _round(bench, server, load, seconds)
            pairs.append(pair)
            is_calm = max(side["others"] for side in pair.values()) <= _DISTURBED
            if is_calm:
                calm.append(pair)
            shown = (f"{name} {pair['ours'][name]:.3g} to {pair['bare'][name]:.3g}" for name in _UNITS)
            bench.say(f"paced {len(pairs)}{'' if is_calm else ' (disturbed)'}: {', '.join(shown)}")
    goals = dict(_GOALS)
    if not calm:
        del goals["p99"]
        bench.notes.append("no paced round was undisturbed: its latencies are not judged")
    results: list[Result] = []
    for name, unit in _UNITS.items():
        ours, bare = ([pair[kind][name] for pair in calm or pairs] for kind in KINDS)
        if name in _ABSOLUTE:
            results.append(median_of(f"paced.{name}.ours", unit, ours))
            results.append(median_of(f"paced.{name}.bare", unit, bare))
        else:
            results += compared(f"paced.{name}", unit, ours, bare, goals.get(name))
    return results


def _round(bench: Bench, server: Server, load: Load, seconds: int) -> dict[str, float]:
    order = Order("paced", _RATE, _RATE * seconds)
    request = request_of([create_item(order), create_response()])
    clients = load.clients
    answers: list[PacedAnswer] = []
    begun = time.monotonic()
    watch: Watch | None = None
    first: list[int] = []  # how many words of each answer had come when all of them ran
    last: list[int] = []  # and when the first of them ended

    def start() -> float | None:
        nonlocal watch
        passed = time.monotonic() - begun
        due = min(len(clients), int(passed / _SPREAD * len(clients)) + 1)
        while len(answers) < due:
            answer = PacedAnswer(order.count)
            load.ask(clients[len(answers)], request, RESPONSE_DONE, answer)
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

    load.drive(timeout=3 * seconds + 30, on_done=end, starter=start)
    assert watch is not None
    bench.load_shares.append(watch.load_cpu / watch.seconds)
    ages: list[int] = []
    lateness: list[int] = []
    for answer, begin, stop in zip(answers, first, last, strict=True):
        ages += answer.ages[begin:stop]
        lateness += _lateness(answer)[begin:stop]
    ages.sort()
    lateness.sort()
    pace = _STREAMS * _RATE
    figures = {
        "cpu": 100 * watch.cpu / len(ages) * pace,
        "pace": 100 * len(ages) / watch.seconds / pace,
        "others": 100 * watch.others / watch.seconds,
    }
    figures |= {name: percentile(ages, share) / 1000 for name, share in _PERCENTILES.items()}
    # How late the agent itself got to run: a loop that is busy elsewhere shows here, not in the ages.
    figures["agent_late_p99"] = percentile(lateness, 0.99) / 1000
    return figures


def _lateness(answer: PacedAnswer) -> list[int]:
    step = 1_000_000_000 // _RATE
    first = answer.yielded[0]
    return [at - first - number * step for number, at in enumerate(answer.yielded)]
