"""The protocol itself, by the cases that the field uses: verdicts one by one, differences by name."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from starlette.types import ASGIApp

from tests.conformance.autobahn import (
    ALL,
    DIFFERENCES,
    QUICK,
    WITHOUT_COMPRESSION,
    groups_of,
    judged,
    unexpected,
)
from tests.conformance.echo import echo, echo_by_outlet

SLOW = tuple(each for each in ALL if each not in QUICK)
COUNTS = {"quick": 247, "slow": 270}


@pytest.mark.parametrize(
    ("name", "cases"), [("quick", QUICK), pytest.param("slow", SLOW, marks=pytest.mark.slow)]
)
@pytest.mark.parametrize("app", [echo, echo_by_outlet], ids=["send", "outlet"])
async def test_every_case_is_as_it_should_be_or_a_known_difference(
    app: ASGIApp, name: str, cases: Sequence[str]
) -> None:
    verdicts = await judged(app, cases)

    assert unexpected(verdicts) == {}
    assert len(verdicts) == COUNTS[name], "a version with other cases: look at them, then move this"


def test_known_differences_are_of_cases_that_are_run_and_say_why() -> None:
    assert groups_of(list(DIFFERENCES)) <= groups_of(ALL) - set(WITHOUT_COMPRESSION)
    assert all(len(why) > 40 for why in DIFFERENCES.values())


@pytest.mark.parametrize(
    ("case", "verdict"),
    [("1.1.1", "FAILED (None)"), ("7.1.5", "OK"), ("9.3.1", "FAILED (1002)"), ("12.1.1", "OK")],
    ids=["a failure", "a difference that is gone", "another code", "compression"],
)
def test_what_is_not_known_is_told(case: str, verdict: str) -> None:
    assert unexpected({case: verdict}) == {case: verdict}
