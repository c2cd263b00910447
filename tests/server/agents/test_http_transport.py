from __future__ import annotations

import asyncio
import gzip
import random
import socket
import ssl
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack, ExitStack, suppress
from pathlib import Path
from typing import Any, ClassVar, cast

import httpx2
import pytest

from tests.fakes.http_peer import Peer, PeerServer, Script, counted
from tests.fakes.tls import Certificate, make_certificate
from unbroken.server.agents.http_transport import HttpTransport, _Connection, _Exchange

pytestmark = pytest.mark.timeout(30)

CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
UNTIL_CLOSE = b"HTTP/1.1 200 OK\r\n\r\n"
SHORT = 0.05
"""Seconds that are over before long: what is waited for never comes."""


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Certificate:
    return make_certificate(tmp_path_factory.mktemp("tls"))


@pytest.fixture(autouse=True)
def trusted(certificate: Certificate, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate.chain))
    return iter([certificate.chain])


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


@pytest.fixture(params=["clear", "tls"])
async def place(request: pytest.FixtureRequest, certificate: Certificate) -> AsyncIterator[Place]:
    tls = None
    if request.param == "tls":
        tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        tls.load_cert_chain(certificate.chain, certificate.key)
    before = asyncio.all_tasks()
    async with AsyncExitStack() as stack:
        yield Place(stack, tls)
    await until(lambda: asyncio.all_tasks() <= {*before, asyncio.current_task()})


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


# Connections, again and again.


async def test_one_connection_serves_many_requests(place: Place) -> None:
    server, transport = await place.serve(echo), place.transport()

    for number in range(20):
        assert await ask(transport, f"{server.url}/{number}") == b"/%d" % number

    assert len(server.peers) == 1


async def test_idle_connection_is_closed_in_time(place: Place) -> None:
    server, transport = await place.serve(echo), place.transport(idle_seconds=0)
    await ask(transport, server.url)

    await server.peers[0].over.wait()

    await ask(transport, server.url)
    assert len(server.peers) == 2


async def test_no_more_connections_are_kept_than_asked_for(place: Place) -> None:
    together = asyncio.Barrier(5)

    async def script(peer: Peer) -> None:
        await peer.request()
        await together.wait()
        await peer.send(counted(b"a"))
        await echo(peer)

    server, transport = await place.serve(script), place.transport(max_idle=2)
    await asyncio.gather(*(ask(transport, server.url) for _ in range(5)))

    await until(lambda: sum(peer.over.is_set() for peer in server.peers) == 3)
    assert await ask(transport, f"{server.url}/b") == b"/b"
    assert len(server.peers) == 5
    assert sum(not peer.over.is_set() for peer in server.peers) == 2


async def test_connection_that_is_closed_over_there_is_not_used_again(place: Place) -> None:
    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(counted(b"a"))

    server, transport = await place.serve(script), place.transport()
    for number in range(1, 4):
        assert await ask(transport, server.url) == b"a"
        await until(lambda: not transport._open)
        assert len(server.peers) == number


@pytest.mark.parametrize("is_reset", [False, True])
async def test_connection_that_is_closed_as_it_is_used_fails_the_request(
    place: Place, is_reset: bool
) -> None:
    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(counted(b"a"))
        await peer.request()
        if is_reset:
            peer.reset()

    server, transport = await place.serve(script), place.transport()
    await ask(transport, server.url)

    with pytest.raises((httpx2.RemoteProtocolError, httpx2.ReadError)):
        await ask(transport, server.url)

    assert await ask(transport, server.url) == b"a"
    assert len(server.peers) == 2


@pytest.mark.parametrize("surplus", [b"x", counted(b"somebody else's"), counted(b"", status=b"408 Late")])
async def test_answer_to_nothing_is_nobody_s(place: Place, surplus: bytes) -> None:
    """Neither behind an answer at once nor when its connection is idle."""
    is_idle = asyncio.Event()

    async def script(peer: Peer) -> None:
        target, _ = await peer.request()
        if len(server.peers) == 1:
            await peer.send(counted(target.encode()) + surplus)
        else:
            await peer.send(counted(target.encode()))
            await is_idle.wait()
            await peer.send(surplus)
        await peer.gone()

    server, transport = await place.serve(script), place.transport()
    assert await ask(transport, f"{server.url}/1") == b"/1"
    await server.peers[0].over.wait()
    assert await ask(transport, f"{server.url}/2") == b"/2"
    is_idle.set()
    await server.peers[1].over.wait()
    await until(lambda: not transport._open)
    assert await ask(transport, f"{server.url}/3") == b"/3"
    assert len(server.peers) == 3


@pytest.mark.parametrize("surplus", [counted(b"somebody else's"), b""], ids=["answered", "closed"])
async def test_what_came_while_the_loop_was_busy_is_looked_at_first(surplus: bytes) -> None:
    """What still waits in the socket belongs to an earlier request, be it an answer or the end."""
    may_go, has_gone = threading.Event(), threading.Event()

    def serve(listener: socket.socket) -> None:
        for target in (b"/1", b"/2"):
            connection = taken.enter_context(listener.accept()[0])
            while b"\r\n\r\n" not in connection.recv(65_536):
                pass
            connection.sendall(counted(target))
            if target == b"/1":
                may_go.wait(10)
                if surplus:
                    connection.sendall(surplus)
                else:
                    connection.shutdown(socket.SHUT_WR)
                has_gone.set()

    with ExitStack() as taken, socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(10)
        thread = threading.Thread(target=serve, args=(listener,))
        thread.start()
        transport = HttpTransport(max_idle=1, idle_seconds=60)
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        assert await ask(transport, f"{url}/1") == b"/1"
        may_go.set()
        assert has_gone.wait(10)  # the loop stands still

        assert await ask(transport, f"{url}/2") == b"/2"

        await transport.aclose()
        thread.join()


async def test_connection_that_is_closed_at_once_fails_the_request(place: Place) -> None:
    async def script(peer: Peer) -> None:
        if len(server.peers) % 2:
            peer.reset()

    server, transport = await place.serve(script), place.transport()

    for _ in range(10):
        with pytest.raises((httpx2.RemoteProtocolError, httpx2.ReadError)):
            await ask(transport, server.url)
    assert len(server.peers) == 10


async def test_answer_that_ends_by_the_close_is_complete(place: Place) -> None:
    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(UNTIL_CLOSE + b"all of it")

    server, transport = await place.serve(script), place.transport()

    assert await ask(transport, server.url) == b"all of it"
    assert await ask(transport, server.url) == b"all of it"
    assert len(server.peers) == 2


@pytest.mark.long
async def test_requests_at_once_get_their_own_answers(place: Place) -> None:
    draw = random.Random(7)

    async def script(peer: Peer) -> None:
        while True:
            target, sent = await peer.request()
            answer = target.encode() + sent
            framing = draw.choice(["counted", "chunked", "close"])
            if framing == "counted":
                wire = counted(answer)
            elif framing == "chunked":
                half = len(answer) // 2
                wire = CHUNKED
                for piece in (answer[:half], answer[half:]):
                    wire += b"%x\r\n%b\r\n" % (len(piece), piece) if piece else b""
                wire += b"0\r\nTrailer: x\r\n\r\n"
            else:
                wire = UNTIL_CLOSE + answer
            while wire:
                size = draw.choice([1, 10, 1000, 100_000])
                await peer.send(wire[:size])
                wire = wire[size:] if size > 1 or len(wire) < 100 else wire[1:]
                await asyncio.sleep(0)
            if framing == "close":
                return

    server, transport = await place.serve(script), place.transport(max_idle=3)

    async def one(number: int) -> None:
        content = b"%d;" % number * draw.choice([0, 1, 100, 10_000])
        for turn in range(4):
            target = f"/{number}/{turn}"
            request = asking(server.url + target, content=content)
            response = await transport.handle_async_request(request)
            if draw.random() < 0.2:
                await response.aclose()
            else:
                assert await body_of(response) == target.encode() + content

    async with asyncio.TaskGroup() as tasks:
        for number in range(40):
            tasks.create_task(one(number))
    assert len(transport._idle) <= 3


# What goes wrong.


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


# Much at once.


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


# Letting go.


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


# As the client's transport.


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
