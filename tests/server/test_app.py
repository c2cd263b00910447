from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncGenerator
from typing import Any

import orjson
import pytest
from starlette.types import ASGIApp, Message

from tests.fakes.asking import ask
from tests.fakes.clock import FakeClock
from tests.fakes.upstream import FakeUpstream
from tests.server.agents.agent_contract import collect, text_of, turn
from unbroken.server import limit_selection
from unbroken.server.agents.base import AgentError, AgentOutput, TurnInput
from unbroken.server.agents.responses import ResponsesAgent
from unbroken.server.agents.scripted import ScriptedAgent
from unbroken.server.agents.selection import build_agent
from unbroken.server.app import App, build
from unbroken.server.config import Settings, StartupError
from unbroken.server.metrics import Metrics
from unbroken.server.tools.base import ToolsUnusable
from unbroken.sessions.ids import PrincipalId, new_chain_id
from unbroken.sessions.items import SessionConfig


class Loading:
    """An agent that is ready, or fails, when told to."""

    model = "m"

    def __init__(self) -> None:
        self.is_ready = False
        self.is_stopped = False
        self.told = asyncio.Event()
        self.failure: AgentError | None = None

    async def start(self) -> None:
        await self.told.wait()
        if self.failure is not None:
            raise self.failure
        self.is_ready = True

    async def stop(self) -> None:
        self.is_stopped = True

    async def respond(self, turn: TurnInput) -> AsyncGenerator[AgentOutput, None]:
        yield "hi"


def noted(monkeypatch: pytest.MonkeyPatch, app: App) -> list[str]:
    """Return the steps of *app*'s tools and node, noted as they are taken."""
    steps: list[str] = []

    def note(owner: object, name: str, step: str) -> None:
        take = getattr(owner, name)

        async def taken() -> None:
            steps.append(step)
            await take()

        monkeypatch.setattr(owner, name, taken)

    note(app.catalogue, "start", "tools start")
    note(app.catalogue, "stop", "tools stop")
    note(app, "_open_node", "node opens")
    note(app, "_close_node", "node closes")
    return steps


def settings(**values: Any) -> Settings:
    return Settings(**{"agent": "scripted", "admin_port": 0, "firewall_model": "off", **values})


async def get(asgi: ASGIApp, path: str) -> tuple[int, bytes]:
    answer = await ask(asgi, path)
    return answer.status, answer.body


async def refusal_of(asgi: ASGIApp, **headers: str) -> str:
    """Return the code of the error that an upgrade is answered with; empty: it is accepted."""
    sent: list[Message] = []
    steps: list[Message] = [{"type": "websocket.connect"}, {"type": "websocket.disconnect", "code": 1000}]

    async def receive() -> Message:
        return steps.pop(0)

    async def send(message: Message) -> None:
        sent.append(message)

    scope = {
        "type": "websocket",
        "path": "/v1/realtime",
        "raw_path": b"/v1/realtime",
        "query_string": b"",
        "headers": [(name.encode(), value.encode()) for name, value in headers.items()],
        "subprotocols": [],
        "root_path": "",
        "scheme": "ws",
        "extensions": {"websocket.http.response": {}},
    }
    await asgi(scope, receive, send)
    for message in sent:
        if message["type"] == "websocket.http.response.body":
            return str(orjson.loads(message["body"])["error"]["code"])
    return ""


# Routes.


async def test_readiness_and_liveness_are_told_on_both_listeners() -> None:
    async with build(settings()) as app:
        for asgi in (app.asgi, app.admin_asgi):
            assert (await get(asgi, "/healthz"))[0] == 200
            assert await get(asgi, "/readyz") == (200, b'{"status":"ready"}')
        app.begin_drain()
        for asgi in (app.asgi, app.admin_asgi):
            assert (await get(asgi, "/healthz"))[0] == 200
            assert await get(asgi, "/readyz") == (404, b'{"status":"draining"}')


async def test_metrics_are_on_the_internal_listener_alone() -> None:
    async with build(settings()) as app:
        assert (await get(app.asgi, "/metrics"))[0] == 404
        status, body = await get(app.admin_asgi, "/metrics")
        assert status == 200
        assert b"unbroken_sessions 0.0" in body
        await app.node.create(PrincipalId("p"), SessionConfig("m"), new_chain_id())
        _, body = await get(app.admin_asgi, "/metrics")
        assert b"unbroken_sessions 1.0" in body
        assert (await get(app.admin_asgi, "/"))[0] == 404


@pytest.mark.parametrize(
    "path", ["/nothing", "/v1/nothing", "/v1/usage/", "/v1/realtime/client_secrets/x", "/page/"]
)
async def test_where_there_is_nothing_http_says_so_as_everywhere(path: str) -> None:
    async with build(settings()) as app:
        for asgi in (app.asgi, app.admin_asgi):
            answer = await ask(asgi, path)
            error = orjson.loads(answer.body)["error"]
            assert (answer.status, error["code"]) == (404, "path_not_found")
            assert (error["type"], error["param"]) == ("invalid_request_error", None)
            assert answer.headers["content-type"] == "application/json"
            assert answer.headers["x-request-id"]


@pytest.mark.parametrize(
    ("path", "method", "allow"),
    [
        ("/", "POST", {"GET", "HEAD"}),
        ("/healthz", "DELETE", {"GET", "HEAD"}),
        ("/page/chat.js", "PUT", {"GET", "HEAD"}),
    ],
)
async def test_a_method_that_a_path_does_not_take_is_refused_with_those_that_it_does(
    path: str, method: str, allow: set[str]
) -> None:
    async with build(settings()) as app:
        answer = await ask(app.asgi, path, method=method)

    error = orjson.loads(answer.body)["error"]
    assert (answer.status, error["code"]) == (405, "method_not_allowed")
    assert set(answer.headers["allow"].split(", ")) == allow
    assert all(each in error["message"] for each in allow)


async def test_the_operator_s_paths_refuse_other_methods_likewise() -> None:
    async with build(settings(admin_key="k" * 32)) as app:
        for path, allow in (("/metrics", "GET, HEAD"), ("/admin/drain", "DELETE, GET, HEAD, POST")):
            answer = await ask(app.admin_asgi, path, method="PUT")
            error = orjson.loads(answer.body)["error"]
            assert (answer.status, error["code"]) == (405, "method_not_allowed")
            assert answer.headers["allow"] == allow


class Unwalked(dict[Any, Any]):
    """What is in it can be found and counted, and not gone through."""

    def __iter__(self) -> Any:
        raise AssertionError("it was gone through")

    keys = values = items = __iter__


async def test_a_scrape_walks_through_no_sessions() -> None:
    """With ten thousand it would hold the loop, and so every token, each time."""
    async with build(settings()) as app:
        hub = app.node.hub
        await app.node.create(PrincipalId("p"), SessionConfig("m"), new_chain_id())
        kept = {name: value for name, value in vars(hub).items() if isinstance(value, dict)}
        for name, value in kept.items():
            setattr(hub, name, Unwalked(value))
        with pytest.raises(AssertionError, match="gone through"):
            list(hub)
        status, body = await get(app.admin_asgi, "/metrics")
        for name, value in kept.items():
            setattr(hub, name, value)

    assert len(kept) == 3
    assert status == 200
    assert b"unbroken_sessions 1.0" in body


async def test_the_page_is_on_the_public_listener() -> None:
    async with build(settings()) as app:
        status, body = await get(app.asgi, "/")
        assert status == 200
        assert b"<html" in body.lower()


# Who may speak.


async def test_in_development_any_key_is_taken_but_only_by_a_name_of_this_machine() -> None:
    async with build(settings()) as app:
        local = {"host": "localhost:8000"}
        assert await refusal_of(app.asgi, **local) == "invalid_api_key"
        assert await refusal_of(app.asgi, **local, authorization="Bearer x") == ""
        assert await refusal_of(app.asgi, host="evil.example", authorization="Bearer x") == (
            "host_not_allowed"
        )


async def test_with_keys_only_those_are_taken_by_any_name() -> None:
    digest = hashlib.sha256(b"sk-1").hexdigest()
    async with build(settings(api_keys=f"ann:{digest}", host="0.0.0.0")) as app:
        there = {"host": "a.example"}
        assert await refusal_of(app.asgi, **there, authorization="Bearer x") == "invalid_api_key"
        assert await refusal_of(app.asgi, **there, authorization="Bearer sk-1") == ""


async def test_it_is_never_open_beyond_this_machine() -> None:
    """The settings refuse it with a message; the root of the program doesn't rely on that."""
    open_settings = settings().model_copy(update={"host": "0.0.0.0"})

    with pytest.raises(AssertionError, match="can't happen"):
        App(open_settings, ScriptedAgent(), FakeClock())


# Agents.


async def test_the_built_in_model_loads_while_the_server_already_answers() -> None:
    agent = Loading()
    async with App(settings(agent="embedded"), agent, FakeClock()) as app:
        assert await get(app.asgi, "/readyz") == (503, b'{"status":"loading"}')
        assert (await get(app.asgi, "/healthz"))[0] == 200
        agent.told.set()
        while not agent.is_ready:  # noqa: ASYNC110 - a few turns of the loop, no time
            await asyncio.sleep(0)
        assert (await get(app.asgi, "/readyz"))[0] == 200
    assert agent.is_stopped


async def test_leaving_while_a_model_loads_stops_that() -> None:
    agent = Loading()
    before = asyncio.all_tasks()
    async with App(settings(agent="embedded"), agent, FakeClock()):
        pass

    assert asyncio.all_tasks() == before
    assert agent.is_stopped


async def test_an_agent_is_ready_before_the_node_is_there(monkeypatch: pytest.MonkeyPatch) -> None:
    """What it imports holds the loop: others take a node that is silent for so long for dead."""
    agent = Loading()
    agent.told.set()
    app = App(settings(), agent, FakeClock())
    open_node, was_ready = app._open_node, []

    async def opened() -> None:
        was_ready.append(agent.is_ready)
        await open_node()

    monkeypatch.setattr(app, "_open_node", opened)
    async with app:
        assert was_ready == [True]


async def test_what_fails_to_open_stops_the_agent(monkeypatch: pytest.MonkeyPatch) -> None:
    agent = Loading()
    agent.told.set()
    app = App(settings(), agent, FakeClock())

    async def fail() -> None:
        raise StartupError("no store")

    monkeypatch.setattr(app, "_open_node", fail)
    with pytest.raises(StartupError, match="no store"):
        await app.__aenter__()
    assert agent.is_stopped


async def test_tools_are_there_before_the_node_is_and_until_it_has_gone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Likewise: they are modules of the operator's. And what runs in the node may call them to its end."""
    app = App(settings(), ScriptedAgent(), FakeClock())
    steps = noted(monkeypatch, app)
    async with app:
        assert steps == ["tools start", "node opens"]
        steps.clear()
    assert steps == ["node closes", "tools stop"]


async def test_what_fails_to_open_stops_the_tools(monkeypatch: pytest.MonkeyPatch) -> None:
    app = App(settings(), ScriptedAgent(), FakeClock())
    steps = noted(monkeypatch, app)

    async def fail() -> None:
        raise StartupError("no store")

    monkeypatch.setattr(app, "_open_node", fail)
    with pytest.raises(StartupError, match="no store"):
        await app.__aenter__()
    assert steps == ["tools start", "tools stop"]


async def test_tools_that_can_not_be_used_keep_the_node_from_joining(monkeypatch: pytest.MonkeyPatch) -> None:
    agent = Loading()
    agent.told.set()
    app = App(settings(), agent, FakeClock())
    steps = noted(monkeypatch, app)

    async def fail() -> None:
        raise ToolsUnusable("There is no such module.")

    monkeypatch.setattr(app.catalogue, "start", fail)
    with pytest.raises(StartupError, match="no such module"):
        await app.__aenter__()
    assert steps == []
    assert agent.is_stopped


async def test_another_agent_that_can_not_start_keeps_the_server_from_starting() -> None:
    agent = Loading()
    agent.failure = AgentError("Install the thing.")
    agent.told.set()
    before = asyncio.all_tasks()

    with pytest.raises(StartupError, match="Install the thing"):
        async with App(settings(), agent, FakeClock()):
            raise AssertionError("it must not start")
    assert asyncio.all_tasks() == before


@pytest.mark.parametrize(
    ("values", "kind", "model"),
    [
        ({}, "ScriptedAgent", "scripted"),
        ({"model": "mine"}, "ScriptedAgent", "mine"),
        ({"agent": "openai", "openai_api_key": "sk-1"}, "OpenAIAgent", "gpt-5-mini"),
        ({"agent": "openai", "openai_base_url": "http://127.0.0.1:9/v1", "model": "q"}, "OpenAIAgent", "q"),
        (
            {"agent": "openai", "openai_api_key": "k", "openai_api": "responses"},
            "ResponsesAgent",
            "gpt-5-mini",
        ),
        ({"fallbacks": "b=http://127.0.0.1:9/v1|q, embedded"}, "FallbackAgent", "scripted"),
    ],
)
async def test_settings_name_the_agent(values: dict[str, Any], kind: str, model: str) -> None:
    agent = build_agent(settings(**values), FakeClock(), Metrics())
    try:
        assert (type(agent).__name__, agent.model) == (kind, model)
    finally:
        await agent.stop()


async def test_an_app_says_what_answers() -> None:
    assert build(settings(model="mine")).describe() == "scripted, model: mine"


def test_limits_are_those_that_were_set() -> None:
    limits = limit_selection.node_limits(
        settings(
            stall_timeout=7,
            turn_timeout=70,
            max_output_bytes=2048,
            log_retain_bytes=11,
            log_max_bytes=5000,
            max_session_bytes=6000,
            max_sessions=3,
            max_node_bytes=2 << 20,
            connections_per_session=4,
            session_idle_timeout=100,
            empty_session_grace=9,
            principal_share=0.125,
            strangers_share=0.25,
        ),
        patience=0.5,
    )
    run = limits.actor.run

    assert (run.stall_timeout, run.turn_timeout, run.output_bytes) == (7, 70, 2048)
    assert (limits.actor.retain_bytes, limits.actor.log_bytes) == (11, 5000)
    assert (limits.session.conversation_bytes, limits.sessions, limits.bytes) == (6000, 3, 2 << 20)
    assert (limits.principal_share, limits.strangers_share) == (0.125, 0.25)
    assert (limits.connections_per_session, limits.idle_timeout, limits.empty_grace) == (4, 100, 9)
    assert limits.patience == 0.5


# Several agents.


async def test_agent_that_fails_is_counted_and_the_next_one_answers() -> None:
    """Whole, from settings: one upstream refuses its key, the other speaks Responses."""
    async with FakeUpstream() as first, FakeUpstream() as second:
        first.status(401)
        metrics = Metrics()
        agent = build_agent(
            settings(
                agent="openai",
                openai_api_key="sk-1",
                openai_base_url=first.base_url,
                fallbacks=f"backup={second.base_url}|m-2||responses",
            ),
            FakeClock(),
            metrics,
        )
        await agent.start()
        for _ in range(2):
            second.answer("two")
            assert text_of(await collect(agent, turn("hi"))) == "two"
        await agent.stop()

    assert [request.path for request in second.requests] == ["/v1/responses"] * 2
    assert {request.json["model"] for request in second.requests} == {"m-2"}
    assert len(first.requests) == 1, "it is passed over"
    exposed = metrics.exposition().decode().splitlines()
    assert 'unbroken_agent_calls_total{agent="openai",outcome="upstream_auth"} 1.0' in exposed
    assert 'unbroken_agent_calls_total{agent="backup",outcome="completed"} 2.0' in exposed
    assert 'unbroken_agent_passed_over{agent="openai"} 1.0' in exposed


async def test_background_and_connections_are_those_that_were_set() -> None:
    agent = build_agent(
        settings(
            agent="openai",
            openai_api_key="sk-1",
            openai_api="responses",
            openai_background=True,
            openai_connections=7,
        ),
        FakeClock(),
        Metrics(),
    )

    assert isinstance(agent, ResponsesAgent)
    assert agent._is_background
    assert agent._upstream._max_connections == 7


async def test_chain_with_the_model_inside_is_loaded_while_the_server_is_up() -> None:
    agent = Loading()
    async with App(settings(fallbacks="embedded"), agent, FakeClock()) as app:
        status, _ = await get(app.asgi, "/healthz")
        assert status == 200
        assert (await get(app.asgi, "/readyz"))[0] == 503
        assert app.describe() == "scripted, else embedded, model: m"
