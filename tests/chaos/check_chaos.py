"""Runs of nodes in which a mistake is planted, and of the same nodes without it. For `make chaos`."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.chaos.planted import PLANT
from tests.chaos.run import Plan, carry_out

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

PLANTS = [
    ("no-fence", "SIGSTOP beyond the lease", {"I7"}),  # two write, one of them after the other's end
    ("empty-here", "clients cut", {"I4"}),  # who comes back to where nothing was said is shown nothing
    ("no-nonce", "store loses its tail", {"I1"}),  # what is written again leaves out what was lost
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
