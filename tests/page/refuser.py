"""Refusals on demand: what a server says that is overloaded, full or restarting, without making one so."""

from __future__ import annotations

import asyncio
import json
from typing import Any, Final

from playwright.async_api import Page, WebSocketRoute

from tests.server.realtime.client import WAIT

__all__ = ["ITEM", "RESPONSE", "Refuser"]

ITEM: Final = "conversation.item.create"
RESPONSE: Final = "response.create"


class Refuser:
    """Stands between the page and a real server, and refuses events in its stead, as the server does.

    What it refuses doesn't reach the server. Everything else passes unchanged.
    """

    def __init__(self) -> None:
        self.refused: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        """The client events that were refused."""
        self.passed: list[dict[str, Any]] = []
        """The client events that went to the server."""
        self._kinds: tuple[str, ...] = ()
        self._error: dict[str, Any] = {}
        self._is_named = True
        self._route: WebSocketRoute | None = None

    @classmethod
    async def before(cls, page: Page) -> Refuser:
        """Return one for *page*, which hasn't been opened yet."""
        refuser = cls()
        await page.route_web_socket("**/v1/realtime*", refuser._connect)
        return refuser

    def refuse(self, code: str, *kinds: str, retry_after: int | None = None, is_named: bool = True) -> None:
        """Refuse events of these types from now on.

        Args:
            code: Of the errors.
            kinds: Types of events.
            retry_after: Seconds that the errors ask to wait.
            is_named: Whether the errors say which event they are about.

        """
        self._kinds = kinds
        self._error = {"type": "invalid_request_error", "code": code, "message": f"Refused: {code}."}
        if retry_after is not None:
            self._error["unbroken"] = {"retry_after": retry_after}
        self._is_named = is_named

    def relent(self) -> None:
        """Refuse nothing any more."""
        self._kinds = ()

    async def has_refused(self) -> dict[str, Any]:
        """Wait for the next event that is refused."""
        return await asyncio.wait_for(self.refused.get(), WAIT)

    def tell(self, event: dict[str, Any]) -> None:
        """Send the page an event in the server's stead."""
        assert self._route is not None
        self._route.send(json.dumps(event))

    async def close(self, code: int) -> None:
        """End the connection as the server would."""
        assert self._route is not None
        await self._route.close(code=code)

    def _connect(self, route: WebSocketRoute) -> None:
        server = route.connect_to_server()
        self._route = route

        def pass_on(data: str | bytes) -> None:
            event = json.loads(data)
            if event["type"] not in self._kinds:
                self.passed.append(event)
                server.send(data)
                return
            self.refused.put_nowait(event)
            name = {"event_id": event["event_id"]} if self._is_named else {}
            route.send(json.dumps({"type": "error", "error": {**self._error, **name}}))

        route.on_message(pass_on)
