"""Where a test meets what runs in the server's process: a port that the latter connects to."""

from __future__ import annotations

import asyncio
from typing import Self

from tests.server.realtime.client import WAIT

__all__ = ["Meeting"]


class Meeting:
    """The test's end. Use as a context; whoever is connected at its end is let go."""

    def __init__(self) -> None:
        self._arrived: asyncio.Queue[asyncio.StreamWriter] = asyncio.Queue(8)
        self._writers: list[asyncio.StreamWriter] = []
        self._server: asyncio.Server | None = None

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        return self

    async def __aexit__(self, *_: object) -> None:
        for writer in self._writers:
            writer.close()
        if self._server is not None:
            self._server.close()
            await self._server.wait_closed()

    @property
    def port(self) -> int:
        assert self._server is not None
        port: int = self._server.sockets[0].getsockname()[1]
        return port

    async def arrival(self) -> asyncio.StreamWriter:
        """Wait for the next one who connects."""
        return await asyncio.wait_for(self._arrived.get(), WAIT)

    async def _accept(self, _: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.append(writer)
        self._arrived.put_nowait(writer)
