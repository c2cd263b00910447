"""The tools of these tests notice what they claim to: each planted fault is found."""

from __future__ import annotations

import json
from typing import Any

import pytest
from starlette.types import Message, Receive, Scope, Send

from tests.server.realtime.client import Frame, whole
from tests.server.realtime.serving import Inspector

DELTA: Frame = {
    "type": "response.output_text.delta",
    "event_id": "event_01234567.5.a.0",
    "response_id": "r",
    "item_id": "i",
    "output_index": 0,
    "content_index": 0,
    "delta": "x",
}


async def violations(*messages: Message) -> list[str]:
    """Return what is wrong with what an application sends."""

    async def application(scope: Scope, receive: Receive, send: Send) -> None:
        for message in messages:
            await send(message)

    async def nothing(*_: Any) -> Any: ...

    inspector = Inspector(application, has_outlet=False)
    await inspector({"type": "websocket"}, nothing, nothing)
    return inspector.violations


def text(**changes: Any) -> Message:
    return {"type": "websocket.send", "text": json.dumps({**DELTA, **changes})}


async def test_what_is_right_passes() -> None:
    places = ["event_01234567.5.a.1", "event_01234567.5.a.0", "event_01234567.5.a.0-012345671"]
    places += ["event_01234567.5.a.0-012345672", "event_01234567.6.a.0", "event_" + 24 * "0"]

    assert await violations(*(text(event_id=place) for place in places)) == []


@pytest.mark.parametrize(
    "message",
    [
        {"type": "websocket.send", "bytes": json.dumps(DELTA).encode()},
        {"type": "websocket.send", "text": "nonsense"},
        text(type="response.output_text.detla"),
        text(delta=7),
        text(output_index="0"),
        text(event_id="event_1"),
        text(unbroken={"a": [{"b": None}]}),
    ],
)
async def test_a_frame_that_is_wrong_is_found(message: Message) -> None:
    assert len(await violations(message)) == 1


@pytest.mark.parametrize(
    "place",
    ["event_01234567.5.a.0", "event_01234567.4.a.0", "event_01234567.5.a.1", "event_76543210.6.a.0"],
    ids=["again", "back", "back within an entry", "another log"],
)
async def test_a_frame_out_of_place_is_found(place: str) -> None:
    assert len(await violations(text(), text(event_id=place))) == 1


def answer(*deltas: str, final: str) -> list[Frame]:
    item = {"id": "i", "type": "message", "content": [{"type": "output_text", "text": final}]}
    named = {"response_id": "r", "item_id": "i"}
    frames: list[Frame] = [{"type": "response.created", "response": {"id": "r"}}]
    frames += [{"type": "response.output_text.delta", **named, "delta": delta} for delta in deltas]
    frames.append({"type": "response.output_text.done", **named, "text": final})
    frames.append({"type": "response.done", "response": {"id": "r", "status": "completed", "output": [item]}})
    return [{**frame, "event_id": str(number)} for number, frame in enumerate(frames)]


def test_an_answer_that_is_whole() -> None:
    assert whole(answer("a", "b", final="ab")) == [("completed", "ab")]


@pytest.mark.parametrize(
    "frames",
    [
        answer("a", final="ab"),
        answer("a", "b", "b", final="ab"),
        answer("a", final="a")[:-1],
        answer("a", final="a")[1:],
        [*answer("a", final="a"), {**answer("a", final="a")[-1], "event_id": "x"}],
        [*answer("a", final="a"), {**DELTA, "event_id": "x"}],
        [*answer("a", final="a"), answer("a", final="a")[1]],
    ],
    ids=["lost", "doubled", "no end", "no beginning", "two ends", "behind the end", "the same frame"],
)
def test_an_answer_that_is_not(frames: list[Frame]) -> None:
    with pytest.raises(AssertionError):
        whole(frames)
