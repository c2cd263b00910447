"""The leak filter: what it costs, how long it holds a word, and what it finds where texts are labelled.

Cost is CPU time for a thousand pieces of ordinary prose, four to five characters each: the best of
three for each thousand, as others may use the core; ``numbers``: of nothing but those. Delay is in words:
those that have come, in part or whole, and haven't left when a piece has been fed. F1 is of ids, secrets
and places in sentences of our own, with values drawn anew for each of several seeds, and of each kind in
the file that ``--pii`` names.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator, Sequence
from itertools import cycle, islice
from typing import Final

from tests.bench.labelled import read, score
from tests.bench.report import Goal, Result, median_of, percentile
from tests.bench.suites.base import Bench
from tests.bench.templates import SUBJECTS, UNSEEN, drawn
from unbroken.server.guards.leaks.entities import DEFAULT_ACTIONS, Entity
from unbroken.server.guards.leaks.scanner import Scanner
from unbroken.server.guards.leaks.stream import LeakFilter

__all__ = ["run"]

_THOUSANDS: Final = 40
_ROUNDS: Final = 3
_KINDS: Final[tuple[Entity, ...]] = ("card", "email", "iban", "ip", "national_id", "phone")
_SEEDS: Final = 5
_DRAWN: Final = 12
"""Times that each sentence is filled, for each seed."""
_GOAL: Final = Goal("at least", 0.95)
_TOKEN: Final = re.compile(r" ?[A-Za-z]{1,6}|[0-9]{1,3}|[^A-Za-z0-9]")

_PROSE: Final = """\
A session is kept as a log, and the log is the only thing that counts. Whoever comes back after a
lost connection says where they were, and gets what followed: nothing twice, nothing left out. That
sounds simple; most of the work went into the cases in which it isn't. Suppose the server dies in
the middle of a sentence. In 2019 we would have shrugged, and told people to ask again. Today
somebody (or something) has paid for those words, so the next server looks them up, finds that 312
of them were written, and goes on with the 313th. What does a reader see? A pause of a second or
two.

"But why not simply keep the socket open?" is a question that we hear often. Because sockets close:
phones change from one network to another, laptops sleep, proxies restart on Tuesdays. A well-known
trick is to send everything again, and to have the page throw away what it knows. It works until the
answer is long, or until two tabs are open at once. Then you want numbers, one for each entry; and
once you have them, you want them to mean the same on every node. That is the whole idea.
"""


def run(bench: Bench) -> list[Result]:
    """See the module's text."""
    pieces = list(_tokens(_THOUSANDS * 1000))
    results = [
        _costs("leaks.cpu.per_1000_pieces", _filter, pieces, Goal("at most", 1.0)),
        _costs("leaks.cpu.per_1000_pieces.numbers", _filter, [f" {n / 7:.2f}," for n in range(5000)], None),
        _costs("leaks.cpu.per_1000_pieces.loop_alone", lambda: None, pieces, None),
        _delay(pieces[:5000]),
        *_drawn_found(),
    ]
    if bench.pii is None:
        bench.notes.append(f"leaks: no F1 of {', '.join(_KINDS)} in Presidio's texts without --pii FILE")
        return results
    scores = score(read(bench.pii))
    found = [(kind, scores.f1(kind)) for kind in _KINDS]
    return results + [Result(f"leaks.f1.{kind}", value, "", [value], _GOAL) for kind, value in found]


def _drawn_found() -> Iterator[Result]:
    """Yield how well what is drawn is found again in sentences that no rule was changed for."""
    scores = [score(drawn(UNSEEN, _DRAWN, seed)) for seed in range(_SEEDS)]
    for kind in SUBJECTS:
        yield median_of(f"leaks.drawn.{kind}.f1", "", [each.f1(kind) for each in scores], _GOAL)
        yield median_of(f"leaks.drawn.{kind}.precision", "", [each.precision(kind) for each in scores])
        yield median_of(f"leaks.drawn.{kind}.recall", "", [each.recall(kind) for each in scores])


def _filter() -> LeakFilter:
    return LeakFilter(Scanner(DEFAULT_ACTIONS), DEFAULT_ACTIONS, lambda entity, _: f"[{entity}]")


def _tokens(count: int) -> Iterator[str]:
    once = _TOKEN.findall(_PROSE)
    return islice(cycle(once), count)


def _costs(
    name: str, make: Callable[[], LeakFilter | None], pieces: Sequence[str], goal: Goal | None
) -> Result:
    rounds: list[float] = []
    for _ in range(_ROUNDS):
        costs: list[float] = []
        for start in range(0, len(pieces), 1000):
            part = pieces[start : start + 1000]
            costs.append(min(_once(make(), part) for _ in range(3)))
        rounds.append(percentile(sorted(costs), 0.5))
    return median_of(name, "ms", rounds, goal)


def _once(stream: LeakFilter | None, part: Sequence[str]) -> float:
    feed: Callable[[str], str] = str if stream is None else stream.feed
    begun = time.process_time_ns()
    for piece in part:
        feed(piece)
    if stream is not None:
        stream.flush()
    return (time.process_time_ns() - begun) / 1e6


def _delay(pieces: Sequence[str]) -> Result:
    """Return by how many words what has left is behind what has come, the one being said among them."""
    stream = _filter()
    behind: list[float] = []
    for piece in pieces:
        stream.feed(piece)
        behind.append(len(stream.held_text.split()))
    median = percentile(sorted(behind), 0.5)
    return median_of("leaks.delay.words", "words", [median], Goal("at most", 1.0))
