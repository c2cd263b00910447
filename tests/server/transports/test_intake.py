"""What one connection may send, and how it is told to go: with a transport and a loop of the test's own."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any, Final

import pytest
import uvicorn
from hypothesis import given
from hypothesis import strategies as st
from starlette.types import Receive, Scope, Send
from uvicorn.server import ServerState

from tests.conformance.wire import Opcode, frame, handshake
from tests.fakes.loop import FakeLoop
from tests.fakes.transport import FakeTransport
from tests.server.realtime.serving import eventually
from unbroken.server.limits import Rate
from unbroken.server.transports.intake import Intake, IntakeLimits
from unbroken.server.transports.protocol import WebSocketProtocol

MB: Final = 1 << 20
NO_RATE: Final = Rate(1e9, 1e9)
CLOSING: Final = b"\x88"


def limits(**rates: Rate) -> IntakeLimits:
    return IntakeLimits(**{"frames": NO_RATE, "bytes": NO_RATE, "controls": NO_RATE, **rates})


class Connection:
    """One connection of a peer that the test speaks for. Its application takes what it is allowed to."""

    def __init__(self, intake: IntakeLimits, *, takes: bool = True, has_halves: bool = True) -> None:
        self.loop = FakeLoop()
        self.transport = FakeTransport(has_halves=has_halves)
        self.received: list[Any] = []
        self.ended: dict[str, Any] | None = None
        self._takes = takes
        self._released = asyncio.Event()
        config = uvicorn.Config(
            self._application,
            interface="asgi3",
            proxy_headers=False,
            lifespan="off",
            log_config=None,
            ws_max_size=65_536,
            ws_per_message_deflate=False,
        )
        config.load()
        self._state = ServerState()
        kind = WebSocketProtocol.limited(intake, handshake_timeout=10)
        self.protocol = kind(config, self._state, {}, self.loop)

    async def _application(self, scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await send({"type": "websocket.accept"})
        if not self._takes:
            await self._released.wait()
        while True:
            message = await receive()
            if message["type"] == "websocket.disconnect":
                self.ended = dict(message)
                return
            self.received.append(message)

    async def opened(self) -> None:
        self.protocol.connection_made(self.transport)
        self.protocol.data_received(handshake())
        await eventually(lambda: b"\r\n\r\n" in self.transport.written)
        self.transport.written.clear()

    async def settled(self, received: int) -> None:
        """Let turns pass until so many messages were taken."""

        def are_taken() -> bool:
            self.loop.turn()
            return len(self.received) >= received

        await eventually(are_taken)

    async def application_ended(self) -> None:
        await eventually(lambda: not self._state.tasks)

    async def gone(self) -> None:
        self.protocol.connection_lost(None)
        self._released.set()
        await self.application_ended()


@contextlib.asynccontextmanager
async def connected(intake: IntakeLimits | None = None, **options: bool) -> AsyncIterator[Connection]:
    connection = Connection(intake or limits(), **options)
    await connection.opened()
    yield connection
    await connection.gone()


# Portions.


@pytest.mark.long
async def test_a_read_full_of_small_frames_is_taken_a_portion_at_a_time() -> None:
    """Whoever else has something to do does it in between."""
    pings = 40_000
    async with connected() as connection:
        connection.protocol.data_received(pings * frame(Opcode.PING))
        turns = 1
        assert len(connection.transport.written) <= 2 * WebSocketProtocol.portion
        before = len(connection.transport.written)
        while connection.loop.turn():
            turns += 1
            assert len(connection.transport.written) - before <= WebSocketProtocol.portion
            before = len(connection.transport.written)
            assert connection.transport.is_reading() == (before == 2 * pings)

        assert len(connection.transport.written) == 2 * pings, "each is answered"
        assert turns >= 6 * pings // WebSocketProtocol.portion


async def test_what_one_read_brings_is_not_queued_at_once() -> None:
    """An application that takes nothing for a while is left with one portion's messages."""
    async with connected(takes=False) as connection:
        connection.protocol.data_received(40_000 * frame(Opcode.TEXT))
        while connection.loop.turn():
            pass

        assert 0 < connection.protocol.queue.qsize() <= WebSocketProtocol.portion // 6 + 1
        assert not connection.transport.is_reading()


async def test_a_message_of_many_portions_comes_whole_and_in_order() -> None:
    texts = [str(number) * 30_000 for number in range(8)]
    async with connected() as connection:
        connection.protocol.data_received(b"".join(frame(Opcode.TEXT, text.encode()) for text in texts))
        await connection.settled(len(texts))

        assert [message["text"] for message in connection.received] == texts
        assert connection.transport.is_reading()


# Rates.


async def test_a_peer_that_sends_too_many_messages_waits_and_loses_none() -> None:
    async with connected(limits(frames=Rate(10, 100))) as connection:
        connection.protocol.data_received(150 * frame(Opcode.TEXT, b"x"))
        await connection.settled(150)
        assert not connection.transport.is_reading()
        connection.loop.advance(4.9)
        assert not connection.transport.is_reading()
        connection.loop.advance(0.2)
        assert connection.transport.is_reading()
        connection.protocol.data_received(frame(Opcode.TEXT, b"late"))
        await connection.settled(151)

    assert connection.ended is not None
    assert connection.transport.written == b"", "nobody was told off"


async def test_fragments_count_as_messages() -> None:
    async with connected(limits(frames=Rate(10, 100))) as connection:
        start = frame(Opcode.TEXT, b"x", is_final=False)
        connection.protocol.data_received(start + 200 * frame(Opcode.CONTINUATION, b"x", is_final=False))
        assert not connection.transport.is_reading()


async def test_a_peer_that_sends_too_many_bytes_waits() -> None:
    async with connected(limits(bytes=Rate(1000, 10_000))) as connection:
        message = frame(Opcode.TEXT, b"x" * 3000)
        connection.protocol.data_received(4 * message)
        await connection.settled(3)
        assert not connection.transport.is_reading()
        connection.loop.advance(3)
        await connection.settled(4)
        assert connection.transport.is_reading()


@pytest.mark.parametrize("opcode", [Opcode.PING, Opcode.PONG])
async def test_too_many_pings_or_unasked_pongs_end_the_connection(opcode: Opcode) -> None:
    async with connected(limits(controls=Rate(10, 100))) as connection:
        for _ in range(100):
            connection.protocol.data_received(frame(opcode))
        assert CLOSING not in connection.transport.written
        connection.loop.advance(1)
        for _ in range(10):
            connection.protocol.data_received(frame(opcode))
        assert CLOSING not in connection.transport.written
        connection.protocol.data_received(2 * frame(opcode))
        closing = connection.transport.written[connection.transport.written.index(CLOSING) :]

        assert closing[2:4] == (1008).to_bytes(2, "big")
        assert b"too many pings: at most 10 a second" in closing
        await connection.application_ended()
        assert connection.ended is not None
        assert connection.ended["code"] == 1008


async def test_the_answer_to_a_ping_of_ours_is_not_counted() -> None:
    async with connected(limits(controls=Rate(0.001, 1))) as connection:
        for _ in range(20):
            connection.loop.advance(20)
            payload = connection.protocol.pending_ping_payload
            assert payload is not None
            connection.protocol.data_received(frame(Opcode.PONG, payload))
        assert not connection.transport.has_ended


async def test_a_peer_that_has_to_wait_is_not_taken_for_dead() -> None:
    """Its pong is behind what isn't read yet."""
    async with connected(limits(frames=Rate(1, 100))) as connection:
        connection.protocol.data_received(190 * frame(Opcode.TEXT))
        await connection.settled(190)
        connection.loop.advance(80)
        assert not connection.transport.is_reading()
        assert not connection.transport.is_closed
        connection.loop.advance(60)
        assert connection.transport.is_closed, "by now it is dead"


async def test_a_peer_that_has_to_wait_is_closed_and_still_waits() -> None:
    """uvicorn reads on for the answer to a close frame: that must not be a way past the rates."""
    async with connected(limits(frames=Rate(1, 10))) as connection:
        connection.protocol.data_received(100 * frame(Opcode.TEXT))
        await connection.settled(100)
        protocol: Any = connection.protocol
        await protocol.send({"type": "websocket.close", "code": 1013, "reason": ""})
        assert not connection.transport.is_reading()
        connection.protocol.data_received(frame(Opcode.PING) + frame(Opcode.CLOSE))
        assert connection.transport.written == b"\x88\x02\x03\xf5"
        connection.loop.advance(9)
        assert not connection.transport.is_closed
        connection.loop.advance(2)
        assert connection.transport.is_closed


async def test_the_answer_to_a_close_frame_is_found_behind_what_was_not_taken_yet() -> None:
    async with connected(takes=False) as connection:
        connection.protocol.data_received(1000 * frame(Opcode.TEXT) + frame(Opcode.CLOSE))
        protocol: Any = connection.protocol
        await protocol.send({"type": "websocket.close", "code": 1013, "reason": ""})
        assert not connection.transport.is_closed
        while connection.loop.turn():
            pass
        assert connection.transport.is_closed


async def test_a_connection_that_ends_while_it_waits_leaves_no_timer() -> None:
    async with connected(limits(frames=Rate(1, 10))) as connection:
        connection.protocol.data_received(3000 * frame(Opcode.TEXT))
        await connection.settled(100)
    connection.transport.resume_reading()
    connection.loop.advance(100_000)
    assert not connection.loop.turn()


async def test_an_idle_connection_has_no_account() -> None:
    async with connected() as connection:
        assert connection.protocol._intake is None


@given(st.lists(st.tuples(st.floats(0, 10), st.integers(0, 50), st.integers(0, 5000)), max_size=60))
def test_nobody_gets_more_than_the_rates_allow(reads: list[tuple[float, int, int]]) -> None:
    """Whoever waits as long as they are told: never more than the burst, and what the time brings."""
    intake, now, frames, size = Intake(limits(frames=Rate(10, 20), bytes=Rate(100, 1000))), 5.0, 0, 0
    for pause, more, much in reads:
        now += pause
        wait = intake.charge(now, more, much)
        frames, size = frames + more, size + much
        now += max(0.0, wait)
        assert frames <= 20 + 10 * (now - 5.0) + 1e-6
        assert size <= 1000 + 100 * (now - 5.0) + 1e-6


@given(st.floats(0.01, 1e6), st.floats(1, 1e6), st.floats(0, 1e6))
def test_a_rate_that_is_kept_to_costs_nothing(per_second: float, burst: float, now: float) -> None:
    rate, account = Rate(per_second, burst), 0.0
    for _ in range(20):
        account = rate.spent(account, now, 1)
        assert rate.debt(account, now) <= 1e-6
        now += 1 / per_second


# Parting.

TOO_LARGE: Final = frame(Opcode.TEXT, announced=50 * MB)


@pytest.mark.parametrize(
    ("fault", "code"),
    [
        (TOO_LARGE, 1009),
        (frame(Opcode.TEXT, b"x", is_masked=False), 1002),
        (frame(Opcode.TEXT, b"\xff"), 1007),
        (frame(Opcode.TEXT, b"", is_final=False) + 1100 * frame(Opcode.CONTINUATION, is_final=False), 1009),
    ],
    ids=["too large", "not masked", "not UTF-8", "fragments"],
)
async def test_a_peer_that_does_wrong_is_told_before_the_socket_is_closed(fault: bytes, code: int) -> None:
    """Closed with unread input in it, a socket is reset, and the peer doesn't read why."""
    async with connected() as connection:
        connection.protocol.data_received(fault)
        while connection.loop.turn():
            pass
        assert connection.transport.written[2:4] == code.to_bytes(2, "big")
        assert connection.transport.has_ended
        await connection.application_ended()
        for _ in range(10):
            connection.protocol.data_received(MB * b"x")

        assert connection.transport.is_reading()
        assert not connection.transport.is_closed
        assert connection.ended is not None
        assert connection.ended["code"] == code


async def test_a_peer_that_is_told_and_goes_on_is_held_back_and_then_cut() -> None:
    async with connected() as connection:
        connection.protocol.data_received(TOO_LARGE)
        for _ in range(16):
            connection.protocol.data_received(MB * b"x")
        assert connection.transport.is_reading()
        connection.protocol.data_received(b"x")
        assert not connection.transport.is_reading()
        connection.loop.advance(WebSocketProtocol.flush_timeout)

        assert connection.transport.is_aborted


async def test_a_peer_that_is_told_over_tls_has_the_close_frame_alone() -> None:
    async with connected(has_halves=False) as connection:
        connection.protocol.data_received(TOO_LARGE)
        await connection.application_ended()

        assert connection.transport.written[2:4] == (1009).to_bytes(2, "big")
        assert connection.transport.is_reading()
        assert not connection.transport.is_closed
        connection.loop.advance(WebSocketProtocol.flush_timeout)
        assert connection.transport.is_aborted


async def test_what_does_wrong_after_our_close_frame_gets_no_second_one() -> None:
    async with connected() as connection:
        protocol: Any = connection.protocol
        await protocol.send({"type": "websocket.close", "code": 1008, "reason": "x"})
        connection.protocol.data_received(TOO_LARGE)
        connection.protocol.data_received(MB * b"x")
        await connection.application_ended()

        assert connection.transport.written == b"\x88\x03\x03\xf0x"
        assert not connection.transport.is_closed


async def test_shutdown_ends_a_peer_that_was_told_at_once() -> None:
    async with connected() as connection:
        connection.protocol.data_received(TOO_LARGE)
        connection.protocol.shutdown()
        assert connection.transport.is_closed
        connection.loop.advance(WebSocketProtocol.flush_timeout)
        assert connection.transport.is_aborted
