"""The composition root: settings in, a server application out.

The only place that chooses concrete classes.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, suppress
from functools import partial
from types import TracebackType
from typing import Final, Self

import structlog
from starlette.applications import Starlette
from starlette.types import ASGIApp

from unbroken.server.agents.base import Agent, AgentError
from unbroken.server.agents.selection import build_agent
from unbroken.server.archive_selection import build_archiving
from unbroken.server.auth_selection import build_auth
from unbroken.server.cache.selection import build_cache
from unbroken.server.compactions import Compactions
from unbroken.server.computing_threads import Way
from unbroken.server.config import Settings, StartupError
from unbroken.server.door_selection import DoorSelection
from unbroken.server.drain import Drain
from unbroken.server.erasing.base import Eraser, Erasure
from unbroken.server.erasing.erasers import AnswerEraser, ArchiveEraser, FileEraser
from unbroken.server.erasing.sessions import SessionEraser
from unbroken.server.erasing.transcripts import Transcripts
from unbroken.server.fair_names import FairNames, is_strangers
from unbroken.server.files.base import FilesUnavailable
from unbroken.server.files.reading import FileReading
from unbroken.server.files.selection import build_files
from unbroken.server.files.transfers import TransferLimits, Transfers
from unbroken.server.guard_selection import Guards
from unbroken.server.limit_selection import admission_limits, node_limits, transient_limits
from unbroken.server.limits import Rate
from unbroken.server.metrics import Metrics, NodeFigures, RedisFigures
from unbroken.server.models import Models
from unbroken.server.overload import Level, Overload, OverloadLimits
from unbroken.server.pipeline import Pipeline
from unbroken.server.pulse import Pulse
from unbroken.server.quota_selection import build_gate
from unbroken.server.resume import ResumeTokens
from unbroken.server.store_selection import Stored, build_store
from unbroken.server.tools.base import Toolset, ToolsUnusable
from unbroken.server.tools.calls import CallLimits
from unbroken.server.tools.catalogue import Catalogue
from unbroken.server.tools.loop import LoopLimits, ToolLoop
from unbroken.server.transports.address import Proxies
from unbroken.server.transports.address_rate import AddressRate
from unbroken.server.transports.admin import admin_routes
from unbroken.server.transports.admission import Admission
from unbroken.server.transports.doors import Doors
from unbroken.server.transports.failure_rate import FailureRate
from unbroken.server.transports.health import health_routes, metrics_route
from unbroken.server.transports.http_way import nothing_there
from unbroken.server.transports.request_rate import RequestRate
from unbroken.server.transports.turnstile import Turnstile
from unbroken.sessions.backends.memory import MemoryStore
from unbroken.sessions.backends.redis.trouble import hint_of, reason_of
from unbroken.sessions.caps import Caps
from unbroken.sessions.clock import Clock, SystemClock
from unbroken.sessions.entries import ResponseDone
from unbroken.sessions.errors import StoreUnavailable, UnknownFormat
from unbroken.sessions.holders import Holder
from unbroken.sessions.ids import PrincipalId, SessionId, is_transient
from unbroken.sessions.items import Concurrency, SessionConfig
from unbroken.sessions.node import Node
from unbroken.sessions.session import Session

__all__ = ["App", "build"]

_TURNS_WITH_FILES: Final = 32
"""Turns that may hold as much as one may read, at once. More that hold less."""


_ELSEWHERE: Final = {404: nothing_there, 405: nothing_there}
"""What answers requests that no route takes."""


def build(settings: Settings) -> App:
    """Return the application that *settings* describe.

    Raises:
        StartupError: It can't be had here and now.

    """
    clock, metrics = SystemClock(), Metrics()
    fair_names = FairNames()
    agent = build_agent(settings, clock, metrics, fair_names.of)
    return App(settings, agent, clock, metrics, toolsets=_toolsets(settings), fair_names=fair_names)


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
        stored: Where sessions are. None: in memory.
        fair_names: Who waits under which name. The agent's own, where it has any.

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
        stored: Stored | None = None,
        fair_names: FairNames | None = None,
    ) -> None:
        self.metrics = metrics or Metrics()
        self._settings = settings
        self._secret = _secret(settings)
        self._agent = agent
        self.fair_names: Final = fair_names or FairNames()
        self._loading: asyncio.Task[None] | None = None
        self.files = build_files(settings, clock, self.fair_names.of)
        self.transfers = Transfers(TransferLimits(at_once=settings.max_uploads))
        self.reading = FileReading(
            self.files,
            turn_bytes=settings.max_turn_file_bytes,
            node_bytes=_TURNS_WITH_FILES * settings.max_turn_file_bytes,
        )
        self.catalogue = Catalogue(toolsets)
        self._stored = stored or build_store(settings)
        self._tokens = ResumeTokens(self._secret)
        self.auth = build_auth(settings, self._stored.redis, self._tokens, clock, self.metrics)
        self._auth_opened: AbstractAsyncContextManager[None] | None = None
        self.archiving = build_archiving(
            settings, self._stored.store, self._stored.outbox, self.auth.directory, clock, self.metrics
        )
        self._transcripts = Transcripts(None if self.archiving is None else self.archiving.records)
        way = Way()
        self.guards = Guards(
            settings,
            self._secret,
            self.auth.directory,
            self.metrics,
            clock,
            self._stored.redis,
            way,
            self.files,
            self.fair_names.of,
        )
        self.models = Models(agent.model, settings.models)
        self._stored_opened: AbstractAsyncContextManager[None] | None = None
        redis = self._stored.redis
        shared = None if redis is None else (redis.client, redis.keys)
        self.cache = build_cache(settings, clock, self.metrics, self.auth.directory, shared, way)
        models = (agent.model, *settings.models)
        self.gate = build_gate(
            settings,
            self._stored.ledger,
            self.auth.directory,
            models,
            clock,
            self.metrics,
            waiting=lambda session_id: (
                self.transient if is_transient(session_id) else self.node
            ).hub.waiting_in(session_id),
        )
        pipeline = Pipeline(
            agent,
            self.metrics,
            clock,
            files=self.reading,
            max_output_tokens=settings.max_output_tokens,
            tools=self._tool_loop(),
            leaks=self.guards.leaks,
            canaries=self.guards.canaries,
            cache=self.cache,
            own_agent=settings.agent if settings.fallbacks else None,
            gate=self.gate,
            presence=self.auth.directory,
        )
        caps = Caps(
            clock, self._stored.tally, on_alone=lambda kind: self.metrics.let_in_alone.labels(kind).inc()
        )
        make_node = partial(
            Node,
            caps=caps,
            holder_of=self._holder,
            responder=pipeline,
            clock=clock,
            on_response=self._response_ended,
            on_refusal=lambda code: self.metrics.input_errors.labels(code).inc(),
            on_run=self.metrics.run_ended,
        )
        self.node: Final = make_node(
            store=self._stored.store,
            cluster=self._stored.cluster,
            index=self._stored.index,
            erase_late=self._erase_late,
            limits=node_limits(settings, patience),
        )
        self.transient: Final = make_node(
            store=MemoryStore(), limits=transient_limits(settings, patience), is_transient=True
        )
        """Has the sessions that are in no store."""
        self._proxies = Proxies(settings.trusted_proxies)
        self.admission = Admission(
            admission_limits(settings),
            clock,
            self._proxies,
            self.node.caps,
            on_beyond=self.metrics.quota_decisions.labels("would_deny").inc,
        )
        self.turnstile = Turnstile(longest=0.8 * settings.handshake_timeout)
        self.metrics.handshakes_waiting.set_function(lambda: self.turnstile.waiting)
        self._observe_node()
        self._overload = Overload(
            OverloadLimits(busy_lag=settings.overload_lag, swamped_lag=settings.overload_lag_responses)
        )
        self._pulse = Pulse(
            self._overload,
            clock,
            observe=self.metrics.lag.observe,
            on_change=self._overload_changed,
            # Its constructor holds the interpreter, and so the loop, for a second and more.
            is_excused=lambda: not agent.is_ready,
        )
        self.metrics.observe_overload(self._overload)
        health = health_routes(self._readiness)
        self.erasure = Erasure(self._erasers(clock), self._stored.index, clock)
        self._doors = doors = DoorSelection(
            settings=settings,
            node=self.node,
            transient=self.transient,
            store=self._stored.store,
            index=self._stored.index,
            erasure=self.erasure,
            transcripts=self._transcripts,
            auth=self.auth,
            guards=self.guards,
            models=self.models,
            defaults=self._defaults(),
            metrics=self.metrics,
            clock=clock,
            files=self.files,
            transfers=self.transfers,
            gate=self.gate,
            fair_names=self.fair_names,
            admission=self.admission,
            turnstile=self.turnstile,
            tokens=self._tokens,
            compactions=Compactions(self._secret, clock),
            archive=None if self.archiving is None else self.archiving.archive,
        )
        pages = Starlette(routes=[*health, *doors.page, *doors.routes()], exception_handlers=_ELSEWHERE)
        pages.router.redirect_slashes = (
            False  # an answer ahead of every check, with a name that anybody chose
        )
        self.asgi: ASGIApp = Doors(doors.websockets(), self._rated(pages, clock))
        self.drain = Drain(self.node, settings.drain_timeout, self._drain_began, others=(self.transient,))
        self._observe_store()
        key = settings.admin_key
        admin = admin_routes(
            self.drain,
            None if key is None else key.get_secret_value(),
            clock,
            failures=FailureRate(
                admission_limits(settings).failures, clock
            ),  # no user's lock an operator out
            proxies=self._proxies,
            keys=self.auth.keyring,
            cache=self.cache,
            ledger=None if self.gate is None else self.gate.ledger,
            erasure=self.erasure,
        )
        self.admin_asgi: ASGIApp = Starlette(
            routes=[*health, metrics_route(self.metrics), *admin], exception_handlers=_ELSEWHERE
        )

    def _erasers(self, clock: Clock) -> list[Eraser]:
        """Return what erases users' data: whatever keeps some of it is to be among them.

        Sessions are last, as they may take longest; and what is archived of them is counted before they take
        it with them.
        """
        stored = self._stored
        erasers: list[Eraser] = []
        if self.archiving is not None:
            erasers.append(ArchiveEraser(self.archiving.archive))
        if self.files is not None:
            erasers.append(FileEraser(self.files))
        if self.cache is not None:
            erasers.append(AnswerEraser(self.cache, clock))
        nodes = (self.node, self.transient)
        sessions = SessionEraser(nodes, stored.store, stored.index, stored.walk, self._transcripts, clock)
        return [*erasers, sessions]

    async def _erase_late(self, session_id: SessionId) -> None:
        await self._transcripts.erase(session_id, is_told=False)
        await self.node.erase(session_id)

    def _drain_began(self) -> None:
        self.turnstile.open()
        self._doors.leave()

    def _holder(self, principal: PrincipalId) -> Holder:
        name = self.fair_names.of(principal)
        return Holder(name, is_strangers(name))

    def _response_ended(self, session: Session, done: ResponseDone) -> None:
        self.metrics.response_ended(done)
        if self.gate is not None:
            self.gate.ended(session, done)

    def _rated(self, pages: ASGIApp, clock: Clock) -> ASGIApp:
        rate = self._settings.rate_requests
        accounts = AddressRate(Rate(rate, 10 * rate), clock)
        return RequestRate(
            pages, accounts, self._proxies, self.metrics, clock, self._settings.allowed_origins
        )

    def _defaults(self) -> SessionConfig:
        settings = self._settings
        return SessionConfig(
            model=self._agent.model,
            instructions=settings.instructions,
            max_output_tokens=settings.max_output_tokens,
            concurrency=Concurrency(settings.concurrency),
        )

    def _tool_loop(self) -> ToolLoop | None:
        settings, calls = self._settings, self.metrics.tool_calls
        if not self.catalogue:
            return None
        limits = LoopLimits(
            rounds=settings.tool_rounds,
            calls=settings.tool_calls,
            call=CallLimits(timeout=settings.tool_timeout, result_bytes=settings.tool_result_bytes),
            sign_interval=settings.stall_timeout / 3,  # one may be late, and the turn still isn't stalled
        )
        return ToolLoop(
            self.catalogue,
            limits,
            lambda label, outcome: calls.labels(label, outcome).inc(),
            self.guards.gate.result,
            None if self.gate is None else self.gate.may_ask,
        )

    def _observe_node(self) -> None:
        node, metrics = self.node, self.metrics
        hubs = node.hub, self.transient.hub
        metrics.observe_node(
            NodeFigures(
                sessions=lambda: sum(map(len, hubs)),
                running=lambda: sum(hub.running for hub in hubs),
                waiting=lambda: sum(hub.waiting for hub in hubs),
                size=lambda: sum(hub.size for hub in hubs),
                commits_waiting=lambda: node.commits_waiting + self.transient.commits_waiting,
                is_draining=lambda: node.is_draining,
                unsaved=lambda: node.unsaved,
                is_store_lost=lambda: node.is_store_lost,
            )
        )
        metrics.sessions_limit.set(node.limits.sessions)
        metrics.bytes_limit.set(node.limits.bytes)

    def _observe_store(self) -> None:
        """Have the metrics, and the drain, follow a store that is shared."""
        if (formats := self._stored.formats) is not None:
            self.metrics.observe_formats(formats)
            formats.on_outdated = self._outdated
        if (redis := self._stored.redis) is not None:
            watch, kinship, failures = redis.watch, redis.kinship, self.metrics.store_failures
            redis.trouble.on_failure = lambda reason: failures.labels(reason).inc()
            self.metrics.observe_redis(
                RedisFigures(
                    may_evict=lambda: watch.may_evict,
                    evicted=lambda: watch.evicted,
                    used=lambda: watch.used,
                    limit=lambda: watch.limit,
                    has_foreign=lambda: kinship.has_foreign,
                )
            )

    def _outdated(self) -> None:
        """Leave everything to the others: they have gone on to what this release can't read."""
        log = structlog.get_logger()
        log.error(
            "format not read", node_id=self.node.id, hint="Update this node: others write a later format."
        )
        self.drain.begin()

    def _overload_changed(self, level: Level) -> None:
        for node in (self.node, self.transient):
            node.takes_sessions = level < Level.BUSY
            node.takes_responses = level < Level.SWAMPED

    async def __aenter__(self) -> Self:
        await self.guards.open()
        try:
            await self._open()
        except BaseException:
            await self.guards.close()
            raise
        return self

    async def _open(self) -> None:
        async with AsyncExitStack() as stack:
            try:
                if self.files is not None:
                    await self.files.__aenter__()
            except FilesUnavailable as exc:
                raise StartupError(str(exc)) from None
            stack.push_async_callback(self._close_files)
            # Before the node joins: what an agent and tools import holds the loop for seconds, and others
            # take a node that is silent for so long for dead.
            if not self._loads_later:
                await self._start_agent()
                stack.push_async_callback(self._agent.stop)
            try:
                await self.catalogue.start()
            except ToolsUnusable as exc:
                raise StartupError(str(exc)) from None
            stack.push_async_callback(self.catalogue.stop)
            await self._open_node()
            stack.push_async_callback(self._close_node)
            if self.cache is not None:
                self.cache.start()
            self._pulse.start()
            if self._loads_later:
                self._loading = asyncio.create_task(self._load())
            stack.pop_all()

    @property
    def _loads_later(self) -> bool:
        """Whether the agent loads for seconds: liveness answers meanwhile, readiness when it is done."""
        embedded = any(entry.is_embedded for entry in self._settings.fallbacks)
        return embedded or self._settings.agent == "embedded"

    async def _start_agent(self) -> None:
        try:
            await self._agent.start()
        except AgentError as exc:
            raise StartupError(str(exc)) from None

    async def _load(self) -> None:
        await self._start_agent()
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
        self._pulse.stop()
        await self.drain.stop()
        if self._loading is not None:
            self._loading.cancel()
            with suppress(asyncio.CancelledError, StartupError):
                await self._loading
        await self._close_node()
        await self.catalogue.stop()
        await self._agent.stop()
        await self._close_files()
        await self.guards.close()

    async def _open_node(self) -> None:
        opened: AbstractAsyncContextManager[None] = self._stored.opened()
        await opened.__aenter__()
        self._stored_opened = opened
        try:
            await self.node.__aenter__()
        except StoreUnavailable as exc:
            await opened.__aexit__(None, None, None)
            raise StartupError(f"Redis can't be used ({reason_of(exc)}). {hint_of(exc)}") from None
        except UnknownFormat as exc:
            await opened.__aexit__(None, None, None)
            raise StartupError(str(exc)) from None
        known = self.auth.opened()
        try:
            await known.__aenter__()
        except BaseException:
            await self._close_node()
            raise
        self._auth_opened = known
        if self.archiving is not None:
            try:
                await self.archiving.open()
            except BaseException:
                await self._close_node()
                raise
        await self.transient.__aenter__()

    async def _close_node(self) -> None:
        if (known := self._auth_opened) is not None:
            self._auth_opened = None
            await known.__aexit__(None, None, None)
        await self.transient.__aexit__(None, None, None)
        await self.node.__aexit__(None, None, None)
        if self.archiving is not None:
            await self.archiving.aclose()
        if self.cache is not None:
            await self.cache.stop()
        if self.gate is not None:
            await self.gate.aclose()
        if (opened := self._stored_opened) is not None:
            self._stored_opened = None
            await opened.__aexit__(None, None, None)

    async def _close_files(self) -> None:
        if self.files is not None:
            await self.files.__aexit__(None, None, None)

    def begin_drain(self) -> None:
        """Take no new work: readiness answers 404, upgrades are refused."""
        self.drain.note_stopping()
        self.drain.take_nothing()

    async def drained(self, timeout: float) -> None:
        """Return when the running work has ended, or has been ended after *timeout* seconds."""
        await self.drain.stop()  # this deadline is the one that counts
        async with asyncio.TaskGroup() as group:
            for node in (self.node, self.transient):
                group.create_task(node.drained(timeout))

    def describe(self) -> str:
        """Name the agent and its model."""
        chain = [self._settings.agent, *(entry.name for entry in self._settings.fallbacks)]
        return f"{', else '.join(chain)}, model: {self._agent.model}"

    def _readiness(self) -> tuple[int, str]:
        if self.node.is_draining:
            return 404, "draining"
        if not self._agent.is_ready:
            return 503, "loading"
        # Overload is told, and is no reason to be taken out: the others would get this node's share, and
        # be next. New connections are refused one by one, with a 503 that a balancer may take elsewhere.
        if self._overload.level is not Level.CALM:
            return 200, "overloaded"
        # Likewise: each node says so, and they all go on with what they have.
        return 200, "store out of reach" if self.node.is_store_lost else "ready"


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


def _secret(settings: Settings) -> bytes:
    return settings.secret.get_secret_value().encode() if settings.secret else secrets.token_bytes(32)
