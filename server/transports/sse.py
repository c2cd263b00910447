"""Server-sent events: a response of HTTP that goes on as long as there is something to say.

Written for readers as they are. Some take a comment behind an ``id:`` for an event, if a blank line ends
it: so a sign of life is a lone ``:`` and one line feed. The body ends right behind the last event: some
give up a connection that doesn't. Proxies are told not to gather it, as far as they listen.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Final, Protocol

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from unbroken.sessions.clock import Clock, Timer

__all__ = ["EventSource", "EventStream", "event"]

_HEARTBEAT: Final = 15.0
"""Seconds without anything to say, after which a sign of life is sent: proxies cut what is silent for 60."""

_SIGN_OF_LIFE: Final = b":\n"

_HEADERS: Final = {
    # `no-transform`: what is compressed on the way is gathered there (RFC 9111, 5.2.2.6).
    "cache-control": "no-cache, no-store, no-transform",
    "x-accel-buffering": "no",  # nginx, and who has learned it from there
    "x-content-type-options": "nosniff",
}


class EventSource(Protocol):
    """What has something to say, now and then. Neither method raises."""

    @property
    def is_over(self) -> bool:
        """Whether nothing comes behind what was taken last."""

    def take(self) -> bytes:
        """Return what is to be sent now, not too much at once; empty: nothing for the moment."""

    def listen(self, callback: Callable[[], None] | None) -> None:
        """Call *callback* whenever there may be something to take. None: nobody any more."""

    def close(self) -> None:
        """Let go of everything: nobody reads any more. It stops nothing."""


def event(kind: str | None, data: bytes) -> bytes:
    """Return an event as it is sent; None: one without a kind. *data* has no line ends, as JSON hasn't."""
    if kind is None:
        return b"data: %b\n\n" % data
    return b"event: %b\ndata: %b\n\n" % (kind.encode(), data)


class EventStream(Response):
    """Sends what a source has to say, as fast as the client reads, until that is over or they leave."""

    media_type = "text/event-stream"

    def __init__(
        self, source: EventSource, clock: Clock, *, headers: Mapping[str, str] | None = None
    ) -> None:
        super().__init__(headers={**_HEADERS, **(headers or {})}, media_type=self.media_type)
        del self.headers["content-length"]
        self._source = source
        self._clock = clock
        self._wake = asyncio.Event()
        self._is_quiet = False  # whether nothing was sent since the timer was set
        self._has_left = False
        self._timer: Timer | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the whole response."""
        if scope["method"] == "HEAD":
            self._source.close()
            await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
            await send({"type": "http.response.body", "body": b"", "more_body": False})
            return
        watching = asyncio.create_task(self._watch(receive))
        self._source.listen(self._wake.set)
        try:
            headers = self.raw_headers
            await send({"type": "http.response.start", "status": self.status_code, "headers": headers})
            self._beat()
            await self._say(send)
            await send({"type": "http.response.body", "body": b"", "more_body": False})
        except OSError:
            pass  # it left in this moment
        finally:
            if self._timer is not None:
                self._timer.cancel()
                self._timer = None
            self._source.listen(None)
            self._source.close()
            watching.cancel()
            await asyncio.wait((watching,))

    async def _say(self, send: Send) -> None:
        source, wake = self._source, self._wake
        while not self._has_left:
            wake.clear()
            if said := source.take():
                self._is_quiet = False
                await send({"type": "http.response.body", "body": said, "more_body": True})
            elif source.is_over:
                return
            else:
                await wake.wait()
                if self._is_quiet:
                    self._is_quiet = False
                    await send({"type": "http.response.body", "body": _SIGN_OF_LIFE, "more_body": True})

    def _beat(self) -> None:
        """Have a sign of life be sent, if nothing was since the last time."""
        if self._is_quiet:
            self._wake.set()
        else:
            self._is_quiet = True
        self._timer = self._clock.call_later(_HEARTBEAT / 2, self._beat)

    async def _watch(self, receive: Receive) -> None:
        """Notice that the client leaves: nobody is told otherwise while there is nothing to send."""
        with suppress(OSError):
            while (await receive())["type"] != "http.disconnect":
                pass
        self._has_left = True
        self._wake.set()
