"""A TCP proxy on loopback that breaks connections where a test asks for it.

::

    async with Proxy(server_port) as proxy:
        page.goto(f"http://127.0.0.1:{proxy.port}/")
        proxy.refuse()
        proxy.cut()
        ...
        await proxy.accept()

It passes bytes and knows no protocol.
"""

from __future__ import annotations

import asyncio
from types import TracebackType
from typing import Self

__all__ = ["Proxy"]

_CHUNK = 65_536


class Proxy:
    """Use as an asynchronous context manager.

    Args:
        target: The port on loopback that connections are passed on to.

    """

    def __init__(self, target: int) -> None:
        self._target = target
        self._server: asyncio.Server | None = None
        self._gates: set[asyncio.Event] = set()  # one for each connection: bytes pass while it is set
        self._holds = False
        self._writers: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self.port = 0
        """Where it listens."""
        self.accepted = 0
        """How many connections there were."""

    async def __aenter__(self) -> Self:
        await self.accept()
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.refuse()
        self.cut()
        self.release()
        if self._tasks:
            await asyncio.wait(self._tasks)

    def cut(self) -> None:
        """Reset every connection, without a word of farewell. New ones are taken."""
        for writer in self._writers:
            writer.transport.abort()

    def refuse(self) -> None:
        """Take no new connections: the port is closed. Those that exist go on."""
        if self._server is not None:
            self._server.close()
            self._server = None

    async def accept(self) -> None:
        """Take connections, on the same port as before."""
        if self._server is None:
            self._server = await asyncio.start_server(self._begin, "127.0.0.1", self.port)
            self.port = self._server.sockets[0].getsockname()[1]

    def hold(self) -> None:
        """Pass nothing on from now, in neither direction, on old connections and new ones alike."""
        self._holds = True
        self.strand()

    def strand(self) -> None:
        """Pass nothing on from now on the connections that exist. New ones work."""
        for gate in self._gates:
            gate.clear()

    def release(self) -> None:
        """Pass on what was held, and what comes."""
        self._holds = False
        for gate in self._gates:
            gate.set()

    def _begin(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.accepted += 1
        task = asyncio.get_running_loop().create_task(self._connect(reader, writer))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _connect(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            far_reader, far_writer = await asyncio.open_connection("127.0.0.1", self._target)
        except OSError:
            writer.transport.abort()
            return
        both = {writer, far_writer}
        gate = asyncio.Event()
        if not self._holds:
            gate.set()
        self._writers |= both
        self._gates.add(gate)
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(_pass_on(reader, far_writer, gate))
                tasks.create_task(_pass_on(far_reader, writer, gate))
        finally:
            self._writers -= both
            self._gates.discard(gate)
            for each in both:
                each.close()


async def _pass_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, gate: asyncio.Event) -> None:
    try:
        while data := await reader.read(_CHUNK):
            await gate.wait()
            writer.write(data)
            await writer.drain()
        writer.write_eof()
    except (OSError, RuntimeError):
        writer.transport.abort()  # one direction is gone: so is the other
