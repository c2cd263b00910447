"""A real server in the test's own event loop, and a look at every frame it sends."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
import re
from collections import deque
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Sequence
from typing import Annotated, Any, Final, Generic, TypeVar

import orjson
import structlog
from openai import AsyncOpenAI
from openai.types.realtime.realtime_server_event import RealtimeServerEvent
from pydantic import Field, TypeAdapter, ValidationError
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from tests.server.openapi.answers import AnswerCheck, checked, document_of
from tests.server.realtime.client import WAIT, Client
from unbroken.server.agents.base import Agent
from unbroken.server.agents.scripted import ScriptedAgent
from unbroken.server.app import App
from unbroken.server.config import Settings
from unbroken.server.process import Server, bind
from unbroken.server.tools.base import Toolset
from unbroken.server.transports.outlet import EXTENSION, Outlet
from unbroken.sessions.clock import Clock, SystemClock

__all__ = ["FrameCheck", "Inspector", "Served", "eventually", "serving"]

AgentT = TypeVar("AgentT", bound=Agent)

_SERVER_EVENT: Final[TypeAdapter[Any]] = TypeAdapter(
    Annotated[RealtimeServerEvent, Field(discriminator="type")]
)
_CURSOR: Final = re.compile(r"event_([0-9a-f]{8})\.(\d+)\.[0-9a-f]+\.(\d+)(?:-[0-9a-f]{8}([0-9a-f]+))?")
_UNPLACED: Final = re.compile(r"event_[0-9a-f]{24}")
_OURS: Final = {f"unbroken.reasoning.{kind}" for kind in ("added", "delta", "done")}
# A client's fault, or a refusal, that uvicorn's own class makes much of; see `server/logs.py`.
_STOCK_COMPLAINTS: Final = frozenset(
    {
        "ASGI callable returned without completing handshake.",
        "Invalid UTF-8 sequence received from client.",
    }
)
_BUGS: Final = frozenset({"connection failed", "session crashed", "session lost", "task failed"})


REALTIME: Final = "/v1/realtime"
_LOOKS: Final = 200
_REST: Final = 0.001


async def eventually(holds: Callable[[], bool]) -> None:
    """Return when *holds* does. For what nothing tells of: it looks again whenever other tasks have run.

    After a while it lets threads run, too: beside a loop that never rests they don't.
    """
    looks = 0
    async with asyncio.timeout(WAIT):
        while not holds():
            looks += 1
            await asyncio.sleep(0 if looks < _LOOKS else _REST)


class Inspector:
    """An ASGI application around another. It checks what that sends, and closes connections on demand.

    Without *has_outlet* it hides the transport's own, so that everything goes by ASGI's ``send``.
    """

    def __init__(self, app: ASGIApp, *, has_outlet: bool, document: dict[str, Any] | None = None) -> None:
        self.violations: list[str] = []
        """Frames that aren't the protocol's, and answers that the document doesn't have."""
        self.frames = 0
        """How many were sent, on all connections."""
        self._app = app
        self._has_outlet = has_outlet
        self._over_http = app if document is None else checked(app, AnswerCheck(document), self.violations)
        self._closings: deque[tuple[int, int]] = deque()

    def close_next(self, *, after: int, code: int) -> None:
        """Close one of the next connections with *code*, *after* so many frames. One call, one connection."""
        self._closings.append((after, code))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            await self._over_http(scope, receive, send)
            return
        if scope["type"] != "websocket":
            await self._app(scope, receive, send)
            return
        after, code = self._closings.popleft() if self._closings else (-1, 0)
        # Other doors' protocols are held against their own types by their own tests.
        check = FrameCheck(self.violations) if scope.get("path", REALTIME) == REALTIME else None
        sent = 0

        def admits(text: object) -> bool:
            nonlocal sent
            if sent == after:
                return False
            if check is not None:
                check(text)
            sent += 1
            self.frames += 1
            return True

        async def close() -> None:
            await send({"type": "websocket.close", "code": code})

        async def inspect(message: Message) -> None:
            if message["type"] == "websocket.send" and not admits(message.get("text")):
                await close()
                raise OSError("closed, as the test asked for")
            await send(message)

        own: Outlet | None = scope.get("extensions", {}).pop(EXTENSION, None)
        if own is not None and self._has_outlet:
            scope["extensions"][EXTENSION] = _InspectedOutlet(own, admits, close)
        await self._app(scope, receive, inspect)


class _InspectedOutlet:
    """A transport's own outlet, up to the message that isn't admitted: then the connection is closed."""

    def __init__(
        self, own: Outlet, admits: Callable[[object], bool], close: Callable[[], Coroutine[Any, Any, None]]
    ) -> None:
        self._own = own
        self._admits = admits
        self._close = close
        self._closing: asyncio.Task[None] | None = None

    @property
    def is_writable(self) -> bool:
        return self._own.is_writable

    @property
    def is_slow(self) -> bool:
        return self._own.is_slow

    def listen(self, callback: Callable[[], None] | None) -> None:
        self._own.listen(callback)

    async def flushed(self) -> None:
        await self._own.flushed()

    def write(self, messages: Sequence[bytes]) -> None:
        if self._closing is None:
            admitted = list(itertools.takewhile(lambda message: self._admits(message.decode()), messages))
            self._own.write(admitted)
            if len(admitted) < len(messages):
                self._closing = asyncio.create_task(self._close())


class FrameCheck:
    """What holds for the frames of one connection."""

    def __init__(self, violations: list[str]) -> None:
        self._violations = violations
        self._incarnation: str | None = None
        self._last = (-1, 0, 0)
        self._takes_ours = False  # whether the session has asked for events that aren't the protocol's

    def __call__(self, text: object) -> None:
        if not isinstance(text, str):
            self._violations.append("a binary frame")
            return
        try:
            frame = orjson.loads(text)
            if frame["type"] in ("session.created", "session.updated"):
                self._takes_ours |= frame["session"]["unbroken"]["reasoning"]
            if not (self._takes_ours and frame["type"] in _OURS):
                _SERVER_EVENT.validate_python(frame, strict=True)
        except (ValidationError, ValueError) as exc:
            self._violations.append(f"not an event of the protocol: {text:.500}: {exc}")
            return
        if path := next(_nulls(frame, "$"), None):
            self._violations.append(f"null at {path}: {text:.500}")
        self._check_place(frame["event_id"])

    def _check_place(self, event_id: str) -> None:
        """Cursors only ever grow: nothing comes twice, and nothing out of order."""
        if _UNPLACED.fullmatch(event_id):
            return
        match = _CURSOR.fullmatch(event_id)
        if match is None:
            self._violations.append(f"not an event id: {event_id}")
            return
        place = (int(match[2]), -int(match[3]), int(match[4] or "0", 16))
        if self._incarnation not in (None, match[1]) or place <= self._last:
            self._violations.append(f"{event_id} comes after {self._last}")
        self._incarnation, self._last = match[1], place


def _nulls(value: object, path: str) -> Iterator[str]:
    if value is None:
        yield path
    elif isinstance(value, dict):
        for name, each in value.items():
            if name == "output" and value.get("type") == "mcp_call":
                continue  # where a client needs it
            if name != "parameters":  # a function's schema is its client's own, nulls and all
                yield from _nulls(each, f"{path}.{name}")
    elif isinstance(value, list):
        for index, each in enumerate(value):
            yield from _nulls(each, f"{path}[{index}]")


class Served(Generic[AgentT]):
    """A server that runs, and those who speak to it."""

    def __init__(self, app: App, agent: AgentT, inspector: Inspector, server: Server, port: int) -> None:
        self.app = app
        self.agent = agent
        self.inspector = inspector
        self.server = server
        self.port = port
        self._stack = contextlib.AsyncExitStack()

    async def client(self, key: str = "alice", *, port: int | None = None, **query: str) -> Client:
        """Return a client with a new session."""
        client = self.stranger(key, port=port)
        await client.connect(headers=None, **query)
        return client

    def stranger(self, key: str = "alice", *, port: int | None = None, token: str | None = None) -> Client:
        """Return a client that hasn't connected; with *token*, one that knows of a session."""
        client = Client(port or self.port, key, token)
        self._stack.push_async_callback(client.close)
        return client

    async def tab(self, other: Client, **query: str) -> Client:
        """Return another client of the same user's session, which sees it from its beginning."""
        client = self.stranger(other.key, token=other.token)
        await client.resume(**query)
        return client

    async def openai(self, key: str = "alice", *, port: int | None = None) -> AsyncOpenAI:
        """Return the official client."""
        base_url = f"http://127.0.0.1:{port or self.port}/v1"
        return await self._stack.enter_async_context(
            AsyncOpenAI(api_key=key, base_url=base_url, max_retries=0)
        )

    async def asked(self, calls: int) -> None:
        """Return when the scripted agent has been asked so often."""
        assert isinstance(self.agent, ScriptedAgent)
        agent = self.agent
        await eventually(lambda: agent.calls >= calls)

    async def no_connections(self) -> None:
        """Return when the server has noticed that every connection has gone."""
        state, hub = self.server.server_state, self.app.node.hub
        await eventually(lambda: not (state.connections or hub.connections))

    async def idle(self) -> None:
        """Return when nobody is connected, but for HTTP clients that keep a socket between requests, and
        no response is left. The node forgets nothing meanwhile.
        """
        state, hub = self.server.server_state, self.app.node.hub

        def is_over() -> bool:
            kept = [getattr(each, "timeout_keep_alive_task", None) for each in state.connections]
            return not (None in kept or hub.connections or state.tasks or hub.running)

        await eventually(is_over)

    async def hang_up(self) -> None:
        """Close everything that tests left open."""
        await self._stack.aclose()


class _InLoopServer(Server):
    """The real one, without uvicorn's polling."""

    _stopping: asyncio.Event

    async def main_loop(self) -> None:
        self._stopping = asyncio.Event()
        await self.on_tick(0)
        await self._stopping.wait()

    def stop(self) -> None:
        super().stop()
        self._stopping.set()

    async def shutdown(self, sockets: Any = None) -> None:
        for server in self.servers:
            server.close()
        for connection in list(self.server_state.connections):
            connection.shutdown()
        state = self.server_state
        await eventually(lambda: not (state.connections or state.tasks))


class _Records(logging.Handler):
    """Keeps what uvicorn and asyncio complain of."""

    def __init__(self, *, is_stock: bool) -> None:
        super().__init__(logging.ERROR)
        self._expected = _STOCK_COMPLAINTS if is_stock else frozenset()
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        if record.getMessage() in self._expected:
            return
        self.lines.append(f"{record.name}: {record.getMessage()} {record.exc_info or ''}")

    @contextlib.contextmanager
    def attached(self) -> Iterator[None]:
        loggers = [logging.getLogger(name) for name in ("uvicorn.error", "asyncio")]
        for logger in loggers:
            logger.addHandler(self)
        try:
            yield
        finally:
            for logger in loggers:
                logger.removeHandler(self)


@contextlib.asynccontextmanager
async def serving(
    agent: AgentT,
    *,
    clock: Clock | None = None,
    has_outlet: bool = True,
    patience: float = 0.008,
    toolsets: Sequence[Toolset] = (),
    **settings: Any,
) -> AsyncIterator[Served[AgentT]]:
    """Run a server. Afterwards nothing may be left of it, and every frame must have been right."""
    before = asyncio.all_tasks()
    # The clients run in the same loop, and the machine may be busy: it isn't the server that is late.
    settings.setdefault("overload_lag", 0)
    settings.setdefault("firewall", "on")  # as an operator should have it: what follows is held against it
    settings.setdefault("firewall_model", "off")  # half a second to load, for each server
    settings.setdefault("openapi", False)  # it takes a moment to write
    chosen = Settings(agent="scripted", port=0, admin_port=0, **settings)
    records = _Records(is_stock=chosen.websocket_class == "stock")
    app = App(chosen, agent, clock or SystemClock(), patience=patience, toolsets=toolsets)
    with records.attached(), structlog.testing.capture_logs() as logs, contextlib.closing(bind(chosen)) as at:
        inspector = Inspector(app.asgi, has_outlet=has_outlet, document=document_of(app))
        server = _InLoopServer(inspector, at.public, chosen)
        async with app:
            task = asyncio.get_running_loop().create_task(server.run_until_stopped())
            await server.listening.wait()
            port = at.public[0].getsockname()[1]
            served = Served(app, agent, inspector, server, port)
            try:
                yield served
            finally:
                await served.hang_up()
                server.stop()
                await task
    assert app.admission.is_empty, app.admission
    assert inspector.violations == []
    assert [entry for entry in logs if entry["event"] in _BUGS] == []
    assert records.lines == []
    left = asyncio.all_tasks() - before - {asyncio.current_task()}
    if left:
        await asyncio.wait(left, timeout=WAIT)
    assert {task for task in left if not task.done()} == set()
