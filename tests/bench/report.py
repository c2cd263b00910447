"""What comes out: results, their targets, and how they are written down."""

from __future__ import annotations

import json
import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

__all__ = ["Goal", "Report", "Result", "compared", "median_of", "percentile"]


@dataclass(frozen=True, slots=True)
class Goal:
    """What a figure has to reach."""

    kind: Literal["at least", "at most"]
    value: float

    def is_met_by(self, value: float) -> bool:
        return value >= self.value if self.kind == "at least" else value <= self.value

    def __str__(self) -> str:
        return f"{'>=' if self.kind == 'at least' else '<='} {_short(self.value)}"


@dataclass(frozen=True, slots=True)
class Result:
    """One figure: the median of its rounds."""

    name: str
    value: float
    unit: str
    samples: list[float]
    """Of each round, in order."""
    goal: Goal | None = None

    @property
    def spread(self) -> float:
        """From the lowest to the highest round, in relation to the median: how noisy it was."""
        if not self.value:
            return 0.0
        return (max(self.samples) - min(self.samples)) / abs(self.value)

    @property
    def is_met(self) -> bool | None:
        return None if self.goal is None else self.goal.is_met_by(self.value)

    def as_json(self) -> dict[str, Any]:
        target = None if self.goal is None else self.goal.value
        value = float(f"{self.value:.6g}")
        return {"name": self.name, "value": value, "unit": self.unit, "target": target, "met": self.is_met}


@dataclass
class Report:
    """Everything that a run found out."""

    about: dict[str, Any] = field(default_factory=dict)
    results: list[Result] = field(default_factory=list)
    failures: dict[str, str] = field(default_factory=dict)
    """By suite."""

    def save(self, folder: Path) -> None:
        """Write ``bench.json``, and ``bench-raw.json`` beside it."""
        folder.mkdir(parents=True, exist_ok=True)
        _write(folder / "bench.json", [result.as_json() for result in self.results])
        details = {
            result.name: {
                "unit": result.unit,
                "samples": result.samples,
                "spread": result.spread,
                "goal": None if result.goal is None else result.goal.kind,
            }
            for result in self.results
        }
        raw = {"about": self.about, "failures": self.failures, "results": details}
        _write(folder / "bench-raw.json", raw)

    def table(self) -> str:
        """Return it for people."""
        lines = [f"{name + ':':<12} {value}" for name, value in self.about.items()]
        width = max((len(result.name) for result in self.results), default=20)
        head = f"{'measure':<{width}}  {'median':>10}  {'unit':<16}  {'rounds':<19}  {'spread':>6}  target"
        lines += ["", head, "-" * len(head)]
        group = ""
        for result in self.results:
            suite = result.name.partition(".")[0]
            if group and suite != group:
                lines.append("")
            group = suite
            low, high = _short(min(result.samples)), _short(max(result.samples))
            verdict = {None: "", True: "met", False: "MISSED"}[result.is_met]
            goal = f"{result.goal!s:<8}  {verdict}" if result.goal else ""
            lines.append(
                f"{result.name:<{width}}  {_short(result.value):>10}  {result.unit:<16}  "
                f"{f'{low} .. {high}':<19}  {result.spread:>6.0%}  {goal}".rstrip()
            )
        lines += [f"\nFAILED {suite}: {reason}" for suite, reason in self.failures.items()]
        return "\n".join(lines) + "\n"


def median_of(name: str, unit: str, samples: Sequence[float], goal: Goal | None = None) -> Result:
    """Return the result of several rounds."""
    return Result(name, statistics.median(samples), unit, list(samples), goal)


def compared(
    name: str,
    unit: str,
    ours: Sequence[float],
    bare: Sequence[float],
    goal: Goal | None = None,
    *,
    own_goal: Goal | None = None,
    peer: str = "bare",
) -> list[Result]:
    """Return both sides, and their ratio: of each round by itself, since noise comes in phases.

    *goal* is the ratio's, *own_goal* our side's.
    """
    ratios = [a / b for a, b in zip(ours, bare, strict=True)]
    return [
        median_of(f"{name}.ours", unit, ours, own_goal),
        median_of(f"{name}.{peer}", unit, bare),
        median_of(f"{name}.ratio", f"x {peer}", ratios, goal),
    ]


def percentile(ordered: Sequence[float], share: float) -> float:
    """Return the value that *share* of the sorted values don't exceed."""
    return ordered[max(0, math.ceil(len(ordered) * share) - 1)]


def _write(path: Path, content: object) -> None:
    path.write_text(json.dumps(content, indent=1) + "\n")


def _short(value: float) -> str:
    if value and abs(value) < 1000:
        return f"{value:.3g}" if abs(value) < 100 else f"{value:.0f}"
    return f"{value:,.0f}"
