from __future__ import annotations

import contextlib
import json
from collections.abc import Iterable
from typing import Any, Final, get_args

import msgspec
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from unbroken.server.errors import ERROR_MEANINGS
from unbroken.server.protocols.items import DecodeError
from unbroken.server.protocols.nesting import depth
from unbroken.server.protocols.realtime.decode import command_of, decode_event
from unbroken.server.protocols.realtime.frames import ClientEvent, ItemRetrieve
from unbroken.sessions.entries import (
    CancelResponse,
    Command,
    ConfigUpdated,
    CreateItem,
    CreateResponse,
    DeleteItem,
    Entry,
    ItemAdded,
    SessionOpened,
    TruncateItem,
    UpdateConfig,
)
from unbroken.sessions.ids import ItemId, Nonce, PrincipalId, SessionId
from unbroken.sessions.items import Concurrency, Message, ResponseRequest, SessionConfig, Text
from unbroken.sessions.session import Session, SessionLimits

Event = dict[str, Any]


def session_with(*items: Message) -> Session:
    session = Session(SessionId("sess_1"), SessionLimits())
    config = SessionConfig("model-1")
    session.apply(Entry(1, Nonce(1), SessionOpened(PrincipalId("alice"), config)))
    previous = None
    for item in items:
        session.apply(Entry(session.applied + 1, Nonce(1), ItemAdded(item, previous)))
        previous = item.id
    session.apply(Entry(session.applied + 1, Nonce(1), ConfigUpdated(config)))
    return session


KNOWN: Final = Message(ItemId("known"), "user", (Text("what was said"),))
SESSION: Final = session_with(KNOWN)


def decoded(event: Event) -> Command:
    parsed = decode_event(orjson.dumps(event), max_depth=32)
    assert not isinstance(parsed, ItemRetrieve)
    return command_of(parsed, SESSION)


def refused(data: Event | bytes, max_depth: int = 32) -> DecodeError:
    raw = data if isinstance(data, bytes) else orjson.dumps(data)
    with pytest.raises(DecodeError) as caught:
        parsed = decode_event(raw, max_depth=max_depth)
        assert not isinstance(parsed, ItemRetrieve)
        command_of(parsed, SESSION)
    assert caught.value.code in ERROR_MEANINGS
    assert str(caught.value) == caught.value.message
    return caught.value


def user(text: str = "hi", **extra: Any) -> Event:
    return {"type": "message", "role": "user", "content": [{"type": "input_text", "text": text}], **extra}


def create(item: Event, **extra: Any) -> Event:
    return {"type": "conversation.item.create", "item": item, **extra}


def respond(**response: Any) -> Event:
    return {"type": "response.create", "response": response}


def update(**session: Any) -> Event:
    return {"type": "session.update", "session": {"type": "realtime", **session}}


# What is taken.


def test_an_item_is_created_under_its_id_or_a_new_one() -> None:
    named = decoded(create(user(id="mine"), previous_item_id="root"))
    assert named == CreateItem(Message(ItemId("mine"), "user", (Text("hi"),)), "root")

    unnamed, another = decoded(create(user())), decoded(create(user()))
    assert isinstance(unnamed, CreateItem)
    assert isinstance(another, CreateItem)
    assert unnamed.item.id.startswith("item_")
    assert unnamed.item.id != another.item.id


@pytest.mark.parametrize(
    ("role", "kind"),
    [("user", "input_text"), ("system", "input_text"), ("assistant", "output_text"), ("assistant", "text")],
)
def test_every_role_has_its_kind_of_part(role: str, kind: str) -> None:
    parts = [{"type": kind, "text": "a"}, {"type": kind, "text": ""}]
    command = decoded(create({"type": "message", "role": role, "content": parts}))

    assert isinstance(command, CreateItem)
    assert isinstance(command.item, Message)
    assert (command.item.role, command.item.content) == (role, (Text("a"), Text("")))


def test_other_events_are_what_they_say() -> None:
    assert decoded({"type": "conversation.item.delete", "item_id": "x"}) == DeleteItem("x")
    assert decoded(TRUNCATE) == TruncateItem("x", 0, 7)
    assert decoded({"type": "response.cancel"}) == CancelResponse(None)
    assert decoded({"type": "response.cancel", "response_id": "r"}) == CancelResponse("r")
    retrieve = {"type": "conversation.item.retrieve", "item_id": "x", "event_id": "e"}
    assert decode_event(orjson.dumps(retrieve), max_depth=9) == ItemRetrieve("x", "e")


def test_a_response_is_asked_for_with_what_it_should_be() -> None:
    command = decoded(
        respond(
            conversation="none",
            instructions="be brief",
            max_output_tokens=5,
            metadata={"k": "v"},
            input=[user("a", id="a"), {"type": "item_reference", "id": "known"}],
        )
    )

    assert isinstance(command, CreateResponse)
    assert command.response_id.startswith("resp_")
    given_input = (Message(ItemId("a"), "user", (Text("a"),)), KNOWN)
    assert command.request == ResponseRequest(False, "be brief", 5, {"k": "v"}, given_input)


@pytest.mark.parametrize(
    "event",
    [
        {"type": "response.create"},
        {"type": "response.create", "response": None},
        respond(),
        respond(conversation="auto", max_output_tokens="inf", metadata={}, output_modalities=["audio"]),
        respond(audio={"output": {"voice": "marin"}}, temperature=0.8),
    ],
)
def test_a_response_is_as_the_session_says_unless_asked_otherwise(event: Event) -> None:
    """Audio is answered as text, and what doesn't apply to text is skipped."""
    command = decoded(event)

    assert isinstance(command, CreateResponse)
    assert command.request == ResponseRequest()


def test_a_session_is_changed_in_what_is_said() -> None:
    assert decoded(update()) == UpdateConfig()
    assert decoded(update(instructions="x")) == UpdateConfig(instructions="x")
    assert decoded(update(max_output_tokens="inf")) == UpdateConfig(max_output_tokens=None)
    assert decoded(update(max_output_tokens=2**31 - 1)) == UpdateConfig(max_output_tokens=2**31 - 1)
    for model in ("default", "model-1"):
        assert decoded(update(model=model)) == UpdateConfig()
    for policy in Concurrency:
        command = decoded(update(unbroken={"concurrency": policy.value}))
        assert command == UpdateConfig(concurrency=policy)
    skipped = update(output_modalities=["audio"], audio={"input": {"turn_detection": None}}, tracing="auto")
    assert decoded(skipped) == UpdateConfig()


def test_fields_nobody_knows_are_skipped() -> None:
    event = create(user(id="a", object="realtime.item", status="completed", later=[{}]), later={"x": [1]})

    assert isinstance(decoded(event), CreateItem)


# What is refused.

TOO_LONG: Final = "x" * 129

TRUNCATE: Final = {
    "type": "conversation.item.truncate",
    "item_id": "x",
    "content_index": 0,
    "audio_end_ms": 7,
}

REFUSALS: Final[list[tuple[Event, str, str | None]]] = [
    ({"type": "conversation.item.truncate", "item_id": "x"}, "invalid_event", None),
    ({**TRUNCATE, "audio_end_ms": -1}, "invalid_event", "audio_end_ms"),
    ({**TRUNCATE, "content_index": 1.5}, "invalid_event", "content_index"),
    ({**TRUNCATE, "audio_end_ms": 2**31}, "invalid_event", "audio_end_ms"),
    ({"type": "input_audio_buffer.append", "audio": ""}, "audio_input_unsupported", "type"),
    ({"type": "input_audio_buffer.commit"}, "audio_input_unsupported", "type"),
    ({"type": "input_audio_buffer.clear"}, "audio_input_unsupported", "type"),
    ({"type": "output_audio_buffer.clear"}, "unsupported_event", "type"),
    ({"type": "no.such"}, "unknown_event_type", "type"),
    ({"type": "session.created"}, "unknown_event_type", "type"),
    ({"type": "x" * 9_000}, "unknown_event_type", "type"),
    ({"type": 5}, "invalid_event", "type"),
    ({}, "invalid_event", "type"),
    ({"type": "conversation.item.create"}, "invalid_event", None),
    ({"type": "conversation.item.delete"}, "invalid_event", None),
    ({"type": "conversation.item.delete", "item_id": 1}, "invalid_event", "item_id"),
    ({"type": "response.cancel", "response_id": []}, "invalid_event", "response_id"),
    ({"type": "response.cancel", "unbroken": {"message_id": 1}}, "invalid_event", "unbroken.message_id"),
    ({"type": "response.cancel", "unbroken": {"message_id": ""}}, "invalid_event", "unbroken.message_id"),
    (
        {"type": "response.cancel", "unbroken": {"message_id": TOO_LONG}},
        "invalid_event",
        "unbroken.message_id",
    ),
    (create({"type": "mcp_call", "name": "f"}), "unsupported_item", "item.type"),
    (create({"type": "mcp_call" * 1_000}), "unsupported_item", "item.type"),
    (create({"role": "user"}), "invalid_event", "item.content"),
    (create({"role": "user", "content": []}), "invalid_event", "item.content"),
    (create({"content": [{"type": "input_text", "text": "x"}]}), "invalid_event", "item.role"),
    (create(user(role="tool")), "invalid_event", "item.role"),
    (create(user(id="")), "invalid_event", "item.id"),
    (create(user(id="a b")), "invalid_event", "item.id"),
    (create(user(id="é")), "invalid_event", "item.id"),
    (create(user(id="a\n")), "invalid_event", "item.id"),
    (create(user(id=TOO_LONG)), "invalid_event", "item.id"),
    (
        create({"role": "user", "content": [{"type": "input_audio", "audio": ""}]}),
        "audio_input_unsupported",
        "item.content[0].type",
    ),
    (
        create({"role": "user", "content": [{"type": "input_text", "text": "a"}, {"type": "input_video"}]}),
        "unsupported_content",
        "item.content[1].type",
    ),
    (
        create({"role": "user", "content": [{"type": "output_text", "text": "a"}]}),
        "unsupported_content",
        "item.content[0].type",
    ),
    (
        create({"role": "assistant", "content": [{"type": "input_text", "text": "a"}]}),
        "unsupported_content",
        "item.content[0].type",
    ),
    (
        create({"role": "user", "content": [{"type": "input_text"}]}),
        "invalid_event",
        "item.content[0].text",
    ),
    (
        create({"role": "user", "content": [{"type": "input_text", "text": 1}]}),
        "invalid_event",
        "item.content[0].text",
    ),
    (respond(conversation="conv_1"), "invalid_event", "response.conversation"),
    (respond(max_output_tokens=0), "invalid_event", "response.max_output_tokens"),
    (respond(max_output_tokens="many"), "invalid_event", "response.max_output_tokens"),
    (respond(max_output_tokens=True), "invalid_event", "response.max_output_tokens"),
    (respond(metadata={str(n): "" for n in range(17)}), "invalid_event", "response.metadata"),
    (respond(metadata={"k" * 65: ""}), "invalid_event", "response.metadata"),
    (respond(metadata={"k": "v" * 513}), "invalid_event", "response.metadata"),
    (respond(metadata={"k": 1}), "invalid_event", "response.metadata[...]"),
    (respond(input=[{"type": "item_reference", "id": "gone"}]), "item_not_found", "response.input[0].id"),
    (respond(input=[{"type": "item_reference"}]), "item_not_found", "response.input[0].id"),
    (respond(input=[user(), {"type": "message"}]), "invalid_event", "response.input[1].role"),
    (update(type="transcription"), "unsupported_session_type", "session.type"),
    (update(max_output_tokens=-1), "invalid_event", "session.max_output_tokens"),
    (update(max_output_tokens=2**31), "invalid_event", "session.max_output_tokens"),
    (update(instructions=None), "invalid_event", "session.instructions"),
    (update(unbroken={"concurrency": "both"}), "invalid_event", "session.unbroken.concurrency"),
]


@pytest.mark.parametrize(("event", "code", "param"), REFUSALS)
def test_what_can_not_be_is_refused_with_its_reason(event: Event, code: str, param: str | None) -> None:
    error = refused({**event, "event_id": "mine"})

    assert (error.code, error.param, error.event_id) == (code, param, "mine")
    assert error.message.endswith(".")
    assert len(error.message) < 300, "it doesn't quote what may be of any length"


@pytest.mark.parametrize("event_id", ["", "a b", "é", "x" * 129, "a\x7f", 5])
def test_a_name_that_is_none_is_refused_and_not_echoed(event_id: object) -> None:
    error = refused({"type": "response.cancel", "event_id": event_id})

    assert (error.code, error.param, error.event_id) == ("invalid_event", "event_id", None)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b" ",
        b"{",
        b"null",
        b"[]",
        b'"x"',
        b"1",
        b"\xff",
        b'{"type":"\xff"}',
        b'{"type":"\\ud800"}',
        b"{}x",
    ],
)
def test_what_is_no_object_is_refused(data: bytes) -> None:
    error = refused(data)

    assert (error.code, error.event_id) == ("invalid_json", None)


def test_a_number_of_any_size_is_refused_in_words() -> None:
    """JSON has them; what came in would not go out again."""
    for digits in (20, 400, 5_000):
        data = b'{"type":"session.update","session":{"max_output_tokens":%s}}' % (b"9" * digits)
        assert refused(data).param == "session.max_output_tokens"


@pytest.mark.parametrize(
    "event",
    [
        {"type": "response.create", "response": {"max_output_tokens": "y" * 60_000}},
        {"type": "session.update", "session": {"unbroken": {"concurrency": "y" * 60_000}}},
        {"type": "y" * 60_000},
        create({"type": "y" * 60_000}),
        create(user(id="y" * 60_000)),
    ],
)
def test_a_value_of_any_size_is_refused_in_few_words(event: Event) -> None:
    """What was sent isn't sent back whole."""
    assert len(refused(event).message) < 300


def test_what_a_response_refers_to_is_bounded() -> None:
    """A reference is short; what it stands for is written out, for each of them."""
    items = [Message(ItemId(f"i{number}"), "user", (Text("x" * 60_000),)) for number in range(2)]
    session = session_with(*items)

    def asked(count: int) -> Command:
        given = [{"type": "item_reference", "id": f"i{number % 2}"} for number in range(count)]
        parsed = decode_event(orjson.dumps(respond(input=given)), max_depth=32)
        assert not isinstance(parsed, ItemRetrieve)
        return command_of(parsed, session)

    assert isinstance(asked(8), CreateResponse)
    for count in (9, 300):
        with pytest.raises(DecodeError) as caught:
            asked(count)
        assert caught.value.code == "invalid_event"
        assert (caught.value.param or "").startswith("response.input")


def test_no_item_is_called_as_the_beginning_is() -> None:
    assert refused(create(user(id="root"))).param == "item.id"


# Depth.


@pytest.mark.long
@pytest.mark.timeout(20)
@pytest.mark.parametrize(
    "unit", ['"', "\\", '\\"', '"\\', "[", "{", "]", '{"a":', '"a":', ",", "\ud800", "é", "-", "1e", " "]
)
def test_hostile_frames_cost_no_more_than_their_length(unit: str) -> None:
    """They are read on the loop that all connections share. A square of a megabyte is minutes."""
    hostile = unit * ((1 << 20) // len(unit))
    for frame in (hostile, f'{{"type":"response.cancel","event_id":"{hostile}', f'{{"type":"{hostile}"}}'):
        with pytest.raises(DecodeError):
            decode_event(frame.encode("utf-8", "surrogatepass"), max_depth=8)


def nested(depth: int, opening: bytes = b"[", closing: bytes = b"]") -> bytes:
    return b'{"type":"response.cancel","x":' + opening * (depth - 1) + b"1" + closing * (depth - 1) + b"}"


@pytest.mark.parametrize(("opening", "closing"), [(b"[", b"]"), (b'{"a":', b"}")])
def test_depth_is_bounded_exactly(opening: bytes, closing: bytes) -> None:
    decode_event(nested(8, opening, closing), max_depth=8)
    error = refused(nested(9, opening, closing), max_depth=8)
    assert error.code == "invalid_json"
    assert "8 levels" in error.message


def test_brackets_in_text_and_side_by_side_are_no_depth() -> None:
    text = '[[[[{{{{"\\' * 50
    event = create(user(text, id="a"))

    command = command_of(decode_event(orjson.dumps(event), max_depth=4), SESSION)  # type: ignore[arg-type]
    assert isinstance(command, CreateItem)
    assert command.item.text == text
    wide = {"type": "response.cancel", "x": [[] for _ in range(100)]}
    decode_event(orjson.dumps(wide), max_depth=4)


def test_depth_beyond_all_measure_is_refused() -> None:
    assert refused(b"[" * 60_000).code == "invalid_json"
    assert refused(b'{"a":' * 12_000, max_depth=500).code == "invalid_json"


def test_a_text_that_never_ends_takes_in_the_rest() -> None:
    """Looking for its end again from each escaped quote would take the square of its length: seconds, in
    which no other connection is served.
    """
    assert depth(b'[["' + b'\\"[[' * 1_000, 1) == 2
    assert depth(b'[["[[\\', 1) == 2
    assert refused(b"[" * 33 + b'"' + b'\\"' * 30_000).code == "invalid_json"


# Anything at all.


@given(st.binary(max_size=200))
def test_bytes_of_any_kind_raise_nothing_else(data: bytes) -> None:
    with contextlib.suppress(DecodeError):
        decode_event(data, max_depth=8)


WORDS: Final = [
    "type",
    "event_id",
    "item",
    "id",
    "role",
    "content",
    "text",
    "session",
    "response",
    "input",
    "metadata",
    "conversation",
    "max_output_tokens",
    "instructions",
    "unbroken",
    "message_id",
    "concurrency",
    "item_id",
    "previous_item_id",
    "model",
    "response_id",
]
TYPES: Final[list[str]] = [
    str(msgspec.inspect.type_info(kind).tag)  # type: ignore[attr-defined]
    for kind in get_args(ClientEvent)
]
VALUES: Final = [
    *TYPES,
    "message",
    "item_reference",
    "user",
    "assistant",
    "input_text",
    "none",
    "auto",
    "inf",
    "realtime",
    "known",
    "default",
    "",
    "queue",
]

values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.floats(allow_nan=False)
    | st.text(max_size=5)
    | st.sampled_from(VALUES),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(WORDS), inner, max_size=5),
    max_leaves=12,
)
objects = st.builds(
    lambda kind, rest: {**rest, "type": kind},
    st.sampled_from(TYPES),
    st.dictionaries(st.sampled_from(WORDS), values, max_size=6),
)


def as_json(value: object) -> bytes:
    return json.dumps(value).encode()


@given(st.one_of(values, objects))
def test_json_of_any_kind_raises_nothing_else(value: object) -> None:
    try:
        event = decode_event(as_json(value), max_depth=8)
        if not isinstance(event, ItemRetrieve):
            command = command_of(event, SESSION)
            msgspec.json.encode(command)  # it can be written to the log
    except DecodeError as error:
        assert error.code in ERROR_MEANINGS


def test_every_kind_of_event_is_tried_here() -> None:
    tried: set[str] = set(TYPES)
    told: Iterable[str] = (event["type"] for event, _, _ in REFUSALS if isinstance(event.get("type"), str))

    assert {"session.update", "conversation.item.create", "response.create"} <= set(told) & tried
    assert len(TYPES) == len(get_args(ClientEvent)) == 7
