from __future__ import annotations

from pathlib import Path
from typing import Final, get_args

import orjson
import pytest

from unbroken.sessions.entries import (
    FORMAT,
    Body,
    Command,
    Deltas,
    Entry,
    Submitted,
    decode_entry,
    encode_entry,
    width,
)
from unbroken.sessions.errors import UnknownFormat
from unbroken.sessions.ids import ItemId, Nonce, ResponseId

RECORDED: Final = Path(__file__).parent / "data" / "log_v1.jsonl"
"""Every kind of entry as version 1 wrote it. Never changed: later versions must read it."""


def recorded() -> list[bytes]:
    return RECORDED.read_bytes().splitlines()


def test_what_format_1_wrote_is_read_and_written_the_same() -> None:
    for line in recorded():
        assert encode_entry(decode_entry(line)) == line


def test_the_record_holds_every_kind_of_entry_and_command() -> None:
    bodies = [decode_entry(line).body for line in recorded()]

    assert {type(body) for body in bodies} == set(get_args(Body))
    assert {type(body.command) for body in bodies if isinstance(body, Submitted)} == set(get_args(Command))


def test_the_recorded_log_is_contiguous() -> None:
    expected = 1
    for line in recorded():
        entry = decode_entry(line)
        assert entry.seq == expected
        expected = entry.last + 1


def test_fields_of_a_later_version_are_skipped() -> None:
    """Within a format, a newer node may have added fields that this one doesn't know."""
    for line in recorded():
        raw = orjson.loads(line)
        raw["b"]["added_later"] = {"any": ["thing"]}
        raw["also"] = 1

        assert decode_entry(orjson.dumps(raw)) == decode_entry(line)


@pytest.mark.parametrize(
    "data",
    [b"", b"{", b"[]", b"null", b'{"v":1}', b'{"v":1,"s":1,"k":1,"b":{"type":"of_later"}}', b"\xff"],
)
def test_what_is_no_entry_is_refused(data: bytes) -> None:
    with pytest.raises(UnknownFormat):
        decode_entry(data)


def test_another_format_is_refused_by_its_number() -> None:
    raw = orjson.loads(recorded()[0])
    raw["v"] = FORMAT + 1

    with pytest.raises(UnknownFormat, match=f"has format {FORMAT + 1}; this version reads format {FORMAT}"):
        decode_entry(orjson.dumps(raw))


def test_pieces_take_up_a_number_each() -> None:
    body = Deltas(ResponseId("r"), ItemId("i"), ["a", "b", "c"], ordinal=2)
    entry = Entry(10, Nonce(1), body)

    assert width(body) == 3
    assert entry.last == 12
