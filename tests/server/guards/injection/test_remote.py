from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from unbroken.server.guards.injection.base import DetectorFailed, Origin, Passage, Question
from unbroken.server.guards.injection.remote import Api, HttpDetector

QUESTION = Question(Passage(Origin.TOOL, "Is this one?"))


class FakeService:
    """An HTTP server on loopback that answers what it is told to."""

    def __init__(self) -> None:
        self.status = 200
        self.answer = b'{"score": 0.75}'
        self.requests: list[tuple[dict[str, str], object]] = []
        self.address = ""

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        lines = (await reader.readuntil(b"\r\n\r\n")).decode().splitlines()
        headers = {
            name.lower(): value for name, _, value in (line.partition(": ") for line in lines[1:] if line)
        }
        body = await reader.readexactly(int(headers["content-length"]))
        self.requests.append((headers, json.loads(body)))
        head = f"HTTP/1.1 {self.status} X\r\nContent-Length: {len(self.answer)}\r\nConnection: close\r\n"
        writer.write(f"{head}Location: http://127.0.0.1:9/\r\n\r\n".encode() + self.answer)
        await writer.drain()
        writer.close()


@asynccontextmanager
async def asking(
    service: FakeService, api: Api = "plain", key: str | None = None
) -> AsyncIterator[HttpDetector]:
    server = await asyncio.start_server(service.serve, "127.0.0.1", 0)
    service.address = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/check"
    detector = HttpDetector(service.address, api=api, key=key)
    try:
        yield detector
    finally:
        await detector.close()
        server.close()
        await server.wait_closed()


async def test_a_service_is_asked_by_the_contract() -> None:
    service = FakeService()
    async with asking(service, key="k" * 8) as detector:
        assert await detector.score(QUESTION) == 0.75

    ((headers, body),) = service.requests
    assert body == {"text": "Is this one?", "origin": "tool"}
    assert headers["authorization"] == "Bearer kkkkkkkk"


async def test_a_service_of_lakeras_kind_is_asked_in_its_words() -> None:
    service = FakeService()
    service.answer = b'{"flagged": true, "metadata": {}}'
    async with asking(service, api="lakera") as detector:
        assert await detector.score(QUESTION) == 1.0

    assert service.requests[0][1] == {"messages": [{"role": "tool", "content": "Is this one?"}]}


@pytest.mark.parametrize(
    ("status", "answer"),
    [
        (500, b"{}"),
        (302, b'{"score": 0.1}'),
        (200, b"nonsense"),
        (200, b"[]"),
        (200, b"{}"),
        (200, b'{"score": true}'),
        (200, b'{"score": 1.5}'),
        (200, b'{"score": "0.5"}'),
        (200, b'{"flagged": 1}'),
        (200, b'{"score": 0.5, "more": "' + b"x" * 70_000 + b'"}'),
    ],
)
async def test_any_other_answer_is_none(status: int, answer: bytes) -> None:
    service = FakeService()
    service.status, service.answer = status, answer
    async with asking(service) as detector:
        with pytest.raises(DetectorFailed):
            await detector.score(QUESTION)

    assert len(service.requests) == 1  # it is not asked again


async def test_a_service_that_is_not_there_has_no_answer() -> None:
    service = FakeService()
    async with asking(service):
        address = service.address
    detector = HttpDetector(address)
    with pytest.raises(DetectorFailed, match="ConnectError"):
        await detector.score(QUESTION)
    await detector.close()


async def test_long_texts_and_odd_ones_are_sent_shortened() -> None:
    service = FakeService()
    async with asking(service) as detector:
        await detector.score(Question(Passage(Origin.USER, "\ud800" + "x" * 100_000 + "end")))

    body = service.requests[0][1]
    assert isinstance(body, dict)
    assert len(body["text"]) <= 32 * 1024 + 1
    assert body["text"].endswith("end")


async def test_of_a_long_text_what_looks_worst_is_sent_too() -> None:
    service = FakeService()
    text = "begins" + "x" * 100_000 + "ends"
    async with asking(service) as detector:
        await detector.score(Question(Passage(Origin.USER, text), part="\ud800worst" + "y" * 16_000))
        await detector.score(Question(Passage(Origin.USER, "short"), part="of no interest"))

    (_, long), (_, short) = service.requests
    assert isinstance(long, dict)
    begins, worst, ends = long["text"].split("\n")
    assert begins.startswith("begins")
    assert worst == "?worst" + "y" * 16_000
    assert ends.endswith("ends")
    assert len(long["text"]) <= 32 * 1024 + 2
    assert short == {"text": "short", "origin": "user"}
