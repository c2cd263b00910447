"""The composition root: settings in, a server application out.

The only place that chooses concrete classes.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Sequence
from contextlib import suppress
from types import TracebackType
from typing import Self

import structlog
from starlette.applications import Starlette
from starlette.types import ASGIApp

from unbroken.server.agents.base import Agent, AgentError
from unbroken.server.agents.breaker import BreakerLimits, BreakerState
from unbroken.server.agents.fallback import FallbackAgent, Member, Observer
from unbroken.server.auth import Authenticator, DevelopmentAuthenticator, KeyAuthenticator
from unbroken.server.chain import ChainEntry, UpstreamApi
from unbroken.server.config import Settings, StartupError, is_loopback
from unbroken.server.limits import ConnectionLimits
from unbroken.server.metrics import Metrics
from unbroken.server.models import Models
from unbroken.server.pipeline import Pipeline
from unbroken.server.resume import ResumeTokens
from unbroken.server.tools.base import Toolset, ToolsUnusable
from unbroken.server.tools.calls import CallLimits
from unbroken.server.tools.catalogue import Catalogue
from unbroken.server.tools.loop import LoopLimits, ToolLoop
from unbroken.server.transports.doors import Doors
from unbroken.server.transports.health import health_routes, metrics_route
from unbroken.server.transports.page import page_routes
from unbroken.server.transports.websocket import RealtimeDoor
from unbroken.sessions.actor import ActorLimits
from unbroken.sessions.backends.memory import MemoryStore
from unbroken.sessions.clock import Clock, SystemClock
from unbroken.sessions.items import Concurrency, SessionConfig
from unbroken.sessions.node import Node, NodeLimits
from unbroken.sessions.run import RunLimits
from unbroken.sessions.session import SessionLimits

__all__ = ["App", "build"]


def build(settings: Settings) -> App:
    """Return the application that *settings* describe.

    Raises:
        StartupError: It can't be had here and now.

    """
    clock, metrics = SystemClock(), Metrics()
    agent = build_agent(settings, clock, metrics)
    return App(settings, agent, clock, metrics, toolsets=_toolsets(settings))


class App:
    """The server without its sockets. Use as an asynchronous context manager.

    Args:
        settings: What the operator wants.
        agent: What answers.
        clock: Where time comes from.
        metrics: Where figures go. None: to some of its own.
        patience: Seconds for which the pieces of a fast answer are gathered, after the first.
            No reader sees it, and an answer of more than 125 pieces a second costs a fraction.
        toolsets: What the server can do for its agent.

    """

    def __init__(
        self,
        settings: Settings,
        agent: Agent,
        clock: Clock,
        metrics: Metrics | None = None,
        *,
        patience: float = 0.008,
        toolsets: Sequence[Toolset] = (),
    ) -> None:
        self.metrics = metrics or Metrics()
        self._settings = settings
        self._agent = agent
        self._loading: asyncio.Task[None] | None = None
        self.catalogue = Catalogue(toolsets)
        self.node = Node(
            store=MemoryStore(),
            responder=Pipeline(
                agent,
                self.metrics,
                clock,
                max_output_tokens=settings.max_output_tokens,
                tools=self._tool_loop(),
            ),
            clock=clock,
            limits=_node_limits(settings, patience),
            on_response=lambda status: self.metrics.responses.labels(status).inc(),
            on_refusal=lambda code: self.metrics.input_errors.labels(code).inc(),
        )
        hub = self.node.hub
        self.metrics.observe_node(lambda: len(hub), lambda: hub.running, lambda: hub.size)
        health = health_routes(self._readiness)
        pages = Starlette(routes=[*health, *page_routes()])
        self.asgi: ASGIApp = Doors({"/v1/realtime": self._door()}, pages)
        self.admin_asgi: ASGIApp = Starlette(routes=[*health, metrics_route(self.metrics)])

    def _tool_loop(self) -> ToolLoop | None:
        settings, calls = self._settings, self.metrics.tool_calls
        if not self.catalogue:
            return None
        limits = LoopLimits(
            rounds=settings.tool_rounds,
            calls=settings.tool_calls,
            call=CallLimits(timeout=settings.tool_timeout, result_bytes=settings.tool_result_bytes),
        )
        return ToolLoop(self.catalogue, limits, lambda label, outcome: calls.labels(label, outcome).inc())

    def _door(self) -> RealtimeDoor:
        settings = self._settings
        secret = settings.secret.get_secret_value().encode() if settings.secret else secrets.token_bytes(32)
        return RealtimeDoor(
            node=self.node,
            authenticator=_authenticator(settings),
            tokens=ResumeTokens(secret),
            models=Models(self._agent.model, settings.models),
            defaults=SessionConfig(
                model=self._agent.model,
                instructions=settings.instructions,
                max_output_tokens=settings.max_output_tokens,
                concurrency=Concurrency(settings.concurrency),
            ),
            limits=ConnectionLimits(frame_depth=settings.max_frame_depth, input_queue=settings.input_queue),
            allowed_origins=settings.allowed_origins,
            loopback_only=not settings.api_keys,
            metrics=self.metrics,
        )

    async def __aenter__(self) -> Self:
        await self.node.__aenter__()
        try:
            await self.catalogue.start()
        except ToolsUnusable as exc:
            await self.node.__aexit__(None, None, None)
            raise StartupError(str(exc)) from None
        if self._settings.agent == "embedded" or any(e.is_embedded for e in self._settings.fallbacks):
            # Loading takes seconds; liveness answers meanwhile, readiness when it is done.
            self._loading = asyncio.create_task(self._load())
            return self
        try:
            await self._agent.start()
        except AgentError as exc:
            await self.node.__aexit__(None, None, None)
            await self.catalogue.stop()
            raise StartupError(str(exc)) from None
        return self

    async def _load(self) -> None:
        try:
            await self._agent.start()
        except AgentError as exc:
            raise StartupError(str(exc)) from None
        structlog.get_logger().info("agent ready", model=self._agent.model)

    async def failure(self) -> None:
        """Wait for ever, or until the agent turns out to be unable to start.

        Raises:
            StartupError: It is, for this reason.

        """
        if self._loading is not None:
            await asyncio.shield(self._loading)
        await asyncio.Event().wait()

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._loading is not None:
            self._loading.cancel()
            with suppress(asyncio.CancelledError, StartupError):
                await self._loading
        await self.node.__aexit__(exc_type, exc, traceback)
        await self.catalogue.stop()
        await self._agent.stop()

    def begin_drain(self) -> None:
        """Take no new work: readiness answers 404, upgrades are refused."""
        self.node.begin_drain()

    async def drained(self, timeout: float) -> None:
        """Return when the running work has ended, or has been ended after *timeout* seconds."""
        await self.node.drained(timeout)

    def describe(self) -> str:
        """Name the agent and its model."""
        chain = [self._settings.agent, *(entry.name for entry in self._settings.fallbacks)]
        return f"{', else '.join(chain)}, model: {self._agent.model}"

    def _readiness(self) -> tuple[int, str]:
        if self.node.is_draining:
            return 404, "draining"
        return (200, "ready") if self._agent.is_ready else (503, "loading")


def build_agent(settings: Settings, clock: Clock, metrics: Metrics) -> Agent:
    """Return the agent that *settings* describe: one, or a chain of them.

    Raises:
        StartupError: What it needs isn't installed.

    """
    if not settings.fallbacks:
        return _agent(settings)
    members = [Member(name=settings.agent, agent=_agent(settings))]
    for entry in settings.fallbacks:
        agent = _embedded(settings, None) if entry.is_embedded else _fallback(settings, entry)
        members.append(Member(name=entry.name, agent=agent, model=agent.model))
    limits = BreakerLimits(
        failures=settings.breaker_failures,
        window=settings.breaker_window,
        cooldown=settings.breaker_cooldown,
    )
    return FallbackAgent(
        members, clock, limits=limits, patience=settings.fallback_patience, observer=_ChainMetrics(metrics)
    )


def _toolsets(settings: Settings) -> list[Toolset]:
    """Return the toolsets that *settings* describe. Nothing is loaded yet."""
    toolsets: list[Toolset] = []
    if settings.tools:
        from unbroken.server.tools.python import PythonTools

        toolsets.append(PythonTools(targets=settings.tools))
    if settings.mcp_servers:
        from unbroken.server.tools.mcp import McpTarget, McpTools

        keys = dict(key.get_secret_value().split(":", 1) for key in settings.mcp_keys)
        for entry in settings.mcp_servers:
            label, _, place = entry.partition("=")
            target = McpTarget(label, place.strip(), keys.get(label))
            toolsets.append(McpTools(target, needs_approval=label not in settings.mcp_trusted))
    return toolsets


class _ChainMetrics(Observer):
    """Counts what happens in a chain."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics

    def called(self, name: str, outcome: str) -> None:
        self._metrics.agent_calls.labels(name, outcome).inc()

    def breaker_changed(self, name: str, state: BreakerState) -> None:
        self._metrics.agent_passed_over.labels(name).set(state is not BreakerState.CLOSED)


# Agents. The libraries of each are imported only when it is wanted.


def _agent(settings: Settings) -> Agent:
    match settings.agent:
        case "embedded":
            return _embedded(settings, settings.model)
        case "openai":
            key = settings.openai_api_key
            return _upstream(
                settings,
                api=settings.openai_api,
                model=settings.model or "gpt-5-mini",
                base_url=settings.openai_base_url,
                # Upstreams of one's own often take none; the SDK insists on one.
                api_key=key.get_secret_value() if key else ("none" if settings.openai_base_url else None),
            )
        case "python":
            from unbroken.server.agents.python import PythonAgent

            return PythonAgent(settings.python_agent or "", model=settings.model)
        case "scripted":
            from unbroken.server.agents.scripted import ScriptedAgent

            return ScriptedAgent(model=settings.model or "scripted")


def _embedded(settings: Settings, model: str | None) -> Agent:
    from unbroken.server.agents.embedded import EmbeddedAgent

    agent = EmbeddedAgent(
        model=model,
        model_path=settings.model_path,
        slots=settings.embedded_slots,
        context=settings.embedded_context,
        max_queue=settings.embedded_queue,
        threads=settings.embedded_threads,
    )
    try:
        agent.check()  # what is missing is said before anything else is
    except AgentError as exc:
        raise StartupError(str(exc)) from None
    return agent


def _fallback(settings: Settings, entry: ChainEntry) -> Agent:
    return _upstream(
        settings,
        api=entry.api,
        model=entry.model,
        base_url=entry.base_url,
        api_key=entry.api_key.get_secret_value() if entry.api_key else "none",
    )


def _silence(settings: Settings) -> float:
    """Return how long an upstream may be silent: a little less than a turn, so that it is told apart."""
    return settings.stall_timeout * 0.9


def _upstream(
    settings: Settings, *, api: UpstreamApi, model: str, base_url: str | None, api_key: str | None
) -> Agent:
    # Where there is another one to ask, a client isn't kept waiting for the same one twice.
    retries = 1 if settings.fallbacks else 2
    if api == "responses":
        from unbroken.server.agents.responses import ResponsesAgent

        return ResponsesAgent(
            model=model,
            base_url=base_url,
            api_key=api_key,
            timeout=_silence(settings),
            max_retries=retries,
            max_connections=settings.openai_connections,
            background=settings.openai_background,
        )
    from unbroken.server.agents.openai import OpenAIAgent

    return OpenAIAgent(
        model=model,
        base_url=base_url,
        api_key=api_key,
        timeout=_silence(settings),
        max_retries=retries,
        max_connections=settings.openai_connections,
    )


def _authenticator(settings: Settings) -> Authenticator:
    if settings.api_keys:
        pairs = [entry.partition(":") for entry in settings.api_keys]
        return KeyAuthenticator([(name, digest) for name, _, digest in pairs])
    if not is_loopback(settings.host):
        raise AssertionError("can't happen: the settings are refused without keys beyond loopback")
    return DevelopmentAuthenticator()


def _node_limits(settings: Settings, patience: float) -> NodeLimits:
    return NodeLimits(
        actor=ActorLimits(
            run=RunLimits(
                stall_timeout=settings.stall_timeout,
                turn_timeout=settings.turn_timeout,
                output_bytes=settings.max_output_bytes,
            ),
            retain_bytes=settings.log_retain_bytes,
            log_bytes=settings.log_max_bytes,
        ),
        session=SessionLimits(conversation_bytes=settings.max_session_bytes),
        sessions=settings.max_sessions,
        bytes=settings.max_node_bytes,
        connections_per_session=settings.connections_per_session,
        idle_timeout=settings.session_idle_timeout,
        empty_grace=settings.empty_session_grace,
        patience=patience,
    )
