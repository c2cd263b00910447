"""Holds back a peer that sends too fast, by nothing but what every ASGI server has."""

from __future__ import annotations

from starlette.types import Message, Receive

from unbroken.server.transports.intake import Intake, IntakeLimits
from unbroken.sessions.clock import Clock, pause

__all__ = ["PacedReceive"]


class PacedReceive:
    """ASGI's ``receive``, called again only when what it brought is within the rates of messages and bytes.

    A server that stops reading while the application doesn't receive, as uvicorn
    does, then holds the peer back by TCP; nothing is lost. It is coarser than
    ``WebSocketProtocol``: what the server has read already waits in its queue,
    a message is one whatever its fragments, control frames aren't seen, and
    neither is an end that comes behind what waits.
    """

    def __init__(self, receive: Receive, limits: IntakeLimits, clock: Clock) -> None:
        self._receive = receive
        self._intake = Intake(limits)
        self._clock = clock

    async def __call__(self) -> Message:
        """Return the next message, later if there were too many of late."""
        wait = self._intake.charge(self._clock.monotonic(), 0, 0)
        if wait > 0:
            await pause(self._clock, wait)
        message = await self._receive()
        if message["type"] == "websocket.receive":
            self._intake.charge(self._clock.monotonic(), 1, _size(message))
        return message


def _size(message: Message) -> int:
    """Return the bytes of a message, without its frames' headers, which aren't seen here."""
    text: str | None = message.get("text")
    if text is None:
        return len(message.get("bytes") or b"")
    return len(text) if text.isascii() else len(text.encode())
