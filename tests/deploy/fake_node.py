"""What stands in for a node, to see what a balancer lets through, and to die at the right moment."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route

from tests.fakes.surroundings import free_port

__all__ = ["EventSource", "FakeNode", "spoken"]


@dataclass
class FakeNode:
    """Notes requests, and answers them as it is told. Always ready.

    Attributes:
        deaths: How many of the next requests end its connection instead of being answered.
        heads: Those of the requests that came.
        fragments: What came of headers that never ended.
        open: How many connections there are.

    """

    port: int
    deaths: int = 0
    heads: list[str] = field(default_factory=list)
    fragments: list[bytes] = field(default_factory=list)
    open: int = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve one connection."""
        self.open += 1
        try:
            with contextlib.closing(writer), contextlib.suppress(OSError):
                await self._answer(reader, writer)
        except asyncio.IncompleteReadError as exc:
            self.fragments += [exc.partial] if exc.partial else []
        finally:
            self.open -= 1

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        if not head.startswith("GET /readyz"):
            if "content-length: 5" in head.lower():
                await reader.readuntil(b"hello")
            self.heads.append(head)
            if self.deaths:
                self.deaths -= 1
                return
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\nconnection: close\r\n\r\nok")
        await writer.drain()

    def values_of(self, name: str) -> list[str]:
        """Return the values of a header of the latest request."""
        lines = [line.partition(":") for line in self.heads[-1].splitlines()]
        return [value.strip() for header, _, value in lines if header.lower() == name]

    @classmethod
    @contextlib.asynccontextmanager
    async def listening(cls) -> AsyncIterator[FakeNode]:
        node = cls(free_port())
        async with await asyncio.start_server(node.serve, "127.0.0.1", node.port):
            yield node


class EventSource:
    """Streams events: each when it is told to. Ready until :meth:`drain`."""

    def __init__(self) -> None:
        self.checks: asyncio.Queue[None] = asyncio.Queue()
        """Gets one for each time that its readiness was asked for while it drains."""
        self._is_draining = False
        self._ends = asyncio.Event()
        self.events: asyncio.Queue[str] = asyncio.Queue(maxsize=8)
        self.is_over = asyncio.Event()
        """Set when whoever read them is gone."""
        self.port = free_port()

    def drain(self) -> None:
        """Be ready no longer, as nodes say it."""
        self._is_draining = True

    async def _stream(self) -> AsyncIterator[str]:
        try:
            while (event := await self._next()) is not None:
                yield f"data: {event}\n\n"
        finally:
            self.is_over.set()

    async def _next(self) -> str | None:
        """Wait for the next event; None: no more will come."""
        coming, ending = asyncio.create_task(self.events.get()), asyncio.create_task(self._ends.wait())
        try:
            await asyncio.wait([coming, ending], return_when=asyncio.FIRST_COMPLETED)
            return coming.result() if coming.done() else None
        finally:
            coming.cancel()
            ending.cancel()

    @classmethod
    @contextlib.asynccontextmanager
    async def listening(cls) -> AsyncIterator[EventSource]:
        source = cls()

        async def events(_: Request) -> Response:
            return StreamingResponse(source._stream(), media_type="text/event-stream")

        async def readyz(_: Request) -> Response:
            if source._is_draining:
                source.checks.put_nowait(None)
                return PlainTextResponse("draining", 404)
            return PlainTextResponse("ok")

        app = Starlette(routes=[Route("/events", events), Route("/readyz", readyz)])
        config = uvicorn.Config(
            app,
            port=source.port,
            log_config=None,
            lifespan="off",
            access_log=False,
            timeout_graceful_shutdown=10,
        )
        server = uvicorn.Server(config)
        serving = asyncio.create_task(server.serve())
        try:
            while not server.started:  # noqa: ASYNC110 - it has no event for that
                await asyncio.sleep(0)
            yield source
        finally:
            source._ends.set()
            server.should_exit = True  # it waits for its connections: none is left open
            await serving


async def spoken(port: int, head: bytes, body: bytes = b"") -> bytes:
    """Send a request, and return all of the answer."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    with contextlib.closing(writer):
        writer.write(head + b"\r\nhost: x\r\nconnection: close\r\n\r\n" + body)
        return await reader.read()
