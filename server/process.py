"""The life of the process: sockets, signals, the two listeners, the end.

::

    bind the sockets -> build the application -> start it -> listen, say so
        -> SIGTERM: drain -> close the listeners -> stop the application -> exit 0

Draining keeps the public listener open: readiness has to answer (404), and the
application refuses new upgrades itself. A second signal ends at once, with the
exit code 128 + its number. Whatever hangs, the process is gone
``drain_timeout`` + 5 seconds after the first signal, with the exit code 0: work
that doesn't end at its deadline is lost either way, and the drain was asked for.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import signal
import socket
import sys
import threading
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, Protocol

import structlog
import uvicorn
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol

from unbroken.server.config import StartupError
from unbroken.server.interpreter import tune_gc, tune_threads
from unbroken.server.transports.address import Proxies
from unbroken.server.transports.http_protocol import HttpProtocol
from unbroken.server.transports.intake import intake_limits
from unbroken.server.transports.protocol import WebSocketProtocol

if TYPE_CHECKING:
    from types import FrameType, TracebackType

    from starlette.types import ASGIApp

    from unbroken.server.config import Settings

__all__ = ["Application", "Listeners", "Server", "announcement", "bind", "run"]

_BACKLOG: Final = 2048
_ACCEPTED_AT_ONCE: Final = 8
"""Connections that a turn of the loop takes: uvloop takes one from each socket that listens.

With one alone, a loop that is busy would take those of a crowd that comes back so slowly that its clients
give up in the kernel's queue, and come anew behind the dead ones that are still to be taken.
"""
_OTHER_SOCKETS: Final = 1000
"""Sockets beyond the connections that may be: pages, health checks, handshakes on their way."""

# Seconds after the drain's deadline, which is the application's to keep. The
# first five, and the second once more, add up to less than the watchdog's, and that to less than 5.
_DRAIN_SLACK: Final = 2.6  # agents have two seconds to clean up, then clients are told
_CANCEL_TIMEOUT: Final = 0.1
_CLOSE_TIMEOUT: Final = 1
_CLOSE_SLACK: Final = 0.3  # for what uvicorn sleeps in between
_STOP_TIMEOUT: Final = 0.5
_LATEST_EXIT: Final = 4.7
_FORCED_EXIT: Final = 1.0  # after the second signal
_SETTLE_TIMEOUT: Final = 1.0  # for tasks and threads that are left; the watchdog may come first

log = structlog.get_logger(__name__)


class Application(Protocol):
    """What the process runs. Entering starts it, leaving stops it; both are prompt."""

    @property
    def asgi(self) -> ASGIApp:
        """What the public listener serves."""

    @property
    def admin_asgi(self) -> ASGIApp:
        """What the internal listener serves."""

    async def __aenter__(self) -> object:
        """Start. Doesn't wait for a model to load.

        Raises:
            StartupError: If it can't, in a way that it can name.

        """

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> object:
        """Stop, within half a second: then it is cancelled. Also called when the drain was cut short."""

    async def failure(self) -> None:
        """Wait for ever, or until the application can't go on.

        Raises:
            StartupError: What it was still starting after it was entered can't be had.

        """

    def begin_drain(self) -> None:
        """Take no new work: readiness answers 404, upgrades are refused."""

    async def drained(self, timeout: float) -> None:
        """Return when the running work has ended, or has been ended after *timeout* seconds."""

    def describe(self) -> str:
        """Name the agent and its model in a few words, as ``embedded, SmolLM2``."""


@dataclass(frozen=True, slots=True)
class Listeners:
    """Sockets that listen already. Connections wait in their backlog until the server runs."""

    public: list[socket.socket]
    admin: list[socket.socket] = field(default_factory=list)

    def close(self) -> None:
        """Close all of them. Closing twice is harmless."""
        for sock in (*self.public, *self.admin):
            sock.close()


def bind(settings: Settings, *, shares_port: bool = False) -> Listeners:
    """Open the sockets that the settings name.

    Args:
        settings: Which.
        shares_port: Let other processes of this user have the public port as well. Then those sockets
            don't listen yet: who does gets a share of what comes, and has to take it.

    Raises:
        StartupError: With one line for each listener that can't be opened.

    """
    opened: dict[str, list[socket.socket]] = {"": [], "admin-": []}
    problems = []
    for prefix, host, port in (
        ("", settings.host, settings.port),
        ("admin-", settings.admin_host, settings.admin_port),
    ):
        if prefix and not port:
            continue
        try:
            opened[prefix] = _listen(host, port, is_shared=shares_port and not prefix)
        except OSError as error:
            problems.append(_explain(error, prefix, host, port))
    listeners = Listeners(opened[""], opened["admin-"])
    if problems:
        listeners.close()
        raise StartupError("\n".join(problems))
    return listeners


def run(
    settings: Settings,
    build: Callable[[Settings], Application],
    *,
    worker: Callable[[str], None] | None = None,
) -> int:
    """Run the server until a signal ends it.

    Binds before it calls *build*: nobody should wait for a model to load, only
    to learn that the port is taken.

    Args:
        settings: What the operator wants.
        build: Makes the application.
        worker: For one of several that share the port: told about the application when it listens,
            where else a line is printed. SIGTERM and SIGINT then drain, however often they come, and SIGQUIT
            ends at once.

    Returns:
        The exit code: 0 after a drain, also one that met its deadline; 128 +
        the signal's number when a second signal cut it short.

    Raises:
        StartupError: If the server can't start here and now.

    """
    with contextlib.closing(bind(settings, shares_port=worker is not None)) as listeners:
        application = build(settings)
        with asyncio.Runner(loop_factory=_loop_factory()) as runner:
            try:
                code = runner.run(_serve(settings, application, listeners, worker))
                return _closed(runner, code)
            except* StartupError as group:
                refused = group.exceptions[0]
        # Outside the handler, where it would become a group again.
        raise refused


def _closed(runner: asyncio.Runner, code: int) -> int:
    """Close the runner and return *code*, or end the process with it where that takes too long.

    Closing waits for every task and thread, also for an agent's that swallows
    its cancellation. All that is worth waiting for has ended before.
    """
    limit = threading.Timer(_SETTLE_TIMEOUT, _leave, (code,))
    limit.daemon = True
    limit.start()
    try:
        runner.close()
    finally:
        limit.cancel()
    return code


def _leave(code: int) -> None:
    # Whatever of this blocks, the watchdog doesn't wait for it.
    try:
        log.warning("process ended with work that did not end", seconds=_SETTLE_TIMEOUT)
        sys.stdout.flush()
        sys.stderr.flush()
    finally:
        os._exit(code)


class _StopSignals:
    """SIGINT and SIGTERM: the first asks for a drain, the second for the end; of a worker, SIGQUIT."""

    def __init__(self, drain_timeout: float, *, is_worker: bool = False) -> None:
        self.requested = asyncio.Event()
        self.forced = asyncio.Event()
        self.number = 0
        self.exit_code = 0
        self._drain_timeout = drain_timeout
        self._is_worker = is_worker
        self._loop = asyncio.get_running_loop()

    @contextlib.contextmanager
    def installed(self) -> Iterator[_StopSignals]:
        """Receive the signals while inside."""
        # Not loop.add_signal_handler: its callbacks wait for the loop, which
        # a user's agent may block, and then nothing would start the watchdog.
        numbers = [signal.SIGINT, signal.SIGTERM, *([signal.SIGQUIT] if self._is_worker else [])]
        previous = {number: signal.signal(number, self._receive) for number in numbers}
        try:
            yield self
        finally:
            for number, handler in previous.items():
                signal.signal(number, handler)

    def _receive(self, number: int, _frame: FrameType | None) -> None:
        is_first = not self.number
        if self._is_worker and not is_first and number != signal.SIGQUIT:
            return  # a service manager's, beside the parent's
        self.number = number
        if is_first:
            self._exit_after(self._drain_timeout + _LATEST_EXIT)
            self._loop.call_soon_threadsafe(self.requested.set)
        if not is_first or number == signal.SIGQUIT:
            self.exit_code = 128 + number
            self._exit_after(_FORCED_EXIT)
            self._loop.call_soon_threadsafe(self.forced.set)

    def _exit_after(self, seconds: float) -> None:
        """Make sure that the process ends, also with a blocked loop or a thread that never returns."""
        # os._exit: nothing more orderly gets past such a thread. The code is
        # the one of then: a second signal may come shortly before.
        watchdog = threading.Timer(seconds, lambda: os._exit(self.exit_code))
        watchdog.daemon = True
        watchdog.start()


class Server(uvicorn.Server):
    """One listener. Its signals and its application's life belong to :func:`_serve`.

    uvicorn 0.54 takes the signals itself, closes all sockets on the first and
    re-raises it in the end, so that a clean stop looks like a death.
    """

    def __init__(self, app: ASGIApp, sockets: list[socket.socket], settings: Settings) -> None:
        proxies = Proxies(settings.trusted_proxies)
        super().__init__(
            uvicorn.Config(
                app,
                http=HttpProtocol.limited(
                    header_timeout=settings.handshake_timeout,
                    max_sockets=settings.max_connections + _OTHER_SOCKETS,
                    max_address_sockets=settings.connections_per_address,
                    # A proxy's are those of all its clients, whom nothing has told of yet.
                    address_of=lambda peer: None if proxies.are_believed(peer) else proxies.client(peer),
                ),
                ws=_websocket_class_of(settings),
                ws_max_size=settings.max_frame_bytes,
                ws_ping_interval=settings.ping_interval,
                ws_ping_timeout=settings.ping_timeout,
                ws_per_message_deflate=False,
                interface="asgi3",
                lifespan="off",
                log_config=None,
                access_log=False,
                server_header=False,
                proxy_headers=False,
                backlog=_BACKLOG,
                timeout_graceful_shutdown=_CLOSE_TIMEOUT,
                workers=1,  # said, or uvicorn reads WEB_CONCURRENCY
            )
        )
        self._sockets = sockets
        self.listening = asyncio.Event()

    async def run_until_stopped(self) -> None:
        """Serve until :meth:`stop`, then close every connection in bounded time."""
        more = [each.dup() for each in self._sockets for _ in range(_ACCEPTED_AT_ONCE - 1)]
        try:
            await self._serve([*self._sockets, *more])
        finally:
            for each in more:
                each.close()

    def stop(self) -> None:
        """Begin to close."""
        self.should_exit = True

    def cut(self) -> None:
        """Close at once, whatever is still being sent."""
        self.force_exit = self.should_exit = True
        self._abort_connections()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Begin to accept connections."""
        await super().startup(sockets)
        self.listening.set()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Close listeners and connections. uvicorn leaves those open that don't flush in time."""
        for server in self.servers:
            server.close()  # nobody else comes meanwhile
        await self._cut_closing()
        await super().shutdown(sockets)
        self._abort_connections()

    async def _cut_closing(self) -> None:
        """Cut those that their peers have closed and don't read: uvicorn's class raises if told to close."""
        while closing := [
            connection
            for connection in self.server_state.connections
            if isinstance(connection, WebSocketsSansIOProtocol)
            and not isinstance(connection, WebSocketProtocol)
            and connection.transport.is_closing()
            and not connection.close_sent
        ]:
            for connection in closing:
                connection.transport.abort()
            await asyncio.sleep(0)

    def _abort_connections(self) -> None:
        for connection in list(self.server_state.connections):
            connection.transport.abort()


def _websocket_class_of(settings: Settings) -> type[asyncio.Protocol]:
    """Return the class of WebSocket connections; what uvicorn's own can't do is in decision 2."""
    if settings.websocket_class == "stock":
        return WebSocketsSansIOProtocol
    limits = intake_limits(settings)
    return WebSocketProtocol.limited(limits, handshake_timeout=settings.handshake_timeout)


async def _serve(
    settings: Settings,
    application: Application,
    listeners: Listeners,
    worker: Callable[[str], None] | None,
) -> int:
    signals = _StopSignals(settings.drain_timeout, is_worker=worker is not None)
    servers = [Server(application.asgi, listeners.public, settings)]
    if listeners.admin:
        servers.append(Server(application.admin_asgi, listeners.admin, settings))
    with signals.installed():
        # A listener that fails ends the other and this block: the group raises.
        async with _started(application), asyncio.TaskGroup() as group:
            tasks = [group.create_task(server.run_until_stopped()) for server in servers]
            for server in servers:
                await server.listening.wait()
            tune_gc()
            tune_threads()
            _announce(settings, application, listeners, worker)
            failure = group.create_task(application.failure())
            await signals.requested.wait()
            failure.cancel()
            log.info("drain began", signal=signal.Signals(signals.number).name)
            application.begin_drain()
            limit = settings.drain_timeout
            await _unless(signals.forced, application.drained(limit), limit + _DRAIN_SLACK)
            for server in servers:
                server.stop()
            await _unless(signals.forced, _all(tasks), _CLOSE_TIMEOUT + _CLOSE_SLACK)
            for server in servers:
                server.cut()
    log.info("server stopped", forced=bool(signals.exit_code))
    return signals.exit_code


async def _all(tasks: list[asyncio.Task[None]]) -> None:
    await asyncio.wait(tasks)


async def _unless(event: asyncio.Event, work: Coroutine[Any, Any, None], timeout: float) -> None:
    """Await *work* until it ends, *event* is set, or *timeout* seconds have passed.

    The end of the process goes on whatever becomes of *work*: an error of it is logged.
    """
    task = asyncio.ensure_future(work)
    interruption = asyncio.ensure_future(event.wait())
    await asyncio.wait((task, interruption), timeout=timeout, return_when=asyncio.FIRST_COMPLETED)
    for unfinished in (task, interruption):
        unfinished.cancel()
    await asyncio.wait((task, interruption), timeout=_CANCEL_TIMEOUT)
    if task.done() and not task.cancelled() and (error := task.exception()):
        log.error("drain failed", exc_info=error)


@contextlib.asynccontextmanager
async def _started(application: Application) -> AsyncIterator[None]:
    await application.__aenter__()
    try:
        yield
    finally:
        try:
            async with asyncio.timeout(_STOP_TIMEOUT):
                await application.__aexit__(*sys.exc_info())
        except TimeoutError:
            log.error("application did not stop in time", seconds=_STOP_TIMEOUT)


def _announce(
    settings: Settings,
    application: Application,
    listeners: Listeners,
    worker: Callable[[str], None] | None,
) -> None:
    if worker is not None:
        worker(application.describe())
        return
    sys.stdout.write(
        announcement(settings, listeners.public[0].getsockname()[1], f"agent: {application.describe()}")
    )
    sys.stdout.flush()


def announcement(settings: Settings, port: int, about: str) -> str:
    """Return the line that says where the server listens."""
    is_all = settings.host in ("0.0.0.0", "::")  # noqa: S104 - which are no addresses to open
    name = "127.0.0.1" if is_all else settings.host
    host = f"[{name}]" if ":" in name else name
    where = "on all addresses, " if is_all else ""
    store = "memory" if settings.redis_url is None else "redis"
    return f"Unbroken is listening on http://{host}:{port} ({where}{about}, store: {store})\n"


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    try:
        import uvloop
    except ImportError:  # it has no wheel for every platform; asyncio's own loop is slower, not worse
        return None
    return uvloop.new_event_loop


def _listen(host: str, port: int, *, is_shared: bool = False) -> list[socket.socket]:
    """Listen on every address of *host*, as ``localhost`` has two; not yet, where others are to do so too.

    Raises:
        OSError: If none of them can be had, or one is in use.

    """
    addresses = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    sockets: list[socket.socket] = []
    missing: OSError | None = None
    for family, kind, protocol, _, address in addresses:
        # Port 0 is drawn once, for all addresses.
        chosen = port or (sockets[0].getsockname()[1] if sockets else 0)
        sock = None
        try:
            sock = socket.socket(family, kind, protocol)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6 and len(addresses) > 1:
                sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            if is_shared:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            sock.bind((address[0], chosen, *address[2:]))
            if not is_shared:
                # At once: two programs may bind the same port, one may listen.
                sock.listen(_BACKLOG)
        except OSError as error:
            if sock is not None:
                sock.close()
            if error.errno not in (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT):
                for opened in sockets:
                    opened.close()
                raise
            missing = error  # a machine without IPv6 still resolves localhost to ::1
        else:
            sockets.append(sock)
    if not sockets and missing is not None:
        raise missing
    return sockets


def _explain(error: OSError, prefix: str, host: str, port: int) -> str:
    """Say in one line what is wrong with a listener and what helps."""
    flag = f"--{prefix}port"
    other = port + 10 if port < 65526 else port - 10
    if error.errno == errno.EADDRINUSE:
        fix = (
            f"pass {flag} {other}, or 0 for none (UNBROKEN_ADMIN_PORT={other} make run)"
            if prefix
            else f"pass --port {other} (PORT={other} make run)"
        )
        return f"Port {port} on {host} is in use. Stop the other program or {fix}."
    if error.errno in (errno.EACCES, errno.EPERM):
        return f"Port {port} on {host} needs more rights, as ports below 1024 do. Pass {flag} {8000 + port}."
    address = "UNBROKEN_ADMIN_HOST" if prefix else "--host"
    if isinstance(error, socket.gaierror) or error.errno in (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT):
        return f"{host} is not an address of this machine. Set {address} to 127.0.0.1, or to 0.0.0.0 for all."
    return f"Can't listen on {host} port {port}: {error.strerror or error}. Set another {address} or {flag}."
