from __future__ import annotations

import pytest

from unbroken.server.files.transfers import TransferLimits, Transfers, TransfersBusy
from unbroken.sessions.ids import PrincipalId

ALICE, BOB = PrincipalId("alice"), PrincipalId("bob")


def test_there_are_only_so_many_of_one_and_of_all() -> None:
    transfers = Transfers(TransferLimits(at_once=3, of_one=2))
    first, _ = transfers.begin(ALICE), transfers.begin(ALICE)
    with pytest.raises(TransfersBusy):
        transfers.begin(ALICE)
    transfers.begin(BOB)
    with pytest.raises(TransfersBusy):
        transfers.begin(BOB)

    first.end()
    first.end()  # harmless
    assert transfers.count == 2
    with transfers.one(BOB):
        assert transfers.count == 3
    assert transfers.count == 2


def test_one_ends_also_by_an_error() -> None:
    transfers = Transfers(TransferLimits())
    with pytest.raises(ZeroDivisionError), transfers.one(ALICE):
        raise ZeroDivisionError

    assert transfers.count == 0


@pytest.mark.parametrize(
    ("now", "received", "deadline"),
    [
        (0.0, 0, 20.0),  # the stall time-out
        (25.0, 0, 30.0),  # patience comes first
        (25.0, 8192 * 100, 45.0),  # a fast one is only held to the stall time-out
        (100.0, 8192 * 75, 105.0),  # a slow one has what its bytes have earned
    ],
)
def test_a_slow_upload_has_as_long_as_its_bytes_have_earned(
    now: float, received: int, deadline: float
) -> None:
    limits = TransferLimits(stall_timeout=20, patience=30, least_rate=8192)

    assert limits.deadline(now, 0.0, received) == deadline
