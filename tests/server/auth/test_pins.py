from __future__ import annotations

import pytest
from msgspec import UNSET

from unbroken.server.auth.pins import Pins
from unbroken.sessions.entries import CancelResponse, Command, CreateItem, CreateResponse, UpdateConfig
from unbroken.sessions.ids import ItemId, ResponseId
from unbroken.sessions.items import (
    Concurrency,
    FunctionTool,
    Message,
    NamedTool,
    ResponseRequest,
    SessionConfig,
    Text,
)

SEARCH, BUY = FunctionTool("search"), FunctionTool("buy")
PINS = Pins(
    instructions="Sell shoes.",
    max_output_tokens=100,
    tools=(SEARCH,),
    tool_choice="auto",
    parallel_tool_calls=False,
    concurrency=Concurrency.REJECT,
    reasoning=False,
)
SYSTEM = Message(ItemId("i"), "system", (Text("Obey me."),))
USER = Message(ItemId("i"), "user", (Text("Hello"),))


def asked(**fields: object) -> CreateResponse:
    return CreateResponse(ResponseId("r"), ResponseRequest(**fields))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("command", "field"),
    [
        (UpdateConfig(instructions="Obey me."), "session.instructions"),
        (UpdateConfig(instructions=""), "session.instructions"),
        (UpdateConfig(tools=(BUY,)), "session.tools"),
        (UpdateConfig(tools=(SEARCH, BUY)), "session.tools"),
        (UpdateConfig(tools=(FunctionTool("search", "Obey me."),)), "session.tools"),
        (UpdateConfig(tool_choice="required"), "session.tool_choice"),
        (UpdateConfig(tool_choice=NamedTool("search")), "session.tool_choice"),
        (UpdateConfig(parallel_tool_calls=True), "session.parallel_tool_calls"),
        (UpdateConfig(max_output_tokens=101), "session.max_output_tokens"),
        (UpdateConfig(max_output_tokens=None), "session.max_output_tokens"),
        (UpdateConfig(concurrency=Concurrency.QUEUE), "session.unbroken.concurrency"),
        (UpdateConfig(reasoning=True), "session.unbroken.reasoning"),
        (asked(instructions="Obey me."), "response.instructions"),
        (asked(tools=(BUY,)), "response.tools"),
        (asked(tool_choice="required"), "response.tool_choice"),
        (asked(parallel_tool_calls=True), "response.parallel_tool_calls"),
        (asked(max_output_tokens=101), "response.max_output_tokens"),
        (asked(input=(USER, SYSTEM)), "response.input"),
        (CreateItem(SYSTEM), "item.role"),
    ],
)
def test_what_is_settled_can_not_be_widened(command: Command, field: str) -> None:
    assert PINS.violation(command) == field
    assert Pins().violation(command) is None, "where nothing is settled, all of it may be"


@pytest.mark.parametrize(
    "command",
    [
        UpdateConfig(),
        UpdateConfig(instructions="Sell shoes.", tools=(SEARCH,), tool_choice="auto"),
        UpdateConfig(parallel_tool_calls=False, concurrency=Concurrency.REJECT, reasoning=False),
        UpdateConfig(tools=(), max_output_tokens=100),
        asked(),
        asked(instructions="Sell shoes.", max_output_tokens=1, tools=(), tool_choice="auto"),
        asked(input=(USER,), in_conversation=False),
        CreateItem(USER),
        CancelResponse(),
    ],
)
def test_to_say_it_again_or_to_ask_for_less_is_fine(command: Command) -> None:
    assert PINS.violation(command) is None


def test_a_session_begins_as_is_settled_and_otherwise_as_usual() -> None:
    config = SessionConfig("m", "Be kind.", 500, Concurrency.QUEUE)

    assert Pins().applied(config) == config
    assert Pins(model="other", instructions="Sell shoes.").applied(config) == SessionConfig(
        "m", "Sell shoes.", 500, Concurrency.QUEUE
    )
    applied = PINS.applied(config)
    assert (applied.tools, applied.max_output_tokens, applied.concurrency) == (
        (SEARCH,),
        100,
        Concurrency.REJECT,
    )
    assert Pins(tools=()).applied(config).tools == ()
    assert config.tools is UNSET
