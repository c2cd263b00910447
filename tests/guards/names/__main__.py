"""``make names``: what is found of names and addresses, what is found in vain, and what it costs.

Each line goes the way that answers go: it is cut into sentences, and the packaged model reads what the
filter would have it read. A mark counts as found if no character of it is left; what was found counts as
in vain if it touches nothing that is marked as its kind. Costs are CPU time of the one thread that reads;
what that does to an event loop beside it is measured with and without, for the machine's own noise.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final

from tests.guards.names.corpus import Line, read_corpus
from unbroken.server.guards.leaks.addresses import Label, addresses
from unbroken.server.guards.leaks.people import is_worth_reading, people
from unbroken.server.guards.leaks.recogniser import ModelRecogniser, load_model
from unbroken.server.guards.leaks.sentences import Sentences

_KINDS: Final = ("name", "address")
_IDLE: Final = 3.0
"""Seconds for which the machine's own noise is measured."""


@dataclass(slots=True)
class Figures:
    """Of one part of the corpus."""

    lines: int = 0
    marked: Counter[str] = field(default_factory=Counter)
    found: Counter[str] = field(default_factory=Counter)
    in_part: Counter[str] = field(default_factory=Counter)
    right: Counter[str] = field(default_factory=Counter)
    in_vain: Counter[str] = field(default_factory=Counter)
    costs: list[float] = field(default_factory=list)
    """Milliseconds of CPU of each sentence that the model read."""
    unread: int = 0
    """Lines that no model had to read."""
    missed: list[str] = field(default_factory=list)
    vain: list[str] = field(default_factory=list)


def measure(lines: Iterable[Line]) -> dict[str, Figures]:
    """Return what is made of *lines*, by part of the corpus."""
    read = load_model()
    read("Warm up with Ann Lee in Paris.")
    figures: defaultdict[str, Figures] = defaultdict(Figures)
    for line in lines:
        each = figures[line.part]
        each.lines += 1
        places: list[tuple[str, int, int]] = []
        position, count = 0, len(each.costs)
        sentences = Sentences()
        for passage in [*sentences.feed(line.text), *sentences.flush()]:
            if passage.context is not None and is_worth_reading(passage.text):
                whole, start = passage.context + passage.text, position - len(passage.context)
                began = time.thread_time()
                labels = read(whole)
                found = [place for place in _places(whole, labels) if place[2] + start > position]
                each.costs.append((time.thread_time() - began) * 1000)
                places += [(kind, begin + start, end + start) for kind, begin, end in found]
            position += len(passage.text)
        each.unread += len(each.costs) == count
        _compare(line, places, each)
    return dict(figures)


def _places(text: str, labels: Iterable[Label]) -> list[tuple[str, int, int]]:
    labels = list(labels)
    found = [("address", *place) for place in addresses(text, labels)]
    names = [("name", *place) for place in people(text, labels)]
    return found + [name for name in names if not any(_touch(name[1:], other[1:]) for other in found)]


def _touch(one: tuple[int, ...], other: tuple[int, ...]) -> bool:
    return one[0] < other[1] and other[0] < one[1]


def _compare(line: Line, places: list[tuple[str, int, int]], figures: Figures) -> None:
    for kind, start, end in line.marks:
        figures.marked[kind] += 1
        covered = {char for other, *place in places if other == kind for char in range(*place)}
        left = [char for char in range(start, end) if char not in covered]
        figures.found[kind] += not left
        figures.in_part[kind] += 0 < len(left) < end - start
        if left:
            figures.missed.append(f"{kind}: {line.text[start:end]} | {line.text}")
    for kind, start, end in places:
        if any(kind == mark[0] and _touch((start, end), mark[1:]) for mark in line.marks):
            figures.right[kind] += 1
        else:
            figures.in_vain[kind] += 1
            figures.vain.append(f"{kind}: {line.text[start:end]} | {line.text}")


def table(figures: dict[str, Figures]) -> list[str]:
    """Return the figures as the rows of a Markdown table."""
    rows = [
        "| lines | kind | marked | found whole | in part | found in vain | precision | recall |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for part, each in figures.items():
        for kind in _KINDS:
            found = each.right[kind] + each.in_vain[kind]
            rows.append(
                f"| {part}: {each.lines} | {kind} | {each.marked[kind]} | "
                f"{each.found[kind]} | {each.in_part[kind]} | {each.in_vain[kind]} | "
                f"{each.right[kind] / found:.0%} | {each.found[kind] / each.marked[kind]:.0%} |"
            )
    costs = sorted(cost for each in figures.values() for cost in each.costs)
    unread = sum(each.unread for each in figures.values())
    rows += [
        "",
        f"CPU for a sentence that is read: p50 {costs[len(costs) // 2]:.1f} ms, p95 "
        f"{costs[len(costs) * 95 // 100]:.1f} ms, longest {costs[-1]:.1f} ms. "
        f"{unread} lines needed no model.",
    ]
    return rows


async def lateness(texts: list[str]) -> tuple[float, list[float], list[float]]:
    """Return how many sentences are read in a second, one after the other, and by how many milliseconds
    timers of the event loop are late meanwhile, and while nothing is read.
    """
    recogniser = ModelRecogniser(load_model, timeout=60)
    await recogniser.start()
    idle, busy = list[float](), list[float]()
    clock = asyncio.create_task(_late(idle))
    await asyncio.sleep(_IDLE)
    clock.cancel()
    clock = asyncio.create_task(_late(busy))
    began = time.perf_counter()
    for text in texts:
        await recogniser.labels(text, "alice")
    took = time.perf_counter() - began
    clock.cancel()
    await recogniser.stop()
    return len(texts) / took, sorted(busy), sorted(idle)


async def _late(found: list[float]) -> None:
    while True:
        due = time.perf_counter() + 0.001
        await asyncio.sleep(0.001)
        found.append((time.perf_counter() - due) * 1000)


def _quantiles(sorted_values: list[float]) -> str:
    return ", ".join(
        f"{name} {sorted_values[int(len(sorted_values) * part)]:.1f} ms"
        for name, part in (("p50", 0.5), ("p90", 0.9), ("p99", 0.99))
    )


def main() -> None:
    """Measure, and print a table and what went wrong."""
    figures = measure(read_corpus())
    for row in table(figures):
        print(row)  # noqa: T201
    rate, busy, idle = asyncio.run(lateness([line.text for line in read_corpus()] * 3))
    print(f"{rate:.0f} sentences a second. The event loop is late meanwhile: {_quantiles(busy)};")  # noqa: T201
    print(f"while nothing is read: {_quantiles(idle)}.")  # noqa: T201
    for title, rows in (
        ("Missed", [row for each in figures.values() for row in each.missed]),
        ("In vain", [row for each in figures.values() for row in each.vain]),
    ):
        print(f"\n{title}:")  # noqa: T201
        for row in rows:
            print(f"- {row}")  # noqa: T201


if __name__ == "__main__":
    main()
