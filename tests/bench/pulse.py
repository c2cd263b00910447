"""When the machine itself was slow: a small piece of work, the same each time, timed every 2 ms.

A rented core may run at a tenth of its speed for some hundredths of a second, several times in one: whatever
runs then is late, and the slowest hundredth of anything says nothing else. This process takes its turns
beside the server, on the server's own core, and times its work in CPU time: waiting for its turn doesn't
count, being slowed down does. It costs some 2 % of the core.

As a program, ``python -m tests.bench.pulse``, it beats until its standard input ends, and prints its beats.
"""

from __future__ import annotations

import json
import select
import statistics
import subprocess
import sys
import time
from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final, TypeAlias

from tests.bench.machine import start_on
from tests.bench.report import percentile

__all__ = ["FIGURES", "Beat", "Pulse", "Taking", "Waits", "spells", "taken"]

Beat: TypeAlias = tuple[int, int]
"""When it began, by CLOCK_MONOTONIC, and the CPU time it took, both in nanoseconds."""

_PERIOD: Final = 0.002
_WORK: Final = 300
_SLOW: Final = 2.0
"""How many times the median a beat takes that is slow."""
_TOGETHER: Final = 5_000_000
"""Nanoseconds of calm between two slow beats that are of one spell all the same."""
_LEAST: Final = 0.6
"""Which part of what is measured has to begin in the calm."""
_ROUNDING: Final = 1e-9
_STOP_TIMEOUT: Final = 30.0


@dataclass(frozen=True, slots=True)
class Waits:
    """How long things took, in microseconds."""

    all: list[float]
    """Sorted."""
    calm: list[tuple[float, bool]]
    """Of those that began in the calm, how long that lasted, and whether they ended by then. Sorted."""

    def percentile(self, share: float) -> float:
        """Return how long *share* of all took at most."""
        return percentile(self.all, share)

    def calm_percentile(self, share: float) -> float:
        """Return how long *share* of them would have taken at most, had it been calm all the time.

        What runs into a slow spell is known to take longer than until then. To leave it out would be to leave
        out the long ones foremost, whoever made them long: Kaplan and Meier's estimate does not (J. Am.
        Stat. Assoc. 53, 1958).
        """
        longer, left = 1.0, len(self.calm)
        for took, is_whole in self.calm:
            if is_whole:
                longer *= 1 - 1 / left
            left -= 1
            if longer <= 1 - share + _ROUNDING:
                return took
        return self.calm[-1][0]


FIGURES: Final[Mapping[str, Callable[[Waits], float]]] = {
    "p50": lambda waits: waits.percentile(0.5),
    "p99": lambda waits: waits.percentile(0.99),
    "calm.p50": lambda waits: waits.calm_percentile(0.5),
    "calm.p99": lambda waits: waits.calm_percentile(0.99),
}
"""What is told of waits, by name."""


class Pulse:
    """The slow spells of a stretch of time."""

    def __init__(self, beats: Sequence[Beat]) -> None:
        self._spells = spells(beats)
        self._ends = [end for _, end in self._spells]
        lasted = beats[-1][0] - beats[0][0] if len(beats) > 1 else 0
        slow = sum(end - begin for begin, end in self._spells)
        self.slow_share = slow / lasted if lasted else 0.0
        """Of the time, with what it takes to catch up."""
        median = statistics.median(took for _, took in beats) if beats else 0
        self.slowness = statistics.fmean(took for _, took in beats) / median if median else 1.0
        """How much more CPU time the work took than it mostly does: what a measured CPU time has too much."""

    def sifted(self, spans: Iterable[tuple[int, int]]) -> Waits:
        """Return how long *spans*, from when to when (CLOCK_MONOTONIC, ns), lasted.

        Raises:
            RuntimeError: Too few of them began in the calm for anything to be said of the server.

        """
        spans = list(spans)
        found = (self._in_the_calm(begin, end) for begin, end in spans)
        calm = sorted((each for each in found if each is not None), key=lambda each: (each[0], not each[1]))
        if len(calm) < _LEAST * len(spans) or not calm:
            raise RuntimeError(
                "the machine is slow for too much of the time: measure again when it has less to do"
            )
        return Waits(sorted((end - begin) / 1000 for begin, end in spans), calm)

    def _in_the_calm(self, begin: int, end: int) -> tuple[float, bool] | None:
        place = bisect_left(self._ends, begin)
        if place == len(self._spells) or self._spells[place][0] > end:
            return (end - begin) / 1000, True
        until = self._spells[place][0]
        return ((until - begin) / 1000, False) if until > begin else None


def spells(beats: Sequence[Beat]) -> list[tuple[int, int]]:
    """Return when the machine was slow: from the last calm beat to the last slow one, and as long again.

    As long again because what has queued up meanwhile is worked off then. They don't overlap.
    """
    if not beats:
        return []
    bound = _SLOW * statistics.median(took for _, took in beats)
    found: list[tuple[int, int]] = []
    calm = beats[0][0]
    begun: int | None = None
    slow = 0
    for at, took in beats:
        if took > bound:
            begun = calm if begun is None else begun
            slow = at + took
        else:
            if begun is not None and at - slow > _TOGETHER:
                found.append((begun, slow))
                begun = None
            calm = at
    if begun is not None:
        found.append((begun, slow))
    return _disjoint([(begin, 2 * end - begin) for begin, end in found])


def _disjoint(found: list[tuple[int, int]]) -> list[tuple[int, int]]:
    merged: list[tuple[int, int]] = []
    for begin, end in found:
        if merged and begin <= merged[-1][1]:
            merged[-1] = merged[-1][0], max(end, merged[-1][1])
        else:
            merged.append((begin, end))
    return merged


class Taking:
    """What :func:`taken` gives."""

    pulse: Pulse
    """There is one once the context has been left without an error."""


@contextmanager
def taken(core: int) -> Iterator[Taking]:
    """Take the pulse on *core* while inside.

    Raises:
        OSError: It couldn't be taken.
        RuntimeError: Its process ended with an error.
        subprocess.TimeoutExpired: Its process doesn't end.

    """
    taking = Taking()
    process = start_on(core, "tests.bench.pulse", stdin=subprocess.PIPE)
    try:
        yield taking
        output, _ = process.communicate(timeout=_STOP_TIMEOUT)
        if process.returncode:
            raise RuntimeError(f"the pulse's process ended with {process.returncode}")
        taking.pulse = Pulse([(at, took) for at, took in json.loads(output)])
    finally:
        process.kill()
        process.wait()


def _work() -> dict[int, str]:
    return {number: str(number) for number in range(_WORK)}


def _beat_until_eof() -> list[Beat]:
    beats: list[Beat] = []
    while not select.select([sys.stdin], [], [], _PERIOD)[0]:
        at, cpu = time.monotonic_ns(), time.thread_time_ns()
        _work()
        beats.append((at, time.thread_time_ns() - cpu))
    return beats


if __name__ == "__main__":
    json.dump(_beat_until_eof(), sys.stdout)
