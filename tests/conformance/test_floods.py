"""More than anybody needs, to the real program: answered or closed, in flat memory, and others are served.

Most of it with the rates lifted, to see what is behind them; the rest with the defaults.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import zlib
from collections.abc import AsyncIterator, Iterator
from itertools import repeat

import pytest

from tests.conformance.node import node
from tests.conformance.program import Program
from tests.conformance.wire import Opcode, Peer, frame

pytestmark = pytest.mark.slow

MB = 1 << 20
LITTLE = 6 * MB
"""What a connection's buffers and the collector's pace may add up to."""


RATES = ("MESSAGES", "BYTES", "PINGS")


@pytest.fixture(scope="module")
def unhurried(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Program]:
    """The program with its rates lifted. It may log no error, and has to end in order."""
    lifted = {f"UNBROKEN_RATE_{name}": "1000000000" for name in RATES}
    program = Program(tmp_path_factory.mktemp("unhurried") / "log", **lifted)
    program.start()
    yield program
    program.terminate()
    assert not re.search(r"\berror\b|\bcritical\b|Traceback", program.log())


@contextlib.asynccontextmanager
async def attacked(program: Program) -> AsyncIterator[Peer]:
    """Somebody with a session of their own. Others are served before and after."""
    await program.converses()
    async with Peer(program.port) as peer:
        await peer.upgrade()
        assert await count(peer, Opcode.TEXT, 1) == 1
        yield peer
    await program.converses()


@pytest.fixture
async def peer(unhurried: Program) -> AsyncIterator[Peer]:
    async with attacked(unhurried) as peer:
        yield peer


@pytest.fixture
async def hurried(program: Program) -> AsyncIterator[Peer]:
    """The same, where the rates are as they are by default."""
    async with attacked(program) as peer:
        yield peer


async def count(peer: Peer, opcode: Opcode, wanted: int) -> int:
    """Return how many frames of a kind come, up to *wanted*."""
    seen = 0
    while seen < wanted and (event := await peer.next()) is not None:
        seen += event[0] == opcode
    return seen


async def still_serves(peer: Peer) -> None:
    """Send an event that is refused, and see its refusal."""
    named = {"type": "conversation.item.delete", "item_id": "gone", "event_id": "still-there"}
    await peer.send(frame(Opcode.TEXT, json.dumps(named).encode()))
    while event := await peer.next():
        if b"still-there" in event[1]:
            return
    raise AssertionError("it has closed")


async def test_pings_by_the_ten_thousand_are_answered_each(unhurried: Program, peer: Peer) -> None:
    pings = 50_000
    with unhurried.taking_at_most(LITTLE):
        reading = asyncio.create_task(count(peer, Opcode.PONG, pings))
        for _ in range(50):
            await peer.send(pings // 50 * frame(Opcode.PING, b"x" * 100))
        assert await reading == pings
    await still_serves(peer)


async def test_pongs_that_nobody_asked_for_are_nothing(unhurried: Program, peer: Peer) -> None:
    with unhurried.taking_at_most(LITTLE):
        for _ in range(50):
            await peer.send(1000 * frame(Opcode.PONG, b"x" * 100))
        await still_serves(peer)


async def test_messages_of_a_fragment_for_each_byte_are_taken(unhurried: Program, peer: Peer) -> None:
    """With pings in between, which may come there (RFC 6455, 5.4)."""
    event = json.dumps({"type": "response.cancel", "response_id": "x" * 300}).encode()
    first, *between = [event[index : index + 1] for index in range(len(event))]
    message = frame(Opcode.TEXT, first, is_final=False)
    message += b"".join(frame(Opcode.CONTINUATION, each, is_final=False) for each in between)
    message += frame(Opcode.PING) + frame(Opcode.CONTINUATION)
    messages = 100
    with unhurried.taking_at_most(LITTLE):
        reading = asyncio.create_task(count(peer, Opcode.TEXT, messages))
        await peer.send(messages * message)
        assert await reading == messages
    await still_serves(peer)


@pytest.mark.parametrize("opcode", [Opcode.TEXT, Opcode.BINARY])
async def test_empty_messages_are_refused_each(unhurried: Program, peer: Peer, opcode: Opcode) -> None:
    """However fast they come: as what they are, or as too many."""
    messages = 20_000
    with unhurried.taking_at_most(LITTLE):
        reading = asyncio.create_task(count(peer, Opcode.TEXT, messages))
        for _ in range(20):
            await peer.send(messages // 20 * frame(opcode))
        assert await reading == messages
    await still_serves(peer)


@pytest.mark.parametrize("opcode", [Opcode.TEXT, Opcode.BINARY])
async def test_a_message_of_50_mb_is_closed_and_not_collected(
    unhurried: Program, peer: Peer, opcode: Opcode
) -> None:
    """Announced and really sent: 1009 comes while it is on its way."""
    with unhurried.taking_at_most(LITTLE):
        reading = asyncio.create_task(peer.close_code())
        await peer.send(frame(opcode, announced=50 * MB))
        for _ in range(50):
            await peer.send(MB * b"x")
        assert await reading == 1009


async def test_a_message_of_50_mb_in_fragments_is_closed_and_not_collected(
    unhurried: Program, peer: Peer
) -> None:
    """Each of them is allowed, all of them aren't."""
    with unhurried.taking_at_most(LITTLE):
        reading = asyncio.create_task(peer.close_code())
        await peer.send(frame(Opcode.TEXT, b"x" * 60_000, is_final=False))
        for _ in range(50 * MB // 60_000):
            await peer.send(frame(Opcode.CONTINUATION, b"x" * 60_000, is_final=False))
        assert await reading == 1009


async def test_50_mb_in_messages_that_are_allowed_are_refused_each(unhurried: Program, peer: Peer) -> None:
    messages = 50 * MB // 60_000
    with unhurried.taking_at_most(LITTLE):
        reading = asyncio.create_task(count(peer, Opcode.TEXT, messages))
        for junk in repeat(frame(Opcode.TEXT, b"x" * 60_000), messages):
            await peer.send(junk)
        assert await reading == messages
    await still_serves(peer)


async def test_a_compression_bomb_is_a_protocol_error(unhurried: Program, peer: Peer) -> None:
    """No compression was agreed to: what says that it is compressed is never decompressed."""
    deflate = zlib.compressobj(9, wbits=-15)
    bomb = deflate.compress(50 * MB * b"a") + deflate.flush(zlib.Z_SYNC_FLUSH)
    assert len(bomb) < 65_536
    with unhurried.taking_at_most(LITTLE):
        await peer.send(frame(Opcode.TEXT, bomb.removesuffix(b"\x00\x00\xff\xff"), reserved=0b100))
        assert await peer.close_code() == 1002


@pytest.mark.parametrize(
    ("start", "chunk"),
    [
        (b"GET / HTTP/1.1\r\nX: ", MB * b"x"),
        (b"GET / HTTP/1.1\r\n", b"".join(b"X-%d: x\r\n" % number for number in range(100_000))),
        (b"GET /" + MB * b"x", MB * b"x"),
        (b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 52428800\r\n\r\n", MB * b"x"),
    ],
    ids=["a header", "headers", "an address", "a body"],
)
async def test_50_mb_without_a_handshake_are_not_collected(
    program: Program, start: bytes, chunk: bytes
) -> None:
    """The body is of a request that nobody answers but with a refusal."""
    await program.converses()
    with program.taking_at_most(LITTLE):
        async with Peer(program.port) as peer:
            sending = asyncio.create_task(peer.send(start + 50 * chunk))
            header = await peer.header()
            sending.cancel()
            await asyncio.wait([sending])
    assert header[:10] in (b"", b"HTTP/1.1 4")
    await program.converses()


# With the rates as they are.


async def test_a_message_that_is_too_large_is_told_to_a_client_of_node_every_time(program: Program) -> None:
    """It still sends when the server closes: a reset would hide the close frame from it."""
    url = f"ws://127.0.0.1:{program.port}/v1/realtime?model=default"
    codes = await node("oversize.mjs", url, str(10 * MB), "40")

    assert codes == 40 * [1009]


@pytest.mark.parametrize("opcode", [Opcode.PING, Opcode.PONG])
async def test_a_flood_of_pings_is_closed_with_a_reason(
    program: Program, hurried: Peer, opcode: Opcode
) -> None:
    with program.taking_at_most(LITTLE):
        sending = asyncio.create_task(hurried.send(50 * MB // 6 * frame(opcode)))
        code, reason = 0, b""
        while (event := await hurried.next()) is not None:
            if event[0] == Opcode.CLOSE:
                code, reason = int.from_bytes(event[1][:2], "big"), event[1][2:]
        sending.cancel()
        await asyncio.wait([sending])

    assert (code, reason) == (1008, b"too many pings: at most 10 a second")


async def test_a_peer_that_sends_for_ever_after_it_was_told_is_cut(program: Program, hurried: Peer) -> None:
    with program.taking_at_most(LITTLE):
        await hurried.send(frame(Opcode.TEXT, announced=1 << 40))
        before = program.open_files()
        with contextlib.suppress(ConnectionError):
            while True:
                await asyncio.get_running_loop().sock_sendall(hurried.socket, MB * b"x")
        assert program.open_files() < before
    assert await hurried.close_code() == 1009


@pytest.mark.parametrize(
    "junk",
    [
        50_000 * frame(Opcode.TEXT, b"{}"),
        frame(Opcode.TEXT, b"{", is_final=False) + 1000 * frame(Opcode.CONTINUATION, b" ", is_final=False),
        100 * frame(Opcode.TEXT, b"x" * 60_000),
    ],
    ids=["messages", "fragments", "bytes"],
)
async def test_a_peer_that_sends_too_fast_is_held_back_and_others_are_served(
    program: Program, hurried: Peer, junk: bytes
) -> None:
    """Nothing is lost, and nobody is closed; what it can't send yet is the peer's own to keep."""
    with program.taking_at_most(LITTLE):
        sending = asyncio.create_task(forever(hurried, junk))
        reading = asyncio.create_task(count(hurried, Opcode.CLOSE, 1))
        for _ in range(20):
            await program.converses()
        assert not reading.done()
        assert not sending.done()
        for task in (sending, reading):
            task.cancel()
        await asyncio.wait([sending, reading])


async def forever(peer: Peer, junk: bytes) -> None:
    while True:
        await asyncio.get_running_loop().sock_sendall(peer.socket, junk)
