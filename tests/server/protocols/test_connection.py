from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Any, Final

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from openai.types.realtime.realtime_server_event import RealtimeServerEvent
from pydantic import Field, TypeAdapter

from unbroken.server.protocols.cursor import parse_cursor
from unbroken.server.protocols.items import DecodeError
from unbroken.server.protocols.realtime.connection import RealtimeConnection, lone_error
from unbroken.server.protocols.realtime.encode import RealtimeEncoder
from unbroken.sessions.entries import (
    Body,
    ConfigUpdated,
    Deltas,
    Entry,
    ItemAdded,
    OutputDone,
    OutputStarted,
    Refused,
    ResponseDone,
    ResponseStarted,
    SessionOpened,
    Submitted,
)
from unbroken.sessions.event_log import EventLog, Position
from unbroken.sessions.ids import ChainId, Incarnation, ItemId, Nonce, PrincipalId, ResponseId, SessionId
from unbroken.sessions.items import Message, ResponseRequest, SessionConfig, Text
from unbroken.sessions.response import Ongoing, ResponseOutput, Standing
from unbroken.sessions.session import Session, SessionLimits

SERVER_EVENT: Final[TypeAdapter[Any]] = TypeAdapter(
    Annotated[RealtimeServerEvent, Field(discriminator="type")]
)
LIFE: Final = Incarnation("0a0a0a0a")
CHAIN: Final = ChainId("c1")
OTHER: Final = ChainId("c2")
R: Final = ResponseId("resp_1")
ANSWER: Final = Message(ItemId("item_1"), "assistant", (Text("abc"),))
USER: Final = Message(ItemId("item_0"), "user", (Text("hello"),))

Frame = dict[str, Any]

CONVERSATION: Final[list[Body]] = [
    SessionOpened(PrincipalId("alice"), SessionConfig("m")),
    ConfigUpdated(SessionConfig("m", "x")),
    ItemAdded(USER, None),
    Refused(3, CHAIN, "item_not_found", "No.", "item_id", "mine"),
    Refused(3, OTHER, "item_not_found", "Not for you.", "item_id", "theirs"),
    ResponseStarted(R, ResponseRequest(), 1),
    OutputStarted(R, ANSWER.id, True, USER.id, 1),
    Deltas(R, ANSWER.id, ["a", "b", "c"], 2),
    OutputDone(R, ANSWER, True, USER.id, 5),
    ResponseDone(R, "completed", 6, (ANSWER,)),
]


class Table:
    """A session with a short conversation in its log, and connections to it."""

    def __init__(self) -> None:
        self.log = EventLog(LIFE)
        self.session = Session(SessionId("sess_1"), SessionLimits())
        for index, body in enumerate(CONVERSATION):
            entry = Entry(self.log.head + 1, Nonce(100 + index), body)
            self.log.append(entry)
            self.session.apply(entry)

    def connect(
        self, start: Position | None = None, *, remaining: int = 0, chain: ChainId = CHAIN
    ) -> RealtimeConnection:
        start = Position(LIFE, 0, Nonce(0)) if start is None else start
        return RealtimeConnection(
            self.session,
            start,
            chain,
            max_depth=8,
            remaining=remaining,
            encoder=RealtimeEncoder(self.session.id, start.incarnation, merge_above=10**6),
        )

    def frames(self, after: int, connection: RealtimeConnection) -> list[Frame]:
        return loaded(connection.records(self.log.read(after, 10**6)))


def loaded(frames: Iterable[bytes]) -> list[Frame]:
    out: list[Frame] = [orjson.loads(frame) for frame in frames]
    for frame in out:
        SERVER_EVENT.validate_python(frame, strict=True)
    return out


def place_of(frame: Frame) -> tuple[Position, int]:
    parsed = parse_cursor(frame["event_id"])
    assert parsed is not None
    return parsed


# Opening.


def test_a_new_session_opens_with_itself_and_its_token() -> None:
    (created,) = loaded(Table().connect().opening("rt_1", resumed=None, preamble=[]))

    assert created["type"] == "session.created"
    assert created["session"]["unbroken"] == {"concurrency": "reject", "reasoning": False, "resume": "rt_1"}
    assert place_of(created) == (Position(LIFE, 0, Nonce(0)), 0)


@pytest.mark.parametrize("resumed", [True, False])
def test_a_session_says_whether_it_was_resumed(*, resumed: bool) -> None:
    (created,) = loaded(Table().connect().opening("rt_1", resumed=resumed, preamble=[]))

    assert created["session"]["unbroken"]["resumed"] is resumed


STANDING: Final[list[Standing]] = [
    USER,
    Ongoing(R, ResponseRequest(), ResponseOutput(ANSWER.id, USER.id, parts=["so far"])),
    Message(ItemId("item_2"), "user", (Text("meanwhile"),)),
    Ongoing(
        ResponseId("resp_2"),
        ResponseRequest(in_conversation=False),
        ResponseOutput(ItemId("item_3"), None, parts=["beside"], in_conversation=False),
    ),
    Ongoing(ResponseId("resp_3"), ResponseRequest(), None),
]


def test_how_things_stand_is_shown_in_order_with_what_is_being_said() -> None:
    frames = loaded(Table().connect().opening("rt_1", resumed=False, preamble=STANDING))

    assert [frame["type"] for frame in frames] == [
        "session.created",
        "conversation.item.added",
        "conversation.item.done",
        "response.created",
        "response.output_item.added",
        "conversation.item.added",
        "response.content_part.added",
        "response.output_text.delta",
        "conversation.item.added",
        "conversation.item.done",
        "response.created",
        "response.output_item.added",
        "response.content_part.added",
        "response.output_text.delta",
        "response.created",
    ]
    added = [frame for frame in frames if frame["type"] == "conversation.item.added"]
    assert [(frame["item"]["id"], frame.get("previous_item_id")) for frame in added] == [
        ("item_0", None),
        ("item_1", "item_0"),
        ("item_2", "item_1"),
    ]


@given(st.lists(st.sampled_from(STANDING), max_size=5))
def test_only_the_last_of_the_opening_frames_can_be_resumed_from(preamble: list[Standing]) -> None:
    """A client that lost its connection in between has seen a part: it must start over."""
    table = Table()
    start = table.log.position(5)
    frames = loaded(table.connect(start).opening("rt_1", resumed=False, preamble=preamble))

    assert [parse_cursor(frame["event_id"]) is None for frame in frames] == [
        *[True] * (len(frames) - 1),
        False,
    ]
    assert place_of(frames[-1]) == (start, 0)
    assert len({frame["event_id"] for frame in frames}) == len(frames)


# Records.


def test_a_conversation_is_shown_once_in_order() -> None:
    table = Table()
    frames = table.frames(0, table.connect())

    assert [frame["type"] for frame in frames] == [
        "session.updated",
        "conversation.item.added",
        "conversation.item.done",
        "error",
        "response.created",
        "response.output_item.added",
        "conversation.item.added",
        "response.content_part.added",
        *["response.output_text.delta"] * 3,
        "response.output_text.done",
        "response.content_part.done",
        "response.output_item.done",
        "conversation.item.done",
        "response.done",
    ]
    assert len({frame["event_id"] for frame in frames}) == len(frames)


def test_from_every_frame_on_exactly_the_rest_is_shown() -> None:
    """Also from between two frames of one entry."""
    table = Table()
    whole = table.frames(0, table.connect())
    for index, frame in enumerate(whole):
        position, remaining = place_of(frame)
        connection = table.connect(position, remaining=remaining)
        after = position.seq - 1 if remaining else position.seq

        assert table.frames(after, connection) == whole[index + 1 :]


def test_the_rest_of_an_entry_is_shown_once_also_when_records_come_one_by_one() -> None:
    table = Table()
    whole = table.frames(0, table.connect())
    index = next(n for n, frame in enumerate(whole) if frame["type"] == "response.output_item.added")
    position, remaining = place_of(whole[index])
    assert remaining == 2
    connection = table.connect(position, remaining=remaining)

    frames: list[Frame] = []
    after = position.seq - 1
    while records := table.log.read(after, 1):
        frames += loaded(connection.records(records))
        after += 1
    assert frames == whole[index + 1 :]


def test_a_refusal_is_shown_to_its_chain_alone() -> None:
    table = Table()
    mine = [frame["error"] for frame in table.frames(0, table.connect()) if frame["type"] == "error"]
    theirs = table.frames(0, table.connect(chain=OTHER))
    errors = [frame["error"] for frame in theirs if frame["type"] == "error"]

    assert [(error["message"], error["event_id"]) for error in mine] == [("No.", "mine")]
    assert [(error["message"], error["event_id"]) for error in errors] == [("Not for you.", "theirs")]
    assert not [
        frame for frame in table.frames(0, table.connect(chain=ChainId("c3"))) if frame["type"] == "error"
    ]


def test_refusals_of_before_it_knew_anything_are_not_shown_to_a_client() -> None:
    """It starts from nothing, and doesn't know what was refused."""
    table = Table()
    start = Position(LIFE, 0, Nonce(0))
    shown = [
        [
            frame["type"]
            for frame in table.frames(
                0, RealtimeConnection(table.session, start, CHAIN, max_depth=8, refusals_from=upto)
            )
        ].count("error")
        for upto in (3, 4, 5)
    ]

    assert shown == [1, 0, 0]


# Frames of a connection's own.


def test_an_own_frame_stands_where_the_connection_is() -> None:
    """Clients keep whatever id came last: nothing may be lost or repeated when it is such a one."""
    table = Table()
    connection = table.connect()
    error = {"type": "error", "error": {"type": "x", "code": "y", "message": "z"}}
    for seq in range(1, table.log.head + 1):
        list(connection.records(table.log.read(seq - 1, 1)))
        (frame,) = loaded([connection.own(error)])
        assert place_of(frame) == (table.log.position(seq), 0)


def test_an_own_frame_before_the_rest_of_an_entry_keeps_the_rest() -> None:
    table = Table()
    position = table.log.position(7)
    connection = table.connect(position, remaining=2)
    (created,) = loaded(connection.opening("rt_1", resumed=True, preamble=[]))

    assert place_of(created) == (position, 2)


def test_own_frames_are_never_the_same() -> None:
    table = Table()
    connections = [table.connect() for _ in range(3)]
    frame = {"type": "error", "error": {"type": "x", "message": "z"}}
    ids = [orjson.loads(each.own(frame))["event_id"] for each in connections for _ in range(300)]

    assert len(set(ids)) == 900
    assert all(parse_cursor(each) == (Position(LIFE, 0, Nonce(0)), 0) for each in ids)


def test_an_error_without_a_session_is_no_place() -> None:
    first, second = loaded([lone_error("invalid_api_key", "No.") for _ in range(2)])

    assert parse_cursor(first["event_id"]) is None
    assert first["event_id"] != second["event_id"]
    assert first["error"]["code"] == "invalid_api_key"


# What the client says.


def received(connection: RealtimeConnection, event: Frame) -> Submitted:
    answer = connection.receive(orjson.dumps(event).decode())
    assert isinstance(answer, Submitted)
    return answer


def say(text: str = "hi", item_id: str | None = None, **extra: Any) -> Frame:
    item: Frame = {"type": "message", "role": "user", "content": [{"type": "input_text", "text": text}]}
    if item_id is not None:
        item["id"] = item_id
    return {"type": "conversation.item.create", "item": item, **extra}


def ask(**extra: Any) -> Frame:
    return {"type": "response.create", **extra}


def test_an_input_names_who_sent_it_and_what_they_call_it() -> None:
    submitted = received(Table().connect(), ask(event_id="mine"))

    assert (submitted.chain, submitted.event_id) == (CHAIN, "mine")


def key_of(event: Frame, chain: ChainId = CHAIN) -> tuple[str, bytes] | None:
    key = received(Table().connect(chain=chain), event).key
    return None if key is None else (key.name, key.digest)


@pytest.mark.parametrize("language", ["py", "js"])
def test_the_number_of_a_request_within_its_connection_is_no_name(language: str) -> None:
    """The Agents SDKs count from one in each: the next request of that number is another one."""
    assert key_of(ask(event_id=f"agents_{language}_response_create_1")) is None


def test_what_has_no_name_has_no_key() -> None:
    assert key_of(say()) is None
    assert key_of(ask()) is None


@pytest.mark.parametrize(
    "event",
    [
        say(unbroken={"message_id": "m1"}),
        say(item_id="i1"),
        say(event_id="e1"),
        ask(unbroken={"message_id": "m1"}),
        ask(event_id="e1"),
        ask(event_id="e1", response={"metadata": {"k": "v"}}),
        ask(
            event_id="e1",
            response={
                "input": [
                    {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "x"}]}
                ]
            },
        ),
        {"type": "response.cancel", "event_id": "e1"},
        {"type": "conversation.item.delete", "item_id": "x", "unbroken": {"message_id": "m1"}},
        {"type": "session.update", "session": {"instructions": "x"}, "event_id": "e1"},
    ],
)
def test_the_same_event_has_the_same_key_each_time(event: Frame) -> None:
    """Although the ids that are minted for it differ."""
    assert key_of(event) == key_of(event) is not None


def test_a_message_id_is_known_on_any_connection_whatever_else_names_it() -> None:
    events = [say(item_id=each, event_id=each, unbroken={"message_id": "m1"}) for each in ("a", "b")]

    assert key_of(events[0]) == key_of(events[1], OTHER)


def test_an_item_id_is_known_on_any_connection() -> None:
    assert key_of(say(item_id="i1")) == key_of(say(item_id="i1", event_id="e"), OTHER)


def test_an_event_id_means_something_only_in_its_chain_and_with_its_content() -> None:
    """Some SDKs count from one in each connection: the same id comes for other things."""
    names = {
        key_of(event, chain)[0]  # type: ignore[index]
        for event in (say("a", event_id="e1"), say("b", event_id="e1"), ask(event_id="e1"))
        for chain in (CHAIN, OTHER)
    }
    assert len(names) == 6


def test_the_same_name_for_other_content_has_another_digest() -> None:
    """So that the store can tell a resend from a mistake."""
    variants = [
        (say("a", "i1"), say("b", "i1")),
        (say("a", "i1"), say("a", "i1", previous_item_id="root")),
        (
            ask(unbroken={"message_id": "m"}),
            ask(unbroken={"message_id": "m"}, response={"instructions": "x"}),
        ),
        (
            {"type": "response.cancel", "unbroken": {"message_id": "m"}},
            {"type": "response.cancel", "response_id": "r", "unbroken": {"message_id": "m"}},
        ),
    ]
    for one, other in variants:
        first, second = key_of(one), key_of(other)
        assert first is not None
        assert second is not None
        assert first[0] == second[0]
        assert first[1] != second[1]


def test_one_name_for_two_kinds_of_thing_is_two_names() -> None:
    """A page may use one id for a message and for the request to answer it."""
    one, other = key_of(say(unbroken={"message_id": "m"})), key_of(ask(unbroken={"message_id": "m"}))

    assert one is not None
    assert other is not None
    assert one[0] != other[0]


def test_an_item_is_retrieved_without_writing_anything() -> None:
    table = Table()
    connection = table.connect()
    answer = connection.receive('{"type":"conversation.item.retrieve","item_id":"item_1","event_id":"e"}')

    assert not isinstance(answer, Submitted)
    (frame,) = loaded([connection.own(answer)])
    assert frame["type"] == "conversation.item.retrieved"
    assert frame["item"]["content"] == [{"type": "output_text", "text": "abc"}]
    with pytest.raises(DecodeError) as caught:
        connection.receive('{"type":"conversation.item.retrieve","item_id":"gone","event_id":"e"}')
    assert (caught.value.code, caught.value.param, caught.value.event_id) == (
        "item_not_found",
        "item_id",
        "e",
    )


def test_binary_frames_are_refused() -> None:
    with pytest.raises(DecodeError) as caught:
        Table().connect().receive(b"{}")
    assert caught.value.code == "binary_frame"


def test_depth_is_bounded() -> None:
    with pytest.raises(DecodeError, match="8 levels"):
        Table().connect().receive('{"type":"response.cancel","x":' + "[" * 8 + "]" * 8 + "}")


@given(st.text(st.characters(codec=None), max_size=100))
def test_text_of_any_kind_is_refused_or_taken(text: str) -> None:
    try:
        Table().connect().receive(text)
    except DecodeError as error:
        assert error.code in ("invalid_json", "invalid_event")
