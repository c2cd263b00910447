"""More than anybody needs, to the real program: answered or closed, in flat memory, and others are served."""

from __future__ import annotations

import asyncio
import json
import zlib
from collections.abc import AsyncIterator
from itertools import repeat

import pytest

from tests.conformance.program import Program
from tests.conformance.wire import Opcode, Peer, frame

pytestmark = pytest.mark.slow

MB = 1 << 20
LITTLE = 6 * MB
"""What a connection's buffers and the collector's pace may add up to."""


@pytest.fixture
async def peer(program: Program) -> AsyncIterator[Peer]:
    """Somebody with a session of their own. Others are served before and after."""
    await program.converses()
    async with Peer(program.port) as peer:
        await peer.upgrade()
        assert await count(peer, Opcode.TEXT, 1) == 1
        yield peer
    await program.converses()


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


async def test_pings_by_the_ten_thousand_are_answered_each(program: Program, peer: Peer) -> None:
    pings = 50_000
    with program.taking_at_most(LITTLE):
        reading = asyncio.create_task(count(peer, Opcode.PONG, pings))
        for _ in range(50):
            await peer.send(pings // 50 * frame(Opcode.PING, b"x" * 100))
        assert await reading == pings
    await still_serves(peer)


async def test_pongs_that_nobody_asked_for_are_nothing(program: Program, peer: Peer) -> None:
    with program.taking_at_most(LITTLE):
        for _ in range(50):
            await peer.send(1000 * frame(Opcode.PONG, b"x" * 100))
        await still_serves(peer)


async def test_messages_of_a_fragment_for_each_byte_are_taken(program: Program, peer: Peer) -> None:
    """With pings in between, which may come there (RFC 6455, 5.4)."""
    event = json.dumps({"type": "response.cancel", "response_id": "x" * 300}).encode()
    first, *between = [event[index : index + 1] for index in range(len(event))]
    message = frame(Opcode.TEXT, first, is_final=False)
    message += b"".join(frame(Opcode.CONTINUATION, each, is_final=False) for each in between)
    message += frame(Opcode.PING) + frame(Opcode.CONTINUATION)
    messages = 100
    with program.taking_at_most(LITTLE):
        reading = asyncio.create_task(count(peer, Opcode.TEXT, messages))
        await peer.send(messages * message)
        assert await reading == messages
    await still_serves(peer)


@pytest.mark.parametrize("opcode", [Opcode.TEXT, Opcode.BINARY])
async def test_empty_messages_are_refused_each(program: Program, peer: Peer, opcode: Opcode) -> None:
    """However fast they come: as what they are, or as too many."""
    messages = 20_000
    with program.taking_at_most(LITTLE):
        reading = asyncio.create_task(count(peer, Opcode.TEXT, messages))
        for _ in range(20):
            await peer.send(messages // 20 * frame(opcode))
        assert await reading == messages
    await still_serves(peer)


@pytest.mark.parametrize("opcode", [Opcode.TEXT, Opcode.BINARY])
async def test_a_message_of_50_mb_is_closed_and_not_collected(
    program: Program, peer: Peer, opcode: Opcode
) -> None:
    """Announced and really sent: 1009 comes while it is on its way."""
    with program.taking_at_most(LITTLE):
        reading = asyncio.create_task(peer.close_code())
        await peer.send(frame(opcode, announced=50 * MB))
        for _ in range(50):
            await peer.send(MB * b"x")
        assert await reading == 1009


async def test_a_message_of_50_mb_in_fragments_is_closed_and_not_collected(
    program: Program, peer: Peer
) -> None:
    """Each of them is allowed, all of them aren't."""
    with program.taking_at_most(LITTLE):
        reading = asyncio.create_task(peer.close_code())
        await peer.send(frame(Opcode.TEXT, b"x" * 60_000, is_final=False))
        for _ in range(50 * MB // 60_000):
            await peer.send(frame(Opcode.CONTINUATION, b"x" * 60_000, is_final=False))
        assert await reading == 1009


async def test_50_mb_in_messages_that_are_allowed_are_refused_each(program: Program, peer: Peer) -> None:
    messages = 50 * MB // 60_000
    with program.taking_at_most(LITTLE):
        reading = asyncio.create_task(count(peer, Opcode.TEXT, messages))
        for junk in repeat(frame(Opcode.TEXT, b"x" * 60_000), messages):
            await peer.send(junk)
        assert await reading == messages
    await still_serves(peer)


async def test_a_compression_bomb_is_a_protocol_error(program: Program, peer: Peer) -> None:
    """No compression was agreed to: what says that it is compressed is never decompressed."""
    deflate = zlib.compressobj(9, wbits=-15)
    bomb = deflate.compress(50 * MB * b"a") + deflate.flush(zlib.Z_SYNC_FLUSH)
    assert len(bomb) < 65_536
    with program.taking_at_most(LITTLE):
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
