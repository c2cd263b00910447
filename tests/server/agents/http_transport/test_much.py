"""Much at once: bodies that nobody reads, and long requests."""

from __future__ import annotations

import asyncio
from typing import cast

import httpx2
import pytest

from tests.fakes.http_peer import Peer, counted
from tests.server.agents.http_transport.asking import (
    CHUNKED,
    Place,
    ask,
    asking,
    body_of,
    echo,
    exchange_of,
    until,
)

pytestmark = pytest.mark.timeout(30)


@pytest.mark.long
async def test_body_that_nobody_reads_makes_the_server_wait(place: Place) -> None:
    size, block = 24 * 2**20, bytes(range(256)) * 256

    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(counted(b"")[:-5].replace(b": 0", b": ") + b"%d\r\n\r\n" % size)
        for _ in range(size // len(block)):
            await peer.send(block)
        await echo(peer)

    server, transport = await place.serve(script), place.transport()
    response = await transport.handle_async_request(asking(server.url))
    exchange, most, count = exchange_of(response), 0, 0
    async for data in cast(httpx2.AsyncByteStream, response.stream):
        assert data == (block * (len(data) // len(block) + 2))[count % len(block) :][: len(data)]
        count += len(data)
        if not exchange.parser.is_complete and size - count > 16 * 2**20:
            await until(lambda: exchange._is_paused)
        most = max(most, len(exchange.parser.body))
    await response.aclose()

    assert count == size
    assert most < 2**20
    assert await ask(transport, f"{server.url}/a") == b"/a"
    assert len(server.peers) == 1


@pytest.mark.long
async def test_long_request_is_sent_whole(place: Place) -> None:
    async def script(peer: Peer) -> None:
        while True:
            _, sent = await peer.request()
            await peer.send(counted(b"%d %d" % (len(sent), sent.count(b"ab"))))

    server, transport = await place.serve(script), place.transport()

    for _ in range(2):
        assert await ask(transport, server.url, content=b"ab" * 4 * 2**20) == b"%d %d" % (
            8 * 2**20,
            4 * 2**20,
        )
    assert len(server.peers) == 1


@pytest.mark.long
async def test_answer_to_a_request_that_is_not_all_sent_is_read_and_no_other_follows(place: Place) -> None:
    size, may_read = 16 * 2**20, asyncio.Event()
    counts = []

    async def script(peer: Peer) -> None:
        await peer.head()
        await peer.send(counted(b"too long", status=b"413 Content Too Large"))
        await may_read.wait()
        counts.append(await peer.gone())

    server, transport = await place.serve(script), place.transport()
    response = await transport.handle_async_request(asking(server.url, content=b"a" * size))

    assert response.status_code == 413
    assert await body_of(response) == b"too long"
    assert not transport._idle
    may_read.set()
    await server.peers[0].over.wait()
    assert counts[0] < size


@pytest.mark.long
@pytest.mark.parametrize("place", ["clear"], indirect=True)  # TLS is closed in both directions
async def test_end_is_told_while_the_request_is_on_its_way(place: Place) -> None:
    async def script(peer: Peer) -> None:
        await peer.head()
        peer.writer.write_eof()
        await is_told.wait()

    is_told = asyncio.Event()
    server, transport = await place.serve(script), place.transport()

    with pytest.raises(httpx2.RemoteProtocolError):
        await ask(transport, server.url, content=b"a" * 16 * 2**20)
    is_told.set()


async def test_what_came_is_read_after_the_connection_was_lost(place: Place) -> None:
    async def script(peer: Peer) -> None:
        target, _ = await peer.request()
        wire = CHUNKED + b"3\r\nabc\r\n"
        await peer.send(wire if target == "/cut" else wire + b"0\r\n\r\n")

    server, transport = await place.serve(script), place.transport()
    whole = await transport.handle_async_request(asking(f"{server.url}/whole"))
    await until(lambda: not transport._open)
    cut = await transport.handle_async_request(asking(f"{server.url}/cut"))
    await until(lambda: not transport._open)

    assert await body_of(whole) == b"abc"
    body = aiter(cast(httpx2.AsyncByteStream, cut.stream))
    assert await anext(body) == b"abc"
    with pytest.raises(httpx2.RemoteProtocolError):
        await anext(body)


async def test_late_reader_leaves_the_next_answer_alone(place: Place) -> None:
    """An answer that is all there frees its connection, read or not."""
    server, transport = await place.serve(echo), place.transport()
    responses = [await transport.handle_async_request(asking(f"{server.url}/{n}")) for n in range(3)]
    await until(lambda: transport._idle)

    assert [await body_of(response) for response in reversed(responses)] == [b"/2", b"/1", b"/0"]
    assert len(transport._idle) == len(server.peers)
