"""A bill that isn't what the log says is seen to be found, and one that is passes."""

from __future__ import annotations

import pytest

from tests.chaos.bills import Bill, Charge, Ending, check_bills, endings_of
from tests.chaos.history import Witness
from tests.chaos.planting import PAST, TURN, Tape, log_of, written
from tests.chaos.words import answer_to

CHARGE = Charge("r", "completed", 5)
ENDED = {"r": Ending("completed", 5)}


def billed(
    *charges: Charge,
    reserved: dict[str, int] | None = None,
    counted: int | None = None,
    turns: int | None = None,
) -> Bill:
    held = reserved or {}
    sums = sum(charge.tokens for charge in charges) + sum(held.values())
    return Bill(
        "t", charges, held, sums if counted is None else counted, len(held) if turns is None else turns
    )


def test_a_bill_of_what_has_ended_and_what_runs_passes() -> None:
    assert list(check_bills([billed(CHARGE, reserved={"s": 7})], ENDED)) == []


@pytest.mark.parametrize(
    "bill",
    [
        billed(CHARGE, CHARGE),
        billed(CHARGE, counted=4),
        billed(CHARGE, reserved={"s": 7}, counted=5),
        billed(CHARGE, turns=1),
        billed(CHARGE, reserved={"r": 7}),
        billed(Charge("r", "interrupted", 5)),
        billed(Charge("r", "completed", 6)),
        billed(CHARGE, Charge("s", "completed", 1)),
        billed(),
    ],
    ids=[
        "counted twice",
        "the sum is less",
        "a reservation is forgotten",
        "one is said to run",
        "counted, and reserved for",
        "as ended otherwise",
        "other tokens",
        "nobody knows of it",
        "not counted",
    ],
)
def test_a_bill_that_is_not_what_the_log_says_is_found(bill: Bill) -> None:
    assert {violation.rule for violation in check_bills([bill], ENDED)} == {"I14"}


def test_what_died_with_a_node_or_was_said_alone_is_borne() -> None:
    assert list(check_bills([billed()], ENDED, may_miss=True)) == []
    lost = billed(CHARGE, Charge("s", "completed", 1))
    assert list(check_bills([lost], {"r": Ending("interrupted")}, may_drop=True)) == []


def test_the_end_of_an_attempt_may_be_told_by_its_node_alone() -> None:
    bills = [billed(CHARGE, Charge("s", "interrupted", 1))]
    assert list(check_bills(bills, ENDED, told={"s"})) == []
    assert len(list(check_bills(bills, ENDED, told={"t"}))) == 1


def test_endings_are_those_that_were_shown_and_those_of_logs() -> None:
    tape = Tape().connect().begin().words().end(answer_to(TURN, PAST))
    person = Witness("p", [tape.history], {}, [])
    assert endings_of([person], {}) == {"r": Ending("completed")}
    assert endings_of([], {"sess": log_of(*written("a", status="failed"))}) == {"r": Ending("failed")}
