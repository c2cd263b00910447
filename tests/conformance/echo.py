"""An application that sends back what it is sent, behind the server's own connection classes and settings."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Mapping
from typing import Any

from starlette.types import Receive, Scope, Send

from unbroken.server.config import Settings
from unbroken.server.process import Server, bind

__all__ = ["echo", "echoing"]


async def echo(scope: Scope, receive: Receive, send: Send) -> None:
    """Accept, and send back every message as it came."""
    assert scope["type"] == "websocket"
    await receive()
    await send({"type": "websocket.accept"})
    while (message := await receive())["type"] == "websocket.receive":
        same = {"text": message["text"]} if message.get("text") is not None else {"bytes": message["bytes"]}
        with contextlib.suppress(OSError):  # the client has gone meanwhile
            await send({"type": "websocket.send", **same})


@contextlib.asynccontextmanager
async def echoing(settings: Mapping[str, Any]) -> AsyncIterator[int]:
    """Serve :func:`echo` as the process serves its application. Yields the port."""
    chosen = Settings(agent="scripted", port=0, admin_port=0, **settings)
    with contextlib.closing(bind(chosen)) as listeners:
        server = Server(echo, listeners.public, chosen)
        task = asyncio.get_running_loop().create_task(server.run_until_stopped())
        await server.listening.wait()
        try:
            yield listeners.public[0].getsockname()[1]
        finally:
            server.cut()
            await task
