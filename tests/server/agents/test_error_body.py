"""What an upstream says of an error is read within bounds, and doesn't hide which error it is."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable

import httpx2
import pytest

from tests.fakes.http_peer import Peer, PeerServer, counted
from tests.server.agents.agent_contract import collect, turn
from tests.server.agents.upstream_contract import KEY, fails
from tests.server.realtime.serving import eventually
from unbroken.server.agents.base import (
    AgentError,
    UpstreamRefusedKey,
    UpstreamRejected,
    UpstreamUnavailable,
)
from unbroken.server.agents.error_body import ErrorBody, bound_error
from unbroken.server.agents.openai import OpenAIAgent
from unbroken.server.agents.upstream import Upstream

pytestmark = pytest.mark.timeout(30)


class Pieces(httpx2.AsyncByteStream):
    """Yields *data* again and again, so many times, or breaks or stalls behind that."""

    def __init__(self, data: bytes, times: int, then: BaseException | asyncio.Event | None = None) -> None:
        self._data, self._times, self._then = data, times, then
        self.is_ended = False

    async def __aiter__(self) -> AsyncGenerator[bytes, None]:
        try:
            for _ in range(self._times):
                yield self._data
            if isinstance(self._then, asyncio.Event):
                await self._then.wait()
            elif self._then is not None:
                raise self._then
        finally:
            self.is_ended = True


async def read(pieces: Pieces, **bounds: float) -> bytes:
    return b"".join([data async for data in ErrorBody(pieces, **bounds)])  # type: ignore[arg-type]


async def test_it_is_read_to_its_end() -> None:
    assert await read(Pieces(b"ab", 3)) == b"ababab"
    assert await read(Pieces(b"", 0)) == b""


async def test_no_more_of_it_is_read_than_may_be() -> None:
    endless = Pieces(b"abc", 10**9)

    assert await read(endless, most_bytes=10) == b"abcabcabca"
    assert endless.is_ended


async def test_it_is_read_for_no_longer_than_may_be() -> None:
    stalled = Pieces(b"abc", 1, asyncio.Event())

    assert await read(stalled, seconds=0.01) == b"abc"
    assert stalled.is_ended


@pytest.mark.parametrize("error", [httpx2.ReadError("cut"), httpx2.ReadTimeout("silent")])
async def test_what_has_come_of_one_that_breaks_is_what_there_is(error: httpx2.HTTPError) -> None:
    assert await read(Pieces(b"abc", 2, error)) == b"abcabc"


async def test_bugs_are_not_hidden() -> None:
    with pytest.raises(ZeroDivisionError):
        await read(Pieces(b"abc", 2, ZeroDivisionError()))


async def test_answers_that_are_no_errors_are_left_alone() -> None:
    stream = Pieces(b"abc", 1)
    response = httpx2.Response(200, stream=stream, headers={"content-type": "text/plain; charset=rot13"})

    await bound_error(response)

    assert response.stream is stream
    assert response.headers["content-type"] == "text/plain; charset=rot13"


# Seen from an agent.


async def floods(peer: Peer) -> None:
    await peer.request()
    await peer.send(b"HTTP/1.1 400 Bad\r\nTransfer-Encoding: chunked\r\n\r\n")
    while True:
        await peer.send(b"10000\r\n" + bytes(0x10000) + b"\r\n")


def answering(response: bytes) -> Callable[[Peer], Awaitable[None]]:
    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(response)

    return script


@pytest.mark.parametrize(
    ("script", "kind"),
    [
        (floods, UpstreamRejected),
        (answering(b"HTTP/1.1 401 No\r\nContent-Length: 10\r\n\r\nab"), UpstreamRefusedKey),
        (answering(counted(b"ab", status=b"401 No", more=b"Content-Encoding: gzip\r\n")), UpstreamRefusedKey),
        (
            answering(counted(b"ab", status=b"400 No", more=b"Content-Type: text/plain; charset=rot13\r\n")),
            UpstreamRejected,
        ),
    ],
    ids=["endless", "cut", "packed", "rot13"],
)
async def test_the_status_says_which_error_it_is_whatever_its_body_is(
    script: Callable[[Peer], Awaitable[None]], kind: type[AgentError]
) -> None:
    async with PeerServer(script, tls=None) as server:
        upstream = Upstream(base_url=f"{server.url}/v1", api_key=KEY, max_retries=0, max_connections=1)
        agent = OpenAIAgent(upstream, model="m")
        await agent.start()

        await fails(agent, kind)

        assert upstream._places._value == 1
        await agent.stop()


async def test_a_turn_that_waits_to_try_again_as_the_client_is_closed_is_told_so() -> None:
    script = answering(counted(b"", status=b"503 Not now", more=b"Retry-After-Ms: 500\r\n"))
    async with PeerServer(script, tls=None) as server:
        upstream = Upstream(base_url=f"{server.url}/v1", api_key=KEY, max_connections=1)
        agent = OpenAIAgent(upstream, model="m")
        await agent.start()
        asked = asyncio.ensure_future(collect(agent, turn("hi")))
        await eventually(lambda: bool(server.peers) and not upstream._places.locked())
        await agent.stop()

        with pytest.raises(UpstreamUnavailable):
            await asked
        assert len(server.peers) == 1
