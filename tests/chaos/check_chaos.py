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

    report.must_be_sound()


PLANTS = [
    ("no-fence", "SIGSTOP beyond the lease", {"I7"}),  # two write, one of them after the other's end
    ("no-nonce", "store loses its tail", {"I2"}),  # clients keep what the log doesn't hold any more
]


def _planned(fault: str, program: str | None = None) -> Plan:
    return Plan(seconds=30, seed=1, faults=(fault,), pause=2.0, quiet=30, least=1, program=program)


@pytest.mark.parametrize("fault", [fault for _, fault, _ in PLANTS])
async def test_what_a_mistake_is_planted_in_is_sound_without_it(fault: str, tmp_path: Path) -> None:
    report = await carry_out(_planned(fault), tmp_path)
    print(report.table())  # noqa: T201 - for a person
    report.must_be_sound()


@pytest.mark.parametrize(("plant", "fault", "rules"), PLANTS)
async def test_a_planted_mistake_is_found(
    plant: str, fault: str, rules: set[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The nodes run with a mistake in the store's scripts: the very rule that is for that is broken."""
    monkeypatch.setenv(PLANT, plant)
    report = await carry_out(_planned(fault, "tests.chaos.planted"), tmp_path)
    print(report.table())  # noqa: T201 - for a person

    with pytest.raises(AssertionError):
        report.must_be_sound()
    assert report.faults[fault] > 0
    assert rules <= {violation.rule for violation in report.violations}
