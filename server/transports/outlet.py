"""Where a connection's messages go: the one thing that a door needs of a transport to send.

A door sends from a callback, in the very step in which there is something to
send. So an outlet never waits: it says whether the client keeps up, and tells
when it does again.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from typing import Final, Protocol

from starlette.types import Message, Scope, Send
from uvicorn.protocols.utils import ClientDisconnected

__all__ = [
    "EXTENSION",
    "AsgiOutlet",
    "Outlet",
    "PlainSend",
    "has_outlet",
    "outlet_of",
]

EXTENSION: Final = "unbroken.outlet"
"""The ASGI extension under which ``WebSocketProtocol`` offers its outlet."""


class Outlet(Protocol):
    """Takes text messages, in order. Use it between the handshake and the close."""

    @property
    def is_writable(self) -> bool:
        """Whether the client keeps up. What is written all the same is kept in memory until it does."""

    @property
    def is_slow(self) -> bool:
        """Whether it is the client that doesn't keep up, and not a message on its way for a moment."""

    def write(self, messages: Sequence[bytes]) -> None:
        """Send *messages*, at least one, each UTF-8. Does nothing once the connection has ended."""

    def listen(self, callback: Callable[[], None] | None) -> None:
        """Call *callback* whenever :attr:`is_writable` has become true again."""

    async def flushed(self) -> None:
        """Wait until what was written is on its way: a close sent next stays behind it."""


class PlainSend:
    """ASGI's ``send``, with one way to say that the client has gone: by an OSError, as ASGI has it.

    uvicorn's own class raises a RuntimeError, as for a mistake of the application, where it is the
    one that has closed: because of what the peer sent, or as it found it dead.
    """

    def __init__(self, send: Send) -> None:
        self._send = send

    async def __call__(self, message: Message) -> None:
        """Send *message*.

        Raises:
            ClientDisconnected: The connection has ended.

        """
        try:
            await self._send(message)
        except RuntimeError as exc:
            raise ClientDisconnected from exc


class AsgiOutlet:
    """An outlet on top of ASGI's ``send``, for any server. Its task, :meth:`run`, is the door's."""

    def __init__(self, send: Send) -> None:
        self._send = send
        self._messages: deque[bytes] = deque()
        self._arrived = asyncio.Event()
        self._empty = asyncio.Event()
        self._empty.set()
        self._callback: Callable[[], None] | None = None
        self._is_sending = False
        self._is_slow = False

    @property
    def is_writable(self) -> bool:
        """See :attr:`Outlet.is_writable`."""
        return not self._messages

    @property
    def is_slow(self) -> bool:
        """See :attr:`Outlet.is_slow`. From a ``send`` that has to wait until all that there was is sent."""
        return self._is_slow

    def write(self, messages: Sequence[bytes]) -> None:
        """See :meth:`Outlet.write`."""
        self._messages += messages
        self._empty.clear()
        self._arrived.set()

    def listen(self, callback: Callable[[], None] | None) -> None:
        """See :meth:`Outlet.listen`."""
        self._callback = callback

    async def flushed(self) -> None:
        """See :meth:`Outlet.flushed`."""
        await self._empty.wait()

    async def run(self) -> None:
        """Send what is written, until cancelled, or until the client is gone."""
        loop = asyncio.get_running_loop()
        try:
            while True:
                if self._messages and not self._is_slow:
                    # A server that has room takes all of it in one step.
                    loop.call_soon(self._note_left)
                while self._messages:
                    self._is_sending = True
                    await self._send({"type": "websocket.send", "text": self._messages[0].decode()})
                    self._is_sending = False
                    self._messages.popleft()
                self._empty.set()
                if self._callback is not None:
                    self._callback()
                if not self._messages:
                    self._is_slow = False
                    self._arrived.clear()
                    await self._arrived.wait()
        except OSError:
            self._messages.clear()  # the client is gone; whoever reads from it is told, too
            self._empty.set()

    def _note_left(self) -> None:
        """Note that a message has to wait, and tell who may have more to send."""
        if self._is_sending and not self._is_slow:
            self._is_slow = True
            if self._callback is not None:
                self._callback()


def has_outlet(scope: Scope) -> bool:
    """Return whether the transport has an outlet of its own."""
    return EXTENSION in scope.get("extensions", {})


def outlet_of(scope: Scope, send: Send) -> Outlet:
    """Return the transport's own outlet, where it has one."""
    own: Outlet | None = scope.get("extensions", {}).get(EXTENSION)
    return AsgiOutlet(send) if own is None else own
