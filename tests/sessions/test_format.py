from __future__ import annotations

from pathlib import Path
from typing import Final

import orjson
import pytest

from tests.sessions.next_format import FORMAT_2, held_release, new_release, old_release
from unbroken.sessions.entries import decode_entry, encode_body
from unbroken.sessions.errors import UnknownFormat
from unbroken.sessions.format import FORMAT_1, Format, Formats
from unbroken.sessions.ids import SessionId
from unbroken.sessions.session import Session, SessionLimits

RECORDED: Final = sorted((Path(__file__).parent / "data").glob("log_v1*.jsonl"))
BODIES: Final = [decode_entry(line).body for path in RECORDED for line in path.read_bytes().splitlines()]


def test_what_the_old_release_recorded_is_read_by_the_new_one() -> None:
    formats = new_release()
    for body in BODIES:
        assert formats.decode_body(encode_body(body)) == body


def test_the_new_release_writes_what_the_old_one_reads_until_told_otherwise() -> None:
    new, old = new_release(), old_release()
    for body in BODIES:
        assert old.decode_body(new.encode_body(body)) == body
    assert new.most_written == 0


def test_once_agreed_on_the_later_format_is_written() -> None:
    new, other = new_release(), new_release()
    new.agree(2)
    for body in BODIES:
        assert orjson.loads(new.encode_body(body))["v"] == 2
        assert other.decode_body(new.encode_body(body)) == body
    new.agree(1)
    assert new.encode_body(BODIES[0]) == encode_body(BODIES[0])
    assert new.most_written == 2


def test_the_old_release_refuses_what_the_new_one_wrote_and_says_why() -> None:
    new, old = new_release(), old_release()
    new.agree(2)
    found: list[str] = []
    old.on_unreadable = lambda: found.append("unreadable")
    with pytest.raises(UnknownFormat, match="has format 2; this version reads format 1"):
        old.decode_body(new.encode_body(BODIES[0]))
    assert found == ["unreadable"]


def test_a_release_that_reads_two_refuses_a_third_and_says_why() -> None:
    with pytest.raises(UnknownFormat, match="has format 3; this version reads 1 to 2"):
        new_release().decode_body(b'{"v":3,"body":{}}')
    with pytest.raises(UnknownFormat):
        new_release().decode_body(b"nothing of the kind")


def snapshot() -> bytes:
    session = Session(SessionId("s"), SessionLimits())
    for line in RECORDED[0].with_name("log_v1_calls.jsonl").read_bytes().splitlines():
        session.apply(decode_entry(line))
    return session.snapshot()


def test_snapshots_are_read_in_both_formats() -> None:
    new = new_release()
    data = snapshot()
    assert new.encode_state(data) == data
    assert new.decode_state(data) == data
    new.agree(2)
    written = new.encode_state(data)
    assert orjson.loads(written)["v"] == 2
    restored = Session.restore(SessionId("s"), SessionLimits(), new.decode_state(written))
    assert restored.snapshot() == data


def test_a_snapshot_of_a_later_format_is_refused_by_the_session_and_says_why() -> None:
    """Its fields have other names, so that it isn't even a snapshot to this release."""
    new, old = new_release(), old_release()
    new.agree(2)
    found: list[str] = []
    old.on_unreadable = lambda: found.append("unreadable")
    data = old.decode_state(new.encode_state(snapshot()))
    with pytest.raises(UnknownFormat, match="has format 2; this version reads format 1"):
        Session.restore(SessionId("s"), SessionLimits(), data)
    assert found == ["unreadable"]


def test_formats_are_adjacent_and_one_of_them_is_written() -> None:
    third = Format(3, FORMAT_2.encode_body, FORMAT_2.decode_body)
    with pytest.raises(ValueError, match="format 1 isn't the one before 3"):
        Formats(third, FORMAT_1)
    with pytest.raises(ValueError, match="writes the formats 2 to 3"):
        Formats(third, FORMAT_2, latest=1)
    assert held_release().latest == 1


def test_being_outdated_is_told_once() -> None:
    formats = old_release()
    told: list[str] = []
    formats.on_outdated = lambda: told.append("outdated")
    for is_outdated in (False, True, True, False, True):
        formats.note_outdated(is_outdated)
    assert told == ["outdated", "outdated"]
