"""Applications that send back what they are sent."""

from __future__ import annotations

import contextlib

from starlette.types import Message, Receive, Scope, Send

from unbroken.server.transports.outlet import EXTENSION, Outlet

__all__ = ["echo", "echo_by_outlet"]


async def echo(scope: Scope, receive: Receive, send: Send) -> None:
    """Accept, and send back every message as it came."""
    assert scope["type"] == "websocket"
    await receive()
    await send({"type": "websocket.accept"})
    while (message := await receive())["type"] == "websocket.receive":
        same = {"text": message["text"]} if message.get("text") is not None else {"bytes": message["bytes"]}
        with contextlib.suppress(OSError):  # the client has gone meanwhile
            await send({"type": "websocket.send", **same})


async def echo_by_outlet(scope: Scope, receive: Receive, send: Send) -> None:
    """Do the same, with text sent by the transport's own outlet, as a conversation's frames are."""
    outlet: Outlet = scope["extensions"][EXTENSION]

    async def send_text_by_outlet(message: Message) -> None:
        if message.get("text") is None:
            await send(message)
        else:
            outlet.write([message["text"].encode()])

    await echo(scope, receive, send_text_by_outlet)
