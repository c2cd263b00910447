"""JSON that is nested deeply, be it in the open or within a text."""

from __future__ import annotations

from typing import Any

import orjson
import pytest

from unbroken.server.protocols.agui.decode import decode_run
from unbroken.server.protocols.agui.encode import RunEncoder
from unbroken.server.protocols.agui.history import wanted_of_run
from unbroken.server.protocols.nesting import too_deep
from unbroken.server.protocols.ui.chunks import chunks_of
from unbroken.server.protocols.ui.encode import UiEncoder
from unbroken.sessions.entries import Body, Entry, OutputDone, OutputStarted, ResponseDone, ResponseStarted
from unbroken.sessions.event_log import Record
from unbroken.sessions.ids import ItemId, Nonce, ResponseId
from unbroken.sessions.items import (
    ApprovalRequest,
    CallHead,
    FunctionCall,
    FunctionOutput,
    Item,
    ResponseRequest,
    ToolCall,
)

RESPONSE = ResponseId("resp_1")
ITEM = ItemId("item_1")

depths = pytest.mark.parametrize("levels", [2, 199, 200, 201, 254, 255, 500, 1024, 9000])


def nested(levels: int) -> str:
    return "[" * levels + "]" * levels


@depths
def test_a_settled_call_of_any_depth_begins_a_thread(levels: int) -> None:
    called = {"id": "call_1", "type": "function", "function": {"name": "add", "arguments": nested(levels)}}
    said = [
        {"id": "m1", "role": "user", "content": "hi"},
        {"id": "m2", "role": "assistant", "toolCalls": [called]},
        {"id": "m3", "role": "tool", "toolCallId": "call_1", "content": "3"},
        {"id": "m4", "role": "user", "content": "and"},
    ]
    body = orjson.dumps({"threadId": "thread-1", "runId": "run-1", "messages": said})
    asked = wanted_of_run(decode_run(body, max_depth=32), None, "plan")

    assert not isinstance(asked, str)
    (call,) = [item for item in asked.items if isinstance(item, FunctionCall)]
    said_again: Any = nested(levels) if levels <= 200 else orjson.dumps(nested(levels)).decode()
    assert call.arguments == said_again, "what is nested too deeply stays a text"


def answer_with(arguments: str) -> list[Record]:
    call = FunctionCall(ITEM, "call_1", "add", arguments, "completed")
    bodies: list[Body] = [
        ResponseStarted(RESPONSE, ResponseRequest(), turn=1),
        OutputStarted(RESPONSE, ITEM, True, None, 0, 0, call=CallHead("call_1", "add")),
        OutputDone(RESPONSE, call, True, None, 0, 0),
        OutputDone(
            RESPONSE,
            ApprovalRequest(ItemId("item_2"), "mail", "desk", arguments, "completed"),
            True,
            None,
            0,
            1,
        ),
        ResponseDone(RESPONSE, "completed", 0),
    ]
    return [Entry(seq, Nonce(0), body) for seq, body in enumerate(bodies, 1)]


@depths
@pytest.mark.parametrize("encoder_of", [RunEncoder, UiEncoder])
def test_an_answer_with_a_call_of_any_depth_comes_to_its_end(
    encoder_of: type[RunEncoder | UiEncoder], levels: int
) -> None:
    encoder = encoder_of(RESPONSE)
    events = [orjson.loads(event) for event in encoder.encode(answer_with(nested(levels)))]

    assert encoder.is_done
    assert events[-1]["type"] in ("RUN_FINISHED", "finish")


@depths
@pytest.mark.parametrize(
    "item_of",
    [
        lambda text: FunctionCall(ITEM, "call_1", "add", text, "completed"),
        lambda text: FunctionOutput(ITEM, "call_1", text),
        lambda text: ToolCall(ITEM, "mail", "desk", text, "done", None, None, "completed"),
        lambda text: ApprovalRequest(ITEM, "mail", "desk", text, "completed"),
    ],
)
def test_parts_of_any_depth_can_be_told_again(item_of: Any, levels: int) -> None:
    item: Item = item_of(nested(levels))
    assert [orjson.dumps(chunk) for chunk in chunks_of(item)]


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"[" * 32 + b"]" * 32, None),
        (b"[" * 33 + b"]" * 33, "The body is nested more than 32 levels deep."),
        (b"[" + b"[]," * 19_998 + b"[]]", None),
        (b"[" + b"[]," * 20_000 + b"[]]", "The body has more than 20000 brackets."),
        (b'"' + b"[" * 20_001 + b'"', "The body has more than 20000 brackets."),
    ],
)
def test_it_is_said_what_of_it_is_too_much(data: bytes, why: str | None) -> None:
    assert too_deep(data, 32, "The body") == why
