"""What is said on one connection to a client that doesn't read."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

from starlette.types import Message

from tests.fakes.clock import FakeClock
from unbroken.server.limits import ConnectionLimits
from unbroken.server.metrics import Metrics
from unbroken.server.transports.talk import Talk


class _Client:
    """Reads when it is told to."""

    def __init__(self) -> None:
        self.is_writable = True
        self.is_slow = False
        self.read: list[bytes] = []
        self.closed = asyncio.get_running_loop().create_future()
        self._callback: Callable[[], None] | None = None

    def write(self, messages: Sequence[bytes]) -> None:
        self.read += messages
        self.is_writable = False

    def listen(self, callback: Callable[[], None] | None) -> None:
        self._callback = callback

    async def flushed(self) -> None:
        pass

    def reads(self) -> None:
        self.is_writable = True
        if self._callback is not None:
            self._callback()

    async def receive(self) -> Message:
        return await asyncio.get_running_loop().create_future()  # type: ignore[no-any-return]

    async def send(self, message: Message) -> None:
        if message["type"] == "websocket.close":
            self.closed.set_result(message["code"])


def say_alone(code: str, message: str, *, status: int, retry_after: int | None = None) -> bytes:
    return code.encode()


def talk_with(client: _Client) -> Talk:
    return Talk(
        lambda _data: None,
        say_alone,
        ConnectionLimits(),
        Metrics(),
        FakeClock(),
        client.receive,
        client.send,
        client,
    )


async def test_what_is_long_is_made_once_the_client_has_read_what_there_was() -> None:
    client = _Client()
    talk = talk_with(client)
    running = asyncio.ensure_future(talk.run())
    await asyncio.sleep(0)
    made: list[str] = []

    async def make(name: str) -> None:
        await talk.room()
        made.append(name)
        talk.say(name.encode())

    await talk.spawn(make("one"))
    second = talk.spawn(make("two"))
    for _ in range(5):
        await asyncio.sleep(0)
    assert made == ["one"]
    client.reads()
    await second

    assert client.read == [b"one", b"two"]
    running.cancel()
    await asyncio.wait([running])


async def test_no_more_bytes_wait_for_a_client_than_may() -> None:
    client = _Client()
    talk = talk_with(client)
    running = asyncio.ensure_future(talk.run())
    await asyncio.sleep(0)
    for _ in range(4):  # the first is on its way, and one may wait however long it is
        talk.say(b"x" * (5 << 20))
    await running

    assert client.closed.result() == 1008
    assert len(client.read) == 1
