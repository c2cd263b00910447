"""Who needn't have started over is found, and who had to isn't."""

from __future__ import annotations

import pytest

from tests.chaos.planting import INCARNATION, Tape, log_of, written
from tests.chaos.resets import check_resets
from unbroken.server.protocols.cursor import format_cursor, parse_cursor


def found(after: str | None, *, resumed: bool = False, floor: int = 0) -> list[str]:
    """Return which rules are broken where a client comes back with *after* to a log of six entries or so."""
    tape = Tape().connect().lose().connect(after=after, resumed=resumed)
    return [each.rule for each in check_resets(tape.history, log_of(*written("a", "b"), floor=floor))]


def place(seq: int, *, nonce: int = 1, incarnation: str = INCARNATION, remaining: int = 0) -> str:
    cursor = format_cursor(incarnation, seq, nonce, remaining)
    assert parse_cursor(cursor) is not None
    return cursor


@pytest.mark.parametrize(
    "after",
    [
        place(1),
        place(5),  # a piece in the middle of an entry
        place(3, remaining=1),
        place(0, nonce=0),  # nothing was said yet
        place(0, nonce=0) + "-x",
    ],
)
def test_who_starts_over_with_a_place_in_the_log_is_found(after: str) -> None:
    assert found(after) == ["I4"]


def test_who_goes_on_passes() -> None:
    assert found(place(1), resumed=True) == []


@pytest.mark.parametrize(
    "after",
    [
        None,  # it asked for everything
        "event_made_up",
        place(99),
        place(1, nonce=7),
        place(1, incarnation="ffffffff"),
        place(0, nonce=0, remaining=1),
    ],
)
def test_who_had_to_start_over_passes(after: str | None) -> None:
    assert found(after) == []


@pytest.mark.parametrize("seq", [0, 3, 4])
def test_what_is_forgotten_is_not_held(seq: int) -> None:
    assert found(place(seq, nonce=min(seq, 1)), floor=4) == []
