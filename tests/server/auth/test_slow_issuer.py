"""Issuers of JSON Web Tokens whose answer never ends, each with a piece that always comes in time."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from tests.fakes.clock import FakeClock
from tests.server.auth.test_jwt import AUDIENCE, ISSUER, Issuer
from tests.server.conftest import Serve
from tests.server.realtime.raw import RawClient
from tests.server.realtime.serving import Served
from unbroken.server.agents.scripted import ScriptedAgent
from unbroken.server.auth.jwks import JwksUnavailable, KeySet, NotLookedFor

HEADER = b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n"


class Door:
    """Where an issuer answers: with its keys, or with a beginning and then, for ever, drop after drop."""

    def __init__(self, issuer: Issuer) -> None:
        self.issuer = issuer
        self.scheme, self.beginning, self.drop = "http", b"", b""
        self.is_dripping = False
        self.asked, self.is_asked = 0, asyncio.Event()
        self.gone = asyncio.Semaphore(0)
        """Released for each peer that was dripped at and has left."""
        self.port = 0

    @property
    def address(self) -> str:
        return f"{self.scheme}://127.0.0.1:{self.port}/jwks"

    def drip(self, beginning: bytes, drop: bytes) -> None:
        self.is_dripping, self.beginning, self.drop = True, beginning, drop

    async def answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.asked += 1
        self.is_asked.set()
        with contextlib.suppress(OSError):
            if self.is_dripping:
                await self._drip(reader, writer)
            else:
                await reader.readuntil(b"\r\n\r\n")
                text = self.issuer.path.read_bytes()
                writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(text) + text)
                await writer.drain()
        writer.close()

    async def _drip(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        leaving = asyncio.create_task(self._left(reader))
        writer.write(self.beginning)
        while not leaving.done():
            writer.write(self.drop)
            await asyncio.wait({leaving}, timeout=0.01)
        self.gone.release()

    @staticmethod
    async def _left(reader: asyncio.StreamReader) -> None:
        with contextlib.suppress(OSError):
            while await reader.read(65_536):
                pass


@pytest.fixture
async def door(tmp_path: Path) -> AsyncIterator[Door]:
    door = Door(Issuer(tmp_path / "jwks.json"))
    server = await asyncio.start_server(door.answer, "127.0.0.1", 0)
    door.port = server.sockets[0].getsockname()[1]
    async with server:
        yield door


@pytest.fixture(autouse=True)
def short_deadline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("unbroken.server.auth.jwks._TIMEOUT", 0.5)


drips = pytest.mark.parametrize(
    ("scheme", "beginning", "drop"),
    [
        pytest.param("http", b"", b"", id="nothing"),
        pytest.param("http", b"HTTP/1.1 200 ", b"O", id="status"),
        pytest.param("http", b"HTTP/1.1 200 OK\r\nX: ", b"a", id="header"),
        pytest.param("http", b"", b"HTTP/1.1 100 Continue\r\n\r\n", id="interim answers"),
        pytest.param("http", HEADER, b" ", id="body"),
        # A handshake record of TLS 1.2 that says it is 16 KiB long.
        pytest.param("https", b"\x16\x03\x03\x40\x00", b"\x02", id="TLS"),
    ],
)


@drips
async def test_an_answer_that_drips_in_is_not_waited_for(
    door: Door, scheme: str, beginning: bytes, drop: bytes
) -> None:
    door.drip(beginning, drop)
    door.scheme = scheme

    with pytest.raises(JwksUnavailable, match="takes too long"):
        await KeySet(door.address, FakeClock()).start()
    await door.gone.acquire()


async def test_whoever_waits_for_one_is_told_and_the_next_fetch_finds_what_is_there(door: Door) -> None:
    fetched: list[str] = []
    clock = door.issuer.clock
    keys = KeySet(door.address, clock, on_fetch=fetched.append)
    await keys.start()
    door.issuer.rotate("k1", "k2")
    clock.advance(40)
    door.drip(b"HTTP/1.1 200 OK\r\nX: ", b"a")

    told = await asyncio.gather(*(keys.find("k2") for _ in range(20)), return_exceptions=True)
    assert [type(each) for each in told] == [NotLookedFor] * 20
    assert fetched == ["failed"]
    await door.gone.acquire()
    clock.advance(20)
    with pytest.raises(NotLookedFor):
        await keys.find("k2")
    assert door.asked == 2, "the start's, and one that failed"
    clock.advance(10)
    door.is_dripping = False
    assert await keys.find("k2")
    assert fetched == ["failed", "ok"]


async def test_keys_that_are_known_are_believed_when_one_has_dripped(door: Door) -> None:
    clock = door.issuer.clock
    keys = KeySet(door.address, clock)
    await keys.start()
    door.drip(b"HTTP/1.1 200 OK\r\nX: ", b"a")
    clock.advance(3600)
    assert await keys.find("k1")

    clock.advance(86_400)
    with pytest.raises(JwksUnavailable):
        await keys.find("k1")


async def test_the_end_comes_with_that_of_what_drips(door: Door) -> None:
    keys = KeySet(door.address, door.issuer.clock)
    await keys.start()
    door.drip(b"HTTP/1.1 200 OK\r\nX: ", b"a")
    door.issuer.clock.advance(700)
    door.is_asked.clear()
    assert await keys.find("k1"), "behind it, the set is fetched again"
    await door.is_asked.wait()
    await keys.stop()

    await door.gone.acquire()
    assert keys._fetching is None


async def test_the_end_may_come_before_a_fetch_has_begun(door: Door) -> None:
    keys = KeySet(door.address, door.issuer.clock)
    await keys.start()
    door.issuer.clock.advance(700)
    assert await keys.find("k1")
    await keys.stop()

    assert (keys._fetching, door.asked) == (None, 1)


async def test_a_name_that_is_never_resolved_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    over = threading.Event()

    def hang(*_: Any, **__: Any) -> Any:
        over.wait(30)
        raise socket.gaierror(socket.EAI_AGAIN, "no name server answers")

    monkeypatch.setattr(socket, "getaddrinfo", hang)
    try:
        with pytest.raises(JwksUnavailable, match="takes too long"):
            await KeySet("https://id.example/jwks", FakeClock()).start()
    finally:
        over.set()


async def test_a_token_of_an_unknown_key_is_refused_meanwhile_as_ever(door: Door, serve: Serve) -> None:
    """It isn't cut off without an answer, and its connection counts no longer than that."""
    served: Served[ScriptedAgent] = await serve(
        ScriptedAgent(),
        clock=door.issuer.clock,
        jwt_jwks=door.address,
        jwt_issuer=ISSUER,
        jwt_audience=(AUDIENCE,),
        max_connections=2,
    )

    async def status(token: str) -> int:
        headers = {"Authorization": f"Bearer {token}"}
        async with RawClient(served.port, None, headers=headers) as raw:
            return int((await raw.response()).status_code)

    door.issuer.clock.advance(40)
    door.drip(b"HTTP/1.1 200 OK\r\nX: ", b"a")
    unknown = door.issuer.token(header={"kid": "unknown"})
    assert await asyncio.gather(*(status(unknown) for _ in range(2))) == [401, 401]
    assert await status(door.issuer.token()) == 101
