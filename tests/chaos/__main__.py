"""``python -m tests.chaos --seconds S --seed N``: a long run, or several, one after another.

Ends with 1 where a rule was broken. What was seen, logged and left is kept in ``build/chaos``.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import secrets
import shutil
import sys
from pathlib import Path

from tests.chaos.cluster import AgentKind
from tests.chaos.faults import FAULTS
from tests.chaos.run import Plan, carry_out

_FOLDER = Path(__file__).parents[2] / "build" / "chaos"


def main() -> int:
    """Run what the command line says."""
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__)
    parser.add_argument("--seconds", type=float, default=120, help="seconds for which faults begin, each run")
    parser.add_argument("--seed", type=int, help="of the first run; the next ones count up")
    parser.add_argument("--runs", type=int, default=1, help="how many runs")
    parser.add_argument("--speakers", type=int, default=12)
    parser.add_argument("--nodes", type=int, default=3)
    parser.add_argument(
        "--agent", choices=("words", "upstream", "both"), default="both", help="by turns, if both"
    )
    parser.add_argument("--fault", action="append", choices=tuple(FAULTS), help="only this; may be repeated")
    asked = parser.parse_args()
    seed = secrets.randbelow(1_000_000) if asked.seed is None else asked.seed
    faults = violations = 0
    kinds: tuple[AgentKind, ...] = ("words", "upstream") if asked.agent == "both" else (asked.agent,)
    for number in range(asked.runs):
        plan = Plan(
            seconds=asked.seconds,
            seed=seed + number,
            speakers=asked.speakers,
            nodes=asked.nodes,
            agent=kinds[number % len(kinds)],
            faults=tuple(asked.fault or FAULTS),
        )
        print(f"seed {plan.seed}", flush=True)  # noqa: T201 - for a person
        folder = _FOLDER / str(plan.seed)
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        report = asyncio.run(carry_out(plan, folder))
        print(report.table(), flush=True)  # noqa: T201 - for a person
        faults += report.faults.total()
        violations += len(report.violations)
    print(json.dumps({"faults": faults, "violations": violations}))  # noqa: T201 - for a person
    return 1 if violations else 0


if __name__ == "__main__":
    sys.exit(main())
