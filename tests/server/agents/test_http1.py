from __future__ import annotations

import gc
import weakref
from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from unbroken.server.agents.http1 import Malformed, ResponseParser, request_head

OK = b"HTTP/1.1 200 OK\r\n"
CHUNKED = OK + b"Transfer-Encoding: chunked\r\n\r\n"
COUNTED = OK + b"Content-Length: 5\r\n\r\n"
UNTIL_CLOSE = OK + b"\r\n"

TOKENS = st.text("abcXYZ019-_!#", min_size=1, max_size=8).map("X-{}".format)
VALUES = st.text("abc XYZ;,=\"'\t", max_size=12).map(str.strip)
FIELDS = st.lists(st.tuples(TOKENS, VALUES), max_size=3)


@dataclass(frozen=True, slots=True)
class Sample:
    """A response as it comes, and what is in it."""

    wire: bytes
    status: int
    fields: list[tuple[bytes, bytes]]
    body: bytes
    ends_by_close: bool
    is_kept: bool


def lines(fields: list[tuple[str, str]]) -> str:
    return "".join(f"{name}: {value}\r\n" for name, value in fields)


@st.composite
def samples(draw: st.DrawFn) -> Sample:
    version = draw(st.sampled_from(["1.1", "1.1", "1.0"]))
    status = draw(st.sampled_from([200, 200, 204, 304, 400, 429, 503]))
    framing = draw(st.sampled_from(["chunked", "counted", "close"]))
    pieces = draw(st.lists(st.binary(min_size=1, max_size=20), max_size=4))
    has_body = status not in (204, 304)
    fields = draw(FIELDS)
    option = draw(st.sampled_from([None, "close", "keep-alive"]))
    if option is not None:
        fields.append(("Connection", option))
    body, tail = b"".join(pieces) if has_body else b"", b""
    if framing == "chunked":
        fields.append(("Transfer-Encoding", draw(st.sampled_from(["chunked", "Chunked"]))))
        extension = draw(st.sampled_from([b"", b";a", b';a="b;c"', b";a=b;c"]))
        for piece in pieces:
            tail += b"%x%b\r\n%b\r\n" % (len(piece), extension, piece)
        tail += b"0%b\r\n%b\r\n" % (extension, lines(draw(FIELDS)).encode())
    elif framing == "counted":
        fields.append(("content-length", str(len(body))))
        tail = body
    else:
        tail = body
    fields = draw(st.permutations(fields))
    interim = "".join(
        f"HTTP/1.1 {code} Wait\r\n{lines(draw(FIELDS))}\r\n"
        for code in draw(st.lists(st.sampled_from([100, 102, 103]), max_size=2))
    )
    head = f"{interim}HTTP/{version} {status} Some reason\r\n{lines(fields)}\r\n"
    ends_by_close = has_body and framing == "close"
    return Sample(
        head.encode() + (tail if has_body else b""),
        status,
        [(name.encode(), value.encode()) for name, value in fields],
        body,
        ends_by_close,
        not ends_by_close and (option == "keep-alive" or (version == "1.1" and option is None)),
    )


def cut(data: bytes, places: list[int]) -> list[bytes]:
    cuts = sorted({min(place, len(data)) for place in places})
    return [data[a:b] for a, b in zip([0, *cuts], [*cuts, len(data)], strict=True) if a < b]


CUTS = st.lists(st.integers(0, 400), max_size=12)


def parse(*pieces: bytes) -> ResponseParser:
    parser = ResponseParser()
    for piece in pieces:
        parser.feed(piece)
    return parser


def singly(data: bytes) -> list[bytes]:
    return [data[at : at + 1] for at in range(len(data))]


@given(samples(), CUTS)
def test_response_is_the_same_wherever_it_is_cut(sample: Sample, places: list[int]) -> None:
    for pieces in ([sample.wire], cut(sample.wire, places), singly(sample.wire)):
        parser = parse(*pieces)

        assert parser.is_complete != sample.ends_by_close
        parser.feed_eof()
        assert parser.is_complete
        assert (sample.status, sample.fields) == (parser.status, parser.headers)
        assert sample.body == parser.take()
        assert parser.take() == b""
        assert parser.may_follow == sample.is_kept
        assert not parser.has_surplus


@given(samples(), CUTS, st.data())
def test_early_end_is_told_apart_in_each_state(
    sample: Sample, places: list[int], data: st.DataObject
) -> None:
    """What was there of the body stays there."""
    end = data.draw(st.integers(0, len(sample.wire) - 1))
    parser = parse(*cut(sample.wire[:end], places))

    assert not parser.is_complete
    if sample.ends_by_close and parser.status:
        parser.feed_eof()
        assert not parser.may_follow
    else:
        with pytest.raises(Malformed):
            parser.feed_eof()
    assert sample.body.startswith(parser.take())


@given(
    samples().filter(lambda sample: not sample.ends_by_close),
    st.sampled_from(
        [b"x", b"H", b"0\r\n\r\n", COUNTED + b"hello", OK, b"HTTP/1.1 408 Late\r\n\r\n", b"\x00"]
    ),
    CUTS,
)
def test_what_follows_an_answer_changes_nothing_of_it(
    sample: Sample, surplus: bytes, places: list[int]
) -> None:
    """But nothing more goes over that connection."""
    for pieces in ([sample.wire + surplus], [sample.wire, surplus], cut(sample.wire + surplus, places)):
        parser = parse(*pieces)

        assert parser.is_complete
        assert parser.has_surplus
        assert not parser.may_follow
        assert (sample.status, sample.fields) == (parser.status, parser.headers)
        assert sample.body == parser.take()


def outcome(pieces: list[bytes]) -> tuple[object, ...]:
    parser, is_malformed = ResponseParser(), False
    try:
        for piece in pieces:
            parser.feed(piece)
        parser.feed_eof()
    except Malformed:
        is_malformed = True
    return is_malformed, parser.is_complete, parser.status, bytes(parser.body)


@given(samples(), CUTS, st.lists(st.tuples(st.integers(0, 400), st.integers(0, 255)), min_size=1, max_size=3))
def test_damage_is_malformed_or_harmless_wherever_it_is_cut(
    sample: Sample, places: list[int], damage: list[tuple[int, int]]
) -> None:
    wire = bytearray(sample.wire)
    for at, value in damage:
        wire[at % len(wire)] = value

    whole = outcome([bytes(wire)])

    assert whole == outcome(cut(bytes(wire), places))
    assert whole == outcome(singly(bytes(wire)))


@given(st.binary(max_size=200), st.sampled_from([b"", OK, CHUNKED, COUNTED, UNTIL_CLOSE]))
def test_noise_raises_nothing_else(noise: bytes, head: bytes) -> None:
    outcome([head, noise])


@pytest.mark.parametrize(
    "wire",
    [
        b"SSH-2.0-OpenSSH\r\n",
        b"HTTP/1.2 200 OK\r\n\r\n",
        b"HTTP/1.1 20 OK\r\n\r\n",
        b"HTTP/1.1 2000 OK\r\n\r\n",
        b"HTTP/1.1 000 None\r\n\r\n",
        b"HTTP/1.1 099 Few\r\n\r\n",
        OK + b"Name : a\r\n\r\n",
        OK + b"Name\r\n\r\n",
        OK + b"Name: a\x00\r\n\r\n",
        OK + b"Name: a\r\n folded\r\n\r\n",
        OK + b"Content-Length: 5\r\nContent-Length: 6\r\n\r\n",
        OK + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n",
        OK + b"Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n",
        OK + b"Content-Length: -5\r\n\r\n",
        OK + b"Content-Length: +5\r\n\r\n",
        OK + b"Content-Length: 5, 5\r\n\r\n",
        OK + b"Content-Length: five\r\n\r\n",
        OK + b"Content-Length: \r\n\r\n",
        OK + b"Content-Length: 99999999999999999999\r\n\r\n",
        OK + b"Transfer-Encoding: gzip\r\n\r\n",
        OK + b"Transfer-Encoding: gzip, chunked\r\n\r\n",
        OK + b"Transfer-Encoding: chunked, gzip\r\n\r\n",
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: h2c\r\nConnection: upgrade\r\n\r\n",
        b"HTTP/1.1 103 Hints\r\nContent-Length: 5\r\n\r\nhello",
        b"HTTP/1.1 150 Odd\r\nContent-Length: 5\r\n\r\nhello" + OK + b"Content-Length: 0\r\n\r\n",
        CHUNKED + b"x\r\n",
        CHUNKED + b"-1\r\n",
        CHUNKED + b"\r\n\r\n",
        CHUNKED + b"fffffffffffffffff\r\n",
        CHUNKED + b"1\r\nab",
        CHUNKED + b"0\r\nno field\r\n\r\n",
    ],
)
def test_what_is_no_response_is_malformed(wire: bytes) -> None:
    for pieces in ([wire], singly(wire)):
        with pytest.raises(Malformed):
            parse(*pieces)


@pytest.mark.parametrize("of", [b"name", b"value", b"fields", b"interim", b"reason"])
def test_head_that_has_no_end_is_given_up(of: bytes) -> None:
    start, more = {
        b"name": (OK, b"x" * 1024),
        b"value": (OK + b"Name: ", b"x" * 1024),
        b"fields": (OK, b"Name: x\r\n" * 100),
        b"interim": (b"", b"HTTP/1.1 103 Hints\r\n\r\n" * 100),
        b"reason": (b"HTTP/1.1 200 ", b"x" * 1024),
    }[of]
    parser = parse(start)

    with pytest.raises(Malformed):
        for _ in range(100):
            parser.feed(more)
    with pytest.raises(Malformed):
        parse(start + 200 * more)


@pytest.mark.parametrize(
    ("start", "more"),
    [
        (b"5;", b"x" * 1024),
        (b"0\r\nName: ", b"x" * 1024),
        (b"0\r\n", b"x" * 1024),
        (b"0\r\n", b"Name: x\r\n" * 100),
        (b"5\r\nhello\r\n0\r\nName: ", b"x" * 1024),
    ],
    ids=["extension", "trailer's value", "trailer's name", "trailers", "trailer behind a body"],
)
def test_what_is_no_body_and_has_no_end_is_given_up(start: bytes, more: bytes) -> None:
    parser = parse(CHUNKED + start)

    with pytest.raises(Malformed):
        for _ in range(100):
            parser.feed(more)


def test_body_has_no_bound_however_it_is_cut() -> None:
    """A stream's chunks come with more around them, in sum, than a head may be long."""
    parser = parse(CHUNKED)
    for _ in range(40_000):
        parser.feed(b"1;extension\r\na\r\n")

    assert parser.take() == b"a" * 40_000
    parser.feed(b"100000\r\n" + b"b" * 2**20)
    assert parser.take() == b"b" * 2**20


def test_announced_upgrade_is_an_ordinary_answer() -> None:
    """Servers say what else they speak."""
    head = OK + b"Upgrade: h2c\r\nConnection: Upgrade\r\nContent-Length: 5\r\n\r\n"
    parser = parse(head + b"hello")

    assert parser.may_follow
    assert parser.take() == b"hello"


def test_empty_values_are_kept() -> None:
    wire = OK + b"A:\r\nB: \r\nTransfer-Encoding: chunked\r\nC:\r\n\r\n0\r\nD:\r\nE:\r\n\r\n"
    for pieces in ([wire], singly(wire)):
        parser = parse(*pieces)

        assert [name for name, value in parser.headers if not value] == [b"A", b"B", b"C"]
        assert parser.may_follow


def test_body_that_an_answer_without_one_announces_is_not_waited_for() -> None:
    for start in (b"HTTP/1.1 204 No Content\r\n", b"HTTP/1.1 304 Not Modified\r\n"):
        assert parse(start + b"Content-Length: 5\r\n\r\n").is_complete
        assert not parse(start + b"Content-Length: 5\r\n\r\nhello").may_follow


def test_complete_response_leaves_nothing_to_the_collector() -> None:
    parser = parse(COUNTED, b"hello")
    gone = weakref.ref(parser)
    gc.disable()
    try:
        del parser
        assert gone() is None
    finally:
        gc.enable()


def test_request_s_head_is_written_as_it_is() -> None:
    head = request_head(b"POST", b"/v1/x?y=z", [(b"Host", b"h"), (b"Empty", b"")])

    assert head == b"POST /v1/x?y=z HTTP/1.1\r\nHost: h\r\nEmpty: \r\n\r\n"


@given(st.sampled_from([b"\r", b"\n", b"\x00", b"\r\n"]), st.integers(0, 3), st.binary(), st.binary())
def test_request_s_head_holds_no_line_of_somebody_else_s(
    evil: bytes, where: int, before: bytes, behind: bytes
) -> None:
    parts = [b"GET", b"/", b"Authorization", b"Bearer secret"]
    parts[where] = before + evil + behind

    with pytest.raises(ValueError, match="line break or a NUL") as failure:
        request_head(parts[0], parts[1], [(parts[2], parts[3])])

    assert "secret" not in str(failure.value)
