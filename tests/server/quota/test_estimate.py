from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from unbroken.server.agents.base import TurnInput
from unbroken.server.quota.estimate import (
    bytes_of,
    item_bytes,
    produced_bytes,
    prompt_tokens,
    request_tokens,
    said_bytes,
    tokens_of,
)
from unbroken.sessions.admission import SessionLimits
from unbroken.sessions.entries import Entry, ItemAdded, SessionOpened
from unbroken.sessions.ids import ItemId, Nonce, PrincipalId, SessionId
from unbroken.sessions.items import (
    File,
    FunctionCall,
    FunctionOutput,
    FunctionTool,
    Image,
    Item,
    Message,
    Parameters,
    ResponseRequest,
    SessionConfig,
    Text,
)
from unbroken.sessions.responder import FunctionCallPiece, ReasoningPiece, Working
from unbroken.sessions.session import Session

HELLO = Message(ItemId("a"), "user", (Text("hello"),))


def prompt(*items: object, instructions: str = "", tools: tuple[FunctionTool, ...] = ()) -> int:
    given = TurnInput(
        session_id="s",
        response_id="r",
        principal="p",
        model="m",
        instructions=instructions,
        items=items,  # type: ignore[arg-type]
        tools=tools,
    )
    return prompt_tokens(given)


def test_the_form_of_the_answer_is_shown_to_the_model() -> None:
    form = {"type": "json_schema", "schema": {"description": "word " * 400}}
    asked = ResponseRequest(input=(HELLO,), parameters=Parameters(format=form))
    session = Session(SessionId("s"), SessionLimits())

    assert 500 <= request_tokens(session, asked) <= 530


def test_a_short_message_is_a_few_tokens() -> None:
    """Not what it takes of memory."""
    assert prompt(HELLO) == 6
    assert prompt(HELLO, HELLO, instructions="Be kind.") == 13


def test_everything_that_a_model_is_shown_counts() -> None:
    text = "word " * 400
    assert 500 <= prompt(FunctionOutput(ItemId("a"), "c", text)) <= 510
    assert 500 <= prompt(FunctionCall(ItemId("a"), "c", "f", text)) <= 510
    assert 500 <= prompt(tools=(FunctionTool("f", text, {}),)) <= 520
    assert 1000 <= prompt(Message(ItemId("a"), "user", (Image("file_1"),))) <= 1010


def file(media_type: str, size: int) -> Message:
    kind = Image if media_type.startswith("image/") else File
    return Message(ItemId("a"), "user", (kind("file_1", media_type, size, "n"),))


def test_a_text_file_is_its_text() -> None:
    """It is sent as such: it is no way to send a book for the price of a page."""
    assert 400_000 <= prompt(file("text/plain", 1_600_000)) <= 400_020
    assert 250 <= prompt(file("text/plain", 1000)) <= 270


@pytest.mark.parametrize(
    ("media_type", "size", "tokens"),
    [
        ("application/pdf", 5_000, 1000),
        ("application/pdf", 1_000_000, 50_000),
        ("application/pdf", 30_000_000, 200_000),
        ("image/png", 5_000, 1000),
        ("image/jpeg", 500_000, 2000),
        ("image/webp", 20_000_000, 2500),
        ("", 0, 1000),
    ],
)
def test_what_providers_count_by_pages_and_pixels_is_estimated_by_its_bytes(
    media_type: str, size: int, tokens: int
) -> None:
    assert tokens <= prompt(file(media_type, size)) <= tokens + 10


def test_a_request_is_what_it_brings_or_what_was_said_before() -> None:
    session = Session(SessionId("s"), SessionLimits(weigh=item_bytes))
    config = SessionConfig("m", instructions="Be kind.")
    session.apply(Entry(1, Nonce(1), SessionOpened(PrincipalId("p"), config)))
    session.apply(Entry(2, Nonce(1), ItemAdded(HELLO, None)))

    assert request_tokens(session, ResponseRequest()) == 8
    assert request_tokens(session, ResponseRequest(input=(), instructions="")) == 0


def test_a_long_conversation_is_not_looked_through_for_each_request() -> None:
    """Whoever is refused asks again at once, and others share the event loop."""
    weighed: list[Item] = []

    def weigh(item: Item) -> int:
        weighed.append(item)
        return item_bytes(item)

    session = Session(SessionId("s"), SessionLimits(weigh=weigh))
    session.apply(Entry(1, Nonce(1), SessionOpened(PrincipalId("p"), SessionConfig("m"))))
    for number in range(1000):
        message = Message(ItemId(f"i{number}"), "user", (Text("hello"),))
        session.apply(Entry(number + 2, Nonce(1), ItemAdded(message, None)))
    weighed.clear()

    assert request_tokens(session, ResponseRequest()) == 5250
    assert not weighed


@pytest.mark.parametrize("piece", ["été", FunctionCallPiece(0, "été"), ReasoningPiece("été")])
def test_what_is_said_is_counted_in_bytes(piece: str | FunctionCallPiece | ReasoningPiece) -> None:
    assert said_bytes(piece) == 5
    assert said_bytes(Working()) == 0
    assert said_bytes(Working(thought=5)) == 5
    assert produced_bytes(Message(ItemId("a"), "assistant", (Text("été"), Text("\ud800")))) == 8


@given(st.integers(0, 2**60))
def test_tokens_are_rounded_up(size: int) -> None:
    assert size <= bytes_of(tokens_of(size)) < size + 4
