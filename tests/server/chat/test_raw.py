"""``/v1/chat/completions`` as it is on the wire, to readers that know nothing of SDKs."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import orjson
import pytest

from tests.server.conftest import Serve
from tests.server.realtime.agent import ManualAgent
from tests.server.realtime.client import WAIT
from tests.server.realtime.serving import Served
from unbroken.server.agents.scripted import ScriptedAgent
from unbroken.server.transports import sse


class Raw:
    """One connection over which requests go."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self.status = 0
        self.headers: dict[str, str] = {}

    async def ask(self, body: Any, path: str = "/v1/chat/completions", **headers: str) -> None:
        """Send a request, and read the head of its answer."""
        data = orjson.dumps(body)
        given = {"Host": "127.0.0.1", "Authorization": "Bearer alice", "Content-Length": str(len(data))}
        lines = [f"{name.replace('_', '-')}: {value}" for name, value in {**given, **headers}.items()]
        self._writer.write("\r\n".join([f"POST {path} HTTP/1.1", *lines, "", ""]).encode() + data)
        head = (await self._reader.readuntil(b"\r\n\r\n")).decode().splitlines()
        self.status = int(head[0].split()[1])
        self.headers = dict(line.lower().split(": ", 1) for line in head[1:] if line)

    async def chunk(self) -> bytes:
        """Return the next piece of a body that comes in chunks; empty: it has ended."""
        size = int(await self._reader.readline(), 16)
        return (await self._reader.readexactly(size + 2))[:-2]

    async def body(self) -> bytes:
        """Return the rest of it."""
        whole = b""
        while piece := await self.chunk():
            whole += piece
        return whole


@asynccontextmanager
async def connected(served: Served[Any]) -> AsyncIterator[Raw]:
    async with asyncio.timeout(WAIT):
        reader, writer = await asyncio.open_connection("127.0.0.1", served.port)
        try:
            yield Raw(reader, writer)
        finally:
            writer.close()
            await writer.wait_closed()


def asked(text: str, **wanted: Any) -> Any:
    return {"messages": [{"role": "user", "content": text}], "stream": True, **wanted}


def events(body: bytes) -> list[str]:
    """Return what a body has for data, having checked that it is made of nothing else."""
    lines = body.decode().split("\n\n")
    assert lines.pop() == ""
    assert all(re.fullmatch(r"data: [^\n]+", line) for line in lines)
    return [line.removeprefix("data: ") for line in lines]


async def test_a_stream_is_data_alone_and_ends_with_its_body(server: Served[ScriptedAgent]) -> None:
    async with connected(server) as raw:
        for _ in range(2):  # the connection is kept
            await raw.ask(asked("/tokens 3"))
            *chunks, last = events(await raw.body())

            assert (raw.status, raw.headers["content-type"]) == (200, "text/event-stream; charset=utf-8")
            assert raw.headers["x-accel-buffering"] == "no"
            assert "no-transform" in raw.headers["cache-control"]
            assert last == "[DONE]"
            deltas = [orjson.loads(chunk)["choices"][0]["delta"].get("content", "") for chunk in chunks]
            assert "".join(deltas) == "word1 word2 word3"


async def test_what_is_said_comes_as_it_is_said(manual: Served[ManualAgent]) -> None:
    async with connected(manual) as raw:
        await raw.ask(asked("hi"))
        assert b'"role":"assistant"' in await raw.chunk()
        turn = await manual.agent.turn()
        for word in ("one ", "two"):
            turn.say(word)
            assert f'"content":"{word}"'.encode() in await raw.chunk()
        turn.end()
        assert events(await raw.body())[-1] == "[DONE]"


async def test_silence_is_broken_by_a_lone_colon(
    manual: Served[ManualAgent], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sse, "_HEARTBEAT", 0.01)
    async with connected(manual) as raw:
        await raw.ask(asked("hi"))
        turn = await manual.agent.turn()
        assert b'"role":"assistant"' in await raw.chunk()
        assert await raw.chunk() == b":\n"
        turn.end()
        assert (await raw.body()).endswith(b"data: [DONE]\n\n")


async def test_a_failure_in_mid_stream_is_the_last_event(server: Served[ScriptedAgent]) -> None:
    async with connected(server) as raw:
        await raw.ask(asked("/fail upstream_cut after 1"))
        *chunks, last = events(await raw.body())

        error = orjson.loads(last)["error"]
        assert (error["code"], error["type"], error["param"]) == ("upstream_cut", "server_error", None)
        assert not any("error" in orjson.loads(chunk) for chunk in chunks)
        await raw.ask(asked("again"))
        assert raw.status == 200
        await raw.body()


async def test_pages_of_listed_origins_may_ask(serve: Serve) -> None:
    page = "https://shop.example"
    served = await serve(ScriptedAgent(), allowed_origins=(page,))
    async with connected(served) as raw:
        await raw.ask(asked("hi"), Origin=page)
        await raw.body()
        assert raw.headers["access-control-allow-origin"] == page
    async with connected(served) as raw:
        await raw.ask(asked("hi"), Origin="https://other.example")
        assert raw.status == 403
