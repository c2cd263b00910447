from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from websockets.http11 import Request
from websockets.server import ServerProtocol

from unbroken.server.transports.opening import Opening, answer

KEY = b"dGhlIHNhbXBsZSBub25jZQ=="
USUAL = [
    (b"host", b"x"),
    (b"connection", b"Upgrade"),
    (b"upgrade", b"websocket"),
    (b"sec-websocket-version", b"13"),
    (b"sec-websocket-key", KEY),
]

names = st.sampled_from(
    [name for name, _ in USUAL]
    + [b"sec-websocket-protocol", b"origin", b"content-length", b"transfer-encoding", b"expect", b"x-y"]
)
values = st.sampled_from(
    [value for _, value in USUAL]
    + [b"keep-alive, Upgrade", b"keep-alive", b"WebSocket", b"h2c, websocket", b"8", b"0", b"chunked", b""]
    + [b"AAAA", KEY[:-1], KEY + b"x", b"realtime, openai-beta.x", b" a", b"a "]
)
fields = st.tuples(names, values)


@st.composite
def changed(draw: st.DrawFn) -> list[tuple[bytes, bytes]]:
    """Draw the usual headers with one value changed, or some more in between."""
    place = draw(st.integers(0, len(USUAL) - 1))
    if draw(st.booleans()):
        return [*USUAL[:place], (USUAL[place][0], draw(values)), *USUAL[place + 1 :]]
    return [*USUAL[:place], *draw(st.lists(fields, max_size=3)), *USUAL[place:]]


headers = st.one_of(st.just(USUAL), st.lists(fields, max_size=8), changed())


def test_the_usual_handshake_is_read() -> None:
    opening = Opening.of(
        b"GET", "1.1", b"/v1/realtime?model=m", [*USUAL, (b"sec-websocket-protocol", b"a, b")]
    )

    assert opening is not None
    assert opening.accept == b"s3pPLMBiTxaQ9kYGzzhZRbK+xOo="  # RFC 6455, 1.3
    assert opening.subprotocols == ["a", "b"]


@given(
    st.sampled_from([b"GET", b"POST"]),
    st.sampled_from(["1.1", "1.0"]),
    st.sampled_from([b"/", b"/a?b=c", "/ü".encode(), b"/" + b"a" * 9000]),
    headers,
)
def test_what_is_read_is_what_websockets_would_take(
    method: bytes, version: str, target: bytes, given_headers: list[tuple[bytes, bytes]]
) -> None:
    opening = Opening.of(method, version, target, given_headers)
    if opening is None:
        return  # it goes the long way

    server = ServerProtocol()
    lines = [method, b" ", target, b" HTTP/", version.encode(), b"\r\n"]
    for name, value in given_headers:
        lines += [name, b": ", value, b"\r\n"]
    server.receive_data(b"".join([*lines, b"\r\n"]))
    (request,) = server.events_received()
    assert isinstance(request, Request)
    response = server.accept(request)
    assert response.status_code == 101
    assert response.headers["Sec-WebSocket-Accept"] == opening.accept.decode()
    assert request.path.encode() == opening.target
    assert [(name.encode(), value.encode()) for name, value in request.headers.raw_items()] == opening.headers


def test_the_answer_has_what_belongs_into_it() -> None:
    assert answer(b"accept", [(b"Sec-WebSocket-Protocol", b"realtime")]) == (
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        b"Sec-WebSocket-Accept: accept\r\nSec-WebSocket-Protocol: realtime\r\n\r\n"
    )
