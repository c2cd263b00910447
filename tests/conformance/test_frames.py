"""Frames that RFC 6455 forbids, at the door itself: each ends its connection as it says, and nothing more.

The Autobahn cases show the same of the protocol classes alone.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from itertools import cycle

import pytest

from tests.conformance.wire import Opcode, Peer, frame
from tests.server.realtime.client import Client
from tests.server.realtime.serving import Served
from unbroken.server.agents.scripted import ScriptedAgent

EVENT = json.dumps({"type": "response.cancel", "event_id": "mine", "response_id": "ä€😀"}, ensure_ascii=False)
BEGUN = frame(Opcode.TEXT, b"x", is_final=False)
MAX_LENGTH = 1 << 63


def close(code: int, reason: bytes = b"") -> bytes:
    return frame(Opcode.CLOSE, code.to_bytes(2, "big") + reason)


@pytest.fixture
async def client(server: Served[ScriptedAgent]) -> AsyncIterator[Client]:
    """Somebody else, with a session in which an answer is being said."""
    client = await server.client()
    await client.ask("/stall after 3")
    await client.said("word3")
    yield client
    await client.cancel()
    await client.done()
    await client.ask("hi")
    await client.done()
    assert client.answers() == [("cancelled", "word1 word2 word3"), ("completed", "You said: hi")]


@pytest.fixture
async def peer(server: Served[ScriptedAgent], client: Client) -> AsyncIterator[Peer]:
    async with Peer(server.port) as peer:
        await peer.upgrade()
        await peer.next()
        yield peer


@pytest.mark.parametrize("bits", range(1, 8))
@pytest.mark.parametrize("opcode", [Opcode.TEXT, Opcode.BINARY, Opcode.PING, Opcode.CLOSE])
async def test_reserved_bits_mean_nothing_here(peer: Peer, opcode: Opcode, bits: int) -> None:
    """5.2: no extension was agreed to."""
    await peer.send(frame(opcode, reserved=bits))

    assert await peer.close_code() == 1002


@pytest.mark.parametrize("opcode", [3, 4, 5, 6, 7, 11, 12, 13, 14, 15])
async def test_reserved_opcodes_mean_nothing(peer: Peer, opcode: int) -> None:
    await peer.send(frame(opcode, b"x"))

    assert await peer.close_code() == 1002


@pytest.mark.parametrize(
    "sent",
    [
        frame(Opcode.TEXT, b"{}", is_masked=False),
        frame(Opcode.PING, is_masked=False),
        frame(Opcode.CLOSE, is_masked=False),
        frame(Opcode.PING, is_final=False),
        frame(Opcode.CLOSE, is_final=False),
        frame(Opcode.PING, 126 * b"x"),
        frame(Opcode.PONG, 126 * b"x"),
        frame(Opcode.CONTINUATION, b"x"),
        frame(Opcode.CONTINUATION, b"x", is_final=False),
        BEGUN + frame(Opcode.TEXT, b"x"),
        BEGUN + frame(Opcode.BINARY, b"x", is_final=False),
        BEGUN + frame(Opcode.CONTINUATION, b"x", reserved=0b100),
        frame(Opcode.TEXT, b"{}") + frame(Opcode.CONTINUATION, b"{}"),
        frame(Opcode.CLOSE, b"\x03"),
    ],
    ids=[
        *("unmasked text", "unmasked ping", "unmasked close"),
        *("a ping's first part", "a close's first part"),
        *("a long ping", "a long pong"),
        *("a last part of nothing", "a part of nothing", "text within a message", "binary within a message"),
        *("a compressed part", "a part after the end", "half a close code"),
    ],
)
async def test_what_breaks_a_rule_is_a_protocol_error(peer: Peer, sent: bytes) -> None:
    await peer.send(sent)

    assert await peer.close_code() == 1002


@pytest.mark.parametrize(
    "code", [0, 1, 999, 1004, 1005, 1006, 1015, 1016, 1100, 1999, 2000, 2999, 5000, 65_535]
)
async def test_close_codes_that_may_not_be_sent_are_a_protocol_error(peer: Peer, code: int) -> None:
    """7.4.1, 7.4.2."""
    await peer.send(close(code))

    assert await peer.close_code() == 1002


@pytest.mark.parametrize("code", [1000, 1001, 1003, 1007, 1008, 1009, 1011, 1012, 3000, 4999])
async def test_other_close_codes_are_answered_in_kind(peer: Peer, code: int) -> None:
    """Whatever follows is not read: 5.5.1."""
    await peer.send(close(code, b"bye" * 41) + frame(Opcode.TEXT, b"{}") + b"\xff")

    assert await peer.close_code() == code


@pytest.mark.parametrize("opcode", [Opcode.TEXT, Opcode.BINARY])
@pytest.mark.parametrize("length", [65_537, 1 << 20, 1 << 32, MAX_LENGTH - 1])
async def test_a_length_that_may_not_be_is_closed_before_it_comes(
    peer: Peer, opcode: Opcode, length: int
) -> None:
    await peer.send(frame(opcode, announced=length))

    assert await peer.close_code() == 1009


@pytest.mark.parametrize(
    "sent",
    [frame(Opcode.TEXT, announced=MAX_LENGTH, length_bytes=8), frame(Opcode.PING, announced=MAX_LENGTH - 1)],
    ids=["a length of 64 bits", "a ping without end"],
)
async def test_a_length_that_breaks_a_rule_as_well_is_closed_before_it_comes(peer: Peer, sent: bytes) -> None:
    """5.2, 5.5: either code is true."""
    await peer.send(sent)

    assert await peer.close_code() in (1002, 1009)


@pytest.mark.parametrize(
    "text",
    [
        b"\xc0\x80",
        b"\xed\xa0\x80",
        b"\xf4\x90\x80\x80",
        b"\xe2\x82",
        b"{}\x80",
        b"\xfe",
    ],
    ids=["overlong", "a surrogate", "beyond Unicode", "an unfinished end", "a lone end", "never"],
)
@pytest.mark.parametrize("is_cut", [False, True], ids=["whole", "a byte at a time"])
async def test_text_that_is_not_utf8_is_closed_with_1007(peer: Peer, text: bytes, is_cut: bool) -> None:
    """8.1. Also in the reason of a close frame, 5.5.1."""
    await peer.send(in_bytes(text) if is_cut else frame(Opcode.TEXT, text))

    assert await peer.close_code() == 1007


async def test_a_reason_that_is_not_utf8_is_closed_with_1007(peer: Peer) -> None:
    await peer.send(close(1000, b"\xff"))

    assert await peer.close_code() == 1007


def in_bytes(message: bytes) -> bytes:
    """Return a message of one frame for each byte, with a ping or a pong between any two."""
    first, *rest = [message[index : index + 1] for index in range(len(message))]
    parts = [frame(Opcode.TEXT, first, is_final=False)]
    for part, control in zip(rest, cycle((Opcode.PING, Opcode.PONG)), strict=False):
        parts += [frame(control), frame(Opcode.CONTINUATION, part, is_final=False)]
    return b"".join([*parts, frame(Opcode.CONTINUATION)])


@pytest.mark.parametrize(
    "sent",
    [
        in_bytes(EVENT.encode()),
        frame(Opcode.PONG, b"unasked") + frame(Opcode.TEXT, EVENT.encode()),
    ],
    ids=["a byte at a time", "behind a pong that nobody asked for"],
)
async def test_what_is_odd_but_allowed_is_taken(peer: Peer, sent: bytes) -> None:
    """Characters are cut between frames, control frames come within a message: 5.4."""
    await peer.send(sent)
    while event := await peer.next():
        if event[0] == Opcode.TEXT:
            assert json.loads(event[1])["error"]["event_id"] == "mine"
            return
    raise AssertionError("it has closed")


async def test_a_frame_may_come_a_byte_at_a_time(peer: Peer) -> None:
    for byte in frame(Opcode.TEXT, EVENT.encode()):
        await peer.send(bytes((byte,)))
    event = await peer.next()

    assert event is not None
    assert json.loads(event[1])["error"]["event_id"] == "mine"
