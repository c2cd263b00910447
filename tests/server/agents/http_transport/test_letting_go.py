"""What is let go of, closed or cancelled; and what the client makes of an answer."""

from __future__ import annotations

import asyncio
import gzip
from collections.abc import Awaitable
from typing import cast

import httpx2
import pytest

from tests.fakes.http_peer import Peer, PeerServer, counted
from tests.server.agents.http_transport.asking import (
    CHUNKED,
    Place,
    ask,
    asking,
    body_of,
    echo,
    until,
)
from unbroken.server.agents.http_transport import HttpTransport

pytestmark = pytest.mark.timeout(30)


@pytest.mark.parametrize("sent", [b"", CHUNKED[:20], CHUNKED, CHUNKED + b"3\r\nabc"])
async def test_cancelled_wait_closes_the_connection(place: Place, sent: bytes) -> None:
    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(sent)
        await peer.gone()

    server, transport = await place.serve(script), place.transport()
    task = asyncio.ensure_future(ask(transport, server.url))
    await until(
        lambda: any(
            (each := connection._exchange)
            and each._waiter is not None
            and each._has_head == (sent.startswith(CHUNKED))
            for connection in transport._open
        )
    )
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task

    assert not transport._open
    await server.peers[0].over.wait()


async def test_cancelled_connecting_closes_the_connection() -> None:
    async def silent(peer: Peer) -> None:
        await peer.gone()

    transport = HttpTransport(max_idle=1, idle_seconds=1)
    async with PeerServer(silent, tls=None) as server:
        task = asyncio.ensure_future(ask(transport, server.url.replace("http:", "https:")))
        await until(lambda: server.peers)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

        await server.peers[0].over.wait()
        assert not transport._open


async def test_body_that_is_closed_early_closes_its_connection(place: Place) -> None:
    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(CHUNKED + b"3\r\nabc\r\n")
        await peer.gone()

    server, transport = await place.serve(script), place.transport()
    unread, begun = [await transport.handle_async_request(asking(server.url)) for _ in range(2)]
    async for _ in cast(httpx2.AsyncByteStream, begun.stream):
        break
    for response in (unread, begun):
        await response.aclose()

    assert not transport._open
    for peer in server.peers:
        await peer.over.wait()


@pytest.mark.parametrize("is_read", [True, False])
async def test_answer_that_is_all_there_keeps_its_connection(place: Place, is_read: bool) -> None:
    server, transport = await place.serve(echo), place.transport()
    for _ in range(3):
        response = await transport.handle_async_request(asking(f"{server.url}/a"))
        await until(lambda: transport._idle)
        if is_read:
            assert await body_of(response) == b"/a"
        await response.aclose()
        await response.aclose()

    assert len(server.peers) == 1


async def test_closing_closes_everything(place: Place) -> None:
    """What is waited for fails, and what is made later is closed as well."""

    async def script(peer: Peer) -> None:
        target, _ = await peer.request()
        await peer.send({"/idle": counted(b""), "/head": b"", "/body": CHUNKED}[target])
        await peer.gone()

    server, transport = await place.serve(script), place.transport()

    def asked(target: str) -> Awaitable[bytes]:
        return asyncio.ensure_future(ask(transport, server.url + target))

    waiting = [asked("/head"), asked("/body")]
    await asked("/idle")
    await until(
        lambda: (
            sum(bool((e := each._exchange) and e._waiter) for each in transport._open) == 2
            and any((e := each._exchange) and e._has_head for each in transport._open)
        )
    )
    await transport.aclose()

    for each in waiting:
        with pytest.raises(httpx2.TransportError):
            await each
    for peer in server.peers:
        await peer.over.wait()
    with pytest.raises(httpx2.TransportError):
        await asked("/head")
    assert not transport._open


async def test_client_reads_what_is_compressed_unasked(place: Place) -> None:
    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(counted(gzip.compress(b"abc"), more=b"Content-Encoding: gzip\r\n"))

    server = await place.serve(script)
    async with httpx2.AsyncClient(transport=place.transport()) as client:
        response = await client.get(server.url)

    assert response.text == "abc"
    assert response.http_version == "HTTP/1.1"
    assert response.reason_phrase == "OK"
