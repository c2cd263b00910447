"""A conversation's connections, one after another, until there can't be another.

The task that runs :meth:`Link.run` reads; on each connection another one writes. Neither waits for the other.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import ssl as tls
from collections.abc import Callable
from typing import Final

from websockets.asyncio.client import ClientConnection
from websockets.exceptions import ConnectionClosed

from unbroken.client.conversation import Conversation
from unbroken.client.door import Door
from unbroken.client.errors import ClientError, ProtocolError, Refused, SessionGone, Unreachable
from unbroken.client.limits import Timing
from unbroken.client.rejoining import Again, Dormant, Never, Next, Rejoining

__all__ = ["Link"]

_LOG: Final = logging.getLogger("unbroken.client")
_ABNORMAL: Final = 1006
_TOO_LARGE: Final = 1009


class Link:
    """Keeps a conversation connected.

    Args:
        conversation: What is said and heard.
        door: Opens connections.
        timing: How patient it is.
        draw: Draws from 0 to 1.
        on_change: Is called when something was heard.

    """

    def __init__(
        self,
        conversation: Conversation,
        door: Door,
        timing: Timing,
        draw: Callable[[], float],
        on_change: Callable[[], None],
    ) -> None:
        self.settled = asyncio.Event()
        """Set when there was a connection."""
        self.trouble: ClientError | None = None
        """Why there is no connection; None: there is one, or there was no attempt yet."""
        self._conversation = conversation
        self._door = door
        self._timing = timing
        self._rejoining = Rejoining(timing, draw, has_fresh_keys=door.has_fresh_keys)
        self._on_change = on_change
        self._wake = asyncio.Event()  # there may be something to send

    def wake(self) -> None:
        """Note that there may be something to send."""
        self._wake.set()

    async def run(self) -> ClientError:
        """Connect again and again. Return why there won't be another connection."""
        now = asyncio.get_running_loop().time
        while True:
            self._rejoining.begun(now())
            match await self._visit():
                case Again(wait):
                    _LOG.info("no connection, trying again in %.1f s: %s", wait, self.trouble)
                    await asyncio.sleep(wait)
                case Dormant():
                    await self._something_to_say()
                case Never(error):
                    self.trouble = error
                    return error

    async def _something_to_say(self) -> None:
        while not self._conversation.has_something_to_say:
            self._wake.clear()
            await self._wake.wait()

    async def _visit(self) -> Next:
        """Connect once, to the connection's end. Return what follows."""
        now = asyncio.get_running_loop().time
        query = self._conversation.query()
        if self._rejoining.fruitless:
            query["try"] = str(self._rejoining.fruitless)  # by another address, a balancer asks another node
        try:
            socket = await self._door.open(query)
        except Refused as error:
            self.trouble = error
            return self._rejoining.refused(error, now())
        except Unreachable as error:
            self.trouble = error
            is_first = not self.settled.is_set()
            if is_first and isinstance(error.__cause__, tls.SSLCertVerificationError):
                return Never(error)  # it isn't going to be another one
            return self._rejoining.unreachable(error, now())
        except ClientError as error:
            return Never(error)
        self._conversation.opened()
        try:
            return await self._converse(socket)
        finally:
            self._conversation.lost()

    async def _converse(self, socket: ClientConnection) -> Next:
        async with asyncio.TaskGroup() as tasks:
            writer = tasks.create_task(self._write(socket))
            try:
                following = await self._read(socket)
            finally:
                writer.cancel()
                await socket.close()
        return following

    async def _read(self, socket: ClientConnection) -> Next:
        now = asyncio.get_running_loop().time
        conversation = self._conversation
        try:
            async with asyncio.timeout(self._timing.handshake):
                while not conversation.is_welcome:
                    conversation.receive(await socket.recv(decode=False), now())
            self._rejoining.welcomed(now())
            self.trouble = None
            self.settled.set()
            self._on_change()
            while True:
                conversation.receive(await socket.recv(decode=False), now())
                self._on_change()
        except TimeoutError:
            self.trouble = Unreachable("The server has let us in, and said nothing.")
            return self._rejoining.unreachable(self.trouble, now())
        except ProtocolError as error:
            return Never(error)
        except ConnectionClosed as closed:
            return self._closed(closed, now())

    def _closed(self, closed: ConnectionClosed, now: float) -> Next:
        conversation, error = self._conversation, self._conversation.refused
        if closed.rcvd is None and closed.sent is not None and closed.sent.code == _TOO_LARGE:
            return Never(ProtocolError("The server has sent a frame that is larger than this client takes."))
        code, reason = (_ABNORMAL, "") if closed.rcvd is None else (closed.rcvd.code, closed.rcvd.reason)
        if code == _TOO_LARGE:
            conversation.too_large()
        if error is not None and error.code == "session_not_found":
            if conversation.begin_anew():
                return Never(SessionGone("The server doesn't have the session any more. Begin another one."))
            code, error = _ABNORMAL, None
        self.trouble = error or Unreachable(f"The connection was closed ({code}{reason and f', {reason}'}).")
        is_idle = not conversation.has_something_to_say
        return self._rejoining.closed(code, error, self.trouble, now, is_idle=is_idle)

    async def _write(self, socket: ClientConnection) -> None:
        now = asyncio.get_running_loop().time
        while True:
            self._wake.clear()
            for frame in self._conversation.outgoing(now()):
                try:
                    await socket.send(frame, text=True)
                except ConnectionClosed:
                    return  # whoever reads is told, too
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout_at(self._conversation.due):
                    await self._wake.wait()
