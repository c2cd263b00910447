"""The composition root: settings in, a server application out.

The only place that chooses concrete classes.
"""

from __future__ import annotations

import asyncio
import secrets
from contextlib import suppress
from types import TracebackType
from typing import Self

import structlog
from starlette.applications import Starlette
from starlette.routing import WebSocketRoute
from starlette.types import ASGIApp

from unbroken.server.agents.base import Agent, AgentError
from unbroken.server.auth import Authenticator, DevelopmentAuthenticator, KeyAuthenticator
from unbroken.server.config import Settings, StartupError, is_loopback
from unbroken.server.limits import ConnectionLimits
from unbroken.server.metrics import Metrics
from unbroken.server.models import Models
from unbroken.server.pipeline import Pipeline
from unbroken.server.resume import ResumeTokens
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
    return App(settings, build_agent(settings), SystemClock())


class App:
    """The server without its sockets. Use as an asynchronous context manager.

    Args:
        settings: What the operator wants.
        agent: What answers.
        clock: Where time comes from.
        patience: Seconds for which the pieces of a fast answer are gathered, after the first.
            No reader sees it, and an answer of more than 125 pieces a second costs a fraction.

    """

    def __init__(self, settings: Settings, agent: Agent, clock: Clock, *, patience: float = 0.008) -> None:
        self.metrics = Metrics()
        self._settings = settings
        self._agent = agent
        self._loading: asyncio.Task[None] | None = None
        self.node = Node(
            store=MemoryStore(),
            responder=Pipeline(agent, self.metrics, clock),
            clock=clock,
            limits=_node_limits(settings, patience),
            on_response=lambda status: self.metrics.responses.labels(status).inc(),
            on_refusal=lambda code: self.metrics.input_errors.labels(code).inc(),
        )
        hub = self.node.hub
        self.metrics.observe_node(lambda: len(hub), lambda: hub.running, lambda: hub.size)
        health = health_routes(self._readiness)
        door = WebSocketRoute("/v1/realtime", self._door())
        self.asgi: ASGIApp = Starlette(routes=[*health, *page_routes(), door])
        self.admin_asgi: ASGIApp = Starlette(routes=[*health, metrics_route(self.metrics)])

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
        if self._settings.agent == "embedded":
            # Loading takes seconds; liveness answers meanwhile, readiness when it is done.
            self._loading = asyncio.create_task(self._load())
            return self
        try:
            await self._agent.start()
        except AgentError as exc:
            await self.node.__aexit__(None, None, None)
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
        await self._agent.stop()

    def begin_drain(self) -> None:
        """Take no new work: readiness answers 404, upgrades are refused."""
        self.node.begin_drain()

    async def drained(self, timeout: float) -> None:
        """Return when the running work has ended, or has been ended after *timeout* seconds."""
        await self.node.drained(timeout)

    def describe(self) -> str:
        """Name the agent and its model."""
        return f"{self._settings.agent}, model: {self._agent.model}"

    def _readiness(self) -> tuple[int, str]:
        if self.node.is_draining:
            return 404, "draining"
        return (200, "ready") if self._agent.is_ready else (503, "loading")


def build_agent(settings: Settings) -> Agent:
    """Return the agent that *settings* name. Its libraries are imported only now."""
    match settings.agent:
        case "embedded":
            from unbroken.server.agents.embedded import EmbeddedAgent

            return EmbeddedAgent(
                model=settings.model,
                model_path=settings.model_path,
                slots=settings.embedded_slots,
                context=settings.embedded_context,
                max_queue=settings.embedded_queue,
                threads=settings.embedded_threads,
            )
        case "openai":
            from unbroken.server.agents.openai import OpenAIAgent

            key = settings.openai_api_key
            # Upstreams of one's own often take none; the SDK insists on one.
            keyless = "none" if settings.openai_base_url else None
            return OpenAIAgent(
                model=settings.model or "gpt-5-mini",
                base_url=settings.openai_base_url,
                api_key=key.get_secret_value() if key else keyless,
                timeout=settings.stall_timeout,
            )
        case "python":
            from unbroken.server.agents.python import PythonAgent

            return PythonAgent(settings.python_agent or "", model=settings.model)
        case "scripted":
            from unbroken.server.agents.scripted import ScriptedAgent

            return ScriptedAgent(model=settings.model or "scripted")


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
