"""Which door a WebSocket knocks at, found without a walk through HTTP's layers.

Starlette's layers each hold a coroutine and its frame for as long as the
connection lives: at many idle connections that is a good part of what they cost.
"""

from __future__ import annotations

from collections.abc import Mapping

from starlette.types import ASGIApp, Receive, Scope, Send

__all__ = ["Doors"]


class Doors:
    """An ASGI application: WebSockets go to the door at their path, everything else to *others*."""

    def __init__(self, doors: Mapping[str, ASGIApp], others: ASGIApp) -> None:
        self._doors = dict(doors)
        self._others = others

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request or connection."""
        door = self._doors.get(scope["path"]) if scope["type"] == "websocket" else None
        await (self._others if door is None else door)(scope, receive, send)
