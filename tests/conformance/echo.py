"""An application that sends back what it is sent."""

from __future__ import annotations

import contextlib

from starlette.types import Receive, Scope, Send

__all__ = ["echo"]


async def echo(scope: Scope, receive: Receive, send: Send) -> None:
    """Accept, and send back every message as it came."""
    assert scope["type"] == "websocket"
    await receive()
    await send({"type": "websocket.accept"})
    while (message := await receive())["type"] == "websocket.receive":
        same = {"text": message["text"]} if message.get("text") is not None else {"bytes": message["bytes"]}
        with contextlib.suppress(OSError):  # the client has gone meanwhile
            await send({"type": "websocket.send", **same})
