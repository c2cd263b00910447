"""Handshakes that are wrong, half, slow, many or never: one clear answer or none, and nobody else notices."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from typing import Any

import pytest

from tests.conformance.program import Program
from tests.conformance.wire import Opcode, Peer, frame, handshake
from tests.server.realtime.serving import Served, eventually
from unbroken.server.agents.scripted import ScriptedAgent

RESET = b"\x01\0\0\0\0\0\0\0"
"""For SO_LINGER: closing is a reset."""

OTHER_KEY = "Sec-WebSocket-Key: BBBBBBBBBBBBBBBBBBBBBA=="
HEALTH = b"GET /healthz HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"


@pytest.mark.parametrize(
    ("request_", "statuses"),
    [
        (handshake(without="Sec-WebSocket-Key"), {400}),
        (handshake(Sec_WebSocket_Key="short"), {400}),
        (handshake(X=f"x\r\n{OTHER_KEY}"), {400}),
        (handshake(Sec_WebSocket_Version="12"), {400, 426}),
        (handshake(Sec_WebSocket_Version="9" * 200), {400, 426}),
        (handshake(without="Sec-WebSocket-Version"), {400, 426}),
        (handshake(without="Connection"), {404, 426}),
        (handshake(without="Host"), {400, 403}),
        (handshake(method="POST"), {400, 405}),
        (handshake("/v1/other"), {403, 404}),
        (handshake("http://evil.example/v1/realtime"), {403, 404}),
        (handshake("/v1/real time"), {400}),
        (handshake(X="a\0b"), {400}),
        (handshake().replace(b"\r\n", b"\n"), {400}),
        (handshake(Transfer_Encoding="chunked") + b"0\r\n\r\n", {400, 403}),
        (handshake(Content_Length="5") + b"hello", {400, 403}),
        (handshake(X="x" * 9_000), {400, 431}),
        (handshake(X="\r\n".join(f"X-{number}: x" for number in range(200))), {400, 431}),
        (handshake("/v1/realtime?x=" + "y" * 60_000), {400, 414, 431}),
        (b"GET /v1/realtime\r\n\r\n", {400, 403}),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", {400, 505}),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(100), {400}),
        (bytes(range(256)), {400}),
    ],
    ids=[
        *("no key", "a short key", "two keys"),
        *("an old version", "a version without end", "no version"),
        *("no upgrade", "no host", "a POST", "another path", "another host", "two paths"),
        *("a NUL", "bare line feeds", "chunks", "a body"),
        *("a long header", "many headers", "a long address"),
        *("HTTP/0.9", "HTTP/2", "TLS", "noise"),
    ],
)
async def test_what_is_no_handshake_is_refused_once(
    server: Served[ScriptedAgent], request_: bytes, statuses: set[int]
) -> None:
    async with Peer(server.port) as peer:
        await peer.send(request_)
        header = await peer.header()

    assert int(header.split(b" ")[1]) in statuses
    assert server.app.node.hub.connections == 0


async def test_compression_that_is_offered_is_not_agreed_to(server: Served[ScriptedAgent]) -> None:
    async with Peer(server.port) as peer:
        offer = "permessage-deflate; client_max_window_bits, permessage-deflate, x-unknown"
        await peer.send(handshake(Sec_WebSocket_Extensions=offer))
        header = await peer.header()

        assert header.startswith(b"HTTP/1.1 101 ")
        assert b"extensions" not in header.lower()
        assert await peer.next() is not None


@pytest.mark.parametrize(
    ("sent", "statuses"),
    [(2 * handshake(), [b"400"]), (HEALTH + handshake(), [b"200", b"426"]), (handshake() + HEALTH, [b"400"])],
    ids=["two handshakes", "a request before", "a request behind"],
)
async def test_requests_in_one_breath_make_no_session(
    server: Served[ScriptedAgent], sent: bytes, statuses: list[bytes]
) -> None:
    """Each is answered in its turn, as a request; what follows a handshake is none, and no frame either."""
    async with Peer(server.port) as peer:
        await peer.send(sent)
        headers = [await peer.header() for _ in statuses]

        # The second is behind the body of the answer before.
        assert [header.partition(b"HTTP/1.1 ")[2][:3] for header in headers] == statuses
        assert server.app.node.hub.connections == 0


async def test_a_handshake_behind_a_request_that_was_answered_makes_a_session(
    server: Served[ScriptedAgent],
) -> None:
    async with Peer(server.port) as peer:
        await peer.send(HEALTH)
        await peer.header()
        await peer.send(handshake())

        assert b"HTTP/1.1 101 " in await peer.header()  # behind the body of the answer before
        event = await peer.next()
        assert event is not None
        assert b'"session.created"' in event[1]
        assert len(server.server.server_state.connections) == 1


async def test_a_second_handshake_on_a_connection_is_no_frame(server: Served[ScriptedAgent]) -> None:
    async with Peer(server.port) as peer:
        await peer.upgrade()
        await peer.next()
        await peer.send(handshake())

        assert await peer.close_code() == 1002


@pytest.mark.parametrize("how", ["close", "half close", "reset"])
@pytest.mark.parametrize(
    "size", [0, 1, 40, len(handshake()) - 1, len(handshake())], ids=["none", "1", "40", "all but 1", "all"]
)
async def test_a_client_that_leaves_in_its_handshake_leaves_nothing(
    server: Served[ScriptedAgent], how: str, size: int
) -> None:
    async with Peer(server.port) as peer:
        await peer.send(handshake()[:size])
        match how:
            case "half close":
                peer.socket.shutdown(socket.SHUT_WR)
                await peer.rest()
            case "reset":
                peer.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
    await server.idle()


async def test_a_client_that_ends_its_half_and_says_nothing_more_is_let_go(
    server: Served[ScriptedAgent],
) -> None:
    """It was shown its session; nothing is running."""
    async with Peer(server.port) as peer:
        await peer.upgrade()
        await peer.next()
        peer.socket.shutdown(socket.SHUT_WR)
        await peer.rest()
        await server.no_connections()


async def trickle(peer: Peer, data: bytes, every: float) -> int:
    """Send a byte at a time, until the server closes. Return how many were sent by then."""
    ended = asyncio.ensure_future(peer.rest())
    sent = 0
    try:
        while not ended.done() and sent < len(data):
            await peer.send(data[sent : sent + 1])
            sent += 1
            await asyncio.wait([ended], timeout=every)
        assert ended.done(), "the handshake was never cut"
        assert ended.result() == b""
    finally:
        ended.cancel()
    return sent


@pytest.mark.slow
async def test_slow_handshakes_by_the_hundred_are_cut_and_hold_up_nobody(program: Program) -> None:
    """With the limits as they are: a header has 10 seconds, however steadily it comes."""
    async with contextlib.AsyncExitStack() as stack:
        peers = [await stack.enter_async_context(Peer(program.port)) for _ in range(300)]
        endless = handshake()[:-4] + b"\r\nX: " + 100 * b"x"
        tasks = [asyncio.ensure_future(trickle(peer, endless, 1.0)) for peer in peers[:150]]
        tasks += [asyncio.ensure_future(trickle(peer, endless, 5.0)) for peer in peers[150:200]]
        mute = [asyncio.ensure_future(peer.rest()) for peer in peers[200:]]
        waiting: set[asyncio.Future[Any]] = {*tasks, *mute}
        served = 0
        while waiting:
            await program.converses()
            served += 1
            _, waiting = await asyncio.wait(waiting, timeout=0.5)
        assert served > 5
        assert {task.result() for task in mute} == {b""}
        assert max(task.result() for task in tasks[:150]) < 30


@pytest.mark.slow
async def test_the_body_of_a_handshake_that_never_comes_is_not_waited_for(program: Program) -> None:
    async with Peer(program.port) as peer:
        await peer.send(handshake(Content_Length="1000000"))

        assert (await peer.header()).startswith(b"HTTP/1.1 4")
    await program.converses()


@pytest.mark.slow
async def test_connections_that_come_and_go_leave_nothing(program: Program) -> None:
    """A thousand, each in another state. A session in which nobody has said anything is kept for a minute."""
    await come_and_go(program.port, 1000)  # what grows once has grown
    await program.converses()
    files = program.open_files()
    with program.taking_at_most(1000 * 8192):
        await come_and_go(program.port, 1000)
        await program.converses()
        await eventually(lambda: program.open_files() <= files)


async def come_and_go(port: int, times: int) -> None:
    for number in range(times):
        async with Peer(port) as peer:
            match number % 4:
                case 0:
                    await peer.send(handshake()[: number % len(handshake())])
                case 1:
                    await peer.send(handshake())
                case 2:
                    await peer.upgrade()
                    await peer.send(frame(Opcode.TEXT, b"{", is_final=False))
                case _:
                    await peer.upgrade()
                    peer.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
