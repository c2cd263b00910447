"""Connections are used again and again, each answer being its request's."""

from __future__ import annotations

import asyncio
import random
import socket
import threading
from contextlib import ExitStack

import httpx2
import pytest

from tests.fakes.http_peer import Peer, counted
from tests.server.agents.http_transport.asking import (
    CHUNKED,
    UNTIL_CLOSE,
    Place,
    ask,
    asking,
    body_of,
    echo,
    until,
)
from unbroken.server.agents.http_transport import HttpTransport

pytestmark = pytest.mark.timeout(30)


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
