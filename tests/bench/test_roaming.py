"""Clients that come back, against a server that is played: what it loses, doubles or mixes up must fail."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest

from tests.bench.load import LoadError
from tests.bench.nodes import Traffic
from tests.bench.roaming import Ask, Attempt, Roamer, living, wait_for
from tests.bench.suites.crash import fate
from tests.bench.suites.silence import longest
from tests.bench.wire import ACCEPT

_HEAD = b"HTTP/1.1 101 Switching Protocols\r\nSec-WebSocket-Accept: " + ACCEPT + b"\r\n\r\n"
_ASK = Ask("anything", "one two three four ", attempts=2)


def _frame(event: dict[str, Any]) -> bytes:
    payload = json.dumps(event).encode()
    size = len(payload)
    return b"\x81" + (bytes([size]) if size < 126 else b"\x7e" + size.to_bytes(2)) + payload


def _created(resumed: bool | None = None) -> bytes:
    shown = {"resume": "token", "resumed": resumed}
    event_id = "event_00000001.1.1.0"
    return _frame({"type": "session.created", "event_id": event_id, "session": {"unbroken": shown}})


def _began(number: int = 1) -> bytes:
    event_id = f"event_00000001.{10 * number}.1.0"
    return _frame({"type": "response.created", "event_id": event_id, "response": {"id": f"r{number}"}})


def _piece(text: str, number: int = 1) -> bytes:
    event_id = f"event_00000001.{10 * number + 1}.1.0"
    kind = "response.output_text.delta"
    return _frame({"type": kind, "event_id": event_id, "response_id": f"r{number}", "delta": text})


def _done(text: str, status: str = "completed", number: int = 1) -> bytes:
    details = {"error": {"code": "interrupted"}} if status == "failed" else None
    output = [{"content": [{"text": text}]}]
    response = {"id": f"r{number}", "status": status, "status_details": details, "output": output}
    event_id = f"event_00000001.{10 * number + 2}.1.0"
    return _frame({"type": "response.done", "event_id": event_id, "response": response})


class _Node:
    """A node that says what a test wants. Each connection is one of :attr:`came`, once it has asked."""

    def __init__(self, greet: Callable[[int], bytes]) -> None:
        self.targets: list[str] = []
        self.came: asyncio.Queue[asyncio.StreamWriter] = asyncio.Queue()
        self.port = 0
        self._greet = greet

    async def take(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        self.targets.append(head.split()[1])
        writer.write(self._greet(len(self.targets)))
        self.came.put_nowait(writer)
        try:
            while await reader.read(65536):
                pass
        finally:
            writer.close()


@asynccontextmanager
async def _node(greet: Callable[[int], bytes]) -> AsyncIterator[_Node]:
    node = _Node(greet)
    server = await asyncio.start_server(node.take, "127.0.0.1", 0)
    async with server:
        node.port = server.sockets[0].getsockname()[1]
        yield node


def _as_ever(number: int) -> bytes:
    return _HEAD + _created(None if number == 1 else True)


@asynccontextmanager
async def _asked(greet: Callable[[int], bytes] = _as_ever) -> AsyncIterator[tuple[Roamer, _Node]]:
    """Have a client that has asked, and has been answered with half of it, on its first connection."""
    async with _node(greet) as node:
        roamer = Roamer(1, [node.port])
        async with living([roamer]):
            await wait_for([roamer.welcome], "connected", 5)
            roamer.ask(_ASK)
            (await node.came.get()).write(_began() + _piece("one ") + _piece("two "))
            await wait_for([roamer.begun], "being answered", 5)
            yield roamer, node


async def test_an_answer_goes_on_over_the_next_connection() -> None:
    async with _asked() as (roamer, node):
        roamer.drop()
        (await node.came.get()).write(_piece("three ") + _piece("four ") + _done(_ASK.answer))
        await wait_for([roamer.answered], "answered", 5)
    assert node.targets == ["/v1/realtime", "/v1/realtime?resume=token&after=event_00000001.11.1.0"]
    assert [attempt.status for attempt in roamer.attempts.values()] == ["completed"]
    assert len(roamer.arrivals) == 4
    assert len(roamer.resumed) == 1
    assert 0 <= roamer.resumed[0].shown <= roamer.resumed[0].whole


@pytest.mark.parametrize(
    ("rest", "says"),
    [
        (_piece("two ") + _piece("three "), "wrong text"),
        (_piece("four "), "wrong text"),
        (_piece("three four "[:-1]) + _done("one two three four"), "completed with 18 characters"),
        (_piece("three ") + _done("one two three four "), "other text"),
        (_done("one two ", "cancelled"), "ended as cancelled"),
        (_frame({"type": "error", "event_id": "x", "error": {"code": "agent_crashed"}}), "agent_crashed"),
        (b"\x81\x81....a", "masked"),
        (b"\x82\x01a", "unexpected frame"),
        (b"", "aren't answered within"),
    ],
    ids=["doubled", "lost", "cut", "end differs", "cancelled", "error", "masked", "binary", "silence"],
)
async def test_what_is_wrong_after_a_return_fails(rest: bytes, says: str) -> None:
    with pytest.raises(LoadError, match=says):
        async with _asked() as (roamer, node):
            roamer.drop()
            (await node.came.get()).write(rest)
            await wait_for([roamer.answered], "answered", 5 if rest else 0.05)


async def test_who_is_told_to_start_over_fails() -> None:
    with pytest.raises(LoadError, match="start over"):
        async with _asked(lambda number: _HEAD + _created(number == 1)) as (roamer, _):
            roamer.drop()
            await wait_for([roamer.answered], "answered", 5)


async def test_a_second_attempt_begins_at_the_beginning() -> None:
    again = _began(2) + _piece("one two three ", 2) + _piece("four ", 2) + _done(_ASK.answer, number=2)
    async with _asked() as (roamer, node):
        roamer.drop()
        (await node.came.get()).write(_done("one two ", "failed") + again)
        await wait_for([roamer.answered], "answered", 5)
    assert fate(roamer.attempts) == "regenerated"


async def test_who_is_refused_comes_again_and_says_so() -> None:
    refused = b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n"
    told = (
        _frame({"type": "error", "event_id": "x", "error": {"code": "store_unavailable"}})
        + b"\x88\x02\x03\xf5"
    )
    greetings = {2: refused, 3: _HEAD + told, 4: _HEAD + b"\x88\x02\x03\xf4"}
    async with _asked(lambda number: greetings.get(number) or _as_ever(number)) as (roamer, node):
        roamer.drop()
        for _ in greetings:
            await node.came.get()
        (await node.came.get()).write(_piece("three four ") + _done(_ASK.answer))
        await wait_for([roamer.answered], "answered", 5)
    assert roamer.refusals == ["503", "store_unavailable", "1012"]


async def test_who_leaves_comes_back_when_told_to() -> None:
    async with _asked() as (roamer, node), _node(lambda _: _as_ever(2)) as other:
        roamer.leave()
        while roamer.welcome.is_set():  # noqa: ASYNC110 - nothing says that it has left
            await asyncio.sleep(0)
        roamer.ports = [other.port]
        roamer.come_back()
        (await other.came.get()).write(_piece("three four ") + _done(_ASK.answer))
        await wait_for([roamer.answered], "answered", 5)
    assert len(node.targets) == 1


@pytest.mark.parametrize("cut", range(0, 400, 37))
async def test_frames_arrive_whole_wherever_they_are_cut(cut: int) -> None:
    async with _asked() as (roamer, node):
        roamer.drop()
        writer = await node.came.get()
        rest = b"\x89\x02hi" + _piece("three ") + _piece("four ") + _done(_ASK.answer)
        writer.write(rest[:cut])
        await writer.drain()
        await asyncio.sleep(0)
        writer.write(rest[cut:])
        await wait_for([roamer.answered], "answered", 5)
    assert fate(roamer.attempts) == "completed"


def test_fates() -> None:
    def of(*statuses: str) -> str:
        return fate({str(number): Attempt(status=status) for number, status in enumerate(statuses)})

    assert of("completed") == "completed"
    assert of("interrupted", "completed") == "regenerated"
    assert of("interrupted", "interrupted") == "interrupted"
    for wrong in (("completed", "completed"), ("interrupted", ""), ()):
        with pytest.raises(LoadError, match="a turn ended with"):
            of(*wrong)


def test_a_silence_is_counted_from_the_fault_on() -> None:
    assert longest([0.0, 5.0, 5.5, 6.0], since=4.0) == 1.0
    assert longest([0.0, 5.0, 5.5, 8.0], since=5.25) == 2.5
    assert longest([], since=1.0) == 0.0


def test_traffic_is_what_came_since() -> None:
    assert Traffic(10, 2_000).since(Traffic(4, 500)) == Traffic(6, 1_500)
