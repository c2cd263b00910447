"""A peer that is held back without help of the transport."""

from __future__ import annotations

import asyncio

import pytest
from starlette.types import Message

from tests.fakes.clock import FakeClock
from tests.server.realtime.serving import eventually
from unbroken.server.limits import Rate
from unbroken.server.transports.intake import IntakeLimits
from unbroken.server.transports.pace import PacedReceive

NO_RATE = Rate(1e9, 1e9)


class Peer:
    """Always has another message, and counts how many were taken."""

    def __init__(self, message: Message, limit: int = 1000) -> None:
        self.clock = FakeClock()
        self.taken = 0
        self._message = message
        self._limit = limit

    async def receive(self) -> Message:
        self.taken += 1
        return self._message if self.taken <= self._limit else {"type": "websocket.disconnect"}

    def paced(self, *, frames: Rate = NO_RATE, size: Rate = NO_RATE) -> PacedReceive:
        limits = IntakeLimits(frames=frames, bytes=size, controls=NO_RATE)
        return PacedReceive(self.receive, limits, self.clock)


async def read(receive: PacedReceive) -> None:
    while True:
        message = await receive()
        await asyncio.sleep(0)  # others have their turn
        if message["type"] == "websocket.disconnect":
            return


async def waits(peer: Peer) -> None:
    await eventually(lambda: peer.clock.pending == 1)


async def test_messages_beyond_the_rate_are_taken_later_and_none_is_lost() -> None:
    peer = Peer({"type": "websocket.receive", "text": "x"}, limit=30)
    reader = asyncio.create_task(read(peer.paced(frames=Rate(8, 16))))
    await waits(peer)
    assert peer.taken == 17
    peer.clock.advance(0.5)
    await waits(peer)
    assert peer.taken == 21
    while not reader.done():
        peer.clock.advance(0.125)
        await asyncio.sleep(0)
    await reader
    assert peer.taken == 31
    assert peer.clock.pending == 0


@pytest.mark.parametrize(
    "message",
    [
        {"type": "websocket.receive", "text": "x" * 100},
        {"type": "websocket.receive", "text": "é" * 50},
        {"type": "websocket.receive", "bytes": b"x" * 100},
        {"type": "websocket.receive", "text": None, "bytes": b"x" * 100},
    ],
)
async def test_bytes_are_counted_as_they_were_sent(message: Message) -> None:
    peer = Peer(message)
    reader = asyncio.create_task(read(peer.paced(size=Rate(100, 500))))
    await waits(peer)
    assert peer.taken == 6
    reader.cancel()
    await asyncio.wait([reader])
    assert peer.clock.pending == 0, "a reader that is cancelled leaves no timer"
