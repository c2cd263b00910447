"""A TCP proxy on loopback that breaks connections where a test asks for it, or carries them badly.

::

    async with Proxy(server_port) as proxy:
        page.goto(f"http://127.0.0.1:{proxy.port}/")
        proxy.refuse()
        proxy.cut()
        ...
        await proxy.accept()

It passes bytes and knows no protocol. Of the connections that exist some can be
chosen by what was sent on them: the proxy notes those on which its *mark* was.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
from dataclasses import dataclass, field
from types import TracebackType
from typing import Literal, Self

__all__ = ["Proxy", "Way"]

_CHUNK = 65_536
_BUFFERED = 16
"""Pieces that are under way in one direction of one connection. What comes beyond waits with its sender."""


@dataclass(frozen=True, slots=True)
class Way:
    """How bytes travel, in each direction of each connection. Times are in seconds."""

    latency: float = 0.0
    jitter: float = 0.0
    """Up to so much is added to the latency of each piece. Pieces never overtake one another."""
    bandwidth: float | None = None
    """Bytes a second. None: as fast as they come."""
    slice: int = _CHUNK
    """Bytes of the largest piece."""


_PLAIN = Way()


@dataclass(eq=False, slots=True)
class _Link:
    """One connection: its two ends, and whether bytes pass either way."""

    writers: tuple[asyncio.StreamWriter, asyncio.StreamWriter]
    """To whoever connected, and to the target."""
    up: asyncio.Event = field(default_factory=asyncio.Event)
    """Bytes pass to the target while it is set."""
    down: asyncio.Event = field(default_factory=asyncio.Event)
    is_marked: bool = False


Direction = Literal["both", "up", "down"]
"""``up`` is to the target."""


class Proxy:
    """Use as an asynchronous context manager.

    Args:
        target: The port on loopback that connections are passed on to.
        mark: What tells the connections on which it is sent to the target, in one piece, from others.
        seed: Of the jitter.

    """

    def __init__(self, target: int, *, mark: bytes | None = None, seed: int = 0) -> None:
        self.way = Way()
        """How bytes travel from now on."""
        self.port = 0
        """Where it listens."""
        self.accepted = 0
        """How many connections there were."""
        self.carried = 0
        """How many bytes it has passed on, in both directions."""
        self.shaped = 0
        """How many pieces were carried in another way than as they come."""
        self.target = target
        """Where new connections are passed on to."""
        self._mark = mark
        self._draw = random.Random(seed).random
        self._server: asyncio.Server | None = None
        self._held: set[str] = set()  # directions in which new connections pass nothing
        self._links: set[_Link] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._leaving: set[asyncio.StreamWriter] = set()  # those that may have something to send yet
        self._is_over = False

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
        self._is_over = True
        while self._tasks:  # those that are just connecting, too
            self.cut()
            self.release()
            for writer in self._leaving:
                writer.transport.abort()
            await asyncio.wait(self._tasks, timeout=0.1)

    def cut(self, *, marked: bool = False) -> int:
        """Reset every connection, without a word of farewell, and return how many. New ones are taken."""
        chosen = self._chosen(marked)
        for link in chosen:
            for writer in link.writers:
                writer.transport.abort()
        return len(chosen)

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

    def hold(self, direction: Direction = "both") -> int:
        """Pass nothing on from now, on old connections and new ones alike. Return how many are old."""
        self._held |= {"up", "down"} if direction == "both" else {direction}
        return self.strand(direction)

    def strand(self, direction: Direction = "both", *, marked: bool = False) -> int:
        """Pass nothing on from now on the connections that exist, and return how many. New ones work."""
        chosen = self._chosen(marked)
        for link in chosen:
            if direction != "down":
                link.up.clear()
            if direction != "up":
                link.down.clear()
        return len(chosen)

    def half_close(self, direction: Direction = "down") -> int:
        """Tell one side that the other says nothing more, and return of how many connections.

        ``down``: tell whoever connected.
        """
        for link in self._links:
            near, far = link.writers
            for writer in {"down": (near,), "up": (far,), "both": (near, far)}[direction]:
                if writer.can_write_eof() and not writer.is_closing():
                    writer.write_eof()
        return len(self._links)

    def release(self) -> None:
        """Pass on what was held, and what comes."""
        self._held.clear()
        for link in self._links:
            link.up.set()
            link.down.set()

    def _chosen(self, marked: bool) -> list[_Link]:
        return [link for link in self._links if link.is_marked or not marked]

    def _begin(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._is_over:  # it was on its way
            writer.transport.abort()
            return
        self.accepted += 1
        task = asyncio.get_running_loop().create_task(self._connect(reader, writer))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _connect(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            far_reader, far_writer = await asyncio.open_connection("127.0.0.1", self.target)
        except OSError:
            writer.transport.abort()
            return
        link = _Link((writer, far_writer))
        if "up" not in self._held:
            link.up.set()
        if "down" not in self._held:
            link.down.set()
        self._links.add(link)
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._pass_on(reader, far_writer, link, link.up))
                tasks.create_task(self._pass_on(far_reader, writer, link, link.down))
        finally:
            self._links.discard(link)
            self._leaving.update(link.writers)
            for each in link.writers:
                each.close()
            for each in link.writers:
                with contextlib.suppress(OSError):
                    await each.wait_closed()
            self._leaving.difference_update(link.writers)

    async def _pass_on(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, link: _Link, gate: asyncio.Event
    ) -> None:
        """Pass one direction on, until its end."""
        pieces: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue(_BUFFERED)
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._deliver(pieces, writer, gate))
                while data := await reader.read(self.way.slice):
                    if gate is link.up and self._mark is not None and self._mark in data:
                        link.is_marked = True
                    await pieces.put((self._due(), data))
                await pieces.put((self._due(), b""))
        except* (OSError, RuntimeError):
            writer.transport.abort()  # one direction is gone: so is the other

    def _due(self) -> float:
        way = self.way
        self.shaped += way != _PLAIN
        return asyncio.get_running_loop().time() + way.latency + way.jitter * self._draw()

    async def _deliver(
        self, pieces: asyncio.Queue[tuple[float, bytes]], writer: asyncio.StreamWriter, gate: asyncio.Event
    ) -> None:
        loop = asyncio.get_running_loop()
        while True:
            due, data = await pieces.get()
            if (left := due - loop.time()) > 0:
                await asyncio.sleep(left)
            await gate.wait()
            if not data:
                break
            writer.write(data)
            self.carried += len(data)
            await writer.drain()
            if self.way.bandwidth is not None:
                await asyncio.sleep(len(data) / self.way.bandwidth)
        writer.write_eof()
