"""How a client is told that it can't come in."""

from __future__ import annotations

import pytest
from starlette.types import Message

from unbroken.server.protocols.realtime.connection import lone_error
from unbroken.server.transports.handshake import Handshake
from unbroken.server.transports.refusal import Refused, refuse


@pytest.mark.parametrize("error", [RuntimeError, OSError])
async def test_one_who_has_left_meanwhile_is_no_failure(error: type[Exception]) -> None:
    sent: list[str] = []

    async def send(message: Message) -> None:
        sent.append(message["type"])
        if message["type"] == "websocket.send":
            raise error("Expected ASGI message 'websocket.accept'")

    scope = {"type": "websocket", "path": "/v1/realtime", "query_string": b"", "headers": []}
    await refuse(Refused(101, "session_not_found", "There is none."), Handshake.of(scope), send, lone_error)

    assert sent == ["websocket.accept", "websocket.send"]
