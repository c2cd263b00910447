"""Short runs with real processes, for `make chaos`. What goes wrong is drawn from a seed, which is shown."""

from __future__ import annotations

import os
import secrets
from pathlib import Path
from typing import Final

import pytest

from tests.chaos.cluster import AgentKind
from tests.chaos.faults import FAULTS, OUTAGES
from tests.chaos.planted import PLANT
from tests.chaos.run import Plan, carry_out

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

_SEED: Final = "CHAOS_SEED"
"""Environment variable by which a run is repeated, as far as it depends on chance of ours."""

BEARABLE: Final = tuple(name for name in FAULTS if name not in OUTAGES)


@pytest.mark.parametrize("agent", ["words", "upstream"])
async def test_whatever_goes_wrong_no_rule_is_broken(agent: AgentKind, tmp_path: Path) -> None:
    seed = int(os.environ.get(_SEED, secrets.randbelow(1_000_000)))
    plan = Plan(seconds=25, seed=seed, agent=agent, speakers=8, faults=BEARABLE)
    print(f"{_SEED}={seed}")  # noqa: T201 - for a person
    report = await carry_out(plan, tmp_path)
    print(report.table())  # noqa: T201 - for a person

    assert report.violations == []
    assert report.turns["completed"] > 0
    assert report.faults.total() > 10


PLANTS = [
    ("no-fence", "SIGSTOP beyond the lease", {"I7"}),  # two write, one of them after the other's end
    ("no-nonce", "store loses its tail", {"I1", "I2", "I3", "I6", "I7", "I8", "I12"}),
]


@pytest.mark.parametrize(("plant", "fault", "rules"), PLANTS)
async def test_a_planted_mistake_is_found(
    plant: str, fault: str, rules: set[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The nodes run with a mistake in the store's scripts: somebody sees what follows from it."""
    monkeypatch.setenv(PLANT, plant)
    plan = Plan(seconds=30, seed=1, faults=(fault,), pause=2.0, quiet=15, program="tests.chaos.planted")
    report = await carry_out(plan, tmp_path)
    print(report.table())  # noqa: T201 - for a person

    assert report.faults[fault] > 0
    assert rules & {violation.rule for violation in report.violations}
