"""An application small enough to test the process with.

Each path is one thing that a client can ask to see or make happen. What has to
be waited for is a request that is answered once it has happened, so that no
test sleeps.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import sys
import time
from collections.abc import Sequence
from types import TracebackType
from typing import Self

from starlette.types import ASGIApp, Receive, Scope, Send

from unbroken.server import process
from unbroken.server.config import Settings, StartupError
from unbroken.server.guards.leaks.lines import LineFilter
from unbroken.server.logs import configure_logs

__all__ = ["FakeApplication", "main"]


class FakeApplication:
    """Implements ``unbroken.server.process.Application``, and misbehaves on demand."""

    def __init__(self, faults: Sequence[str] = ()) -> None:
        self._faults = faults
        self._draining = asyncio.Event()
        self._released = asyncio.Event()
        self._busy = asyncio.Event()
        self._idle = asyncio.Event()
        self._idle.set()

    @property
    def asgi(self) -> ASGIApp:
        return self._public

    @property
    def admin_asgi(self) -> ASGIApp:
        return self._admin

    async def __aenter__(self) -> Self:
        if "refuse_start" in self._faults:
            raise StartupError("The fake refuses to start. Ask it for something else.")
        if "never_end" in self._faults:
            self._endless = asyncio.create_task(_never_end())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if "hang_in_exit" in self._faults:
            await asyncio.Event().wait()
        if "never_end_exit" in self._faults:
            await _never_end()
        sys.stdout.write("stopped\n")

    async def failure(self) -> None:
        if "fail_later" in self._faults:
            await self._released.wait()
            raise StartupError("The fake can't go on. Ask it for something else.")
        await asyncio.Event().wait()

    def begin_drain(self) -> None:
        self._draining.set()

    async def drained(self, timeout: float) -> None:
        if "hang_in_drain" in self._faults:
            await asyncio.Event().wait()
        if "fail_in_drain" in self._faults:
            raise ValueError("drain")
        try:
            async with asyncio.timeout(timeout):
                await self._idle.wait()
        except TimeoutError:
            pass

    def describe(self) -> str:
        return "fake"

    async def _public(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "websocket":
            await receive()
            await send({"type": "websocket.accept"})
            while (await receive())["type"] != "websocket.disconnect":
                pass
            return
        match scope["path"]:
            case "/slow":
                self._busy.set()
                self._idle.clear()
                await self._released.wait()
                self._idle.set()
            case "/release":
                self._released.set()
            case "/busy":
                await self._busy.wait()
            case "/draining":
                await self._draining.wait()
            case "/block":
                time.sleep(30)  # noqa: ASYNC251 - as a user's agent may
        is_ready = scope["path"] != "/readyz" or not self._draining.is_set()
        await _answer(send, 200 if is_ready else 404, b"done")

    async def _admin(self, scope: Scope, receive: Receive, send: Send) -> None:
        await _answer(send, 200, b"admin")


async def _never_end() -> None:
    """Swallow every cancellation, as a user's agent may."""
    while True:
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.Event().wait()


async def _answer(send: Send, status: int, body: bytes) -> None:
    headers = [(b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


def main() -> None:
    """Run the fake in this process. Arguments: settings as JSON, then faults."""
    values, *faults = sys.argv[1:]
    settings = Settings(**json.loads(values))
    configure_logs(settings, clean=LineFilter())
    try:
        sys.exit(process.run(settings, lambda _: FakeApplication(faults)))
    except StartupError as error:
        sys.exit(f"unbroken: {error}")
