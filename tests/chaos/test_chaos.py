"""Short runs with real processes. What goes wrong is drawn from a seed, which is shown."""

from __future__ import annotations

import os
import secrets
from pathlib import Path
from typing import Final

import pytest

from tests.chaos.cluster import AgentKind
from tests.chaos.faults import FAULTS, GENTLE, OUTAGES
from tests.chaos.run import Plan, carry_out

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

_SEED: Final = "CHAOS_SEED"
"""Environment variable by which a run is repeated, as far as it depends on chance of ours."""

BEARABLE: Final = tuple(name for name in FAULTS if name not in OUTAGES)
"""With these alone, every answer that was asked for is told to somebody, too."""


@pytest.mark.parametrize(("agent", "faults"), [("words", BEARABLE), ("upstream", tuple(FAULTS))])
async def test_whatever_goes_wrong_no_rule_is_broken(
    agent: AgentKind, faults: tuple[str, ...], tmp_path: Path
) -> None:
    seed = int(os.environ.get(_SEED, secrets.randbelow(1_000_000)))
    plan = Plan(seconds=25, seed=seed, agent=agent, speakers=8, faults=faults)
    print(f"{_SEED}={seed}")  # noqa: T201 - for a person
    report = await carry_out(plan, tmp_path)
    print(report.table())  # noqa: T201 - for a person

    report.must_be_sound()


async def test_nobody_starts_over_whose_place_is_in_the_log(tmp_path: Path) -> None:
    """Where each node can ask its store; half of all come back before they have said anything."""
    seed = int(os.environ.get(_SEED, secrets.randbelow(1_000_000)))
    plan = Plan(seconds=25, seed=seed, speakers=10, faults=GENTLE)
    print(f"{_SEED}={seed}")  # noqa: T201 - for a person
    report = await carry_out(plan, tmp_path)
    print(report.table())  # noqa: T201 - for a person

    report.must_be_sound()
