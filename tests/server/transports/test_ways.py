"""The same bytes by our short way, by the long one, and over uvicorn's own classes: what differs is said."""

from __future__ import annotations

import asyncio
import re
from dataclasses import dataclass
from typing import Any, Final
from unittest.mock import patch

from hypothesis import example, given
from hypothesis import strategies as st
from starlette.types import Scope
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol

from tests.server.transports.exchange import Echo, Exchange, cut
from tests.server.transports.quick import TEXT_FRAME
from unbroken.server.transports.departure import DEPARTURE
from unbroken.server.transports.opening import Opening
from unbroken.server.transports.outlet import EXTENSION

KEY: Final = b"dGhlIHNhbXBsZSBub25jZQ=="
USUAL: Final = (
    b"Host: x",
    b"Connection: Upgrade",
    b"Upgrade: websocket",
    b"Sec-WebSocket-Version: 13",
    b"Sec-WebSocket-Key: " + KEY,
)
LINES: Final = (
    *USUAL,
    *(b"HOST: y", b"Host:", b"Host : x", b"Origin: http://x", b"Origin: null", b"x-forwarded-for: 1.2.3.4"),
    *(b"connection: keep-alive, Upgrade", b"Connection: keep-alive", b"Connection: close, upgrade"),
    *(b"Connection: upgrade,", b"Connection:\tUpgrade \t", b"upgrade: WebSocket", b"Upgrade: websocket, h2c"),
    *(b"Upgrade: h2c", b"Sec-WebSocket-Version: 8", b"Sec-WebSocket-Version: 13, 8"),
    *(b"Sec-WebSocket-Version: 013", b"Sec-WebSocket-Version:13"),
    *(b"Sec-WebSocket-Key: AAAA", b"Sec-WebSocket-Key: " + KEY[:-1], b"Sec-WebSocket-Key: " + KEY + b"="),
    *(b"Sec-WebSocket-Key: " + b"_" * 22 + b"==", b"Sec-WebSocket-Key: " + b"\xe9" * 22 + b"=="),
    *(
        b"Sec-WebSocket-Protocol: realtime, b",
        b"sec-websocket-protocol: \xa0c",
        b"Sec-WebSocket-Protocol: a ,, b",
        b"Sec-WebSocket-Protocol: a b",
        b"Sec-WebSocket-Protocol:",
    ),
    *(b"Sec-WebSocket-Extensions: permessage-deflate", b"Sec-WebSocket-Extensions: ;;"),
    *(b"Content-Length: 0", b"Content-Length: 5", b"Transfer-Encoding: chunked", b"Expect: 100-continue"),
    *(b"X: a\0b", b"X: a\x7f", b"X: \xff\xfe", b"X: " + 8200 * b"x", b" folded", b"X: a\rY: b", b"X", b": x"),
)
FIRST: Final = (
    *(b"GET / HTTP/1.1", b"GET /a%20b/%C3%A9?c=d%20e#f HTTP/1.1", b"GET http://evil/x HTTP/1.1"),
    *(b"GET * HTTP/1.1", b"GET //x HTTP/1.1", b"GET /\xc3\xa9 HTTP/1.1", b"GET /a b HTTP/1.1"),
    *(b"POST / HTTP/1.1", b"get / HTTP/1.1", b"GET / HTTP/1.0", b"GET / HTTP/2.0", b"GET  / HTTP/1.1"),
    b"GET /" + 8100 * b"a" + b" HTTP/1.1",
)


@st.composite
def handshakes(draw: st.DrawFn) -> bytes:
    """Draw the usual handshake with lines left out, put in, doubled, in another order, or ended otherwise."""
    first = draw(st.one_of(st.just(FIRST[0]), st.sampled_from(FIRST)))
    lines = list(USUAL)
    for _ in range(draw(st.integers(0, 3))):
        place = draw(st.integers(0, len(lines) - 1)) if lines else 0
        match draw(st.sampled_from(["in", "in", "instead", "out"])):
            case "in":
                lines.insert(place, draw(st.sampled_from(LINES)))
            case "instead":
                lines[place : place + 1] = [draw(st.sampled_from(LINES))]
            case _:
                del lines[place : place + 1]
    end = draw(st.sampled_from([b"\r\n"] * 9 + [b"\n", b"\r"]))
    return b"\r\n".join([first, *lines[:-1]]) + end + b"".join(lines[-1:]) + b"\r\n\r\n"


@dataclass(frozen=True)
class Seen:
    """What the client was answered, and what the application was told."""

    status: bytes
    headers: frozenset[bytes]
    """Without the date, and in lower case."""
    rest: bytes
    scopes: list[Scope]
    """Without the outlet, which is ours."""
    received: list[Any]


async def _see(pieces: list[bytes], classes: tuple[type[Any], ...]) -> Seen:
    app = Echo()
    exchange = Exchange(app, *classes)
    await exchange.read(*pieces)
    written = exchange.written
    await exchange.end()
    header, _, rest = written.partition(b"\r\n\r\n")
    first, *lines = header.split(b"\r\n")
    for scope in app.scopes:
        for own in (EXTENSION, DEPARTURE):
            scope.get("extensions", {}).pop(own, None)
    return Seen(
        b" ".join(first.split(b" ")[1:2]),
        frozenset(line.lower() for line in lines if not line.lower().startswith(b"date:")),
        rest,
        app.scopes,
        app.received,
    )


def see(pieces: list[bytes], *classes: type[Any]) -> Seen:
    return asyncio.run(_see(pieces, classes))


def see_the_long_way(pieces: list[bytes]) -> Seen:
    with patch.object(Opening, "of", lambda *_: None):
        return see(pieces)


def is_refused_here(request: bytes) -> bool:
    """Return whether uvicorn takes this, and we don't: no Host or several, or another version."""
    hosts = len(re.findall(rb"^host:", request, re.I | re.M))
    return hosts > 1 or not request.split(b"\r\n")[0].endswith(b" HTTP/1.1") or not hosts


places = st.lists(st.integers(0, 400), max_size=3)


@given(handshakes(), places)
def test_the_short_way_is_the_long_one(request: bytes, at: list[int]) -> None:
    pieces = cut(request + TEXT_FRAME, at)

    assert see(pieces) == see_the_long_way(pieces)


@given(handshakes(), places)
@example(b"\r\n".join([FIRST[0], *USUAL, b"Origin: a", b"Origin: b", b"", b""]), [])
@example(b"\r\n".join([FIRST[0], *USUAL[1:], b"", b""]), [])
@example(b"\r\n".join([FIRST[0], *USUAL, b"", b""]), [])
def test_what_uvicorn_takes_is_taken_and_no_more(request: bytes, at: list[int]) -> None:
    """Frames come behind the handshake, as uvicorn drops what comes with it."""
    pieces = [*cut(request, at), TEXT_FRAME]
    theirs = see(pieces, HttpToolsProtocol, WebSocketsSansIOProtocol)
    ours = see(pieces)

    if is_refused_here(request):
        assert ours.status != b"101"
    elif theirs.status == b"101":
        assert ours == theirs
    else:
        # uvicorn has no answer at all to a handshake that only websockets can't read.
        assert ours.status in ({b"400", b"431"} if theirs.status == b"" else {theirs.status})
        assert [scope["type"] for scope in ours.scopes] == [scope["type"] for scope in theirs.scopes]


def test_each_place_to_cut_a_handshake_is_the_same() -> None:
    request = b"\r\n".join([FIRST[1], *USUAL, b"Sec-WebSocket-Protocol: realtime", b"", b""]) + TEXT_FRAME
    whole = see([request])

    assert whole.status == b"101"
    assert whole.rest == b"\x81\x01x"
    for place in range(1, len(request)):
        assert see(cut(request, [place])) == whole
    assert see([request[at : at + 1] for at in range(len(request))]) == whole
