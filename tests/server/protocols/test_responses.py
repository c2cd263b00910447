"""The codec of Responses: whatever is asked, and whichever way the log is read."""

from __future__ import annotations

import json
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import UNSET

from unbroken.server.protocols.asked import Asked
from unbroken.server.protocols.items import DecodeError
from unbroken.server.protocols.responses.decode import asked_of, decode_create
from unbroken.server.protocols.responses.encode import NOTHING_NEW, ResponseEncoder
from unbroken.server.protocols.responses.socket import Unsaid, continuations, decode_message
from unbroken.server.protocols.responses.whole import Whole
from unbroken.sessions.entries import (
    Body,
    Deltas,
    Failure,
    ItemDeleted,
    OutputDone,
    OutputStarted,
    ResponseDone,
    ResponseQueued,
    ResponseStarted,
    ToolStarted,
    numbered,
)
from unbroken.sessions.event_log import EventLog
from unbroken.sessions.ids import Incarnation, ItemId, Nonce, ResponseId, SessionId
from unbroken.sessions.items import (
    ApprovalHead,
    ApprovalRequest,
    CallHead,
    FunctionCall,
    Message,
    Produced,
    Reasoning,
    ReasoningHead,
    ResponseRequest,
    SessionConfig,
    Text,
    ToolCall,
    ToolError,
    ToolHead,
    Usage,
)

SESSION = SessionId("sess_" + 32 * "a")
ONE = ResponseId("resp_" + 32 * "a" + "65000000" + "00000001")
OTHER = ResponseId("resp_" + 32 * "a" + "65000000" + "00000002")
AGAIN = ResponseId("resp_" + 32 * "a" + "65000000" + "00000003")

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)
FIELDS = st.sampled_from(
    [
        *("model", "input", "instructions", "max_output_tokens", "metadata", "tools", "tool_choice"),
        *("previous_response_id", "conversation", "store", "stream", "background", "text", "unbroken"),
        *("temperature", "top_p", "prompt", "type", "stream_id", "generate"),
    ]
)
ITEMS = st.dictionaries(
    st.sampled_from(
        [
            *("type", "role", "content", "call_id", "name", "arguments", "output", "id", "approve"),
            "encrypted_content",
        ]
    ),
    st.sampled_from(
        ["message", "user", "assistant", "developer", "function_call", "function_call_output", "mcp_call"]
    )
    | st.sampled_from(
        ["reasoning", "item_reference", "mcp_approval_response", "compaction", "hello", "call_1"]
    )
    | JSON
    | st.lists(
        st.fixed_dictionaries({"type": st.just("input_text"), "text": st.text(max_size=5)}), max_size=2
    ),
    max_size=6,
)
BODIES = st.dictionaries(FIELDS, JSON | st.lists(ITEMS, max_size=4), max_size=6)


@given(BODIES)
def test_whatever_is_asked_is_understood_or_refused(body: dict[str, Any]) -> None:
    try:
        asked = asked_of(decode_create(json.dumps(body).encode(), max_depth=16), plan="default")
    except DecodeError as error:
        assert error.code
        assert error.message
        return
    assert isinstance(asked, Asked)
    assert asked.items or asked.references or asked.previous or asked.conversation


@given(st.binary(max_size=60) | BODIES.map(lambda body: json.dumps(body).encode()))
def test_whatever_a_message_is_it_is_understood_or_refused(data: bytes) -> None:
    try:
        said = decode_message(data.decode("utf-8", "surrogateescape"), max_depth=16)
    except Unsaid as error:
        assert error.code
        return
    assert said is not None


@pytest.mark.parametrize(
    ("given_", "most", "is_right"),
    [
        ("resp_a1:3", 2, True),
        ("resp_a1:3:lane.1,resp_b2:0", 2, True),
        ("resp_a1", 2, False),
        ("resp_a1:-1", 2, False),
        ("resp_a1:3,resp_a1:3,resp_a1:3", 2, False),
        ("resp_a1:3:two words", 2, False),
    ],
)
def test_what_an_address_has_said_on(given_: str, most: int, *, is_right: bool) -> None:
    if is_right:
        assert len(continuations(given_, most)) == given_.count(",") + 1
    else:
        with pytest.raises(DecodeError):
            continuations(given_, most)


# What is encoded.

WORDS = st.lists(st.text(min_size=1, max_size=6), max_size=6)


@st.composite
def outputs(draw: st.DrawFn) -> list[Body]:
    """Return the entries of a response's outputs, of all kinds."""
    bodies: list[Body] = []
    for index in range(draw(st.integers(0, 4))):
        item_id, words = ItemId(f"item_{index}"), draw(WORDS)
        text = "".join(words)
        kind = draw(st.sampled_from(["message", "call", "reasoning", "tool", "approval"]))
        call: Any = UNSET
        head: Any = UNSET
        produced: Produced
        match kind:
            case "call":
                call = CallHead(f"call_{index}", "add")
                produced = FunctionCall(item_id, f"call_{index}", "add", text)
            case "reasoning":
                head, produced = ReasoningHead(), Reasoning(item_id, text)
            case "tool":
                head = ToolHead("find", "label")
                produced = ToolCall(item_id, "find", "label", text, error=ToolError("no"))
            case "approval":
                head = ApprovalHead("find", "label", "{}")
                produced, words = ApprovalRequest(item_id, "find", "label", "{}"), []
            case _:
                produced = Message(item_id, "assistant", (Text(text),) if text else ())
        bodies.append(OutputStarted(ONE, item_id, True, None, 0, index, call, head))
        if words:
            kinds = {"reasoning": "reasoning", "tool": "tool_call"}
            bodies.append(
                Deltas(
                    ONE,
                    item_id,
                    words,
                    0,
                    index,
                    call_id=f"call_{index}" if kind == "call" else UNSET,
                    kind=kinds.get(kind, UNSET),  # type: ignore[arg-type]
                )
            )
        if kind == "tool":
            bodies.append(ToolStarted(ONE, item_id, text, 0, index))
        bodies.append(OutputDone(ONE, produced, True, None, 0, index))
    return bodies


@st.composite
def logs(draw: st.DrawFn) -> EventLog:
    """Return a log with a response in it, and pieces of another between."""
    request = ResponseRequest(metadata={"a": "b"})
    bodies: list[Body] = []
    if draw(st.booleans()):
        bodies.append(ResponseQueued(ONE, request))
    bodies.append(ResponseStarted(ONE, request, turn=1))
    bodies += draw(outputs())
    status = draw(st.sampled_from(["completed", "incomplete", "cancelled", "failed", "interrupted"]))
    failure = Failure("agent_error", "It failed.") if status in ("failed", "interrupted") else None
    reason = "quota_exceeded" if status == "incomplete" else None
    bodies.append(ResponseDone(ONE, status, 9, (), reason, failure, Usage(1, 2)))  # type: ignore[arg-type]
    again: list[Body] = []
    if status == "interrupted" and draw(st.booleans()):
        again = [ItemDeleted(ItemId("item_0")), ResponseStarted(AGAIN, request, turn=1, attempt=2)]
    place = draw(st.integers(0, len(bodies)))
    bodies.insert(place, ResponseStarted(OTHER, request, turn=2))
    bodies += again
    log = EventLog(Incarnation("00000001"))
    for entry in numbered(bodies, 1, Nonce(7)):
        log.append(entry)
    return log


def events(log: EventLog, *, after: int = -1, step: int = 512) -> list[dict[str, Any]]:
    """Return a response's events as they are read in pieces of *step* sequence numbers."""
    encoder = ResponseEncoder(Whole(ONE, SESSION, SessionConfig("m")), after=after)
    beginning = log.beginning_of(ONE)
    assert beginning is not None
    place, found = beginning - 1, []
    while place < log.head:
        records = log.read(place, step)
        place = getattr(records[-1], "last", records[-1].seq)
        is_last = place >= log.head
        found += [orjson.loads(each.data) for each in encoder.encode(records, is_last=is_last)]
    assert encoder.is_done
    return found


@given(logs(), st.integers(1, 5), st.integers(-1, 60))
def test_events_are_the_same_however_the_log_is_read(log: EventLog, step: int, after: int) -> None:
    whole = events(log)

    assert [event["sequence_number"] for event in whole] == list(range(len(whole)))
    assert whole[0]["type"] == "response.created"
    assert whole[-1]["type"] in ("response.completed", "response.failed", "response.incomplete")
    assert sum(event["type"] == "response.created" for event in whole) == 1
    assert events(log, step=step) == whole
    assert events(log, after=after, step=step) == whole[max(0, after + 1) :]
    assert events(log, after=NOTHING_NEW) == []


@given(logs())
def test_packed_pieces_are_the_same_events(log: EventLog) -> None:
    before = events(log)
    log.pack(ONE)

    assert events(log) == before


@given(logs())
def test_pieces_add_up_and_their_lengths_say_little(log: EventLog) -> None:
    said: dict[int, str] = {}
    for event in events(log):
        if event["type"].endswith(".delta"):
            said[event["output_index"]] = said.get(event["output_index"], "") + event["delta"]
            assert (len(orjson.dumps(event["delta"])) + len(event["obfuscation"])) % 16 == 0
        elif event["type"] in ("response.output_text.done", "response.reasoning_text.done"):
            assert event["text"] == said.get(event["output_index"], "")
        elif event["type"].endswith("arguments.done"):
            assert event["arguments"] == said.get(event["output_index"], "")


@pytest.mark.parametrize("is_again", [False, True])
def test_what_is_attempted_again_says_where(*, is_again: bool) -> None:
    request = ResponseRequest()
    failure = Failure("interrupted", "Its node was lost.")
    bodies: list[Body] = [
        ResponseStarted(ONE, request, turn=1),
        ResponseDone(ONE, "interrupted", 1, failure=failure),
        ResponseStarted(OTHER, request, turn=2),
    ]
    if is_again:
        bodies.append(ResponseStarted(AGAIN, request, turn=1, attempt=2))
    encoder = ResponseEncoder(Whole(ONE, SESSION, SessionConfig("m")))
    told = [orjson.loads(each.data) for each in encoder.encode(numbered(bodies, 1, Nonce(7)))]

    last = told[-1]["response"]
    seen = (told[-1]["type"], last["status"], last["error"] is None, last["incomplete_details"])
    if is_again:
        assert encoder.superseded_by == AGAIN
        assert seen == ("response.incomplete", "incomplete", True, None)
        assert last["unbroken"] == {"status": "interrupted", "superseded_by": AGAIN}
    else:
        assert encoder.superseded_by is None
        assert seen == ("response.failed", "failed", False, None)
        assert last["unbroken"] == {"status": "interrupted", "code": "interrupted"}
