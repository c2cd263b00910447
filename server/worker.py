"""A worker's side of ``serve --workers N``: a node that has a parent, and ends with it.

SIGTERM and SIGINT have it drain, however often they come: a service manager may send one to each
process of a group, beside what the parent sends. SIGQUIT, which is the parent's, ends it at once.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import json
import os
import signal
import socket
import sys
import threading
from typing import TYPE_CHECKING, Final, NoReturn

from structlog.contextvars import bind_contextvars

from unbroken.server import process
from unbroken.server.config import Settings, StartupError
from unbroken.server.guards.leaks.lines import LineFilter
from unbroken.server.logs import configure_logs
from unbroken.server.setting_transfer import unpacked

if TYPE_CHECKING:
    from unbroken.server.process import Application

__all__ = ["main"]

_PR_SET_PDEATHSIG: Final = 1  # <linux/prctl.h>
_ABANDONED: Final = 1
"""The exit code of a worker whose parent is gone."""
_SIGN_INTERVAL: Final = 1.0
"""Seconds from one sign of life to the next."""


def main() -> NoReturn:
    """Run one worker, and leave the process. Arguments: the parent's id, the worker's number, its socket."""
    signal.signal(signal.SIGQUIT, lambda *_: os._exit(128 + signal.SIGQUIT))  # else it would leave a core
    parent, number, descriptor = map(int, sys.argv[1:4])
    sys.argv[1:] = []
    line = socket.socket(fileno=descriptor)
    line.set_inheritable(False)  # what this starts in turn must not keep it open
    _die_with(parent)
    settings = _received(line)
    threading.Thread(target=_wait_for_the_end, args=(line,), name="parent", daemon=True).start()
    bind_contextvars(worker=number)  # on each line that is logged
    configure_logs(settings, clean=LineFilter())
    try:
        code = process.run(settings, _build, worker=lambda about: _begin(line, about))
    except StartupError as error:
        _say(line, refused=str(error))
        code = 1
    sys.exit(code)


def _build(settings: Settings) -> Application:
    # Here, after the sockets are bound: this is what takes seconds.
    from unbroken.server.app import build

    app = build(settings)
    app.drain.group = os.getppid()  # whoever drains one worker finds the others
    return app


def _die_with(parent: int) -> None:
    """Have the system kill this process when its parent ends, also while something blocks it."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # it has ended already
        os._exit(_ABANDONED)


def _received(line: socket.socket) -> Settings:
    with line.makefile("rb") as stream:
        size = int.from_bytes(stream.read(8), "big")
        data = stream.read(size)
    if not data or len(data) < size:  # the parent has ended
        os._exit(_ABANDONED)
    return unpacked(data)


def _wait_for_the_end(line: socket.socket) -> None:
    """End with the parent where the system doesn't see to that. Sessions are taken over as after a crash."""
    with contextlib.suppress(OSError):
        while line.recv(4096):
            pass
    os._exit(_ABANDONED)


def _begin(line: socket.socket, about: str) -> None:
    """Say that this worker listens, and from now on that it lives. For the event loop to call."""
    _say(line, ready=about)
    _show_life(line, asyncio.get_running_loop())


def _show_life(line: socket.socket, loop: asyncio.AbstractEventLoop) -> None:
    """Send a sign of life, an empty line, and the next ones from the loop itself: a blocked one is silent."""
    with contextlib.suppress(OSError):  # full of signs that the parent hasn't read yet; or it is gone
        line.send(b"\n", socket.MSG_DONTWAIT)
    loop.call_later(_SIGN_INTERVAL, _show_life, line, loop)


def _say(line: socket.socket, **what: str) -> None:
    with contextlib.suppress(OSError):  # the parent is gone, and this process about to be
        line.sendall(json.dumps(what).encode() + b"\n")
