from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any

import pytest
from structlog.testing import capture_logs

from tests.fakes.upstream import FakeUpstream, Framing, Wire, chunk
from tests.server.agents.agent_contract import AgentContract, Subject, collect, message, text_of, turn
from unbroken.server.agents.base import (
    AgentBusy,
    AgentError,
    AgentNotReady,
    AgentOutput,
    ContextTooLong,
    Finish,
    TurnInput,
    UpstreamCut,
    UpstreamMalformed,
    UpstreamRateLimited,
    UpstreamRefusedKey,
    UpstreamRejected,
    UpstreamReportedError,
    UpstreamStalled,
    UpstreamUnavailable,
    Usage,
    Working,
)
from unbroken.server.agents.openai import OpenAIAgent

KEY = "sk-test-key"
SECRET = "sk-...secret, and what the user wrote"


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (
        "OPENAI_API_KEY",
        "OPENAI_ADMIN_KEY",
        "OPENAI_BASE_URL",
        "HTTP_PROXY",
        "http_proxy",
        "ALL_PROXY",
    ):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
async def upstream() -> AsyncIterator[FakeUpstream]:
    async with FakeUpstream() as upstream:
        yield upstream


def agent_for(upstream: FakeUpstream, **settings: Any) -> OpenAIAgent:
    return OpenAIAgent(
        **{"model": "m-1", "base_url": upstream.base_url, "api_key": KEY, "max_retries": 0, **settings}
    )


@pytest.fixture
async def agent(upstream: FakeUpstream) -> AsyncIterator[OpenAIAgent]:
    agent = agent_for(upstream)
    await agent.start()
    yield agent
    await agent.stop()


class OpenAISubject(Subject):
    def __init__(self, upstream: FakeUpstream) -> None:
        self.upstream = upstream
        self.agent: OpenAIAgent = agent_for(upstream)

    def answering(self, number: int) -> tuple[TurnInput, str]:
        self.upstream.answer("It ", "is ", str(number))
        return turn("hi"), f"It is {number}"

    def endless(self) -> TurnInput:
        self.upstream.never_ending()
        return turn("hi")

    def silent(self) -> TurnInput:
        self.upstream.stall_before_head()
        return turn("hi")

    def failing(self) -> TurnInput:
        self.upstream.cut_after(2)
        return turn("hi")

    async def begun(self) -> None:
        number = 0
        while (await self.upstream.request(number)).finished.is_set():
            number += 1

    async def stopped(self) -> None:
        await self.upstream.requests[-1].disconnected.wait()


class TestOpenAIAgentContract(AgentContract):
    @pytest.fixture
    async def subject(self, upstream: FakeUpstream) -> AsyncIterator[OpenAISubject]:
        subject = OpenAISubject(upstream)
        await subject.agent.start()
        yield subject
        await subject.agent.stop()


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


async def test_user_is_told_apart_and_not_named(agent: OpenAIAgent, upstream: FakeUpstream) -> None:
    for principal in ("ann@example.com", "bob@example.com", "ann@example.com"):
        await collect(agent, turn("hi", principal=principal))

    ann, bob, again = (request.json["user"] for request in upstream.requests)
    assert ann == again != bob
    assert "ann" not in ann
    assert len(ann) <= 64


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


# What is read.


@pytest.mark.parametrize(
    "framing",
    [Framing(), Framing(newline=b"\r\n"), Framing(write_bytes=1), Framing(newline=b"\r\n", write_bytes=3)],
    ids=["events", "CRLF", "bytes", "CRLF, three bytes"],
)
async def test_answer_is_the_same_however_it_is_cut(
    agent: OpenAIAgent, upstream: FakeUpstream, framing: Framing
) -> None:
    upstream.answer(
        "Grüße, ", "世界 ", "🎉", framing=framing, usage={"prompt_tokens_details": {"cached_tokens": 3}}
    )

    outputs = await collect(agent, turn("hi"))

    said = [output for output in outputs if not isinstance(output, Working)]
    usage = Usage(input_tokens=7, output_tokens=3, cached_tokens=3)
    assert ["Grüße, ", "世界 ", "🎉", usage, Finish("completed")] == said


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


async def test_refusal_is_text_and_reasoning_is_work(agent: OpenAIAgent, upstream: FakeUpstream) -> None:
    upstream.events(
        chunk({"reasoning_content": "hm"}),
        chunk({"refusal": "I won't."}),
        chunk({}, finish_reason="stop"),
        "[DONE]",
    )

    outputs = await collect(agent, turn("hi"))

    assert text_of(outputs) == "I won't."
    assert Working() in outputs


async def test_heartbeats_are_work(agent: OpenAIAgent, upstream: FakeUpstream) -> None:
    beats = asyncio.Event()

    async def script(wire: Wire) -> None:
        wire.head()
        await wire.write(b": waiting in a queue\n\n")
        await beats.wait()
        await wire.text("a")
        await wire.event("[DONE]")
        wire.end()

    upstream.script(script)
    outputs = agent.respond(turn("hi"))

    assert Working() == await anext(outputs)
    beats.set()
    assert text_of([output async for output in outputs]) == "a"


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


async def test_connection_is_used_again(agent: OpenAIAgent, upstream: FakeUpstream) -> None:
    for _ in range(3):
        await collect(agent, turn("hi"))

    assert len(upstream.requests) == 3
    assert upstream.connections == 1


async def test_text_comes_as_it_is_sent(agent: OpenAIAgent, upstream: FakeUpstream) -> None:
    """The first piece is there while the second has not been written."""
    second = asyncio.Event()

    async def script(wire: Wire) -> None:
        wire.head()
        await wire.text("one")
        await second.wait()
        await wire.text("two")
        await wire.event("[DONE]")
        wire.end()

    upstream.script(script)
    outputs = agent.respond(turn("hi"))

    assert await anext(outputs) == "one"
    second.set()
    assert await anext(outputs) == "two"
    await outputs.aclose()


# What goes wrong.


@pytest.mark.parametrize(
    ("status", "error", "kind"),
    [
        (401, {"code": "invalid_api_key"}, UpstreamRefusedKey),
        (402, {}, UpstreamRefusedKey),
        (403, {}, UpstreamRefusedKey),
        (429, {"code": "insufficient_quota"}, UpstreamRefusedKey),
        (429, {"code": "rate_limit_exceeded"}, UpstreamRateLimited),
        (400, {}, UpstreamRejected),
        (404, {}, UpstreamRejected),
        (422, {}, UpstreamRejected),
        (400, {"code": "context_length_exceeded"}, ContextTooLong),
        (400, {"code": 400, "type": "exceed_context_size_error"}, ContextTooLong),
        (400, {"message": "This model's maximum context length is 10 tokens."}, ContextTooLong),
        (413, {}, ContextTooLong),
        (301, {}, UpstreamUnavailable),
        (408, {}, UpstreamUnavailable),
        (500, {}, UpstreamUnavailable),
        (503, {}, UpstreamUnavailable),
    ],
)
async def test_refused_request_fails_by_its_kind(
    agent: OpenAIAgent, upstream: FakeUpstream, status: int, error: dict[str, object], kind: type[AgentError]
) -> None:
    upstream.status(status, {"message": SECRET, **error}, headers={"Location": "/elsewhere"})

    await fails(agent, kind)


async def fails(agent: OpenAIAgent, kind: type[AgentError]) -> tuple[AgentError, list[AgentOutput]]:
    """See the turn fail as *kind*, and nothing of the upstream's words in what is raised and logged."""
    outputs: list[AgentOutput] = []
    with capture_logs() as logs, pytest.raises(AgentError) as failure:
        async for output in agent.respond(turn("hi")):
            outputs.append(output)  # noqa: PERF401 - what came before the failure is wanted

    assert kind is type(failure.value)
    assert failure.value.__cause__ is None
    assert failure.value.__context__ is None or failure.value.__suppress_context__
    said = repr((failure.value, failure.value.__context__, logs))
    assert not any(word in said for word in ("secret", "wrote", KEY))
    return failure.value, outputs


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"Retry-After": "7"}, 7),
        ({"Retry-After-Ms": "1500"}, 1.5),
        ({"Retry-After": "999999"}, 3600),
        ({"Retry-After": "Wed, 21 Oct 2026 07:28:30 GMT", "Date": "Wed, 21 Oct 2026 07:28:00 GMT"}, 30),
        ({"Retry-After": "Wed, 21 Oct 2026 07:28:30 GMT"}, None),
        ({"Retry-After": "soon"}, None),
        ({"Retry-After": "-3"}, None),
        ({}, None),
    ],
)
async def test_retry_after_is_passed_on(
    agent: OpenAIAgent, upstream: FakeUpstream, headers: dict[str, str], seconds: float | None
) -> None:
    upstream.status(429, headers=headers)

    failure, _ = await fails(agent, UpstreamRateLimited)

    assert seconds == failure.retry_after


async def test_failure_before_the_answer_is_tried_again(upstream: FakeUpstream) -> None:
    agent = agent_for(upstream, max_retries=2)
    await agent.start()
    upstream.status(500, headers={"Retry-After-Ms": "1"})
    upstream.status(429, headers={"Retry-After-Ms": "1"})
    upstream.answer("third")

    assert text_of(await collect(agent, turn("hi"))) == "third"
    await agent.stop()
    assert len({request.headers["idempotency-key"] for request in upstream.requests}) == 1


async def test_long_retry_after_is_told_and_not_slept_through(upstream: FakeUpstream) -> None:
    agent = agent_for(upstream, max_retries=2)
    await agent.start()
    upstream.status(429, headers={"Retry-After": "20"})

    failure, _ = await fails(agent, UpstreamRateLimited)

    await agent.stop()
    assert failure.retry_after == 20
    assert len(upstream.requests) == 1


@pytest.mark.parametrize("how", ["reset", "end"])
@pytest.mark.parametrize("after", [0, 2])
async def test_stream_that_is_cut_fails(
    agent: OpenAIAgent, upstream: FakeUpstream, how: Any, after: int
) -> None:
    upstream.cut_after(after, how)

    _, outputs = await fails(agent, UpstreamCut)

    assert "t0 t1 "[: 3 * after] == text_of(outputs)


async def test_failure_in_mid_answer_is_not_tried_again(upstream: FakeUpstream) -> None:
    agent = agent_for(upstream, max_retries=2)
    await agent.start()
    upstream.cut_after(1)

    await fails(agent, UpstreamCut)

    await agent.stop()
    assert len(upstream.requests) == 1


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


@pytest.mark.parametrize("content_type", ["text/html; charset=utf-8", "application/json"])
async def test_answer_that_is_no_stream_fails(
    agent: OpenAIAgent, upstream: FakeUpstream, content_type: str
) -> None:
    async def script(wire: Wire) -> None:
        wire.head(200, {"Content-Type": content_type})
        await wire.write(b"<html>secret</html>")
        wire.end()

    upstream.script(script)

    await fails(agent, UpstreamMalformed)


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        ({"message": SECRET, "code": 502}, UpstreamReportedError),
        (SECRET, UpstreamReportedError),
        ({"message": SECRET, "code": 429}, UpstreamRateLimited),
        ({"message": SECRET, "code": "context_length_exceeded"}, ContextTooLong),
    ],
)
async def test_error_in_the_stream_fails_by_its_kind(
    agent: OpenAIAgent, upstream: FakeUpstream, error: object, kind: type[AgentError]
) -> None:
    upstream.error_object(error)

    _, outputs = await fails(agent, kind)

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


@pytest.mark.parametrize("after", [None, 1])
async def test_silence_fails_in_the_end(upstream: FakeUpstream, after: int | None) -> None:
    agent = agent_for(upstream, timeout=0.05)
    await agent.start()
    if after is None:
        upstream.stall_before_head()
    else:
        upstream.stall_after(after)

    await fails(agent, UpstreamStalled)

    await upstream.requests[0].disconnected.wait()
    await agent.stop()


async def test_no_connection_fails() -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        agent = OpenAIAgent(
            model="m", base_url=f"http://127.0.0.1:{unused.getsockname()[1]}/v1", api_key=KEY, max_retries=0
        )
        await agent.start()

        await fails(agent, UpstreamUnavailable)

        await agent.stop()


async def test_full_pool_is_busy(upstream: FakeUpstream) -> None:
    agent = agent_for(upstream, max_connections=1, timeout=0.05)
    await agent.start()
    upstream.never_ending()
    async with aclosing(agent.respond(turn("hi"))) as first:
        await anext(first)

        await fails(agent, AgentBusy)

    await agent.stop()


# How it is set up.


async def test_missing_key_is_told_at_start() -> None:
    agent = OpenAIAgent(model="m")

    with pytest.raises(AgentNotReady, match="set OPENAI_API_KEY"):
        await agent.start()

    assert not agent.is_ready
    assert agent.model == "m"


@pytest.mark.parametrize(
    ("settings", "environment", "problem"),
    [
        ({}, {"OPENAI_ADMIN_KEY": "sk-admin"}, "set OPENAI_API_KEY"),
        ({"api_key": "sk-1\n"}, {}, "OPENAI_API_KEY holds a character"),
        ({"api_key": "sk-“1”"}, {}, "OPENAI_API_KEY holds a character"),
        ({"base_url": "localhost:11434/v1"}, {"OPENAI_API_KEY": "x"}, "must begin with http:// or https://"),
        ({"base_url": "http://"}, {"OPENAI_API_KEY": "x"}, "must begin with http:// or https://"),
        ({}, {"OPENAI_API_KEY": "x", "ALL_PROXY": "nonsense://x"}, r"Check the variables \*_PROXY"),
        ({}, {"OPENAI_API_KEY": "x", "SSL_CERT_FILE": "/missing"}, "SSL_CERT_FILE"),
    ],
)
async def test_configuration_that_cannot_work_is_told_at_start(
    monkeypatch: pytest.MonkeyPatch, settings: dict[str, Any], environment: dict[str, str], problem: str
) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)

    with pytest.raises(AgentNotReady, match=problem) as failure:
        await OpenAIAgent(model="m", **settings).start()

    assert "\n" not in str(failure.value)
    assert "sk-" not in str(failure.value)


async def test_key_and_address_come_from_the_environment(
    upstream: FakeUpstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-environment")
    monkeypatch.setenv("OPENAI_BASE_URL", upstream.base_url)
    agent = OpenAIAgent(model="m")
    await agent.start()
    await agent.start()

    assert text_of(await collect(agent, turn("hi"))) == "Hello world"
    assert upstream.requests[0].headers["authorization"] == "Bearer sk-environment"
    await agent.stop()
    await agent.stop()


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
    agent = OpenAIAgent(model="m", base_url=base_url, api_key=KEY)
    await agent.start()

    assert agent._request(turn("hi", max_output_tokens=5))[field] == 5
    await agent.stop()


@pytest.mark.parametrize(
    ("base_url", "has_key"),
    [
        (None, True),
        ("https://eu.api.openai.com/v1", True),
        ("https://x.openai.azure.com/openai/v1", False),
        ("https://notopenai.com/v1", False),
        ("http://127.0.0.1:11434/v1", False),
    ],
)
async def test_prompt_cache_is_used_where_the_address_knows_it(base_url: str | None, has_key: bool) -> None:
    """Another server may refuse a field it doesn't know, and with it every turn."""
    agent = OpenAIAgent(model="m", base_url=base_url, api_key=KEY)
    await agent.start()
    first, again, other = (
        agent._request(turn("hi", session_id=session_id, response_id=response_id)).get("prompt_cache_key")
        for session_id, response_id in (("sess_1", "r1"), ("sess_1", "r2"), ("sess_2", "r3"))
    )

    assert (first is not None) == has_key
    assert first == again
    if first is not None:
        assert first != other
        assert "sess_1" not in first
        assert len(first) <= 64
    await agent.stop()
