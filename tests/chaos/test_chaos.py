"""Short runs with real processes. What goes wrong is drawn from a seed, which is printed."""

from __future__ import annotations

import os
import secrets
from pathlib import Path
from typing import Final

import pytest

from tests.chaos.cluster import AgentKind
from tests.chaos.faults import FAULTS
from tests.chaos.planted import PLANT
from tests.chaos.run import Plan, carry_out

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

_SEED: Final = "CHAOS_SEED"
"""Environment variable by which a run is repeated, as far as it depends on chance of ours."""


BEARABLE: Final = tuple(
    name for name in FAULTS if name not in ("store loses its tail", "store restarts empty")
)
"""Faults after which the store still holds what it had confirmed. The others are for ``make chaos``."""


@pytest.mark.parametrize("agent", ["words", "upstream"])
async def test_whatever_goes_wrong_no_rule_is_broken(agent: AgentKind, tmp_path: Path) -> None:
    seed = int(os.environ.get(_SEED, secrets.randbelow(1_000_000)))
    plan = Plan(seconds=40, seed=seed, agent=agent, speakers=8, faults=BEARABLE)
    print(f"{_SEED}={seed}")  # noqa: T201 - for a person
    report = await carry_out(plan, tmp_path)
    print(report.table())  # noqa: T201 - for a person

    assert report.violations == []
    assert report.turns["completed"] > 0
    assert report.faults.total() > 10


PLANTS = [
    ("no-fence", "SIGSTOP beyond the lease"),
    ("no-nonce", "store loses its tail"),
]


@pytest.mark.parametrize(("plant", "fault"), PLANTS)
async def test_a_planted_mistake_is_found(
    plant: str, fault: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The nodes run with a mistake in the store's scripts: somebody sees what follows from it."""
    monkeypatch.setenv(PLANT, plant)
    plan = Plan(seconds=30, seed=1, faults=(fault,), pause=2.0, program="tests.chaos.planted")
    report = await carry_out(plan, tmp_path)
    print(report.table())  # noqa: T201 - for a person

    assert report.faults[fault] > 0
    assert report.violations
