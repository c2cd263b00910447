"""What chunks there are, and in which order, whatever a log says."""

from __future__ import annotations

from typing import Any

import orjson
from hypothesis import given
from hypothesis import strategies as st
from openai.types.chat import ChatCompletion, ChatCompletionChunk
from pydantic import TypeAdapter

from unbroken.server.protocols.chat.encode import ChatEncoder, Completion
from unbroken.sessions.entries import (
    Body,
    Deltas,
    Entry,
    Failure,
    OutputDone,
    OutputStarted,
    ResponseDone,
    ResponseQueued,
    ResponseStarted,
    Status,
    ToolStarted,
)
from unbroken.sessions.event_log import EventLog, Record
from unbroken.sessions.ids import Incarnation, ItemId, Nonce, ResponseId, SessionId, new_response_id
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
    ToolHead,
    Usage,
)

OWN = new_response_id(SessionId("sess_" + 32 * "a"), 1_800_000_000)
OTHER = ResponseId("resp_other")
CONFIG = SessionConfig("m")
CHUNK: TypeAdapter[Any] = TypeAdapter(ChatCompletionChunk)
WHOLE: TypeAdapter[Any] = TypeAdapter(ChatCompletion)

_KINDS = st.sampled_from(["text", "call", "reasoning", "tool", "approval"])
_PIECES = st.lists(st.text('ab "\\\n\u20ac', max_size=4), max_size=4)
_OUTPUTS = st.lists(st.tuples(_KINDS, _PIECES), max_size=6)
_ENDS: st.SearchStrategy[tuple[Status, str | None]] = st.sampled_from(
    [
        ("completed", None),
        ("incomplete", "max_output_tokens"),
        ("incomplete", "content_filter"),
        ("incomplete", "quota_exceeded"),
        ("cancelled", "client"),
        ("cancelled", "superseded"),
        ("failed", None),
        ("interrupted", None),
    ]
)


def item_of(kind: str, number: int, text: str, *, is_whole: bool) -> Produced:
    item_id, status = ItemId(f"i{number}"), "completed" if is_whole else "incomplete"
    match kind:
        case "text":
            return Message(item_id, "assistant", (Text(text),), status)  # type: ignore[arg-type]
        case "call":
            return FunctionCall(item_id, f"c{number}", "f", text, status)  # type: ignore[arg-type]
        case "reasoning":
            return Reasoning(item_id, text)
        case "tool":
            return ToolCall(item_id, "t", "l", text, "out")
        case _:
            return ApprovalRequest(item_id, "t", "l", text)


def log_of(
    outputs: list[tuple[str, list[str]]],
    end: tuple[Status, str | None],
    *,
    is_queued: bool,
    usage: Usage | None,
) -> tuple[EventLog, ResponseDone]:
    """Return a log in which that happens, with another response in between."""
    log = EventLog(Incarnation("0"))

    def write(body: Body) -> None:
        log.append(Entry(log.head + 1, Nonce(1), body))

    request = ResponseRequest(model="other-model")
    if is_queued:
        write(ResponseQueued(OWN, request))
    write(ResponseStarted(OWN, request, 1))
    status, reason = end
    items: list[Produced] = []
    for number, (kind, pieces) in enumerate(outputs):
        heads: dict[str, Any] = {
            "call": {"call": CallHead(f"c{number}", "f")},
            "reasoning": {"head": ReasoningHead()},
            "tool": {"head": ToolHead("t", "l")},
            "approval": {"head": ApprovalHead("t", "l", "".join(pieces))},
        }
        write(OutputStarted(OWN, ItemId(f"i{number}"), True, None, 0, number, **heads.get(kind, {})))
        write(Deltas(OTHER, ItemId(f"i{number}"), ["another's"], 0, number))
        if pieces and kind != "approval":
            write(Deltas(OWN, ItemId(f"i{number}"), pieces, 0, number))
        if kind == "tool":
            write(ToolStarted(OWN, ItemId(f"i{number}"), "".join(pieces), 0, number))
        items.append(item_of(kind, number, "".join(pieces), is_whole=status == "completed"))
        write(OutputDone(OWN, items[-1], True, None, 0, number))
    failure = Failure("agent_error", "It failed.") if status in ("failed", "interrupted") else None
    done = ResponseDone(OWN, status, 0, tuple(items), reason, failure, usage)
    write(done)
    write(Deltas(OTHER, ItemId("x"), ["another's"], 0))
    return log, done


def read(log: EventLog, limit: int) -> list[Record]:
    """Return what is in a log, as somebody reads it who keeps up or is behind."""
    records: list[Record] = []
    after = 0
    while more := log.read(after, limit):
        records += more
        after = more[-1].last
    return records


def joined(chunks: list[dict[str, Any]], name: str) -> str:
    return "".join(each["choices"][0]["delta"].get(name) or "" for each in chunks)


@given(
    outputs=_OUTPUTS,
    end=_ENDS,
    is_queued=st.booleans(),
    usage=st.none() | st.just(Usage(3, 4, 1)),
    limit=st.integers(1, 8),
    includes_usage=st.booleans(),
    is_padded=st.booleans(),
)
def test_chunks_keep_their_order_and_say_what_the_whole_says(
    outputs: list[tuple[str, list[str]]],
    end: tuple[Status, str | None],
    is_queued: bool,
    usage: Usage | None,
    limit: int,
    includes_usage: bool,
    is_padded: bool,
) -> None:
    log, done = log_of(outputs, end, is_queued=is_queued, usage=usage)
    completion = Completion(OWN, CONFIG, {"session": "s"})
    encoder = ChatEncoder(completion, obfuscates=is_padded, includes_usage=includes_usage)

    chunks: list[dict[str, Any]] = [orjson.loads(each) for each in encoder.encode(read(log, limit))]

    assert encoder.is_done
    if encoder.is_failed:
        assert chunks.pop()["error"]["code"] == "agent_error"
        assert not any(each["choices"][0]["finish_reason"] for each in chunks)
    for each in chunks:
        CHUNK.validate_python(each, strict=True)
        assert each["model"] == "other-model"
        assert "error" not in each
        assert ("usage" in each) == includes_usage
    if includes_usage and usage is not None and not encoder.is_failed:
        cost = chunks.pop()
        assert (cost["choices"], cost["usage"]["total_tokens"]) == ([], 7)
    first = chunks[0]
    assert first["choices"][0]["delta"]["role"] == "assistant"
    assert first["unbroken"] == {"session": "s"}
    assert not any("role" in each["choices"][0]["delta"] for each in chunks[1:])
    if encoder.is_failed:
        return
    whole = completion.whole(done)
    WHOLE.validate_python(whole, strict=True)
    (choice,) = whole["choices"]
    message = choice["message"]
    reasons = [each["choices"][0]["finish_reason"] for each in chunks]
    assert reasons == [*[None] * (len(chunks) - 1), choice["finish_reason"]]
    assert joined(chunks, "content") == (message["content"] or "")
    assert joined(chunks, "reasoning_content") == message.get("reasoning_content", "")
    assert {**first.get("unbroken", {}), **chunks[-1].get("unbroken", {})} == whole["unbroken"]
    calls = calls_of(chunks)
    if done.status == "completed":
        assert calls == [each["function"]["arguments"] for each in message.get("tool_calls", [])]
        assert (choice["finish_reason"] == "tool_calls") == bool(calls)
    else:
        assert "tool_calls" not in message


def calls_of(chunks: list[dict[str, Any]]) -> list[str]:
    """Return the calls' arguments, having checked that each begins once, behind those before it."""
    calls: list[str] = []
    for each in chunks:
        for call in each["choices"][0]["delta"].get("tool_calls", ()):
            if "id" in call:
                assert call["index"] == len(calls)
                calls.append(call["function"]["arguments"])
            else:
                calls[call["index"]] += call["function"]["arguments"]
    return calls


def test_an_answer_that_ended_while_it_waited_has_its_role_and_its_end() -> None:
    log = EventLog(Incarnation("0"))
    log.append(Entry(1, Nonce(1), ResponseQueued(OWN, ResponseRequest())))
    log.append(Entry(2, Nonce(1), ResponseDone(OWN, "cancelled", 0, reason="client")))
    encoder = ChatEncoder(Completion(OWN, CONFIG))

    first, last = (orjson.loads(each) for each in encoder.encode(read(log, 1)))

    assert first["choices"][0]["delta"]["role"] == "assistant"
    assert (last["choices"][0]["finish_reason"], last["unbroken"]) == ("stop", {"status": "cancelled"})
