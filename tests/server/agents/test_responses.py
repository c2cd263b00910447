"""The agent behind the Responses API, with and without background mode."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any

import pytest

from tests.fakes.dialects import ResponsesDialect
from tests.fakes.upstream import FakeUpstream, Wire
from tests.server.agents.agent_contract import collect, message, text_of, turn
from tests.server.agents.upstream_contract import KEY, SECRET, UpstreamContract, fails, made
from unbroken.server.agents.base import (
    Finish,
    FunctionCallPiece,
    Handle,
    Parameters,
    ReasoningPiece,
    UpstreamCut,
    UpstreamMalformed,
    UpstreamRateLimited,
    Usage,
)
from unbroken.server.agents.responses import ResponsesAgent


class TestResponsesAgentContract(UpstreamContract):
    def make(self, **settings: Any) -> ResponsesAgent:
        return made(ResponsesAgent, **settings)


class TestResponsesAgentInBackgroundContract(UpstreamContract):
    def make(self, **settings: Any) -> ResponsesAgent:
        return made(ResponsesAgent, **settings, background=True)


@pytest.fixture
async def agent(upstream: FakeUpstream) -> AsyncIterator[ResponsesAgent]:
    agent = made(ResponsesAgent, model="m-1", base_url=upstream.base_url, api_key=KEY, max_retries=0)
    await agent.start()
    yield agent
    await agent.stop()


# What is sent.


async def test_request_says_what_the_turn_says(agent: ResponsesAgent, upstream: FakeUpstream) -> None:
    conversation = (message("hi"), message("", "assistant"), message("hello", "assistant"), message("and?"))

    await collect(
        agent,
        turn(*conversation, model="m-2", instructions="Be kind.", response_id="resp_7", max_output_tokens=9),
    )

    [request] = upstream.requests
    assert {
        "model": "m-2",
        "input": [
            {"role": "system", "content": "Be kind."},
            {"role": "user", "content": "hi"},
            {"role": "assistant", "content": "hello"},
            {"role": "user", "content": "and?"},
        ],
        "stream": True,
        "store": False,
        "max_output_tokens": 9,
        "user": request.json["user"],
    } == request.json
    assert request.path == "/v1/responses"
    assert request.headers["accept-encoding"] == "identity"
    assert request.headers["idempotency-key"] == "resp_7"


async def test_parameters_are_passed_on(agent: ResponsesAgent, upstream: FakeUpstream) -> None:
    form = {"type": "json_schema", "name": "n", "schema": {"type": "object"}}
    await collect(agent, turn("hi", parameters=Parameters(0.0, 0.5, ("STOP",), form)))
    await collect(agent, turn("hi"))

    names = ("temperature", "top_p", "stop", "text")
    sent = [
        {name: request.json[name] for name in names if name in request.json} for request in upstream.requests
    ]
    assert sent == [{"temperature": 0.0, "top_p": 0.5, "text": {"format": form}}, {}]


async def test_an_answer_ends_at_a_text_that_the_api_knows_nothing_of(
    agent: ResponsesAgent, upstream: FakeUpstream
) -> None:
    upstream.answer("one S", "TOP", " two")

    outputs = await collect(agent, turn("hi", parameters=Parameters(stop=("STOP",))))

    assert text_of(outputs) == "one "
    assert outputs[-1] == Finish("completed")


# What is read.


@pytest.mark.parametrize(
    ("theirs", "ours"),
    [("stop", "completed"), ("length", "max_output_tokens"), ("content_filter", "content_filter")],
)
async def test_reason_for_stopping_is_translated(
    agent: ResponsesAgent, upstream: FakeUpstream, theirs: str, ours: Any
) -> None:
    upstream.answer("a", finish_reason=theirs)

    assert (await collect(agent, turn("hi")))[-2:] == [Usage(input_tokens=7, output_tokens=1), Finish(ours)]


async def test_refusal_is_text_and_reasoning_is_not(agent: ResponsesAgent, upstream: FakeUpstream) -> None:
    dialect = ResponsesDialect()
    upstream.events(
        *dialect.opening(),
        dialect.reasoning("hm"),
        {**dialect.reasoning("no"), "type": "response.reasoning_text.delta"},
        dialect.refusal("I won't."),
        *dialect.ending("stop", {}),
    )

    outputs = await collect(agent, turn("hi"))

    assert text_of(outputs) == "I won't."
    assert [output for output in outputs if isinstance(output, ReasoningPiece)] == [
        ReasoningPiece("hm"),
        ReasoningPiece("no"),
    ]


async def test_without_background_there_is_no_handle(agent: ResponsesAgent, upstream: FakeUpstream) -> None:
    assert not [o for o in await collect(agent, turn("hi")) if isinstance(o, Handle)]


@pytest.mark.parametrize(
    "usage", [None, {"input_tokens": "many"}, [], 7], ids=["none", "words", "list", "number"]
)
async def test_answer_is_whole_without_a_usable_bill(
    agent: ResponsesAgent, upstream: FakeUpstream, usage: object
) -> None:
    dialect = ResponsesDialect()
    whole = dialect.response("completed", usage=usage)
    upstream.events(dialect.text("a"), dialect.event("response.completed", response=whole), "[DONE]")

    assert await collect(agent, turn("hi")) == ["a", Finish("completed")]


async def test_last_event_may_be_as_long_as_the_answer(agent: ResponsesAgent, upstream: FakeUpstream) -> None:
    """It repeats the text, and three bytes of UTF-8 become six of JSON: a megabyte isn't enough."""
    upstream.answer(*["世" * 50_000] * 6)

    assert text_of(await collect(agent, turn("hi"))) == "世" * 300_000


async def test_body_that_stays_open_after_the_end_is_left(
    agent: ResponsesAgent, upstream: FakeUpstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("unbroken.server.agents.upstream._DRAIN_SECONDS", 0.01)

    async def script(wire: Wire) -> None:
        await wire.begin()
        for payload in wire.dialect.ending("stop", {}):
            await wire.event(payload)
        await wire.hold()

    upstream.script(script)

    assert (await collect(agent, turn("hi")))[-1] == Finish("completed")
    await upstream.requests[0].disconnected.wait()


# What goes wrong.


@pytest.mark.parametrize(
    "payload",
    [
        "{not json",
        "[]",
        "null",
        '{"type": 1}',
        '{"type": "response.output_text.delta"}',
        '{"type": "response.output_text.delta", "delta": 1}',
        '{"type": "response.completed", "response": []}',
        "x" * 20_000_000,
    ],
    ids=["json", "list", "null", "type", "no text", "text", "response", "size"],
)
async def test_malformed_stream_fails(agent: ResponsesAgent, upstream: FakeUpstream, payload: str) -> None:
    upstream.malformed(payload)

    _, outputs = await fails(agent, UpstreamMalformed)

    assert text_of(outputs) == "t0 "


async def test_done_is_no_end(agent: ResponsesAgent, upstream: FakeUpstream) -> None:
    upstream.events(ResponsesDialect().text("a"), "[DONE]")

    await fails(agent, UpstreamCut)


async def test_error_in_the_words_of_chat_is_understood(
    agent: ResponsesAgent, upstream: FakeUpstream
) -> None:
    upstream.events({"error": {"message": SECRET, "code": 429}})

    await fails(agent, UpstreamRateLimited)


async def test_without_background_nothing_is_cancelled(agent: ResponsesAgent, upstream: FakeUpstream) -> None:
    upstream.never_ending()
    async with aclosing(agent.respond(turn("hi"))) as outputs:
        await anext(outputs)

    await upstream.requests[0].disconnected.wait()
    assert upstream.cancelled == []


async def test_calls_without_a_place_stay_apart(agent: ResponsesAgent, upstream: FakeUpstream) -> None:
    """Servers that don't number the items say each call whole before they begin the next."""
    pieces: list[object] = []
    for name in ("f", "g", "h"):
        item = {"type": "function_call", "call_id": f"call_{name}", "name": name}
        pieces.append({"type": "response.output_item.added", "item": item})
        pieces.append({"type": "response.function_call_arguments.delta", "delta": f'"{name}"'})
    upstream.events(*pieces, {"type": "response.completed", "response": {"status": "completed"}})
    outputs = await collect(agent, turn("hi"))

    calls = [output for output in outputs if isinstance(output, FunctionCallPiece)]
    said = {call.index: call.arguments for call in calls if call.arguments}
    assert [(call.index, call.name) for call in calls if call.name] == [(0, "f"), (1, "g"), (2, "h")]
    assert said == {0: '"f"', 1: '"g"', 2: '"h"'}
