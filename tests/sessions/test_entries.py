from __future__ import annotations

from pathlib import Path
from typing import Final, get_args

import orjson
import pytest
from msgspec import UNSET

from unbroken.sessions.entries import (
    FORMAT,
    Body,
    Command,
    ConfigUpdated,
    Deltas,
    Entry,
    ItemAdded,
    OutputDone,
    OutputStarted,
    ResponseDone,
    ResponseStarted,
    Submitted,
    decode_entry,
    encode_entry,
    width,
)
from unbroken.sessions.errors import UnknownFormat
from unbroken.sessions.ids import ItemId, Nonce, ResponseId, SessionId
from unbroken.sessions.items import (
    CallHead,
    File,
    FunctionTool,
    Head,
    Image,
    Item,
    Message,
    NamedTool,
    Part,
    Produced,
    Reused,
    ToolCall,
    Usage,
)
from unbroken.sessions.session import Session, SessionLimits

RECORDED: Final = Path(__file__).parent / "data" / "log_v1.jsonl"
"""Every kind of entry as version 1 wrote it. Never changed: later versions must read it."""


RECORDED_CALLS: Final = RECORDED.with_name("log_v1_calls.jsonl")
"""What version 1 wrote once there were function calls. Never changed either."""


RECORDED_MERGED: Final = RECORDED.with_name("log_v1_merged.jsonl")
"""What version 1 wrote once requests could be merged, and answers truncated. Never changed either."""
RECORDED_TOOLS: Final = RECORDED.with_name("log_v1_tools.jsonl")
"""What version 1 wrote once there were reasoning, the server's tools, and approvals. Never changed either."""


RECORDED_FILES: Final = RECORDED.with_name("log_v1_files.jsonl")
"""What version 1 wrote once messages referred to images and files. Never changed either."""


RECORDED_REUSED: Final = RECORDED.with_name("log_v1_reused.jsonl")
"""What version 1 wrote once answers could be given again. Never changed either."""


RECORDED_ITEMS: Final = RECORDED.with_name("log_v1_items.jsonl")
"""What version 1 wrote once several items could join as one input. Never changed either."""


def recorded() -> list[bytes]:
    return RECORDED.read_bytes().splitlines()


def recorded_calls() -> list[bytes]:
    return RECORDED_CALLS.read_bytes().splitlines()


def recorded_merged() -> list[bytes]:
    return RECORDED_MERGED.read_bytes().splitlines()


def recorded_files() -> list[bytes]:
    return RECORDED_FILES.read_bytes().splitlines()


def recorded_tools() -> list[bytes]:
    return RECORDED_TOOLS.read_bytes().splitlines()


def recorded_reused() -> list[bytes]:
    return RECORDED_REUSED.read_bytes().splitlines()


def recorded_items() -> list[bytes]:
    return RECORDED_ITEMS.read_bytes().splitlines()


def all_recorded() -> list[bytes]:
    recorded_later = recorded_tools() + recorded_files() + recorded_reused() + recorded_items()
    return recorded() + recorded_calls() + recorded_merged() + recorded_later


def everything() -> list[Body]:
    return [decode_entry(line).body for line in all_recorded()]


def test_what_format_1_wrote_is_read_and_written_the_same() -> None:
    for line in all_recorded():
        assert encode_entry(decode_entry(line)) == line


def test_the_record_of_what_was_given_again_says_so() -> None:
    (done,) = [decode_entry(line).body for line in recorded_reused()]

    assert isinstance(done, ResponseDone)
    assert done.usage == Usage(reused=Reused("exact", 12.5))


def test_the_records_hold_every_kind_of_item_and_output() -> None:
    added = [body.item for body in everything() if isinstance(body, ItemAdded)]
    produced = [body.item for body in everything() if isinstance(body, OutputDone)]
    heads = [body.head for body in everything() if isinstance(body, OutputStarted)]

    assert {type(item) for item in (*added, *produced)} == {*get_args(Item), *get_args(Produced)}
    assert {type(item) for item in produced} == set(get_args(Produced))
    assert {type(head) for head in heads if head is not UNSET} == {*get_args(Head)} - {CallHead}


def test_the_record_of_files_holds_every_kind_of_part() -> None:
    bodies = [decode_entry(line).body for line in recorded_files()]
    (message,) = [body.item for body in bodies if isinstance(body, ItemAdded)]
    assert isinstance(message, Message)

    assert {type(part) for part in message.content} == set(get_args(Part))
    assert message.references == (
        Image("file-00", "image/png", 70, "a.png", "low"),
        Image("file-01", "image/jpeg", 9, "b.jpg"),
        File("file-02", "application/pdf", 1000, "c.pdf"),
    )
    assert message.text == "look here"


def test_the_record_of_files_makes_a_session_and_a_snapshot() -> None:
    limits = SessionLimits()
    session = Session(SessionId("s"), limits)
    for line in recorded_files():
        session.apply(decode_entry(line))
    restored = Session.restore(session.id, limits, session.snapshot())

    assert restored.items() == session.items()
    (message,) = restored.items()
    assert isinstance(message, Message)
    assert len(message.references) == 3
    assert 256 < message.size < 1024


def test_the_second_record_holds_calls_and_tools() -> None:
    bodies = [decode_entry(line).body for line in recorded_calls()]
    (config,) = [body.config for body in bodies if isinstance(body, ConfigUpdated)]

    assert config.tools == (FunctionTool("f", "A function.", {"type": "object"}), FunctionTool("g"))
    assert config.tool_choice == NamedTool("f")
    (started,) = [body for body in bodies if isinstance(body, OutputStarted) and body.output_index == 1]
    assert started.call == CallHead("call_1", "f")
    assert [body.call_id for body in bodies if isinstance(body, Deltas)] == [UNSET, "call_1"]


def test_the_second_record_makes_a_session_wherever_it_is_cut() -> None:
    """A snapshot at any entry, also in the middle of the arguments, goes on as the session would."""
    limits = SessionLimits()
    entries = [decode_entry(line) for line in recorded_calls()]
    for place in range(len(entries)):
        session = Session(SessionId("s"), limits)
        for entry in entries[:place]:
            session.apply(entry)
        standing = session.standing()
        session = Session.restore(session.id, limits, session.snapshot())
        assert session.standing() == standing
        for entry in entries[place:]:
            session.apply(entry)

        assert [item.text for item in session.items()] == ["hi", "Well", '{"a": 1}', "one"]


def test_the_third_record_makes_a_session_wherever_it_is_cut() -> None:
    """What waits still answers all that was said until it started, whoever takes it over on the way."""
    entries = [decode_entry(line) for line in recorded_merged()]
    (started,) = [
        each for each in entries if isinstance(each.body, ResponseStarted) and each.body.ordinal == 0
    ][1:]
    for place in range(len(entries)):
        session = Session(SessionId("s"), SessionLimits())
        for entry in entries[:place]:
            session.apply(entry)
        session = Session.restore(session.id, session.limits, session.snapshot())
        for entry in entries[place:]:
            session.apply(entry)
            if entry is started:
                assert [item.text for item in session.prompt(ResponseId("r2"))] == ["hi", "Well", "and"]

        assert [item.text for item in session.items()] == ["hi", "Well", "and", "So"]


def test_the_fourth_record_makes_a_session_wherever_it_is_cut() -> None:
    limits = SessionLimits()
    entries = [decode_entry(line) for line in recorded_tools()]
    for place in range(len(entries)):
        session = Session(SessionId("s"), limits)
        for entry in entries[:place]:
            session.apply(entry)
        standing = session.standing()
        session = Session.restore(session.id, limits, session.snapshot())
        assert session.standing() == standing
        for entry in entries[place:]:
            session.apply(entry)

        calls = [item for item in session.items() if isinstance(item, ToolCall)]
        assert [call.output for call in calls] == ["rain", None, None, "sent"]
        assert [call.error is None for call in calls] == [True, False, False, True]
        assert calls[-1].approval is not None
        assert not session.is_running


def test_the_record_of_items_makes_a_session_wherever_it_is_cut() -> None:
    entries = [decode_entry(line) for line in recorded_items()]
    for place in range(len(entries)):
        session = Session(SessionId("s"), SessionLimits())
        for entry in entries[:place]:
            session.apply(entry)
        session = Session.restore(session.id, session.limits, session.snapshot())
        for entry in entries[place:]:
            session.apply(entry)

        assert [item.text for item in session.items()] == ["hi", "and"]
        assert not session.has_inputs


def test_the_records_hold_every_kind_of_entry_and_command() -> None:
    bodies = everything()

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
