"""What is at an address; answers that never end are in ``test_slow_issuer``."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest

from unbroken.server.auth.download import NotDownloaded, download

Writing = Callable[[asyncio.StreamWriter], Awaitable[None]]


@asynccontextmanager
async def answering(write: Writing) -> AsyncIterator[tuple[int, list[bytes]]]:
    """Have a server answer each request so. Yields its port, and the first lines of requests."""
    lines: list[bytes] = []

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        lines.append(head.partition(b"\r\n")[0])
        try:
            await write(writer)
        except OSError:
            pass  # whoever asked has left
        finally:
            writer.close()

    async with await asyncio.start_server(answer, "127.0.0.1", 0) as server:
        yield server.sockets[0].getsockname()[1], lines


async def test_no_more_is_read_than_there_may_be() -> None:
    async def for_ever(writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
        while True:
            writer.write(b"x" * 65_536)
            await writer.drain()

    async with answering(for_ever) as (port, _):
        content = await download(f"http://127.0.0.1:{port}/", most=100_000, within=30)
    assert 100_000 < len(content) < 1_000_000


async def test_what_is_packed_stays_so() -> None:
    """A kilobyte may be a megabyte when it is unpacked."""

    async def packed(writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 4\r\n\r\nzzzz")

    async with answering(packed) as (port, _):
        assert await download(f"http://127.0.0.1:{port}/", most=100, within=30) == b"zzzz"


async def test_why_it_can_not_be_had_is_said_in_the_system_s_words() -> None:
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        with pytest.raises(NotDownloaded, match="Errno"):
            await download(f"http://127.0.0.1:{nobody.getsockname()[1]}/", most=100, within=30)


async def test_a_proxy_is_asked_and_has_no_more_time_than_an_issuer(monkeypatch: pytest.MonkeyPatch) -> None:
    async def drip(writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nX: ")
        while True:
            writer.write(b"a")
            await writer.drain()
            await asyncio.sleep(0.01)  # each in time

    async with answering(drip) as (port, lines):
        monkeypatch.setenv("HTTPS_PROXY", f"http://127.0.0.1:{port}")
        monkeypatch.setenv("https_proxy", f"http://127.0.0.1:{port}")
        with pytest.raises(NotDownloaded, match="takes too long"):
            await download("https://id.example/jwks", most=100, within=0.5)
    assert lines == [b"CONNECT id.example:443 HTTP/1.1"]


async def test_what_sets_no_client_up_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTPS_PROXY", "gopher://127.0.0.1")
    monkeypatch.setenv("https_proxy", "gopher://127.0.0.1")
    with pytest.raises(NotDownloaded, match="gopher"):
        await download("https://id.example/jwks", most=100, within=30)
