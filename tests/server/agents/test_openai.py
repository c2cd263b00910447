from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any

import pytest

from tests.fakes.upstream import FakeUpstream, Wire, chunk
from tests.server.agents.agent_contract import collect, message, text_of, turn
from tests.server.agents.upstream_contract import KEY, SECRET, UpstreamContract, fails, made
from unbroken.server.agents.base import (
    ContextTooLong,
    Finish,
    FunctionCallPiece,
    FunctionTool,
    NamedTool,
    Parameters,
    ReasoningPiece,
    UpstreamMalformed,
    UpstreamReportedError,
    Usage,
    Working,
)
from unbroken.server.agents.openai import OpenAIAgent


class TestOpenAIAgentContract(UpstreamContract):
    def make(self, **settings: Any) -> OpenAIAgent:
        return made(OpenAIAgent, **settings)


def agent_for(upstream: FakeUpstream, **settings: Any) -> OpenAIAgent:
    return made(
        OpenAIAgent,
        **{"model": "m-1", "base_url": upstream.base_url, "api_key": KEY, "max_retries": 0, **settings},
    )


@pytest.fixture
async def agent(upstream: FakeUpstream) -> AsyncIterator[OpenAIAgent]:
    agent = agent_for(upstream)
    await agent.start()
    yield agent
    await agent.stop()


# What is sent.


async def test_request_says_what_the_turn_says(agent: OpenAIAgent, upstream: FakeUpstream) -> None:
    conversation = (message("hi"), message("", "assistant"), message("hello", "assistant"), message("and?"))

    await collect(
        agent,
        turn(*conversation, model="m-2", instructions="Be kind.", response_id="resp_7", max_output_tokens=9),
    )

    [request] = upstream.requests
    user = request.json["user"]
    assert {
        "model": "m-2",
        "messages": [
            {"role": "system", "content": "Be kind."},
            {"role": "user", "content": "hi"},
            {"role": "assistant", "content": "hello"},
            {"role": "user", "content": "and?"},
        ],
        "stream": True,
        "stream_options": {"include_usage": True},
        "max_tokens": 9,
        "user": user,
    } == request.json
    assert request.path == "/v1/chat/completions"
    assert f"Bearer {KEY}" == request.headers["authorization"]
    assert request.headers["accept-encoding"] == "identity"
    assert request.headers["idempotency-key"] == "resp_7"


async def test_newer_name_of_the_output_limit_can_be_chosen(upstream: FakeUpstream) -> None:
    agent = agent_for(upstream, output_limit_field="max_completion_tokens")
    await agent.start()
    await collect(agent, turn("hi", max_output_tokens=5))
    await agent.stop()

    assert upstream.requests[0].json["max_completion_tokens"] == 5
    assert "max_tokens" not in upstream.requests[0].json


async def test_conversation_is_shortened_to_the_window(upstream: FakeUpstream) -> None:
    """Its oldest turns stay away, and the answer's limit is what the window leaves."""
    agent = agent_for(upstream, context_tokens=200)
    await agent.start()
    await collect(agent, turn("a" * 240, "b" * 90, "last", max_output_tokens=190, instructions="Be kind."))
    with pytest.raises(ContextTooLong):
        await collect(agent, turn("a" * 600))
    await agent.stop()

    [request] = upstream.requests
    assert [m["content"] for m in request.json["messages"]] == ["Be kind.", "b" * 90, "last"]
    assert 100 < request.json["max_tokens"] < 190


async def test_parameters_are_passed_on(agent: OpenAIAgent, upstream: FakeUpstream) -> None:
    schema = {"type": "json_schema", "name": "n", "schema": {"type": "object"}, "strict": True}
    await collect(agent, turn("hi", parameters=Parameters(0.0, 0.5, ("a", "b"), {"type": "json_object"})))
    await collect(agent, turn("hi", parameters=Parameters(format=schema)))
    await collect(agent, turn("hi"))

    names = ("temperature", "top_p", "stop", "response_format")
    sent = [
        {name: request.json[name] for name in names if name in request.json} for request in upstream.requests
    ]
    assert sent == [
        {"temperature": 0.0, "top_p": 0.5, "stop": ["a", "b"], "response_format": {"type": "json_object"}},
        {
            "response_format": {
                "type": "json_schema",
                "json_schema": {"name": "n", "schema": {"type": "object"}, "strict": True},
            }
        },
        {},
    ]


# What is read.


@pytest.mark.parametrize(
    ("theirs", "ours"),
    [
        ("stop", "completed"),
        ("length", "max_output_tokens"),
        ("content_filter", "content_filter"),
        ("tool_calls", "completed"),
        (None, "completed"),
    ],
)
async def test_reason_for_stopping_is_translated(
    agent: OpenAIAgent, upstream: FakeUpstream, theirs: str | None, ours: Any
) -> None:
    upstream.answer("a", finish_reason=theirs)

    assert Finish(ours) == (await collect(agent, turn("hi")))[-1]


async def test_refusal_is_text_and_reasoning_is_not(agent: OpenAIAgent, upstream: FakeUpstream) -> None:
    upstream.events(
        chunk({"reasoning_content": "hm"}),
        chunk({"reasoning": "no"}),
        chunk({"reasoning": {"of": "another shape"}}),
        chunk({"refusal": "I won't."}),
        chunk({}, finish_reason="stop"),
        "[DONE]",
    )

    outputs = await collect(agent, turn("hi"))

    assert text_of(outputs) == "I won't."
    assert [output for output in outputs if isinstance(output, ReasoningPiece)] == [
        ReasoningPiece("hm"),
        ReasoningPiece("no"),
    ]


@pytest.mark.parametrize(
    "tail",
    [
        pytest.param([], id="end"),
        pytest.param(["[DONE]"], id="no usage"),
        pytest.param([{"choices": [], "usage": {"prompt_tokens": "many"}}, "[DONE]"], id="bad usage"),
        pytest.param(["{not json"], id="malformed"),
        pytest.param([{"error": "late"}], id="late error"),
    ],
)
async def test_answer_is_whole_once_it_says_so(
    agent: OpenAIAgent, upstream: FakeUpstream, tail: list[object]
) -> None:
    upstream.events(chunk({"content": "a"}), chunk({}, finish_reason="stop"), *tail)

    assert ["a", Finish("completed")] == [
        o for o in await collect(agent, turn("hi")) if not isinstance(o, Working)
    ]


async def test_usage_on_every_chunk_is_counted_once(agent: OpenAIAgent, upstream: FakeUpstream) -> None:
    counts = [{"prompt_tokens": 4, "completion_tokens": n} for n in (1, 2)]
    upstream.events(*[chunk({"content": "a"}, usage=usage) for usage in counts], "[DONE]")

    assert [Usage(input_tokens=4, output_tokens=2)] == [
        output for output in await collect(agent, turn("hi")) if isinstance(output, Usage)
    ]


async def test_body_that_stays_open_after_done_is_left(agent: OpenAIAgent, upstream: FakeUpstream) -> None:
    async def script(wire: Wire) -> None:
        wire.head()
        await wire.text("a")
        await wire.event("[DONE]")
        await wire.hold()

    upstream.script(script)

    assert text_of(await collect(agent, turn("hi"))) == "a"
    await upstream.requests[0].disconnected.wait()


async def test_heartbeats_behind_the_end_are_not_listened_to_for_ever(
    agent: OpenAIAgent, upstream: FakeUpstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The answer is whole: were they, it would fail in the end as stalled."""
    monkeypatch.setattr("unbroken.server.agents.upstream._DRAIN_SECONDS", 0.01)

    async def script(wire: Wire) -> None:
        wire.head()
        await wire.text("a")
        await wire.event("[DONE]")
        while True:  # until the client goes
            await wire.write(b": alive\n")

    upstream.script(script)

    assert text_of(await collect(agent, turn("hi"))) == "a"
    await upstream.requests[0].disconnected.wait()


async def test_usage_that_never_comes_is_not_waited_for(
    agent: OpenAIAgent, upstream: FakeUpstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("unbroken.server.agents.upstream._TAIL_SECONDS", 0.01)

    async def script(wire: Wire) -> None:
        wire.head()
        await wire.event(chunk({"content": "a"}, finish_reason="length"))
        await wire.hold()

    upstream.script(script)

    assert (await collect(agent, turn("hi")))[-2:] == ["a", Finish("max_output_tokens")]
    await upstream.requests[0].disconnected.wait()


# What goes wrong.


@pytest.mark.parametrize(
    "payload",
    [
        "{not json",
        "[]",
        "null",
        '{"choices": 1}',
        '{"choices": [{"delta": {"content": 1}}]}',
        "x" * 2_000_000,
    ],
    ids=["json", "list", "null", "choices", "content", "size"],
)
async def test_malformed_stream_fails(agent: OpenAIAgent, upstream: FakeUpstream, payload: str) -> None:
    upstream.malformed(payload)

    _, outputs = await fails(agent, UpstreamMalformed)

    assert text_of(outputs) == "t0 "


async def test_error_event_fails(agent: OpenAIAgent, upstream: FakeUpstream) -> None:
    async def script(wire: Wire) -> None:
        wire.head()
        await wire.write(
            b"event: error\ndata: " + json.dumps({"error": {"message": SECRET}}).encode() + b"\n\n"
        )
        wire.end()

    upstream.script(script)

    await fails(agent, UpstreamReportedError)


async def test_error_as_a_finish_reason_fails(agent: OpenAIAgent, upstream: FakeUpstream) -> None:
    upstream.events(chunk({"content": "a"}), chunk({}, finish_reason="error"), "[DONE]")

    await fails(agent, UpstreamReportedError)


# How it is set up.


@pytest.mark.parametrize(
    ("base_url", "field"),
    [
        (None, "max_completion_tokens"),
        ("https://eu.api.openai.com/v1", "max_completion_tokens"),
        ("https://x.openai.azure.com/openai/v1", "max_completion_tokens"),
        ("https://notopenai.com/v1", "max_tokens"),
        ("http://127.0.0.1:11434/v1", "max_tokens"),
    ],
)
async def test_output_limit_goes_by_the_name_that_the_address_knows(base_url: str | None, field: str) -> None:
    agent = made(OpenAIAgent, model="m", base_url=base_url, api_key=KEY)
    await agent.start()

    assert agent._request(turn("hi", max_output_tokens=5))[field] == 5
    await agent.stop()


def call_piece(arguments: str | None, name: str | None = None, **fields: Any) -> dict[str, object]:
    return chunk({"tool_calls": [{"function": {"name": name, "arguments": arguments}, **fields}]})


@pytest.mark.parametrize(
    "pieces",
    [
        [
            call_piece("", "f", index=0, id="k", type="function"),
            call_piece("{", index=0),
            call_piece("[]", "g", index=1, id="l"),
            call_piece("}", index=0),
        ],
        [call_piece("{", "f", id="k"), call_piece("}"), call_piece("[]", "g", id="l")],
        [call_piece("{}", "f", index=0, id="k"), call_piece("[]", "g", index=0, id="l")],
        [
            call_piece("{", "f", index=0, id="k"),
            call_piece("}", "f", index=0, id="k"),
            call_piece("[]", "g", index=7, id="l"),
            call_piece(None, index=7, id=""),
        ],
    ],
    ids=["as OpenAI", "without an index", "all with one index", "everything each time"],
)
async def test_calls_are_read_as_servers_write_them(
    agent: OpenAIAgent, upstream: FakeUpstream, pieces: list[object]
) -> None:
    upstream.events(*pieces, chunk({}, finish_reason="tool_calls"), "[DONE]")
    outputs = await collect(agent, turn("hi"))

    calls = [output for output in outputs if isinstance(output, FunctionCallPiece)]
    assert "".join(call.arguments for call in calls if call.index == 0) == "{}"
    assert "".join(call.arguments for call in calls if call.index == 1) == "[]"
    assert [(call.index, call.name, call.call_id) for call in calls if call.name] == [
        (0, "f", "k"),
        (1, "g", "l"),
    ]
    assert outputs[-1] == Finish("completed")


async def test_call_without_a_name_is_malformed(agent: OpenAIAgent, upstream: FakeUpstream) -> None:
    upstream.events(call_piece("{}", index=0))

    await fails(agent, UpstreamMalformed)


async def test_tools_take_up_room_in_the_window(upstream: FakeUpstream) -> None:
    tool = FunctionTool("f", "A function. " * 20, {"type": "object"})
    agent = agent_for(upstream, context_tokens=300)
    await agent.start()
    await collect(agent, turn("a" * 240, "last", max_output_tokens=100))
    await collect(
        agent, turn("a" * 240, "last", max_output_tokens=100, tools=(tool,), tool_choice=NamedTool("f"))
    )
    await agent.stop()

    plain, with_tools = (request.json for request in upstream.requests)
    assert [len(plain["messages"]), len(with_tools["messages"])] == [2, 1]
    assert "tools" not in plain
    assert with_tools["tools"][0]["function"]["name"] == "f"
    assert with_tools["tool_choice"] == {"type": "function", "function": {"name": "f"}}
