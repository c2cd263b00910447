"""What goes wrong with a connection, or an answer."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import AsyncIterator
from contextlib import suppress
from typing import ClassVar, cast

import httpx2
import pytest

from tests.fakes.http_peer import Peer, PeerServer, counted
from tests.fakes.tls import Certificate
from tests.server.agents.http_transport.asking import (
    CHUNKED,
    SHORT,
    Place,
    ask,
    asking,
    echo,
    exchange_of,
    until,
)
from unbroken.server.agents.http_transport import HttpTransport, _Connection, _Exchange

pytestmark = pytest.mark.timeout(30)


@pytest.mark.parametrize("is_reset", [False, True])
@pytest.mark.parametrize(
    ("sent", "body"),
    [
        (b"", b""),
        (b"HTTP/1.1 200 O", b""),
        (CHUNKED[:-2], b""),
        (CHUNKED, b""),
        (CHUNKED + b"3\r\nabc", b"abc"),
        (CHUNKED + b"3\r\nabc\r\n0\r\n", b"abc"),
        (counted(b"abcdef")[:-3], b"abc"),
    ],
)
async def test_answer_that_is_cut_fails_behind_what_came(
    place: Place, sent: bytes, body: bytes, is_reset: bool
) -> None:
    is_read = asyncio.Event()

    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(sent)
        if body:
            await is_read.wait()
        if is_reset:
            peer.reset()

    server, transport = await place.serve(script), place.transport()
    read = b""
    with pytest.raises((httpx2.RemoteProtocolError, httpx2.ReadError)):
        response = await transport.handle_async_request(asking(server.url))
        async for data in cast(httpx2.AsyncByteStream, response.stream):
            read += data
            is_read.set()
    assert body == read
    assert not transport._open


async def test_words_that_come_with_what_is_malformed_are_read(place: Place) -> None:
    may_go_on = asyncio.Event()

    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(CHUNKED)
        await may_go_on.wait()
        await peer.send(b"3\r\nabc\r\nno length\r\n")
        await peer.gone()

    server, transport = await place.serve(script), place.transport()
    response = await transport.handle_async_request(asking(server.url))
    body = aiter(cast(httpx2.AsyncByteStream, response.stream))
    word = asyncio.ensure_future(anext(body))
    await until(lambda: exchange_of(response)._waiter is not None)
    may_go_on.set()

    assert await word == b"abc"
    with pytest.raises(httpx2.RemoteProtocolError):
        await anext(body)
    await server.peers[0].over.wait()


@pytest.mark.parametrize("sent", [b"", b"HTTP/1.1 200", CHUNKED, CHUNKED + b"3\r\nabc", CHUNKED + b"3;x="])
async def test_silence_is_a_read_timeout(place: Place, sent: bytes) -> None:
    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(sent)
        await peer.gone()

    server, transport = await place.serve(script), place.transport()

    with pytest.raises(httpx2.ReadTimeout):
        await ask(transport, server.url, read=SHORT)

    await server.peers[0].over.wait()


async def test_what_is_no_body_is_silence(place: Place) -> None:
    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(CHUNKED + b"3;")
        while True:
            await peer.send(b"x")
            await asyncio.sleep(0.002)

    server, transport = await place.serve(script), place.transport()

    with pytest.raises(httpx2.ReadTimeout):
        await ask(transport, server.url, read=SHORT)


async def test_request_that_is_on_its_way_is_waited_for() -> None:
    """Silence counts from when nothing more of it goes out."""

    class Slow:
        left: ClassVar = [300, 200, 100, 100]

        @property
        def unsent(self) -> int:
            return self.left.pop(0)

    connection = Slow()
    exchange = _Exchange(cast(_Connection, connection), lambda: None)

    with pytest.raises(httpx2.ReadTimeout):
        await exchange.wait_for_head(0)

    assert connection.left == []


async def test_refused_connection_and_unknown_host_are_connect_errors() -> None:
    transport = HttpTransport(max_idle=1, idle_seconds=1)
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
        for host in (f"127.0.0.1:{port}", f"localhost:{port}", "nobody.invalid", f"{'x' * 70}.invalid"):
            with pytest.raises(httpx2.ConnectError):
                await ask(transport, f"http://{host}/")
    await transport.aclose()


async def test_host_that_does_not_answer_is_a_connect_timeout() -> None:
    transport = HttpTransport(max_idle=1, idle_seconds=1)
    with socket.socket() as full:
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        crowd = [socket.socket() for _ in range(3)]
        for each in crowd:
            each.setblocking(False)
            with suppress(BlockingIOError):
                each.connect(full.getsockname())
        with pytest.raises(httpx2.ConnectTimeout):
            await ask(transport, f"http://127.0.0.1:{full.getsockname()[1]}", connect=SHORT)
        for each in crowd:
            each.close()
    await transport.aclose()


async def test_certificate_of_another_name_is_a_connect_error(certificate: Certificate) -> None:
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(certificate.chain, certificate.key)
    asked = []
    server = await asyncio.start_server(lambda *peer: asked.append(peer), "127.0.0.2", 0, ssl=tls)
    transport = HttpTransport(max_idle=1, idle_seconds=1)

    with pytest.raises(httpx2.ConnectError):
        await ask(transport, f"https://127.0.0.2:{server.sockets[0].getsockname()[1]}/")

    assert asked == []
    server.close()
    await transport.aclose()


async def test_tls_that_fails_is_a_connect_error(
    certificate: Certificate, monkeypatch: pytest.MonkeyPatch
) -> None:
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(certificate.chain, certificate.key)
    knowing = HttpTransport(max_idle=1, idle_seconds=1)
    monkeypatch.delenv("SSL_CERT_FILE")
    unknowing = HttpTransport(max_idle=1, idle_seconds=1)

    async def clear(peer: Peer) -> None:
        await peer.reader.read(1)
        await peer.send(b"What?\n")

    async def cutting(peer: Peer) -> None:
        await peer.reader.read(1)
        peer.reset()

    async def silent(peer: Peer) -> None:
        await peer.gone()

    async with (
        PeerServer(echo, tls=tls) as trusted,
        PeerServer(clear, tls=None) as in_clear,
        PeerServer(cutting, tls=None) as cut,
        PeerServer(silent, tls=None) as stalled,
    ):
        assert await ask(knowing, f"{trusted.url}/a") == b"/a"
        for transport, server in ((unknowing, trusted), (knowing, in_clear), (knowing, cut)):
            with pytest.raises(httpx2.ConnectError):
                await ask(transport, server.url.replace("http:", "https:"))
        with pytest.raises(httpx2.ConnectTimeout):
            await ask(knowing, stalled.url.replace("http:", "https:"), connect=SHORT)
        await stalled.peers[0].over.wait()
        await knowing.aclose()
        await unknowing.aclose()


async def test_request_that_can_not_be_sent_is_our_own_fault(place: Place) -> None:
    transport, server = place.transport(), await place.serve(echo)

    async def pieces() -> AsyncIterator[bytes]:
        yield b"a"

    with pytest.raises(httpx2.LocalProtocolError):
        await ask(transport, server.url, headers=[(b"a", b"b\r\nEvil: c")])
    with pytest.raises(httpx2.LocalProtocolError):
        await ask(transport, server.url, content=pieces())
    with pytest.raises(httpx2.UnsupportedProtocol):
        await ask(transport, "ftp://127.0.0.1/")
    assert server.peers == []
