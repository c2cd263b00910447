from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from unbroken.server.protocols.cursor import format_cursor, parse_cursor
from unbroken.sessions.event_log import Position
from unbroken.sessions.ids import Incarnation, Nonce

incarnations = st.text("0123456789abcdef", min_size=8, max_size=8).map(Incarnation)
nonces = st.integers(0, 2**32 - 1).map(Nonce)


@given(incarnations, st.integers(0, 10**18 - 1), nonces, st.integers(0, 99))
def test_a_cursor_is_read_as_it_was_written(
    incarnation: Incarnation, seq: int, nonce: Nonce, remaining: int
) -> None:
    text = format_cursor(incarnation, seq, nonce, remaining)

    assert parse_cursor(text) == (Position(incarnation, seq, nonce), remaining)
    assert parse_cursor(f"{text}-0a1b2c3d1f") == (Position(incarnation, seq, nonce), remaining)


@given(st.text())
def test_anything_else_is_no_cursor(text: str) -> None:
    """And nothing raises: clients may send whatever they like."""
    assert parse_cursor(text) is None


@given(st.text("event_0123456789abcdef.-", max_size=50))
def test_what_looks_like_a_cursor_is_one_only_if_it_can_be_written_back(text: str) -> None:
    parsed = parse_cursor(text)
    if parsed is not None:
        position, remaining = parsed
        again = format_cursor(position.incarnation, position.seq, position.nonce, remaining)
        assert parse_cursor(again) == parsed


@pytest.mark.parametrize(
    "text",
    [
        "",
        "event_",
        "event_0a0a0a0a.1.1",
        "event_0a0a0a0a.1.1.0.0",
        "event_0A0A0A0A.1.1.0",
        "event_0a0a0a0.1.1.0",
        "event_0a0a0a0a.-1.1.0",
        "event_0a0a0a0a.1.1.0\n",
        " event_0a0a0a0a.1.1.0",
        "event_0a0a0a0a.1.1.0-",
        "event_0a0a0a0a.1.1.0-A",
        "event_0a0a0a0a.1.1.0-" + "a" * 25,
        "event_0a0a0a0a.1.1.100",
        "event_0a0a0a0a.1.123456789.0",
        "event_0a0a0a0a." + "1" * 19 + ".1.0",
        "event_0a0a0a0a.\u0661.1.0",
        "item_0a0a0a0a.1.1.0",
    ],
)
def test_near_misses_are_no_cursors(text: str) -> None:
    assert parse_cursor(text) is None
