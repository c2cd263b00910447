"""A client's leaving before it has been let in: what is done for it ends there."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager
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


@contextmanager
def until_departure(client: Departing | None) -> Iterator[None]:
    """Cancel what the task does inside when *client* leaves. None: nobody can tell.

    What takes no notice of that goes on to its end; the connection's next message is refused then.

    Raises:
        ClientDisconnected: It has left.

    """
    if client is None:
        yield
        return
    if client.is_gone:
        raise ClientDisconnected
    task = asyncio.current_task()
    assert task is not None
    requests, has_left = task.cancelling(), False

    def cut_off() -> None:
        nonlocal has_left
        has_left = True
        task.cancel()

    client.on_departure(cut_off)
    try:
        yield
    except asyncio.CancelledError:
        if has_left and task.cancelling() == requests + 1:  # else somebody else has cancelled it, too
            raise ClientDisconnected from None
        raise
    finally:
        client.on_departure(None)
        if has_left:
            task.uncancel()
