"""A client's leaving before it has been let in: what is done for it ends there."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Final, Protocol

from starlette.types import Scope
from uvicorn.protocols.utils import ClientDisconnected

__all__ = ["DEPARTURE", "Departing", "departing", "until_departure"]

DEPARTURE: Final = "unbroken.departure"
"""The ASGI extension under which ``WebSocketProtocol`` offers to tell of its client's departure."""


class Departing(Protocol):
    """A connection that tells when its client leaves, before it has been let in, too."""

    @property
    def is_gone(self) -> bool:
        """Whether the client has left."""

    def on_departure(self, callback: Callable[[], None] | None) -> None:
        """Call *callback* when the client leaves; at once if it has left already. None: nobody any more."""


def departing(scope: Scope) -> Departing | None:
    """Return what tells of the client's departure, where the transport can."""
    own: Departing | None = scope.get("extensions", {}).get(DEPARTURE)
    return own


@asynccontextmanager
async def until_departure(client: Departing | None) -> AsyncIterator[None]:
    """Cancel what is done inside when *client* leaves. None: nobody can tell.

    What takes no notice of that goes on to its end; the connection's next message is refused then.

    Raises:
        ClientDisconnected: It has left.

    """
    if client is None:
        yield
        return
    if client.is_gone:
        raise ClientDisconnected
    loop = asyncio.get_running_loop()
    scope = asyncio.timeout(None)  # it knows this cancellation from others, such as the server's end
    try:
        async with scope:
            client.on_departure(lambda: scope.reschedule(loop.time()))
            try:
                yield
            finally:
                client.on_departure(None)
    except TimeoutError:
        if not scope.expired():
            raise
        raise ClientDisconnected from None
