from __future__ import annotations

from typing import Annotated, Any, Final, get_args

import msgspec
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from openai.types.realtime.realtime_server_event import RealtimeServerEvent
from pydantic import Field, TypeAdapter

from unbroken.server.protocols.cursor import parse_cursor
from unbroken.server.protocols.realtime.encode import (
    RealtimeEncoder,
    error_frame,
    item_frame,
    refusal_frame,
    session_fields,
)
from unbroken.sessions.entries import (
    Body,
    CancelAccepted,
    CancelResponse,
    ConfigUpdated,
    Deltas,
    Entry,
    Failure,
    HandleNoted,
    ItemAdded,
    ItemDeleted,
    OutputDone,
    OutputStarted,
    Refused,
    ResponseDone,
    ResponseMerged,
    ResponseQueued,
    ResponseStarted,
    SessionOpened,
    Status,
    Submitted,
    ToolStarted,
)
from unbroken.sessions.event_log import EventLog, Slice
from unbroken.sessions.ids import ChainId, Incarnation, ItemId, Nonce, PrincipalId, ResponseId, SessionId
from unbroken.sessions.items import (
    ApprovalHead,
    ApprovalRequest,
    ApprovalResponse,
    Concurrency,
    Message,
    Reasoning,
    ReasoningHead,
    ResponseRequest,
    Role,
    SessionConfig,
    Text,
    ToolCall,
    ToolError,
    ToolHead,
    Usage,
)
from unbroken.sessions.response import Ongoing, ResponseOutput

SERVER_EVENT: Final[TypeAdapter[Any]] = TypeAdapter(
    Annotated[RealtimeServerEvent, Field(discriminator="type")]
)
LIFE: Final = Incarnation("0a0a0a0a")
ID: Final = SessionId("sess_1")
R: Final = ResponseId("resp_1")
I: Final = ItemId("item_1")  # noqa: E741 - an item, as R is a response
CONFIG: Final = SessionConfig("m")
META: Final = {"k": "v"}
A: Final = ItemId("item_a")


def answer(status: str = "completed") -> Message:
    return Message(I, "assistant", (Text("hi"),), status)  # type: ignore[arg-type]


def user(name: str = "item_0") -> Message:
    return Message(ItemId(name), "user", (Text("hello"),))


def done(status: Status, **fields: Any) -> ResponseDone:
    return ResponseDone(R, status, fields.pop("ordinal", 4), **fields)


FRAMES: Final[list[tuple[Body, list[str]]]] = [
    (SessionOpened(PrincipalId("alice"), CONFIG), []),
    (Submitted(CancelResponse(), ChainId("c")), []),
    (Refused(1, ChainId("c"), "item_not_found", "No."), []),
    (ConfigUpdated(CONFIG), ["session.updated"]),
    (ConfigUpdated(SessionConfig("m", "x", 5, Concurrency.QUEUE)), ["session.updated"]),
    (ItemAdded(user(), None), ["conversation.item.added", "conversation.item.done"]),
    (ItemAdded(user(), ItemId("p")), ["conversation.item.added", "conversation.item.done"]),
    (ItemDeleted(I), ["conversation.item.deleted"]),
    (ResponseQueued(R, ResponseRequest()), []),
    (ResponseStarted(R, ResponseRequest(), 1), ["response.created"]),
    (ResponseStarted(R, ResponseRequest(False, metadata=META), 1), ["response.created"]),
    (ResponseMerged(R, "e", 1), []),
    (ResponseStarted(R, ResponseRequest(), 1, requests=("e", "")), ["response.created"]),
    (HandleNoted(R, "upstream", 1), []),
    (CancelAccepted(R, "client"), []),
    (
        OutputStarted(R, I, True, ItemId("p"), 1),
        ["response.output_item.added", "conversation.item.added", "response.content_part.added"],
    ),
    (OutputStarted(R, I, False, None, 1), ["response.output_item.added", "response.content_part.added"]),
    (
        OutputDone(R, answer(), True, None, 3),
        [
            "response.output_text.done",
            "response.content_part.done",
            "response.output_item.done",
            "conversation.item.done",
        ],
    ),
    (
        OutputDone(R, answer("incomplete"), False, None, 3),
        ["response.output_text.done", "response.content_part.done", "response.output_item.done"],
    ),
    (
        OutputStarted(R, I, True, ItemId("p"), 1, 2, head=ToolHead("f", "tools")),
        ["response.output_item.added", "conversation.item.added"],
    ),
    (OutputStarted(R, I, False, None, 1, head=ToolHead("f", "tools", A)), ["response.output_item.added"]),
    (ToolStarted(R, I, "{}", 2, 0), ["response.mcp_call_arguments.done", "response.mcp_call.in_progress"]),
    (
        OutputDone(R, ToolCall(I, "f", "tools", "{}", "rain", approval=A), True, None, 3),
        ["response.mcp_call.completed", "response.output_item.done", "conversation.item.done"],
    ),
    (
        OutputDone(R, ToolCall(I, "f", "tools", "{}", error=ToolError("No.")), False, None, 3),
        ["response.mcp_call.failed", "response.output_item.done"],
    ),
    (
        OutputDone(R, ToolCall(I, "f", "tools", "{}", error=ToolError("No.", -32602)), False, None, 3),
        ["response.mcp_call.failed", "response.output_item.done"],
    ),
    (
        OutputStarted(R, A, True, ItemId("p"), 1, head=ApprovalHead("f", "tools", "{}")),
        ["response.output_item.added", "conversation.item.added"],
    ),
    (
        OutputDone(R, ApprovalRequest(A, "f", "tools", "{}"), True, None, 3),
        ["response.output_item.done", "conversation.item.done"],
    ),
    (
        ItemAdded(ApprovalResponse(I, A, False, "Too dear."), A),
        ["conversation.item.added", "conversation.item.done"],
    ),
    (ItemAdded(ApprovalResponse(I, A, True), A), ["conversation.item.added", "conversation.item.done"]),
    (done("completed", output=(answer(),), usage=Usage(3, 4, 1), metadata=META), ["response.done"]),
    (done("completed", in_conversation=False), ["response.done"]),
    (done("cancelled", reason="client"), ["response.done"]),
    (done("cancelled", reason="superseded"), ["response.done"]),
    (done("incomplete", reason="max_output_tokens", output=(answer("incomplete"),)), ["response.done"]),
    (done("incomplete", reason="content_filter"), ["response.done"]),
    (done("completed", notes={"redacted": {"card": 2}}), ["response.done"]),
    (done("failed", failure=Failure("agent_error", "It failed.", "rate_limit_error")), ["response.done"]),
    (done("interrupted", failure=Failure("interrupted", "Restarted.")), ["response.done"]),
    (done("cancelled", reason="client", ordinal=0, metadata=META), ["response.created", "response.done"]),
    (
        done("cancelled", reason="superseded", ordinal=0, requests=("e", "f")),
        ["response.created", "response.done"],
    ),
    (done("failed", failure=Failure("agent_error", "It failed."), requests=("e", "f")), ["response.done"]),
]


def encoded(body: Body, seq: int = 9, nonce: int = 255) -> list[dict[str, Any]]:
    return [orjson.loads(data) for data in RealtimeEncoder(ID, LIFE).encode(Entry(seq, Nonce(nonce), body))]


def test_a_response_names_the_requests_it_answers() -> None:
    """Beside whatever else is said of it."""
    requests = ("e", "")
    (created,) = encoded(ResponseStarted(R, ResponseRequest(), 1, requests=requests))
    (superseded,) = encoded(done("cancelled", reason="superseded", requests=requests))
    (failed,) = encoded(done("failed", failure=Failure("agent_error", "No."), requests=requests))

    named = {"requests": [{"event_id": "e"}, {}]}
    assert created["response"]["unbroken"] == named
    assert superseded["response"]["unbroken"] == {**named, "reason": "superseded"}
    assert failed["response"]["unbroken"] == {**named, "status": "failed", "message": "No."}


def test_what_was_noted_of_a_response_is_told_beside_at_its_end() -> None:
    notes: dict[str, Any] = {"redacted": {"card": 2}}
    (completed,) = encoded(done("completed", notes=notes))
    (failed,) = encoded(done("failed", failure=Failure("agent_error", "No."), notes=notes))

    assert completed["response"]["unbroken"] == notes
    assert failed["response"]["unbroken"] == {"status": "failed", "message": "No.", **notes}


def has_null(value: object) -> bool:
    if isinstance(value, dict):
        is_call = value.get("type") == "mcp_call"  # whose output is null, where a client needs it
        return any(has_null(each) for name, each in value.items() if not (is_call and name == "output"))
    return any(map(has_null, value)) if isinstance(value, list) else value is None


@pytest.mark.parametrize(("body", "kinds"), FRAMES)
def test_an_entry_is_a_fixed_number_of_frames_that_the_sdk_knows(body: Body, kinds: list[str]) -> None:
    frames = encoded(body)

    assert [frame["type"] for frame in frames] == kinds
    for frame in frames:
        SERVER_EVENT.validate_python(frame, strict=True)
        assert not has_null(frame), "some clients drop an event with a null they don't expect"


@pytest.mark.parametrize(("body", "kinds"), FRAMES)
def test_each_frame_has_the_place_it_leads_to(body: Body, kinds: list[str]) -> None:
    cursors = [parse_cursor(frame["event_id"]) for frame in encoded(body, seq=9, nonce=255)]

    assert cursors == [((LIFE, 9, 255), left) for left in reversed(range(len(kinds)))]


def test_every_kind_of_entry_is_tried_here() -> None:
    assert {type(body) for body, _ in FRAMES} == set(get_args(Body)) - {Deltas}


def test_frames_depend_on_nothing_but_the_body() -> None:
    """So that a cursor inside an entry means the same on every connection and node."""
    for body, _ in FRAMES:
        assert encoded(body) == encoded(body)


def response_of(body: Body) -> dict[str, Any]:
    response: dict[str, Any] = encoded(body)[-1]["response"]
    return response


def test_a_client_is_told_when_to_try_again_where_that_is_known() -> None:
    failure = Failure("upstream_rate_limited", "Too many.", "rate_limit_error", 7.5)

    assert response_of(done("failed", failure=failure))["unbroken"]["retry_after"] == 7.5


def test_how_a_response_ended_is_said_in_the_protocol_s_words() -> None:
    failed = response_of(done("failed", failure=Failure("agent_error", "It failed.")))
    interrupted = response_of(done("interrupted", failure=Failure("interrupted", "Restarted.")))
    cancelled = response_of(done("cancelled", reason="client"))
    superseded = response_of(done("cancelled", reason="superseded"))
    cut = response_of(done("incomplete", reason="max_output_tokens"))

    assert failed["status"] == interrupted["status"] == "failed"
    assert failed["status_details"]["error"] == {"type": "server_error", "code": "agent_error"}
    assert interrupted["status_details"]["error"]["code"] == "interrupted"
    assert failed["unbroken"] == {"status": "failed", "message": "It failed."}
    assert interrupted["unbroken"] == {"status": "interrupted", "message": "Restarted."}
    assert cancelled["status_details"] == {"type": "cancelled", "reason": "client_cancelled"}
    assert "unbroken" not in cancelled
    assert superseded["unbroken"] == {"reason": "superseded"}
    assert cut["status_details"] == {"type": "incomplete", "reason": "max_output_tokens"}


def test_a_whole_response_holds_its_output_and_bill() -> None:
    response = response_of(done("completed", output=(answer(),), usage=Usage(3, 4, 1), metadata=META))

    assert response["output"][0]["content"] == [{"type": "output_text", "text": "hi"}]
    assert response["usage"] == {
        "total_tokens": 7,
        "input_tokens": 3,
        "output_tokens": 4,
        "input_token_details": {"text_tokens": 3, "audio_tokens": 0, "cached_tokens": 1},
        "output_token_details": {"text_tokens": 4, "audio_tokens": 0},
    }
    assert response["metadata"] == META
    assert response["conversation_id"] == "conv_1"
    assert "conversation_id" not in response_of(done("completed", in_conversation=False))


def test_a_session_is_shown_as_it_is() -> None:
    fields = session_fields(ID, SessionConfig("m", "x", None, Concurrency.INTERRUPT))

    assert fields["max_output_tokens"] == "inf"
    assert fields["output_modalities"] == ["text"], "whatever was asked for"
    assert fields["unbroken"] == {"concurrency": "interrupt", "reasoning": False}


@pytest.mark.parametrize(
    ("role", "kind"), [("user", "input_text"), ("system", "input_text"), ("assistant", "output_text")]
)
def test_a_part_is_named_by_who_says_it(role: Role, kind: str) -> None:
    frame = item_frame("conversation.item.done", Message(I, role, (Text("a"), Text("b"))), "p")
    SERVER_EVENT.validate_python({**frame, "event_id": "e"}, strict=True)

    assert [part["type"] for part in frame["item"]["content"]] == [kind] * 2
    assert frame["previous_item_id"] == "p"
    assert "previous_item_id" not in item_frame("conversation.item.done", user(), None)


def test_an_error_names_what_is_known_and_no_more() -> None:
    frame = error_frame("invalid_event", "No.", param="item", event_id="mine")
    bare = error_frame("invalid_event", "No.")
    refusal = refusal_frame(Refused(1, ChainId("c"), "item_not_found", "No.", "item_id", "mine"))

    for each in (frame, bare, refusal):
        SERVER_EVENT.validate_python({**each, "event_id": "e"}, strict=True)
    assert (frame["error"]["param"], frame["error"]["event_id"]) == ("item", "mine")
    assert set(bare["error"]) == {"type", "code", "message"}
    assert refusal["error"] == {
        "type": "invalid_request_error",
        "code": "item_not_found",
        "message": "No.",
        "param": "item_id",
        "event_id": "mine",
    }


# What is being said.


def test_a_response_in_progress_is_shown_as_far_as_it_goes() -> None:
    encoder = RealtimeEncoder(ID, LIFE)
    said_so_far = ResponseOutput(I, ItemId("p"), parts=["so far"])
    beside_so_far = ResponseOutput(I, None, parts=["so far"], in_conversation=False)
    away = ResponseRequest(in_conversation=False)
    silent = encoder.ongoing(Ongoing(R, ResponseRequest(metadata=META), None), "p", is_first=True)
    said = encoder.ongoing(Ongoing(R, ResponseRequest(), said_so_far), "p", is_first=True)
    beside = encoder.ongoing(Ongoing(R, away, beside_so_far), None, is_first=True)

    for frame in (*silent, *said, *beside):
        SERVER_EVENT.validate_python({**frame, "event_id": "e"}, strict=True)
    assert [frame["type"] for frame in silent] == ["response.created"]
    assert [frame["type"] for frame in said] == [
        "response.created",
        "response.output_item.added",
        "conversation.item.added",
        "response.content_part.added",
        "response.output_text.delta",
    ]
    assert said[2]["previous_item_id"] == "p"
    assert said[-1]["delta"] == "so far"
    assert "conversation.item.added" not in [frame["type"] for frame in beside]


def test_what_was_done_before_is_shown_whole_to_who_starts_over() -> None:
    encoder = RealtimeEncoder(ID, LIFE)
    call = ResponseOutput(I, A, ToolHead("f", "tools"), ["{", "}"], is_run=True)
    running = encoder.ongoing(Ongoing(R, ResponseRequest(), call), "p", is_first=True)
    call.done = call.item("completed", "rain")
    ended = encoder.ongoing(Ongoing(R, ResponseRequest(), call, 1), "p", is_first=False)

    for frame in (*running, *ended):
        SERVER_EVENT.validate_python({**frame, "event_id": "e"}, strict=True)
    begun = ["response.output_item.added", "conversation.item.added", "response.mcp_call_arguments.delta"]
    started = ["response.mcp_call_arguments.done", "response.mcp_call.in_progress"]
    assert [frame["type"] for frame in running] == ["response.created", *begun, *started]
    assert [frame["type"] for frame in ended] == [
        *begun,
        *started,
        "response.mcp_call.completed",
        "response.output_item.done",
        "conversation.item.done",
    ]
    assert ended[2]["delta"] == "{}"


# Reasoning: no event of the protocol's.


def test_reasoning_is_told_in_events_of_our_own() -> None:
    started = OutputStarted(R, I, False, None, 1, 2, head=ReasoningHead())
    (added,) = encoded(started)
    log = EventLog(LIFE)
    log.append(Entry(1, Nonce(1), Deltas(R, I, ["Hm"], 2, 2, kind="reasoning")))
    (piece,) = log.read(0, 9)
    (delta,) = map(orjson.loads, RealtimeEncoder(ID, LIFE).encode(piece))
    (over,) = encoded(OutputDone(R, Reasoning(I, "Hm"), False, None, 3, 2))

    item = {"response_id": R, "item_id": I, "output_index": 2}
    assert {**added, "event_id": "e"} == {"type": "unbroken.reasoning.added", **item, "event_id": "e"}
    assert {**delta, "event_id": "e"} == {
        "type": "unbroken.reasoning.delta",
        **item,
        "delta": "Hm",
        "event_id": "e",
    }
    assert (over["type"], over["text"], over["status"]) == ("unbroken.reasoning.done", "Hm", "completed")


# Deltas.


def slice_of(batches: list[list[str]]) -> Slice:
    log = EventLog(LIFE)
    for index, parts in enumerate(batches):
        log.append(Entry(log.head + 1, Nonce(100 + index), Deltas(R, I, parts, 2)))
    (piece,) = log.read(0, 10**6)
    assert isinstance(piece, Slice)
    return piece


batches = st.lists(st.lists(st.text(min_size=1, max_size=4), min_size=1, max_size=6), min_size=1, max_size=12)


@given(batches, st.integers(0, 40))
def test_merged_deltas_are_the_same_text_up_to_the_same_place(parts: list[list[str]], above: int) -> None:
    piece = slice_of(parts)
    single = RealtimeEncoder(ID, LIFE, merge_above=10**6).encode(piece)
    merged = RealtimeEncoder(ID, LIFE, merge_above=above).encode(piece)

    one, many = (list(map(orjson.loads, frames)) for frames in (merged, single))
    assert len(many) == len(piece.parts)
    assert "".join(each["delta"] for each in one) == "".join(each["delta"] for each in many)
    places = {each["event_id"]: index for index, each in enumerate(many)}
    told = ""
    for frame in one:
        SERVER_EVENT.validate_python(frame, strict=True)
        told += frame["delta"]
        upto = "".join(each["delta"] for each in many[: places[frame["event_id"]] + 1])
        assert told == upto, "each merged frame has the cursor of the last piece in it"
    assert one[-1]["event_id"] == many[-1]["event_id"]
    assert len(one) == (len(many) if len(many) <= above else 1)
    position = parse_cursor(one[-1]["event_id"])
    assert position == ((LIFE, piece.last, piece.nonces[-1]), 0)


OUTPUTS: Final[list[Deltas]] = [
    Deltas(R, I, [], 2),
    Deltas(R, ItemId("item_2"), [], 3, 1, call_id="call_1"),
    Deltas(R, ItemId("item_3"), [], 4, 2, kind="reasoning"),
    Deltas(R, ItemId("item_4"), [], 5, 3, kind="tool_call"),
    Deltas(ResponseId("resp_2"), ItemId("item_5"), [], 6),
]
"""One of each kind, and one of another response."""


@given(
    st.lists(st.tuples(st.sampled_from(OUTPUTS), st.lists(st.text(max_size=3), min_size=1, max_size=3))),
    st.lists(st.tuples(st.integers(0, 40), st.integers(1, 12))),
)
def test_connections_that_share_an_encoder_get_what_they_would_alone(
    written: list[tuple[Deltas, list[str]]], reads: list[tuple[int, int]]
) -> None:
    """Whatever the others are at, and how far each reads at once."""
    log = EventLog(LIFE)
    for index, (output, parts) in enumerate(written):
        log.append(Entry(log.head + 1, Nonce(100 + index), msgspec.structs.replace(output, parts=parts)))
    shared = RealtimeEncoder(ID, LIFE, merge_above=4)
    for after, limit in reads:
        for record in log.read(after, limit):
            assert shared.encode(record) == RealtimeEncoder(ID, LIFE, merge_above=4).encode(record)


@pytest.mark.parametrize("parts", [["a"], ["a", "b"]])
def test_other_pieces_in_the_place_of_lost_ones_are_shown_as_they_are(parts: list[str]) -> None:
    """Found by chaos: a log that loses its tail goes on in the same incarnation, with the same encoder."""
    shared = RealtimeEncoder(ID, LIFE)
    for output, nonce in ((OUTPUTS[0], 100), (OUTPUTS[-1], 200)):
        log = EventLog(LIFE)
        log.append(Entry(1, Nonce(nonce), msgspec.structs.replace(output, parts=parts)))
        (record,) = log.read(0, 10)
        assert shared.encode(record) == RealtimeEncoder(ID, LIFE).encode(record)


def test_merged_frames_have_a_size() -> None:
    piece = slice_of([["x" * 1_000] * 10])
    frames = [orjson.loads(each) for each in RealtimeEncoder(ID, LIFE, merge_above=2).encode(piece)]

    assert [len(frame["delta"]) for frame in frames] == [5_000, 5_000]
    assert [parse_cursor(frame["event_id"])[0].seq for frame in frames] == [5, 10]  # type: ignore[index]


def test_a_connection_that_keeps_up_gets_each_piece() -> None:
    piece = slice_of([["a", "b"], ["c"]])
    frames = [orjson.loads(each) for each in RealtimeEncoder(ID, LIFE).encode(piece)]

    assert [frame["delta"] for frame in frames] == ["a", "b", "c"]
    assert frames[0] == {
        "type": "response.output_text.delta",
        "event_id": "event_0a0a0a0a.1.64.0",
        "response_id": R,
        "item_id": I,
        "output_index": 0,
        "content_index": 0,
        "delta": "a",
    }
