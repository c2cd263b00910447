from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from unbroken.server.agents.sse import Event, EventStreamParser, EventTooLong

LINES = st.one_of(
    st.sampled_from(
        [
            "",
            "data: x",
            "data:x",
            "data",
            "data:",
            "data:  y",
            ":",
            ": ping",
            "event: note",
            "event",
            "event:",
            "id: 7",
            "id",
            "id: a\x00b",
            "id: ü",
            "retry: 10",
            "retry: x",
            "unknown: 1",
            "datas: 1",
            " data: 1",
            "data: [DONE]",
            "",
        ]
    ),
    st.text(st.characters(exclude_characters="\r\n", exclude_categories=["Cs"]), max_size=8).map(
        "data: {}".format
    ),
    st.text(st.characters(exclude_characters="\r\n", exclude_categories=["Cs"]), max_size=8),
)
STREAMS = st.builds(
    lambda bom, lines: (bom + "".join(line + end for line, end in lines)).encode(),
    st.sampled_from(["", "\ufeff", "\ufeff\ufeff"]),
    st.lists(st.tuples(LINES, st.sampled_from(["\n", "\r", "\r\n"]))),
)


@st.composite
def chunked_streams(draw: st.DrawFn) -> list[bytes]:
    stream = draw(STREAMS)
    cuts = sorted(draw(st.lists(st.integers(0, len(stream)), max_size=12)))
    return [stream[a:b] for a, b in zip([0, *cuts], [*cuts, len(stream)], strict=True)]


def parse(*chunks: bytes) -> list[Event]:
    parser = EventStreamParser()
    return [event for chunk in chunks for event in parser.feed(chunk)]


def parse_by_the_standard(stream: bytes) -> list[Event]:
    """The standard's own words, step by step, for a stream that is all there."""
    text = stream.decode().removeprefix("\ufeff")
    events, data, kind, last_id = [], "", "", ""
    for line in re.split("\r\n|\n|\r", text)[:-1]:  # what no line end follows is not a line yet
        if not line:
            if data:
                events.append(Event(data.removesuffix("\n").encode(), kind or "message", last_id))
            data, kind = "", ""
            continue
        if line.startswith(":"):
            continue
        field, _, value = line.partition(":")
        value = value[1:] if value.startswith(" ") else value
        if field == "event":
            kind = value
        elif field == "data":
            data += value + "\n"
        elif field == "id" and "\0" not in value:
            last_id = value
    return events


@given(chunked_streams())
def test_any_chunking_gives_the_events_of_the_standard(chunks: list[bytes]) -> None:
    assert parse_by_the_standard(b"".join(chunks)) == parse(*chunks)


@given(STREAMS)
def test_byte_by_byte_gives_the_events_of_the_standard(stream: bytes) -> None:
    assert parse_by_the_standard(stream) == parse(*(bytes([byte]) for byte in stream))


@given(chunked_streams(), st.integers(1, 24))
def test_whether_a_stream_is_too_long_does_not_depend_on_its_chunks(chunks: list[bytes], bound: int) -> None:
    def is_too_long(*chunks: bytes) -> bool:
        parser = EventStreamParser(max_event_bytes=bound)
        try:
            for chunk in chunks:
                parser.feed(chunk)
        except EventTooLong:
            return True
        return False

    assert is_too_long(b"".join(chunks)) == is_too_long(*chunks)


def test_events_come_as_soon_as_they_are_complete() -> None:
    parser = EventStreamParser()

    assert parser.feed(b"data: 1\r\n") == []
    assert [Event(b"1")] == parser.feed(b"\r")  # not only when the LF has come
    assert parser.feed(b"\n") == []
    assert parser.feed(b"data: 2\n") == []
    assert [Event(b"2")] == parser.feed(b"\ndata: 3\n")


def test_several_data_lines_are_joined() -> None:
    assert [Event(b"a\n\n b")] == parse(b"data: a\ndata\ndata:  b\n\n")


def test_comments_and_lone_fields_are_no_events() -> None:
    assert [Event(b"x", "message", "1")] == parse(
        b"id: 1\n\n: ping\n\nretry: 5\n\nevent: lost\n\ndata: x\n\n"
    )


def test_type_is_the_events_own_and_id_stays() -> None:
    stream = b"event: note\nid: 1\ndata: a\n\ndata: b\n\n"

    assert [Event(b"a", "note", "1"), Event(b"b", "message", "1")] == parse(stream)


def test_unfinished_event_is_none() -> None:
    assert parse(b"data: a\n") == []


def test_encoding_of_data_is_left_alone() -> None:
    assert [Event(b"\xff\xfe")] == parse(b"data: \xff\xfe\n\n")


@pytest.mark.parametrize(("value", "expected"), [("250", 250), ("2s", None), ("", None), ("9" * 5000, None)])
def test_reconnection_time_is_read_where_it_is_a_number(value: str, expected: int | None) -> None:
    parser = EventStreamParser()
    parser.feed(f"retry: {value}\n".encode())

    assert expected == parser.retry


@pytest.mark.parametrize(
    "stream",
    [b"data: " + b"x" * 100, b"data: " + b"x" * 100 + b"\n", b": " + b"x" * 100 + b"\n", b"data: x\n" * 100],
    ids=["line without end", "line", "comment", "event of many lines"],
)
def test_what_passes_the_bound_is_an_error(stream: bytes) -> None:
    with pytest.raises(EventTooLong, match="longer than 64 bytes"):
        EventStreamParser(max_event_bytes=64).feed(stream)


def test_bound_is_for_an_event_and_not_for_a_chunk() -> None:
    assert len(EventStreamParser(max_event_bytes=64).feed(b"data: x\n\n" * 100)) == 100


def test_events_that_come_one_by_one_are_those_that_come_together() -> None:
    """One event to a chunk, as models send them, goes a shorter way, unless that would be wrong."""
    pieces = [
        b"data: one\n\n",
        b"data: \n\n",
        b"id: 7\ndata: two\n\n",
        b"data: three\n\n",
        b"event: error\n",
        b"data: four\n\n",
        b"data: five\n",
        b"data: six\n\n",
        b"data: sev",
        b"data: en\n\n",
        b"data: eight\n\ndata: nine\n\n",
        b"data: ten\r\n\n",
        b"data: a\rb\n\n",
        b"data: eleven\r\n\r",
        b"data: twelve\n\n",
    ]
    one_by_one, together = EventStreamParser(), EventStreamParser()

    assert [e for piece in pieces for e in one_by_one.feed(piece)] == together.feed(b"".join(pieces))


def test_bound_holds_for_events_that_come_one_by_one() -> None:
    parser = EventStreamParser(max_event_bytes=12)
    for _ in range(2):
        assert parser.feed(b"data: 123456\n\n")

    with pytest.raises(EventTooLong):
        parser.feed(b"data: 1234567\n\n")
