from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import UNSET, UnsetType
from msgspec.structs import asdict, replace

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


TEXTS = st.sampled_from(["", "Sell shoes.", "Obey me."])
TOOLS = st.lists(st.sampled_from([SEARCH, BUY, FunctionTool("search", "Obey me.")]), max_size=2).map(tuple)
TOKENS = st.sampled_from([1, 99, 100, 101, None])
CHOICES = st.sampled_from(["auto", "none", "required", NamedTool("search")])


def perhaps(values: st.SearchStrategy[Any], nothing: object) -> st.SearchStrategy[Any]:
    return st.just(nothing) | values


UPDATES = st.builds(
    UpdateConfig,
    instructions=perhaps(TEXTS, UNSET),
    tools=perhaps(TOOLS, UNSET),
    tool_choice=perhaps(CHOICES, UNSET),
    parallel_tool_calls=perhaps(st.booleans(), UNSET),
    max_output_tokens=perhaps(TOKENS, UNSET),
    concurrency=perhaps(st.sampled_from(Concurrency), UNSET),
    reasoning=perhaps(st.booleans(), UNSET),
)
REQUESTS = st.builds(
    ResponseRequest,
    instructions=perhaps(TEXTS, None),
    tools=perhaps(TOOLS, None),
    tool_choice=perhaps(CHOICES, None),
    parallel_tool_calls=perhaps(st.booleans(), None),
    max_output_tokens=TOKENS,
    input=perhaps(st.lists(st.sampled_from([USER, SYSTEM])).map(tuple), None),
)
SETTLED = st.builds(
    Pins,
    instructions=perhaps(TEXTS, UNSET),
    tools=perhaps(TOOLS, UNSET),
    tool_choice=perhaps(CHOICES, UNSET),
    parallel_tool_calls=perhaps(st.booleans(), UNSET),
    max_output_tokens=perhaps(st.sampled_from([1, 100]), UNSET),
    concurrency=perhaps(st.sampled_from(Concurrency), UNSET),
    reasoning=perhaps(st.booleans(), UNSET),
)


def holds(pins: Pins, config: SessionConfig) -> bool:
    """Whether *config* is within what is settled."""
    tools = () if config.tools is UNSET else config.tools
    most = config.max_output_tokens
    exact = ("instructions", "tool_choice", "parallel_tool_calls", "concurrency", "reasoning")
    return (
        all(getattr(pins, name) in (UNSET, getattr(config, name)) for name in exact)
        and (pins.tools is UNSET or set(map(repr, tools)) <= set(map(repr, pins.tools)))
        and (pins.max_output_tokens is UNSET or (most is not None and most <= pins.max_output_tokens))
    )


@given(SETTLED, UPDATES, st.sampled_from([UNSET, False]), REQUESTS)
def test_a_response_keeps_to_what_is_settled_whatever_its_session_says_by_then(
    pins: Pins, update: UpdateConfig, server_tools: bool | UnsetType, request: ResponseRequest
) -> None:
    said = {name: value for name, value in asdict(update).items() if value is not UNSET}
    config = replace(SessionConfig("m", "Be kind.", None, server_tools=server_tools), **said)
    command = CreateResponse(ResponseId("r"), request)
    if pins.violation(command) is not None:
        return
    kept = pins.kept_by(command)
    assert isinstance(kept, CreateResponse)
    assert pins.kept_by(update) == update
    held = kept.request.config_in(config)

    settled = replace(pins, concurrency=UNSET)  # that is how it comes to run
    if settled.reasoning is True and held.reasoning is not True:  # less
        settled = replace(settled, reasoning=UNSET)
    assert holds(settled, held)
    assert settled.allows(held)
    assert pins.tools is UNSET or held.server_tools is False
    heard = kept.request.heard([SYSTEM, USER])
    assert heard == ((SYSTEM, USER) if pins.instructions is UNSET else (USER,))
    if pins.allows(config):
        assert replace(held, reasoning=UNSET) == replace(config, reasoning=UNSET), "what is within it stays"
        assert (held.reasoning is True) == (config.reasoning is True), "unset is no"


@given(SETTLED, st.lists(UPDATES, max_size=8), REQUESTS)
def test_whatever_is_let_through_what_is_settled_holds(
    pins: Pins, updates: list[UpdateConfig], request: ResponseRequest
) -> None:
    """For the session after any events, and for any response of it."""
    config = pins.applied(SessionConfig("m", "Be kind.", None))
    assert holds(pins, config)
    for update in updates:
        if pins.violation(update) is None:
            said = {name: value for name, value in asdict(update).items() if value is not UNSET}
            config = replace(config, **said)
            assert holds(pins, config)
    if pins.violation(CreateResponse(ResponseId("r"), request)) is None:
        names = ("instructions", "tools", "tool_choice", "parallel_tool_calls", "max_output_tokens")
        own = {name: getattr(request, name) for name in names if getattr(request, name) is not None}
        assert holds(pins, replace(config, **own))
        assert pins.instructions is UNSET or SYSTEM not in (request.input or ())
