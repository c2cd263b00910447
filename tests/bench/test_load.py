"""The measuring tool itself: a server that loses, swaps or cuts text must fail, however fast it is."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import pytest

from tests.bench.answers import BurstAnswer, PacedAnswer
from tests.bench.load import Load, LoadError
from tests.bench.report import Goal, compared
from tests.bench.wire import ACCEPT, CREATED, RESPONSE_DONE
from tests.bench.workload import Order, answer_text, stamped, word

_HEAD = b"HTTP/1.1 101 Switching Protocols\r\nSec-WebSocket-Accept: " + ACCEPT + b"\r\n\r\n"
_WORDS = 40


def _frame(text: str) -> bytes:
    payload = text.encode()
    size = len(payload)
    length = bytes([size]) if size < 126 else b"\x7e" + size.to_bytes(2)
    return b"\x81" + length + payload


def _delta(text: str) -> bytes:
    return _frame(f'{{"type":"response.output_text.delta","delta":"{text}"}}')


def _done(text: str, status: str = "completed") -> bytes:
    return _frame(f'{{"type":"response.done","response":{{"status":"{status}","text":"{text}"}}}}')


def _answer(words: list[str]) -> bytes:
    return b"".join(map(_delta, words)) + _done(answer_text(_WORDS).decode())


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server


def _serve(listener: socket.socket, answer: bytes, checks: BurstAnswer | PacedAnswer, cut: int = 0) -> None:
    """Play a server that gives one client that *answer*, in two pieces."""
    with Load(listener.getsockname()[1]) as load:
        load._connect()
        peer, _ = listener.accept()
        with peer:
            load._turn(1)  # the connection stands: the upgrade is sent
            assert b"Upgrade: websocket" in peer.recv(4096)
            peer.sendall(_HEAD + _frame('{"type":"session.created"}'))
            load.drive(timeout=2)
            (client,) = load.clients
            load.ask(client, b"anything", RESPONSE_DONE, checks)
            peer.sendall(answer[:cut])
            load._turn(0.01)
            peer.sendall(answer[cut:])
            load.drive(timeout=0.3)


_GOOD = [word(number) for number in range(_WORDS)]


@pytest.mark.parametrize("cut", [0, 1, 2, 3, 50, 70, 71, 72, 1000, len(_answer(_GOOD)) - 1])
def test_whole_answer_passes_wherever_it_is_cut(listener: socket.socket, cut: int) -> None:
    checks = BurstAnswer(answer_text(_WORDS))
    _serve(listener, _answer(_GOOD), checks, cut)
    assert checks.frames == _WORDS


def test_merged_answer_passes(listener: socket.socket) -> None:
    checks = BurstAnswer(answer_text(_WORDS))
    _serve(listener, _answer(["".join(_GOOD[:30]), *_GOOD[30:]]), checks)
    assert checks.frames == 1 + 10


@pytest.mark.parametrize(
    "words",
    [_GOOD[:-1], _GOOD[1:], [*_GOOD, _GOOD[-1]], [_GOOD[1], _GOOD[0], *_GOOD[2:]], []],
    ids=["last lost", "first lost", "last twice", "swapped", "none"],
)
def test_wrong_text_fails(listener: socket.socket, words: list[str]) -> None:
    with pytest.raises(LoadError, match="wrong text"):
        _serve(listener, _answer(words), BurstAnswer(answer_text(_WORDS)))


@pytest.mark.parametrize(
    ("end", "says"),
    [
        (_done(answer_text(_WORDS).decode(), "failed"), "didn't complete"),
        (_done("other text"), "with other text"),
        (_frame('{"type":"error","error":{"code":"agent_crashed"}}'), "agent_crashed"),
        (b"\x88\x02\x03\xf4", "closed a connection: 03f4"),
        (b"\x82\x01a", "unexpected frame"),
        (b"\x81\x81....a", "masked"),
        (b"", "not answered within"),
    ],
)
def test_wrong_end_fails(listener: socket.socket, end: bytes, says: str) -> None:
    with pytest.raises(LoadError, match=says):
        _serve(listener, b"".join(map(_delta, _GOOD)) + end, BurstAnswer(answer_text(_WORDS)))


def test_pings_are_answered(listener: socket.socket) -> None:
    with Load(listener.getsockname()[1]) as load:
        load._connect()
        peer, _ = listener.accept()
        with peer:
            load._turn(1)
            peer.recv(4096)
            peer.sendall(_HEAD + b"\x89\x02hi" + _frame(f'{{"type":{CREATED.decode()}}}'))
            load.drive(timeout=2)
            assert peer.recv(100)[:2] == b"\x8a\x82"


def test_paced_words_are_checked_for_order_and_timed() -> None:
    answer = PacedAnswer(3)
    texts = [stamped(number, 1_000_000 * number) for number in range(3)]
    answer.take([texts[0].encode()], 500)
    answer.take([(texts[1] + texts[2]).encode()], 2_000_700)  # merged
    answer.finish(_done("".join(texts)))
    assert answer.ages == [500, 1_000_700, 700]
    with pytest.raises(LoadError, match="in the place of"):
        PacedAnswer(3).take([texts[1].encode()], 0)
    with pytest.raises(LoadError, match="0 words of 3"):
        PacedAnswer(3).finish(b"")


def test_orders_survive_the_message_they_travel_in() -> None:
    order = Order("paced", 20, 200)
    assert Order.parse(order.text) == order
    assert Order.parse(f"Some words before it.\n{order.text}") == order
    with pytest.raises(ValueError, match="not an order"):
        Order.parse("Hello")


def test_a_ratio_is_taken_round_by_round() -> None:
    *_, ratio = compared("x", "s", [1.0, 20.0, 3.0], [1.0, 10.0, 3.0], Goal("at least", 1.5))
    assert ratio.samples == [1.0, 2.0, 1.0]
    assert ratio.as_json() == {"name": "x.ratio", "value": 1.0, "unit": "x bare", "target": 1.5, "met": False}
