"""What every agent must do whose work is done by an upstream over HTTP, whichever API it speaks.

A test module makes a subclass named ``Test...`` that says how its agent is made.
"""

from __future__ import annotations

import abc
import asyncio
import gzip
import json
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing
from typing import Any, TypeVar

import pytest
from structlog.testing import capture_logs

from tests.fakes.upstream import FakeUpstream, Framing, Wire
from tests.server.agents.agent_contract import AgentContract, Subject, collect, text_of, turn
from unbroken.server.agents.base import (
    Agent,
    AgentBusy,
    AgentError,
    AgentNotReady,
    AgentOutput,
    ContextTooLong,
    Finish,
    FunctionCallPiece,
    FunctionTool,
    Handle,
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
from unbroken.server.agents.upstream import Upstream, UpstreamObserver

KEY = "sk-test-key"
SECRET = "sk-...secret, and what the user wrote"


def joined(text: str) -> str:
    """Return *text* with the halves of surrogate pairs joined, as a run does."""
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le")


async def fails(agent: Agent, kind: type[AgentError]) -> tuple[AgentError, list[AgentOutput]]:
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


AgentT = TypeVar("AgentT", bound=Agent)


def made(kind: Callable[..., AgentT], **settings: Any) -> AgentT:
    """Return an agent of *kind*: what an upstream takes goes to one, the rest to the agent."""
    names = ("base_url", "api_key", "timeout", "max_retries", "max_connections", "observer")
    own = {name: settings.pop(name) for name in names if name in settings}
    return kind(Upstream(**own), **settings)


class Observed(UpstreamObserver):
    """Keeps what it is told."""

    def __init__(self) -> None:
        self.requests: list[str] = []
        self.outcomes: list[str] = []

    def requested(self, *, is_retry: bool) -> None:
        self.requests.append("retry" if is_retry else "first")

    def ended(self, outcome: str) -> None:
        self.outcomes.append(outcome)


class UpstreamSubject(Subject):
    def __init__(self, upstream: FakeUpstream, agent: Agent) -> None:
        self.upstream = upstream
        self.agent = agent

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
        answers = [request for request in self.upstream.requests if not request.path.endswith("/cancel")]
        await answers[-1].disconnected.wait()


class UpstreamContract(AgentContract, abc.ABC):
    @abc.abstractmethod
    def make(self, **settings: Any) -> Any:
        """Return an agent with these settings, not started."""

    def agent_for(self, upstream: FakeUpstream, **settings: Any) -> Any:
        return self.make(
            **{"model": "m-1", "base_url": upstream.base_url, "api_key": KEY, "max_retries": 0, **settings}
        )

    @pytest.fixture(autouse=True)
    def environment(self, monkeypatch: pytest.MonkeyPatch) -> None:
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
    async def upstream(self) -> AsyncIterator[FakeUpstream]:
        async with FakeUpstream() as upstream:
            yield upstream

    @pytest.fixture
    async def agent(self, upstream: FakeUpstream) -> AsyncIterator[Any]:
        agent = self.agent_for(upstream)
        await agent.start()
        yield agent
        await agent.stop()

    @pytest.fixture
    async def subject(self, upstream: FakeUpstream, agent: Agent) -> UpstreamSubject:
        return UpstreamSubject(upstream, agent)

    async def test_user_is_told_apart_and_not_named(self, agent: Agent, upstream: FakeUpstream) -> None:
        for principal in ("ann@example.com", "bob@example.com", "ann@example.com"):
            await collect(agent, turn("hi", principal=principal))

        ann, bob, again = (request.json["user"] for request in upstream.requests)
        assert ann == again != bob
        assert "ann" not in ann
        assert len(ann) <= 64

    @pytest.mark.parametrize(
        "framing",
        [
            Framing(),
            Framing(newline=b"\r\n"),
            Framing(write_bytes=1),
            Framing(newline=b"\r\n", write_bytes=3),
        ],
        ids=["events", "CRLF", "bytes", "CRLF, three bytes"],
    )
    async def test_answer_is_the_same_however_it_is_cut(
        self, agent: Agent, upstream: FakeUpstream, framing: Framing
    ) -> None:
        upstream.answer(
            "Grüße, ", "世界 ", "🎉", framing=framing, usage={"prompt_tokens_details": {"cached_tokens": 3}}
        )

        outputs = await collect(agent, turn("hi"))

        said = [output for output in outputs if not isinstance(output, Working | Handle)]
        usage = Usage(input_tokens=7, output_tokens=3, cached_tokens=3)
        assert ["Grüße, ", "世界 ", "🎉", usage, Finish("completed")] == said

    async def test_emoji_that_comes_in_halves_is_whole(self, agent: Agent, upstream: FakeUpstream) -> None:
        """Each half is an escape in a chunk of its own; the run, or the agent, joins them."""

        async def script(wire: Wire) -> None:
            await wire.begin()
            for piece in ("a\ud83d", "\ude00", "b", "\ud83d", "\ude00\ud83d", "\ude01!"):
                await wire.text(piece)
            await wire.event(wire.dialect.call(0, "f", "call_0"))
            for piece in ('"\ud83d', '\ude00"'):
                await wire.event(wire.dialect.arguments(0, piece))
            await wire.finish()

        upstream.script(script)
        outputs = await collect(agent, turn("hi"))

        calls = [output for output in outputs if isinstance(output, FunctionCallPiece)]
        assert joined(text_of(outputs)) == "a😀b😀😁!"
        assert joined("".join(call.arguments for call in calls)) == '"😀"'

    @pytest.mark.parametrize("is_parallel", [True, False, None])
    async def test_several_calls_at_once_are_asked_for_where_there_are_tools(
        self, agent: Agent, upstream: FakeUpstream, is_parallel: bool | None
    ) -> None:
        """Servers refuse the field where there are none."""
        await collect(agent, turn("hi", tools=(FunctionTool("f"),), parallel_tool_calls=is_parallel))
        await collect(agent, turn("hi", parallel_tool_calls=is_parallel))

        with_tools, without = (request.json for request in upstream.requests)
        assert with_tools.get("parallel_tool_calls") == is_parallel
        assert "parallel_tool_calls" not in without

    async def test_malformed_half_is_malformed(self, agent: Agent, upstream: FakeUpstream) -> None:
        """What the usual decoder refuses for a better reason stays refused."""
        for payload in (
            '{"choices": [{"delta": {"content": "\\ud83d"}',
            '{"type": ["\\ud83d"], "choices": 1}',
        ):
            upstream.malformed(payload)

            await fails(agent, UpstreamMalformed)

    async def test_heartbeats_are_work(self, agent: Agent, upstream: FakeUpstream) -> None:
        beats = asyncio.Event()

        async def script(wire: Wire) -> None:
            wire.head()
            await wire.write(b": waiting in a queue\n\n")
            await beats.wait()
            await wire.text("a")
            await wire.finish()

        upstream.script(script)
        outputs = agent.respond(turn("hi"))

        assert Working() == await anext(outputs)
        beats.set()
        assert text_of([output async for output in outputs]) == "a"

    async def test_body_that_is_compressed_unasked_is_read(
        self, agent: Agent, upstream: FakeUpstream
    ) -> None:
        async def script(wire: Wire) -> None:
            wire.head(200, {"Content-Encoding": "gzip"})
            payloads = [wire.dialect.text("a"), *wire.dialect.ending("stop", {})]
            lines = [f"data: {json.dumps(payload)}\n\n" for payload in payloads]
            await wire.write(gzip.compress("".join(lines).encode()))
            wire.end()

        upstream.script(script)

        assert text_of(await collect(agent, turn("hi"))) == "a"

    async def test_connection_is_used_again(self, agent: Agent, upstream: FakeUpstream) -> None:
        for _ in range(3):
            await collect(agent, turn("hi"))

        assert len(upstream.requests) == 3
        assert upstream.connections == 1

    async def test_text_comes_as_it_is_sent(self, agent: Agent, upstream: FakeUpstream) -> None:
        """The first piece is there while the second has not been written."""
        second = asyncio.Event()

        async def script(wire: Wire) -> None:
            wire.head()
            await wire.text("one")
            await second.wait()
            await wire.text("two")
            await wire.finish()

        upstream.script(script)
        outputs = agent.respond(turn("hi"))

        assert await anext(outputs) == "one"
        second.set()
        assert await anext(outputs) == "two"
        await outputs.aclose()

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
        self,
        agent: Agent,
        upstream: FakeUpstream,
        status: int,
        error: dict[str, object],
        kind: type[AgentError],
    ) -> None:
        upstream.status(status, {"message": SECRET, **error}, headers={"Location": "/elsewhere"})

        await fails(agent, kind)

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
        self, agent: Agent, upstream: FakeUpstream, headers: dict[str, str], seconds: float | None
    ) -> None:
        upstream.status(429, headers=headers)

        failure, _ = await fails(agent, UpstreamRateLimited)

        assert seconds == failure.retry_after

    async def test_failure_before_the_answer_is_tried_again(self, upstream: FakeUpstream) -> None:
        agent = self.agent_for(upstream, max_retries=2)
        await agent.start()
        upstream.status(500, headers={"Retry-After-Ms": "1"})
        upstream.status(429, headers={"Retry-After-Ms": "1"})
        upstream.answer("third")

        assert text_of(await collect(agent, turn("hi"))) == "third"
        await agent.stop()
        assert len({request.headers["idempotency-key"] for request in upstream.requests}) == 1

    async def test_long_retry_after_is_told_and_not_slept_through(self, upstream: FakeUpstream) -> None:
        agent = self.agent_for(upstream, max_retries=2)
        await agent.start()
        upstream.status(429, headers={"Retry-After": "20"})

        failure, _ = await fails(agent, UpstreamRateLimited)

        await agent.stop()
        assert failure.retry_after == 20
        assert len(upstream.requests) == 1

    @pytest.mark.parametrize("how", ["reset", "end"])
    @pytest.mark.parametrize("after", [0, 2])
    async def test_stream_that_is_cut_fails(
        self, agent: Agent, upstream: FakeUpstream, how: Any, after: int
    ) -> None:
        upstream.cut_after(after, how)

        _, outputs = await fails(agent, UpstreamCut)

        assert "t0 t1 "[: 3 * after] == text_of(outputs)

    async def test_failure_in_mid_answer_is_not_tried_again(self, upstream: FakeUpstream) -> None:
        agent = self.agent_for(upstream, max_retries=2)
        await agent.start()
        upstream.cut_after(1)

        await fails(agent, UpstreamCut)

        await agent.stop()
        assert [r.path for r in upstream.requests if r.method == "POST"].count(upstream.requests[0].path) == 1

    @pytest.mark.parametrize("content_type", ["text/html; charset=utf-8", "application/json"])
    async def test_answer_that_is_no_stream_fails(
        self, agent: Agent, upstream: FakeUpstream, content_type: str
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
            ({"message": SECRET, "code": "invalid_prompt"}, UpstreamRejected),
            ({"message": SECRET, "code": "insufficient_quota"}, UpstreamRefusedKey),
            ({"message": [SECRET], "code": [SECRET]}, UpstreamReportedError),
        ],
    )
    async def test_error_in_the_stream_fails_by_its_kind(
        self, agent: Agent, upstream: FakeUpstream, error: object, kind: type[AgentError]
    ) -> None:
        upstream.error_object(error)

        _, outputs = await fails(agent, kind)

        assert text_of(outputs) == "t0 "

    @pytest.mark.parametrize("after", [None, 1])
    async def test_silence_fails_in_the_end(self, upstream: FakeUpstream, after: int | None) -> None:
        agent = self.agent_for(upstream, timeout=0.25)
        await agent.start()
        if after is None:
            upstream.stall_before_head()
        else:
            upstream.stall_after(after)

        await fails(agent, UpstreamStalled)

        await upstream.requests[0].disconnected.wait()
        await agent.stop()

    async def test_no_connection_fails(self) -> None:
        with socket.socket() as unused:
            unused.bind(("127.0.0.1", 0))
            agent = self.make(
                model="m",
                base_url=f"http://127.0.0.1:{unused.getsockname()[1]}/v1",
                api_key=KEY,
                max_retries=0,
            )
            await agent.start()

            await fails(agent, UpstreamUnavailable)

            await agent.stop()

    async def test_the_host_that_can_not_be_reached_is_logged(self) -> None:
        """And nothing more of its address, which may hold a password."""
        with socket.socket() as unused:
            unused.bind(("127.0.0.1", 0))
            host = f"127.0.0.1:{unused.getsockname()[1]}"
            base_url = f"http://user:secret@{host}/v1"
            agent = self.make(model="m", base_url=base_url, api_key=KEY, max_retries=0)
            await agent.start()

            with capture_logs() as logs, pytest.raises(UpstreamUnavailable):
                await collect(agent, turn("hi"))

            await agent.stop()
        (line,) = logs
        assert (line["event"], line["host"]) == ("upstream request failed", host)
        assert "secret" not in repr(line)

    async def test_full_pool_is_busy(self, upstream: FakeUpstream) -> None:
        agent = self.agent_for(upstream, max_connections=1, timeout=0.25)
        await agent.start()
        upstream.never_ending()
        async with aclosing(agent.respond(turn("hi"))) as first:
            await anext(first)

            await fails(agent, AgentBusy)

        await agent.stop()

    async def test_missing_key_is_told_at_start(self) -> None:
        agent = self.make(model="m")

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
            (
                {"base_url": "localhost:11434/v1"},
                {"OPENAI_API_KEY": "x"},
                "must begin with http:// or https://",
            ),
            ({"base_url": "http://"}, {"OPENAI_API_KEY": "x"}, "must begin with http:// or https://"),
            ({"base_url": "http://a:65536/v1"}, {"OPENAI_API_KEY": "x"}, "a port above 65535"),
            ({}, {"OPENAI_API_KEY": "x", "ALL_PROXY": "nonsense://x"}, r"Check the variables \*_PROXY"),
            ({}, {"OPENAI_API_KEY": "x", "SSL_CERT_FILE": "/missing"}, "SSL_CERT_FILE"),
        ],
    )
    async def test_configuration_that_cannot_work_is_told_at_start(
        self,
        monkeypatch: pytest.MonkeyPatch,
        settings: dict[str, Any],
        environment: dict[str, str],
        problem: str,
    ) -> None:
        for name, value in environment.items():
            monkeypatch.setenv(name, value)

        with pytest.raises(AgentNotReady, match=problem) as failure:
            await self.make(model="m", **settings).start()

        assert "\n" not in str(failure.value)
        assert "sk-" not in str(failure.value)

    async def test_key_and_address_come_from_the_environment(
        self, upstream: FakeUpstream, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("OPENAI_API_KEY", "sk-environment")
        monkeypatch.setenv("OPENAI_BASE_URL", upstream.base_url)
        agent = self.make(model="m")
        await agent.start()
        await agent.start()

        assert text_of(await collect(agent, turn("hi"))) == "Hello world"
        assert upstream.requests[0].headers["authorization"] == "Bearer sk-environment"
        await agent.stop()
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
    async def test_prompt_cache_is_used_where_the_address_knows_it(
        self, base_url: str | None, has_key: bool
    ) -> None:
        """Another server may refuse a field it doesn't know, and with it every turn."""
        agent = self.make(model="m", base_url=base_url, api_key=KEY)
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

    # What is told of it.

    async def test_what_is_asked_is_told_with_retries_and_outcomes(self, upstream: FakeUpstream) -> None:
        observed = Observed()
        agent = self.agent_for(upstream, max_retries=2, observer=observed)
        await agent.start()
        upstream.status(503)
        upstream.answer("at last")
        assert text_of(await collect(agent, turn("hi"))) == "at last"
        assert (observed.requests, observed.outcomes) == (["first", "retry"], ["completed"])

        upstream.status(401)
        await fails(agent, UpstreamRefusedKey)
        upstream.malformed()
        await fails(agent, UpstreamMalformed)
        assert observed.outcomes == ["completed", "upstream_auth", "upstream_malformed"]
        await agent.stop()

    async def test_an_answer_that_is_stopped_is_told_as_that(self, upstream: FakeUpstream) -> None:
        observed = Observed()
        agent = self.agent_for(upstream, observer=observed)
        await agent.start()
        upstream.never_ending()
        async with aclosing(agent.respond(turn("hi"))) as outputs:
            await anext(outputs)
        assert observed.outcomes == ["stopped"]
        await agent.stop()
