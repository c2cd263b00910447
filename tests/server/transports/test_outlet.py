"""The outlet for any ASGI server: whether the client keeps up, as far as ``send`` tells."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

import pytest
from starlette.types import Message

from tests.server.realtime.serving import eventually
from unbroken.server.transports.outlet import AsgiOutlet, PlainSend


class Server:
    """Takes messages while it has room, as uvicorn does: then ``send`` returns without a pause."""

    def __init__(self) -> None:
        self.room = asyncio.Event()
        self.room.set()
        self.sent: list[str] = []

    async def send(self, message: Message) -> None:
        if not self.room.is_set():
            await self.room.wait()
        self.sent.append(message["text"])


@contextlib.asynccontextmanager
async def running(outlet: AsgiOutlet) -> AsyncIterator[None]:
    task = asyncio.create_task(outlet.run())
    yield
    task.cancel()
    await asyncio.wait([task])


async def test_a_client_that_keeps_up_is_never_slow() -> None:
    """Although each message is on its way for a turn of the loop."""
    server = Server()
    outlet = AsgiOutlet(server.send)
    seen: set[bool] = set()
    outlet.listen(lambda: seen.add(outlet.is_slow))
    async with running(outlet):
        for number in range(50):
            outlet.write([b"a", b"b"])
            seen.add(outlet.is_slow)
            await eventually(lambda: outlet.is_writable)
            await asyncio.sleep(0)
            seen.add(outlet.is_slow)
            if number % 3:
                await asyncio.sleep(0)

    assert seen == {False}
    assert len(server.sent) == 100


async def test_a_client_is_slow_until_it_has_all_that_there_was() -> None:
    server = Server()
    outlet = AsgiOutlet(server.send)
    told: list[tuple[bool, bool]] = []  # writable, slow
    more = [b"c"]

    def flush() -> None:
        told.append((outlet.is_writable, outlet.is_slow))
        if outlet.is_writable and more:
            outlet.write([more.pop()])

    async with running(outlet):
        await eventually(lambda: outlet.is_writable)
        outlet.listen(flush)
        server.room.clear()
        outlet.write([b"a", b"b"])
        await eventually(lambda: outlet.is_slow)
        assert told == [(False, True)], "whoever may have more to send is told"
        server.room.set()
        await eventually(lambda: not outlet.is_slow)

    assert server.sent == ["a", "b", "c"]
    assert told == [(False, True), (True, True), (True, True)], "it was one stretch"


async def test_an_end_that_the_server_made_is_no_mistake_of_the_application() -> None:
    """uvicorn's own class says so of what is sent after it has closed: the task died of it, unheard."""

    async def send(message: Message) -> None:
        raise RuntimeError(f"Unexpected ASGI message {message['type']!r}, after sending 'websocket.close'.")

    outlet = AsgiOutlet(PlainSend(send))
    outlet.write([b"a"])
    await outlet.run()
    await outlet.flushed()
    with pytest.raises(OSError):
        await PlainSend(send)({"type": "websocket.close"})


async def test_a_client_that_goes_is_no_error() -> None:
    async def send(message: Message) -> None:
        raise OSError(message["type"])

    outlet = AsgiOutlet(send)
    outlet.write([b"a"])
    await outlet.run()
    await outlet.flushed()
    assert outlet.is_writable
    assert not outlet.is_slow
