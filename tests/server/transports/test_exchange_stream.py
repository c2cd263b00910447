"""An answer that is begun anew, read from a log a part at a time."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from unbroken.server.protocols.agui.encode import RunEncoder
from unbroken.server.protocols.deepchat.encode import DeepChatEncoder
from unbroken.server.protocols.responses.encode import Event
from unbroken.server.protocols.ui.encode import UiEncoder
from unbroken.server.transports.agui_stream import RunEvents
from unbroken.server.transports.deepchat_stream import DeepChatFrames
from unbroken.server.transports.exchange import Exchange
from unbroken.server.transports.exchange_stream import ExchangeStream
from unbroken.server.transports.response_stream import ResponseStream
from unbroken.server.transports.ui_stream import UiEvents, UiFrames
from unbroken.sessions.cursor import Feed
from unbroken.sessions.entries import (
    Body,
    Deltas,
    Entry,
    Failure,
    OutputDone,
    OutputStarted,
    ResponseDone,
    ResponseStarted,
)
from unbroken.sessions.errors import NodeDraining, SessionDeleted, SessionError
from unbroken.sessions.event_log import EventLog
from unbroken.sessions.ids import ChainId, Incarnation, ItemId, Nonce, ResponseId
from unbroken.sessions.items import Message, ResponseRequest, Text

FIRST = ResponseId("resp_1")
SECOND = ResponseId("resp_2")
READ = 512

Made = Callable[[Exchange], ExchangeStream]


def nothing() -> None:
    pass


def as_run(exchange: Exchange) -> ExchangeStream:
    return RunEvents(exchange, RunEncoder(FIRST), -1, nothing)


def as_chunks(exchange: Exchange) -> ExchangeStream:
    return UiEvents(exchange, UiEncoder(FIRST), nothing)


def as_frames(exchange: Exchange) -> ExchangeStream:
    return UiFrames(exchange, UiEncoder(FIRST), "request", nothing)


def as_widget(exchange: Exchange) -> ExchangeStream:
    return DeepChatFrames(exchange, DeepChatEncoder(FIRST), nothing)


def exchange_of(*bodies: Body) -> Exchange:
    log = EventLog(Incarnation("abcd1234"))
    for seq, body in enumerate(bodies, 1):
        log.append(Entry(seq, Nonce(1), body))
    chain = ChainId("chain_1")
    attachment: Any = SimpleNamespace(cursor=Feed(log).attach(0, chain), log=log)
    return Exchange(attachment, FIRST, chain)


def cut_off(pieces: int) -> list[Body]:
    item_id = ItemId("item_1")
    return [
        ResponseStarted(FIRST, ResponseRequest(), turn=2),
        OutputStarted(FIRST, item_id, True, None, 0, 0),
        *(Deltas(FIRST, item_id, ["word "], number) for number in range(pieces)),
        ResponseDone(FIRST, "interrupted", 0, failure=Failure("interrupted", "It was cut off.")),
    ]


def begun_anew() -> list[Body]:
    item_id = ItemId("item_2")
    said = Message(item_id, "assistant", (Text("the whole answer"),))
    return [
        ResponseStarted(SECOND, ResponseRequest(), turn=2, attempt=2),
        OutputStarted(SECOND, item_id, True, None, 0, 0),
        Deltas(SECOND, item_id, ["the whole answer"], 0),
        OutputDone(SECOND, said, True, None, 0, 0),
        ResponseDone(SECOND, "completed", 0),
    ]


def told(stream: ExchangeStream) -> bytes:
    parts: list[bytes] = []
    while not stream.is_over and (said := stream.take()):
        parts.append(said)
    assert stream.is_over
    return b"".join(parts)


@pytest.mark.parametrize("made", [as_run, as_chunks, as_frames, as_widget])
@pytest.mark.parametrize("place", range(READ - 2, READ + 3))
def test_an_answer_that_is_begun_anew_is_told_wherever_a_read_ends(made: Made, place: int) -> None:
    first = cut_off(place - 3)
    assert len(first) == place
    said = told(made(exchange_of(*first, *begun_anew())))

    assert b"the whole answer" in said
    assert b"It was cut off." not in said


@pytest.mark.parametrize("made", [as_run, as_chunks, as_frames, as_widget])
@pytest.mark.parametrize("place", range(READ - 2, READ + 3))
def test_an_answer_that_is_not_begun_anew_ends_wherever_a_read_ends(made: Made, place: int) -> None:
    assert b"It was cut off." in told(made(exchange_of(*cut_off(place - 3))))


@pytest.mark.parametrize(("why", "is_there"), [(SessionDeleted(), False), (NodeDraining(), True)])
def test_a_stream_that_is_cut_says_how_to_go_on_unless_all_is_gone(why: SessionError, is_there: bool) -> None:
    def take() -> None:
        raise why

    exchange: Any = SimpleNamespace(take=take)
    encoder: Any = SimpleNamespace(
        is_done=False, error=lambda code, message: Event("error", 0, f"{code} {message}".encode())
    )

    said = ResponseStream(exchange, encoder, nothing).take().decode()

    assert ("Get the response by its id" in said) == is_there
