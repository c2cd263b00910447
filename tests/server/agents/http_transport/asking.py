"""Servers whose bytes a test says, and requests to them."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable
from contextlib import AsyncExitStack
from typing import Any, cast

import httpx2

from tests.fakes.http_peer import Peer, PeerServer, Script, counted
from unbroken.server.agents.http_transport import HttpTransport, _Exchange

CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
UNTIL_CLOSE = b"HTTP/1.1 200 OK\r\n\r\n"
SHORT = 0.05
"""Seconds that are over before long: what is waited for never comes."""


class Place:
    """Servers in the clear or over TLS, and transports; all are closed in the end, and leave no task."""

    def __init__(self, stack: AsyncExitStack, tls: ssl.SSLContext | None) -> None:
        self._stack = stack
        self.tls = tls

    async def serve(self, script: Script) -> PeerServer:
        return await self._stack.enter_async_context(PeerServer(script, tls=self.tls))

    def transport(self, *, max_idle: int = 10, idle_seconds: float = 60) -> HttpTransport:
        transport = HttpTransport(max_idle=max_idle, idle_seconds=idle_seconds)
        self._stack.push_async_callback(transport.aclose)
        return transport


async def until(is_so: Callable[[], object]) -> None:
    """Let the loop go on until something is so."""
    while not is_so():  # noqa: ASYNC110 - what it is of tells nobody
        await asyncio.sleep(0.001)


def asking(
    url: str, *, connect: float | None = None, read: float | None = None, **rest: Any
) -> httpx2.Request:
    method = "POST" if "content" in rest else "GET"
    return httpx2.Request(method, url, extensions={"timeout": {"connect": connect, "read": read}}, **rest)


async def body_of(response: httpx2.Response) -> bytes:
    assert isinstance(response.stream, httpx2.AsyncByteStream)
    try:
        return b"".join([data async for data in response.stream])
    finally:
        await response.aclose()


async def ask(transport: HttpTransport, url: str, **rest: Any) -> bytes:
    return await body_of(await transport.handle_async_request(asking(url, **rest)))


def exchange_of(response: httpx2.Response) -> _Exchange:
    return cast(_Exchange, cast(Any, response.stream)._exchange)


async def echo(peer: Peer) -> None:
    """Answer each request with its target."""
    while True:
        target, _ = await peer.request()
        await peer.send(counted(target.encode()))
