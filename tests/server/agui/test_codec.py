"""The codec alone: whatever clients send, and whatever is in a log."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.server.agui.client import Rules, said
from unbroken.server.protocols.agui.decode import decode_run
from unbroken.server.protocols.agui.encode import RunEncoder
from unbroken.server.protocols.agui.events import offset_of
from unbroken.server.protocols.agui.history import wanted_of_run
from unbroken.server.protocols.agui.socket import Abort, Unsaid, decode_frame
from unbroken.server.protocols.items import DecodeError
from unbroken.sessions.entries import (
    Body,
    Entry,
    Failure,
    OutputDone,
    OutputStarted,
    ResponseDone,
    ResponseQueued,
    ResponseStarted,
    ToolStarted,
)
from unbroken.sessions.event_log import Record, Slice
from unbroken.sessions.ids import ItemId, Nonce, ResponseId
from unbroken.sessions.items import (
    ApprovalHead,
    ApprovalRequest,
    CallHead,
    FunctionCall,
    FunctionOutput,
    ItemStatus,
    Message,
    Reasoning,
    ReasoningHead,
    ResponseRequest,
    Text,
    ToolCall,
    ToolError,
    ToolHead,
    Usage,
)

RESPONSE = ResponseId("resp_1")
AGAIN = ResponseId("resp_2")
OTHER = ResponseId("resp_3")

json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=6,
)
names = st.sampled_from(["a", "b", "root", "an id", "", "x" * 200])
sources = st.fixed_dictionaries(
    {
        "type": st.sampled_from(["data", "url", "file", "x"]),
        "value": st.sampled_from(["AAAA", "file-1", "x"]),
    },
    optional={"mimeType": st.sampled_from(["image/png", "text/plain"])},
)
parts = st.fixed_dictionaries(
    {"type": st.sampled_from(["text", "image", "document", "audio", "x"])},
    optional={"text": st.text(max_size=5), "source": sources, "metadata": json_values},
)
calls = st.fixed_dictionaries(
    {
        "id": names,
        "function": st.fixed_dictionaries({"name": names, "arguments": st.sampled_from(["{}", "x"])}),
    }
)
messages = st.fixed_dictionaries(
    {
        "id": names,
        "role": st.sampled_from(["user", "assistant", "tool", "system", "developer", "reasoning", "x"]),
    },
    optional={
        "content": st.text(max_size=5) | st.lists(parts, max_size=3) | st.just({"any": "thing"}),
        "toolCalls": st.lists(calls, max_size=3),
        "toolCallId": names,
        "error": st.text(max_size=5),
    },
)
bodies = st.fixed_dictionaries(
    {"threadId": names, "runId": names, "messages": st.lists(messages, max_size=5)},
    optional={
        "tools": st.lists(
            st.fixed_dictionaries({"name": names}, optional={"parameters": json_values}), max_size=2
        ),
        "context": st.lists(st.just({"description": "Page", "value": "home"}), max_size=2),
        "resume": st.lists(
            st.fixed_dictionaries(
                {"interruptId": names, "status": st.sampled_from(["resolved", "cancelled"])},
                optional={"payload": st.booleans() | json_values},
            ),
            max_size=2,
        ),
        "state": json_values,
        "forwardedProps": json_values
        | st.just({"unbroken": {"max_output_tokens": 0}})
        | st.just({"unbroken": {"instructions": "Be brief."}})
        | st.just({"unbroken": 7}),
    },
)


@given(bodies | json_values)
def test_whatever_is_sent_is_asked_for_or_refused_with_a_reason(body: Any) -> None:
    data = orjson.dumps(body)
    try:
        run = decode_run(data, max_depth=32)
        asked = wanted_of_run(run, None, "plan")
    except DecodeError as exc:
        assert exc.message
        assert exc.code != "invalid_event"
        return
    assert not isinstance(asked, str)
    assert asked.request.metadata is not None
    assert asked.request.metadata["agui_run_id"] == run.id
    outputs = [item.call_id for item in asked.items if isinstance(item, FunctionOutput)]
    called = [item.call_id for item in asked.items if isinstance(item, FunctionCall)]
    assert called == outputs
    again = wanted_of_run(decode_run(data, max_depth=32), None, "plan")
    assert not isinstance(again, str)
    assert again.items == asked.items, "items have the same ids each time"
    assert (again.message_id, again.digest) == (asked.message_id, asked.digest)


@given(bodies | json_values, st.sampled_from(["abort", "x", 5, None]))
def test_whatever_a_frame_holds_is_said_or_refused_with_a_reason(body: Any, kind: Any) -> None:
    fields = {**body, **({} if kind is None else {"type": kind})} if isinstance(body, dict) else body
    try:
        frame = decode_frame(orjson.dumps(fields).decode(), max_depth=32)
    except Unsaid as exc:
        assert exc.message
    else:
        assert (frame.run_id if isinstance(frame, Abort) else frame.id) == body["runId"]


@pytest.mark.parametrize(("answers", "is_refused"), [(4095, False), (4096, True)])
def test_there_may_be_so_many_messages_also_if_they_are_one_answer(answers: int, is_refused: bool) -> None:
    said = [{"id": f"a{number}", "role": "assistant", "content": "x"} for number in range(answers)]
    said.append({"id": "m1", "role": "user", "content": "hi"})
    body = orjson.dumps({"threadId": "thread-1", "runId": "run-1", "messages": said})
    if is_refused:
        with pytest.raises(DecodeError, match="4096 messages") as refused:
            decode_run(body, max_depth=32)
        assert refused.value.param == "messages"
        return
    answer, question = decode_run(body, max_depth=32).chat.messages
    assert (answer.id, question.id) == ("a0", "m1")
    assert [part.text for part in answer.parts] == ["x"] * answers


@given(st.text(max_size=40) | st.from_regex(r"resp_[0-9a-f]{48}\.[0-9]{1,5}", fullmatch=True))
def test_offsets_are_read_as_they_were_written_and_nothing_else_is(text: str) -> None:
    offset = offset_of(text)
    if offset is not None:
        response_id, number = offset
        assert int(text.rpartition(".")[2]) == number
        assert text.rpartition(".")[0] == response_id


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


def item_of(kind: str, item_id: ItemId, index: int, text: str, *, is_whole: bool) -> Any:
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


Said = list[tuple[str, list[str]]]


def attempt_of(
    response_id: ResponseId,
    number: int,
    outputs: Said,
    status: Any,
    draw: Any,
    *,
    is_queued: bool = False,
    leaves_open: bool = False,
) -> Iterator[Body | tuple[str, int, str]]:
    """Yield what a log says of one attempt, its outputs interleaved as *draw* has it."""
    request = ResponseRequest(metadata={"agui_run_id": "run-1"}, model="m")
    if is_queued:
        yield ResponseQueued(response_id, request)
    yield ResponseStarted(response_id, request, turn=2, attempt=number)
    is_whole = status == "completed"
    steps: list[list[Any]] = []
    for index, (kind, texts) in enumerate(outputs):
        item_id = ItemId(f"item_{response_id}_{index}")
        own: list[Any] = [OutputStarted(response_id, item_id, True, None, 0, index, **head_of(kind, index))]
        own += [(item_id, index, text) for text in texts]
        if kind in ("tool", "approved") and is_whole:
            own.append(ToolStarted(response_id, item_id, "".join(texts), 0, index))
        if not (leaves_open and status == "interrupted"):
            item = item_of(kind, item_id, index, "".join(texts), is_whole=is_whole)
            own.append(OutputDone(response_id, item, True, None, 0, index))
        steps.append(own)
    while any(steps):
        yield draw([own for own in steps if own]).pop(0)
    failure = Failure("agent_error", "It failed.") if status in ("failed", "interrupted") else None
    reason = "content_filter" if status == "incomplete" else None
    usage = Usage(1, 2) if is_whole else None
    yield ResponseDone(response_id, status, 0, failure=failure, reason=reason, usage=usage)


def logged(response_ids: list[tuple[ResponseId, Any]]) -> Iterator[Record]:
    """Yield the records of attempts, among those of another response."""
    seq = itertools.count(1)
    yield Entry(next(seq), Nonce(0), ResponseStarted(OTHER, ResponseRequest(), turn=1))
    for response_id, bodies in response_ids:
        for body in bodies:
            if isinstance(body, tuple):
                item_id, index, text = body
                at = next(seq)
                yield Slice(at, at, response_id, item_id, index, 0, 0, [text], [0])
                at = next(seq)
                yield Slice(at, at, OTHER, item_id, index, 0, 0, ["not ours"], [0])
            else:
                yield Entry(next(seq), Nonce(0), body)


said_by_agents = st.lists(st.tuples(outputs, pieces), max_size=5)


@given(said_by_agents, endings, st.booleans(), st.booleans(), st.data())
def test_every_interleaving_is_a_run_that_clients_verify(
    outputs: Said, status: str, is_queued: bool, leaves_open: bool, data: st.DataObject
) -> None:
    def draw(of: list[Any]) -> Any:
        return of[data.draw(st.integers(0, len(of) - 1))]

    attempt = attempt_of(RESPONSE, 1, outputs, status, draw, is_queued=is_queued, leaves_open=leaves_open)
    records = list(logged([(RESPONSE, attempt)]))
    whole = RunEncoder(RESPONSE, thread_id="thread-1")
    events = list(whole.encode(records))
    split = RunEncoder(RESPONSE, thread_id="thread-1")
    told: list[bytes] = []
    while records:
        size = data.draw(st.integers(1, len(records)))
        told += split.encode(records[:size])
        records = records[size:]

    assert told == events, "numbers are the same however the log is read"
    assert whole.is_done
    assert split.is_done
    check([orjson.loads(event) for event in events], outputs, status)


def check(events: list[dict[str, Any]], outputs: Said, status: str) -> None:
    rules = Rules()
    for event in events:
        rules.take(event)
    rules.finish()
    assert events[0]["runId"] == "run-1"
    text = sorted("".join(texts) for kind, texts in outputs if kind == "text")
    assert "".join(sorted(said(events))) == "".join(sorted("".join(text)))
    last = events[-1]
    assert (last["type"] == "RUN_ERROR") == (status in ("failed", "interrupted"))
    asked = [f"item_{RESPONSE}_{index}" for index, (kind, _) in enumerate(outputs) if kind == "approval"]
    if last["type"] == "RUN_FINISHED":
        outcome = last["outcome"]
        if status == "cancelled":
            assert outcome == {"type": "cancelled"}
        elif status == "completed" and asked:
            assert sorted(each["id"] for each in outcome["interrupts"]) == asked
        else:
            called = [f"call_{index}" for index, (kind, _) in enumerate(outputs) if kind == "call"]
            wanted = called if status == "completed" else []
            assert sorted(outcome.get("pendingToolCallIds", [])) == wanted
    results = [event["toolCallId"] for event in events if event["type"] == "TOOL_CALL_RESULT"]
    by_server = sum(kind in ("tool", "approved") for kind, _ in outputs)
    cut = 0 if status == "completed" else sum(kind == "call" for kind, _ in outputs)
    assert len(results) in (by_server + cut, 0), "what was run, or cut short, is settled"


@given(said_by_agents, said_by_agents, st.booleans(), st.data())
def test_an_answer_that_is_begun_anew_is_the_same_run(
    first: Said, second: Said, leaves_open: bool, data: st.DataObject
) -> None:
    def draw(of: list[Any]) -> Any:
        return of[data.draw(st.integers(0, len(of) - 1))]

    *begun, done = logged(
        [
            (RESPONSE, attempt_of(RESPONSE, 1, first, "interrupted", draw, leaves_open=leaves_open)),
        ]
    )
    again = list(logged([(AGAIN, attempt_of(AGAIN, 2, second, "completed", draw))]))[1:]
    encoder = RunEncoder(RESPONSE, thread_id="thread-1")
    events = [orjson.loads(event) for records in (begun, [done, *again]) for event in encoder.encode(records)]

    rules = Rules()
    for event in events:
        rules.take(event)
    rules.finish()
    (restarted,) = [event for event in events if event.get("name") == "unbroken.restarted"]
    texts = [f"item_{RESPONSE}_{index}" for index, (kind, _) in enumerate(first) if kind == "text"]
    assert sorted(restarted["value"]["discarded"]) == texts
    assert events[-1]["outcome"]["type"] in ("success", "interrupt")
