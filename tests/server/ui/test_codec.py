"""The codec alone: whatever clients send, and whatever is in a log."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

import orjson
from hypothesis import given
from hypothesis import strategies as st

from unbroken.server.protocols.items import DecodeError
from unbroken.server.protocols.ui.decode import decode_chat, replayed, request_of
from unbroken.server.protocols.ui.encode import UiEncoder
from unbroken.server.protocols.ui.history import wanted_of
from unbroken.server.protocols.ui.socket import Unsaid, decode_frame
from unbroken.sessions.entries import (
    Body,
    Entry,
    Failure,
    OutputDone,
    OutputStarted,
    ResponseDone,
    ResponseStarted,
    ToolStarted,
)
from unbroken.sessions.event_log import Record, Slice
from unbroken.sessions.ids import ItemId, Nonce, ResponseId
from unbroken.sessions.items import (
    ApprovalHead,
    ApprovalRequest,
    ApprovalResponse,
    CallHead,
    FunctionCall,
    FunctionOutput,
    Item,
    ItemStatus,
    Message,
    Reasoning,
    ReasoningHead,
    ResponseRequest,
    Text,
    ToolCall,
    ToolError,
    ToolHead,
)

RESPONSE = ResponseId("resp_1")
OTHER = ResponseId("resp_2")

json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=6,
)
names = st.sampled_from(["a", "b", "root", "an id", "", "x" * 200])
states = st.sampled_from(
    ["output-available", "output-error", "approval-responded", "input-available", 7, None]
)
parts = st.fixed_dictionaries(
    {
        "type": st.sampled_from(
            ["text", "file", "tool-add", "dynamic-tool", "step-start", "data-x", "reasoning"]
        )
    },
    optional={
        "text": st.text(max_size=5),
        "url": st.sampled_from(
            ["data:image/png;base64,AAAA", "unbroken-file:file-1", "https://x.example", "x"]
        ),
        "mediaType": st.sampled_from(["image/png", "text/plain"]),
        "toolCallId": names,
        "toolName": names,
        "state": states,
        "input": json_values,
        "output": json_values,
        "errorText": st.text(max_size=5),
        "providerExecuted": st.booleans(),
        "approval": st.fixed_dictionaries(
            {}, optional={"id": names, "approved": st.booleans(), "reason": st.text(max_size=3000)}
        ),
    },
)
messages = st.fixed_dictionaries(
    {
        "id": names,
        "role": st.sampled_from(["user", "assistant", "system", "nobody"]),
        "parts": st.lists(parts, max_size=4),
    }
)
bodies = st.fixed_dictionaries(
    {"id": names, "messages": st.lists(messages, max_size=4)},
    optional={
        "trigger": st.sampled_from(["submit-message", "regenerate-message", "x"]),
        "messageId": names,
        "unbroken": st.fixed_dictionaries({}, optional={"max_output_tokens": st.integers(-1, 9)}),
    },
)


@given(bodies | json_values)
def test_whatever_is_sent_is_asked_for_or_refused_with_a_reason(body: Any) -> None:
    data = orjson.dumps(body)
    try:
        chat = decode_chat(data, max_depth=32)
        request_of(chat, "msg_1", "plan")
        items = replayed(chat)
        asked = wanted_of(chat, None, "plan")
    except DecodeError as exc:
        assert exc.message
        assert exc.code not in ("invalid_event",)
        return
    assert decode_chat(data, max_depth=32).digest == chat.digest
    assert replayed(chat) == items, "items have the same ids each time"
    assert not isinstance(asked, str)
    assert asked.items == items
    outputs = [item.call_id for item in items if isinstance(item, FunctionOutput)]
    calls = [item.call_id for item in items if isinstance(item, FunctionCall)]
    assert calls == outputs
    assert len(set(calls)) == len(calls)


@given(bodies | json_values, st.sampled_from(["send", "resume", "abort", "x", 5, None]), st.none() | names)
def test_whatever_a_frame_holds_is_said_or_refused_with_a_reason(body: Any, kind: Any, request: Any) -> None:
    fields = {**body, "type": kind, "requestId": request} if isinstance(body, dict) else body
    try:
        said = decode_frame(orjson.dumps(fields).decode(), max_depth=32)
    except Unsaid as exc:
        assert exc.message
    else:
        assert said.request_id == request


outputs = st.sampled_from(["text", "reasoning", "call", "tool", "approved", "approval"])
pieces = st.lists(st.text(min_size=1, max_size=3), max_size=5)
endings = st.sampled_from(["completed", "incomplete", "cancelled", "failed", "interrupted"])


def head_of(kind: str, index: int) -> dict[str, Any]:
    match kind:
        case "call":
            return {"call": CallHead(f"call_{index}", "add")}
        case "reasoning":
            return {"head": ReasoningHead()}
        case "tool":
            return {"head": ToolHead("mail", "desk")}
        case "approved":
            return {"head": ToolHead("mail", "desk", ItemId("asked"))}
        case "approval":
            return {"head": ApprovalHead("mail", "desk", "{}")}
        case _:
            return {}


def item_of(kind: str, index: int, text: str, *, is_whole: bool) -> Any:
    item_id = ItemId(f"item_{index}")
    status: ItemStatus = "completed" if is_whole else "incomplete"
    match kind:
        case "call":
            return FunctionCall(item_id, f"call_{index}", "add", text, status)
        case "reasoning":
            return Reasoning(item_id, text, status)
        case "tool" | "approved":
            approval = ItemId("asked") if kind == "approved" else None
            output, error = ("done", None) if is_whole else (None, ToolError("cut"))
            return ToolCall(item_id, "mail", "desk", text, output, error, approval, status)
        case "approval":
            return ApprovalRequest(item_id, "mail", "desk", "{}", status)
        case _:
            return Message(item_id, "assistant", (Text(text),), status)


def log_of(said: list[tuple[str, list[str]]], status: Any) -> Iterator[Record]:
    """Yield the records of a response among those of another."""
    seq = itertools.count(1)

    def entry(body: Body) -> Entry:
        return Entry(next(seq), Nonce(0), body)

    yield entry(ResponseStarted(OTHER, ResponseRequest(), turn=1))
    yield entry(ResponseStarted(RESPONSE, ResponseRequest(metadata={"ui_message_id": "msg_1"}), turn=2))
    for index, (kind, texts) in enumerate(said):
        item_id = ItemId(f"item_{index}")
        yield entry(OutputStarted(RESPONSE, item_id, True, None, 0, index, **head_of(kind, index)))
        for text in texts:
            at = next(seq)
            yield Slice(at, at, RESPONSE, item_id, index, 0, 0, [text], [0])
            yield Slice(at, at, OTHER, item_id, index, 0, 0, ["not ours"], [0])
        if kind == "tool" and status == "completed":
            yield entry(ToolStarted(RESPONSE, item_id, "".join(texts), 0, index))
        item = item_of(kind, index, "".join(texts), is_whole=status == "completed")
        yield entry(OutputDone(RESPONSE, item, True, None, 0, index))
    failure = Failure("agent_error", "It failed.") if status in ("failed", "interrupted") else None
    yield entry(ResponseDone(RESPONSE, status, 0, failure=failure))


@given(st.lists(st.tuples(outputs, pieces), max_size=5), endings, st.data())
def test_chunks_are_the_same_however_the_log_is_read(
    said: list[tuple[str, list[str]]], status: str, data: st.DataObject
) -> None:
    records = list(log_of(said, status))
    whole = UiEncoder(RESPONSE)
    chunks = list(whole.encode(records))
    split = UiEncoder(RESPONSE)
    parts: list[bytes] = []
    while records:
        size = data.draw(st.integers(1, len(records)))
        parts += split.encode(records[:size])
        records = records[size:]

    assert parts == chunks
    assert whole.is_done
    assert split.is_done
    check([orjson.loads(chunk) for chunk in chunks], said, status)


def check(chunks: list[dict[str, Any]], said: list[tuple[str, list[str]]], status: str) -> None:
    """Check that a client of the protocol can follow: each piece has its part, and each part its end."""
    assert chunks[0] == {"type": "start", "messageId": "msg_1"}
    last = "abort" if status == "cancelled" else "finish"
    assert [chunk["type"] for chunk in chunks].count(last) == 1
    assert chunks[-1]["type"] == last
    open_parts: set[str] = set()
    called: set[str] = {"asked"}
    for chunk in chunks:
        match chunk["type"].split("-"):
            case ["text" | "reasoning", "start"]:
                open_parts.add(chunk["id"])
            case ["text" | "reasoning", "delta"]:
                assert chunk["id"] in open_parts
            case ["text" | "reasoning", "end"]:
                open_parts.remove(chunk["id"])
            case ["tool", "input", "start" | "available" | "error"]:
                called.add(chunk["toolCallId"])
            case ["tool", _, *_]:
                assert chunk["toolCallId"] in called
    assert not open_parts
    told = "".join(chunk["delta"] for chunk in chunks if chunk["type"] == "text-delta")
    assert told == "".join("".join(texts) for kind, texts in said if kind == "text")
    count = sum(chunk["type"].endswith("-delta") for chunk in chunks)
    assert count == sum(len(texts) for kind, texts in said if kind not in ("approved", "approval"))


def test_an_answer_that_is_begun_anew_takes_the_place_of_what_was_said() -> None:
    *begun, done = log_of([("text", ["half"])], "interrupted")
    another = ResponseId("resp_3")
    request = ResponseRequest(metadata={"ui_message_id": "msg_1"})
    encoder = UiEncoder(RESPONSE)
    again: list[Record] = [
        done,
        Entry(90, Nonce(0), ResponseStarted(another, request, turn=2, attempt=2)),
        Entry(91, Nonce(0), OutputStarted(another, ItemId("item_9"), True, None, 1)),
        Slice(92, 92, another, ItemId("item_9"), 0, 0, 2, ["whole"], [0]),
        Entry(93, Nonce(0), ResponseDone(another, "completed", 3)),
    ]
    chunks = [orjson.loads(chunk) for records in (begun, again) for chunk in encoder.encode(records)]

    kinds = [chunk["type"] for chunk in chunks if chunk["type"] != "data-unbroken"]
    assert kinds == [
        *("start", "start-step", "text-start", "text-delta", "text-end", "reset-step"),
        *("text-start", "text-delta", "finish-step", "finish"),
    ]
    assert chunks[-1]["finishReason"] == "stop"


def test_who_has_the_question_is_told_what_was_refused() -> None:
    """Who asks goes on with what they have; who comes back may have nothing."""
    earlier: list[Item] = [
        ApprovalRequest(ItemId("asked"), "mail", "desk", '{"to": "Ada"}'),
        ApprovalResponse(ItemId("no"), ItemId("asked"), False, "not now"),
    ]
    records = list(log_of([], "completed"))
    told = {
        replays: [
            orjson.loads(chunk)
            for chunk in UiEncoder(RESPONSE, earlier=earlier, replays=replays).encode(records)
        ]
        for replays in (False, True)
    }

    assert {"type": "tool-output-denied", "toolCallId": "asked"} in told[False]
    kinds = [chunk["type"] for chunk in told[True]]
    assert kinds[2:7] == [
        *("start-step", "tool-input-available", "tool-approval-request"),
        *("tool-approval-response", "tool-output-denied"),
    ]
