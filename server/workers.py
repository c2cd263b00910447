"""``serve --workers N``: N nodes on one machine's cores, and the parent that keeps them running.

Each worker is a node like any other, in a process of its own, and binds the server's port for itself
(``SO_REUSEPORT``). The kernel then spreads connections evenly: of 400 on four workers, each had 97 to 104
(measured). With one socket that all accept from, it goes by who wakes first, and it was 67 to 127; as
WebSockets stay for hours, that stays so. And where a worker has died its socket is gone with it, and the
others get what comes.

The parent binds the port too and doesn't listen there: it finds out first whether the port is free, and keeps
it. It serves nothing, holds no session, and loads nothing that could fail.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import queue
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

import structlog
from structlog.typing import FilteringBoundLogger

from unbroken.server.config import Settings, StartupError
from unbroken.server.process import announcement, bind
from unbroken.server.setting_transfer import packed
from unbroken.server.supervisor import Left, Supervisor
from unbroken.sessions.clock import SystemClock

__all__ = ["WorkerProcess", "run", "settings_of"]

# The parent's own import path: a directory with modules of the same names must not come first.
_PROGRAM: Final = (
    "import sys; sys.path[:] = sys.argv[4:]; "
    "from unbroken.server.interpreter import put_off_gc; put_off_gc(); "
    "from unbroken.server.worker import main; main()"
)

_LONGEST_LINE: Final = 65536
_LAST_WORDS: Final = 1.0
"""Seconds in which what a worker said before its end is read."""

_log: FilteringBoundLogger = structlog.get_logger(__name__)


def run(settings: Settings) -> int:
    """Run ``settings.workers`` nodes until a signal ends them.

    The first SIGTERM or SIGINT drains all, the second ends them at once.

    Returns:
        The exit code, as :func:`unbroken.server.process.run` does.

    Raises:
        StartupError: They can't start here and now, or one of them crashes again and again.

    """
    if not hasattr(socket, "SO_REUSEPORT"):
        raise StartupError("This system can't share a port among workers. Set UNBROKEN_WORKERS to 1.")
    with contextlib.closing(bind(settings)) as listeners:
        port: int = listeners.public[0].getsockname()[1]
    chosen = settings.model_copy(update={"port": port})
    with contextlib.closing(bind(chosen.model_copy(update={"admin_port": 0}), shares_port=True)):
        return asyncio.run(_supervise(chosen))


async def _supervise(settings: Settings) -> int:
    def announce(about: str) -> None:
        line = announcement(settings, settings.port, f"{settings.workers} workers, agent: {about}")
        sys.stdout.write(line)
        sys.stdout.flush()

    supervisor = Supervisor(
        settings.workers,
        lambda number: WorkerProcess(number, settings_of(number, settings)),
        SystemClock(),
        drain_timeout=settings.drain_timeout,
        on_up=announce,
    )
    requested, forced = asyncio.Event(), asyncio.Event()
    code = 0

    def receive(number: int) -> None:
        nonlocal code
        if requested.is_set():
            code = 128 + number
            forced.set()
        requested.set()

    with _signals(receive):
        await supervisor.run(requested, forced)
    return code


@contextlib.contextmanager
def _signals(receive: Callable[[int], None]) -> Iterator[None]:
    loop = asyncio.get_running_loop()
    numbers = (signal.SIGINT, signal.SIGTERM)
    for number in numbers:
        loop.add_signal_handler(number, receive, number)
    try:
        yield
    finally:
        for number in numbers:
            loop.remove_signal_handler(number)


def settings_of(number: int, settings: Settings) -> Settings:
    """Return worker *number*'s own settings: it has an admin listener, and a folder, of its own."""
    own: dict[str, object] = {"workers": 1}
    if settings.admin_port:
        own["admin_port"] = settings.admin_port + number - 1
    if settings.files_dir is not None:
        own["files_dir"] = Path(settings.files_dir) / f"worker-{number}"
    return settings.model_copy(update=own)


class _Line(asyncio.Protocol):
    """What a worker says: objects in JSON, a line each; and empty lines, signs that its event loop runs."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.transport: asyncio.BaseTransport | None = None
        self.about: asyncio.Future[str | None] = loop.create_future()
        """What it says first: about itself, if it listens. None also if it says nothing."""
        self.over: asyncio.Future[None] = loop.create_future()
        """Done when nothing more will come."""
        self.refusal = ""
        self._begun = b""
        self._showed_life = False

    def showed_life(self) -> bool:
        """See :meth:`Worker.showed_life`."""
        showed, self._showed_life = self._showed_life, False
        return showed

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """See :class:`asyncio.Protocol`."""
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        """See :class:`asyncio.Protocol`."""
        *lines, self._begun = (self._begun + data).split(b"\n")
        if len(self._begun) > _LONGEST_LINE and self.transport is not None:
            self.transport.close()  # it says more than it can
        for line in lines:
            self._take(line)

    def _take(self, line: bytes) -> None:
        self._showed_life = True
        if line:
            said: dict[str, str] = json.loads(line)
            self.refusal = said.get("refused", self.refusal)
            if not self.about.done():
                self.about.set_result(said.get("ready"))

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - the interface's
        """See :class:`asyncio.Protocol`."""
        if not self.about.done():
            self.about.set_result(None)
        if not self.over.done():
            self.over.set_result(None)


class WorkerProcess:
    """A worker in a fresh interpreter. See :class:`~unbroken.server.supervisor.Worker`.

    It gets its settings over a socket of its own, so that no secret is in its arguments or in a file, and
    says there when it listens, and that it lives. When the socket ends, it knows that its parent is gone.

    Raises:
        StartupError: The system starts no process, or lacks what it takes to have one. Nothing is left of it.

    """

    def __init__(self, number: int, settings: Settings) -> None:
        self._loop = asyncio.get_running_loop()
        self._code: asyncio.Future[int] = self._loop.create_future()
        self._line = _Line(self._loop)
        data = packed(settings)
        self._payload = len(data).to_bytes(8, "big") + data
        try:
            self._process = self._started(number)
        except (OSError, RuntimeError) as error:  # RuntimeError: of threads
            reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
            raise StartupError(f"The system starts no process for a worker: {reason}. Run fewer.") from None
        _log.info("worker started", worker=number, pid=self._process.pid)

    def _started(self, number: int) -> subprocess.Popen[bytes]:
        with contextlib.ExitStack() as undone:
            self._socket, theirs = socket.socketpair()
            undone.callback(self._socket.close)
            with theirs:
                # The thread is there before the process: without it nobody would see that end.
                watched: queue.SimpleQueue[subprocess.Popen[bytes] | None] = queue.SimpleQueue()
                name = f"worker-{number}"
                threading.Thread(target=self._watch, args=(watched,), name=name, daemon=True).start()
                undone.callback(watched.put, None)
                arguments = (os.getpid(), number, theirs.fileno(), *sys.path)
                process = subprocess.Popen(  # noqa: S603 - this program's own
                    [sys.executable, "-P", "-c", _PROGRAM, *map(str, arguments)],
                    stdin=subprocess.DEVNULL,
                    pass_fds=(theirs.fileno(),),
                    process_group=0,  # Ctrl+C in a terminal is for the parent, which passes it on
                )
            undone.pop_all()
        watched.put(process)
        return process

    def _watch(self, watched: queue.SimpleQueue[subprocess.Popen[bytes] | None]) -> None:
        process = watched.get()
        if process is None:  # it wasn't started
            return
        code = process.wait()
        with contextlib.suppress(RuntimeError):  # the loop has ended
            self._loop.call_soon_threadsafe(self._note_end, code)

    def _note_end(self, code: int) -> None:
        self._code.set_result(code)

    async def ready(self) -> str | None:
        """See :meth:`Worker.ready`."""
        transport, _ = await self._loop.create_connection(lambda: self._line, sock=self._socket)
        transport.write(self._payload)
        return await asyncio.shield(self._line.about)

    def showed_life(self) -> bool:
        """See :meth:`Worker.showed_life`."""
        return self._line.showed_life()

    async def ended(self) -> Left:
        """See :meth:`Worker.ended`."""
        code = await asyncio.shield(self._code)
        transport = self._line.transport
        if transport is None:
            self._socket.close()
        else:
            with contextlib.suppress(TimeoutError):  # a process that it has forked may keep the socket open
                async with asyncio.timeout(_LAST_WORDS):
                    await asyncio.shield(self._line.over)
            transport.close()
        return Left(code, self._line.refusal)

    def drain(self) -> None:
        """See :meth:`Worker.drain`."""
        self._process.send_signal(signal.SIGTERM)

    def cut(self) -> None:
        """See :meth:`Worker.cut`."""
        self._process.send_signal(signal.SIGQUIT)

    def kill(self) -> None:
        """See :meth:`Worker.kill`."""
        self._process.kill()
