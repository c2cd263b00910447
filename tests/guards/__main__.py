"""``make guards``: what the injection firewall finds, what it finds in vain, and what it costs.

Everything goes the way that messages go, but for the socket: the same examiner, bands and memory of
sessions. Figures are CPU time of one thread, so that a busy machine says the same as an idle one.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import random
import time
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from itertools import cycle, islice, pairwise
from pathlib import Path
from typing import Final

import structlog

from tests.guards.corpus import Case, Part, among, read_corpus, read_follow_ups, read_rows
from tests.guards.documents import buried, in_rows, joined, read_developers, read_long, read_texts
from unbroken.server.auth.principal import DEFAULT_PLAN
from unbroken.server.guards.injection.base import Action, Passage
from unbroken.server.guards.injection.examiner import Examiner, Steps, step
from unbroken.server.guards.injection.firewall import Firewall, FirewallLimits
from unbroken.server.guards.injection.onnx import OnnxClassifier, packaged_model
from unbroken.server.guards.injection.policy import Policies
from unbroken.server.guards.injection.reading import Reading
from unbroken.server.guards.injection.selection import read_by
from unbroken.server.guards.injection.suspicion import LEAST, MemorySuspicion
from unbroken.server.metrics import Metrics
from unbroken.sessions.clock import SystemClock
from unbroken.sessions.ids import PrincipalId, SessionId

_SOMEBODY: Final = PrincipalId("measured")


@dataclass(slots=True)
class Figures:
    """Of one source, and one kind of case."""

    count: int = 0
    flagged: int = 0
    """Or blocked."""
    blocked: int = 0
    costs: list[float] = field(default_factory=list)
    """Milliseconds of CPU for the last message of each."""
    sizes: list[int] = field(default_factory=list)
    """Characters of that message."""


async def measure(
    cases: Iterable[Case], reading: Reading | None, runs: int = 1
) -> dict[tuple[str, bool], Figures]:
    """Return what a firewall with the models of *reading* makes of *cases*, by source and kind.

    Each message's cost is its best of so many *runs*: what else the machine does costs time of a thread, too.
    """
    found: defaultdict[tuple[str, bool], Figures] = defaultdict(Figures)
    with ThreadPoolExecutor(1) as threads:
        clock = SystemClock()
        examiner = _Timed(Examiner(reading, least=LEAST))
        firewall = Firewall(
            examiner,
            Policies(),
            MemorySuspicion(clock),
            threads,
            Metrics(),
            clock,
            limits=FirewallLimits(timeout=60),  # what is measured doesn't depend on how busy the machine is
        )
        for number, case in enumerate(cases):
            action = Action.ALLOW
            said = [case.before]
            passage, before = Passage(case.origin, ""), ""
            for turn in case.turns:
                passage, before = Passage(case.origin, turn), " ".join(said).strip()[-1000:]
                verdict = await firewall.screen(
                    [passage], SessionId(f"s{number}"), _SOMEBODY, before, plan=DEFAULT_PLAN
                )
                action = max(action, verdict.action)  # stopped before its last message is stopped, too
                said.append(turn)
            figures = found[case.source, case.is_attack]
            figures.count += 1
            figures.flagged += action >= Action.FLAG
            figures.blocked += action is Action.BLOCK
            cost = examiner.cost
            for _ in range(runs - 1):
                examiner.examine(passage, before)
                cost = min(cost, examiner.cost)
            figures.costs.append(cost * 1000)
            figures.sizes.append(len(passage.text))
    return found


class _Timed(Examiner):
    """Notes how long the last examination took, in seconds of its threads."""

    def __init__(self, other: Examiner) -> None:
        self._other = other
        self.cost = 0.0

    def steps(self, passage: Passage, before: str = "", after: str = "") -> Steps:
        self.cost = 0.0
        steps = self._other.steps(passage, before, after)
        while True:
            began = time.thread_time()
            examination = step(steps)
            self.cost += time.thread_time() - began
            if examination is not None:
                return examination
            yield


def table(found: dict[tuple[str, bool], Figures]) -> list[str]:
    """Return the figures as the rows of a Markdown table."""
    rows = [
        "| source | cases | blocked | flagged or blocked | CPU p50, ms | CPU p99, ms |",
        "|---|---|---|---|---|---|",
    ]
    for is_attack in (True, False):
        rows.append(f"| **{'attacks' if is_attack else 'harmless'}** | | | | | |")
        for (source, kind), each in sorted(found.items()):
            if kind is is_attack:
                rows.append(
                    f"| {source} | {each.count} | {each.blocked / each.count:.1%} "
                    f"| {each.flagged / each.count:.1%} "
                    f"| {_quantile(each.costs, 50)} | {_quantile(each.costs, 99)} |"
                )
    return rows


def table_of_lengths(found: dict[tuple[str, bool], Figures]) -> list[str]:
    """Return what texts of different lengths cost, whatever they are, as the rows of another."""
    costs = [pair for each in found.values() for pair in zip(each.sizes, each.costs, strict=True)]
    rows = ["| characters | texts | CPU p50, ms | CPU p99, ms |", "|---|---|---|---|"]
    for least, most in pairwise(_LENGTHS):
        those = [cost for size, cost in costs if least < size <= most]
        if those:
            rows.append(
                f"| {least + 1} to {most} | {len(those)} | {_quantile(those, 50)} | {_quantile(those, 99)} |"
            )
    return rows


_LENGTHS: Final = (0, 40, 200, 300, 1000, 2500, 6000)


def table_of_model(folder: Path, runs: int) -> list[str]:
    """Return what the local model alone costs, by words: by this, machines can be compared."""
    classifier = OnnxClassifier(folder)
    rows = ["| words | the local model alone, CPU ms |", "|---|---|"]
    for count in _WORDS:
        text = " ".join(islice(cycle(_TEXT.split()), count))
        costs = []
        for _ in range(10 * runs):
            begun = time.thread_time()
            classifier.scores([text])
            costs.append(time.thread_time() - begun)
        rows.append(f"| {count} | {1000 * min(costs):.1f} |")
    return rows


_WORDS: Final = (10, 40, 100)
_TEXT: Final = "my neighbour lent us his ladder for the weekend, and we have not brought it back to him"


def _quantile(costs: list[float], percent: int) -> str:
    return f"{sorted(costs)[min(len(costs) * percent // 100, len(costs) - 1)]:.1f}"


def _marked(case: Case) -> Case:
    """Return *case* as one of a source of its own: it was trained on, or rules were written after it."""
    return replace(case, source=f"{case.source} (t)")


def hidden(cases: Iterable[Case], most: int = 300) -> list[Case]:
    """Return the attacks of *cases* that are kept, among one and three ordinary sentences each.

    Of each source there are *most* at most.
    """
    return [among(case, count) for case in _sampled(_plain(cases), most) for count in (1, 3)]


def _plain(cases: Iterable[Case]) -> Iterator[Case]:
    """Yield the attacks that are kept, and that may stand among other things.

    What is encoded hides behind other things, and what a model reads in other languages it misses anyhow.
    """
    for case in cases:
        if case.is_attack and case.part is Part.KEPT and len(case.turns) == 1 and case.source not in _ALONE:
            yield case


_ALONE: Final = frozenset({"encodings", "languages", "spoofing"})


def of_documents(cases: Sequence[Case], most: int = 60) -> Iterator[Case]:
    """Yield code, documents and long texts that are kept, and attacks of *cases* in code and documents.

    Of each source there are *most* at most.
    """
    texts = [each for each in read_texts() if each.part is Part.KEPT]
    yield from in_rows(texts, Part.KEPT, most)
    yield from read_developers(Part.KEPT)
    yield from map(_marked, read_developers(Part.TRAIN))
    yield from read_long(Part.KEPT)
    yield from buried(_plain(cases), texts, most)


def _sampled(cases: Iterable[Case], most: int) -> list[Case]:
    """Return at most so many cases of each source and kind, the same ones each time."""
    by_source: defaultdict[tuple[str, bool], list[Case]] = defaultdict(list)
    for case in cases:
        by_source[case.source, case.is_attack].append(case)
    drawn: list[Case] = []
    for each in by_source.values():
        drawn += each if len(each) <= most else random.Random(most).sample(each, most)
    return drawn


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, and print a table."""
    parser = argparse.ArgumentParser(prog="make guards", description=__doc__)
    parser.add_argument("--data", type=Path, help="a folder of .jsonl files: text, label, source")
    parser.add_argument("--most", type=int, default=1000, help="cases of each source (1000)")
    parser.add_argument(
        "--runs", type=int, default=1, help="of which each text's best counts as its cost (1)"
    )
    parser.add_argument("--rules-alone", action="store_true", help="without the models")
    options = parser.parse_args(arguments)
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR))
    folder = None if options.rules_alone else packaged_model()
    reading = None if folder is None else read_by(folder)
    print(f"Models: {'none, rules alone' if reading is None else 'those of the extra guards'}\n")  # noqa: T201
    ours = [*read_corpus(), *read_follow_ups()]
    public: list[Case] = []
    if options.data is not None:
        kept = (each for each in read_rows(options.data) if each.part is Part.KEPT)
        public = _sampled(kept, options.most)
    cases = [each if each.part is Part.KEPT else _marked(each) for each in ours] + public
    cases += [*hidden([*ours, *public]), *of_documents([*ours, *public]), *joined(public)]
    found = asyncio.run(measure(cases, reading, options.runs))
    alone = [] if folder is None else ["", *table_of_model(folder, options.runs)]
    for row in (*table(found), "", *table_of_lengths(found), *alone):
        print(row)  # noqa: T201


if __name__ == "__main__":
    main()
