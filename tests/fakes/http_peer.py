"""A server of which a test says each byte, for what talks HTTP/1.1 to it.

::

    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(b"HTTP/1.1 200 OK\\r\\nContent-Length: 0\\r\\n\\r\\n")

    async with PeerServer(script, tls=None) as server:
        ask(server.url)
        await server.peers[0].gone()

A connection is closed when its script has returned. What goes wrong in a script is raised where the server
is left; that the client has gone is none of it.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
import struct
from collections.abc import Awaitable, Callable
from types import TracebackType
from typing import Self

__all__ = ["Peer", "PeerServer", "Script", "counted"]


def counted(body: bytes, *, status: bytes = b"200 OK", more: bytes = b"") -> bytes:
    """Return a response with a length; *more* is whole lines of its head."""
    return b"HTTP/1.1 %b\r\n%bContent-Length: %d\r\n\r\n%b" % (status, more, len(body), body)


class Peer:
    """A connection, seen from the server."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer
        self.over = asyncio.Event()
        """Set when its script has returned, or its client has gone."""

    async def head(self) -> bytes:
        """Return the head of the next request.

        Raises:
            asyncio.IncompleteReadError: There is none.

        """
        return await self.reader.readuntil(b"\r\n\r\n")

    async def request(self) -> tuple[str, bytes]:
        """Return the target and the body of the next request."""
        first, *fields = (await self.head()).decode().splitlines()
        lengths = [
            int(field.split(":")[1]) for field in fields if field.lower().startswith("content-length:")
        ]
        return first.split()[1], await self.reader.readexactly(sum(lengths))

    async def send(self, data: bytes) -> None:
        self.writer.write(data)
        await self.writer.drain()

    async def gone(self) -> int:
        """Wait until the client has closed, and return how many bytes came before."""
        count = 0
        try:
            while data := await self.reader.read(65_536):
                count += len(data)
        except OSError:
            pass
        return count

    def reset(self) -> None:
        """Close it as a crash does."""
        sock = self.writer.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.writer.transport.abort()


Script = Callable[[Peer], Awaitable[object]]


class PeerServer:
    """Use as an asynchronous context manager."""

    def __init__(self, script: Script, *, tls: ssl.SSLContext | None) -> None:
        self._script = script
        self._tls = tls
        self._tasks: set[asyncio.Task[None]] = set()
        self._failures: list[Exception] = []
        self.peers: list[Peer] = []
        self.url = ""

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._begin, "127.0.0.1", 0, ssl=self._tls)
        port = self._server.sockets[0].getsockname()[1]
        self.url = f"{'https' if self._tls else 'http'}://127.0.0.1:{port}"
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._failures and exc is None:
            raise self._failures[0]

    def _begin(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.get_running_loop().create_task(self._serve(Peer(reader, writer)))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _serve(self, peer: Peer) -> None:
        self.peers.append(peer)
        try:
            await self._script(peer)
        except (OSError, asyncio.IncompleteReadError):
            pass  # the client has gone
        except Exception as exc:  # noqa: BLE001 - raised where the server is left
            self._failures.append(exc)
        finally:
            peer.over.set()
            peer.writer.close()
