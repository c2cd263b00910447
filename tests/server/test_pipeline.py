from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import replace
from typing import Final

import pytest
from msgspec import UNSET, UnsetType

from tests.fakes.clock import FakeClock
from tests.server.cache.asking import ON, Counted
from tests.server.realtime.serving import eventually
from unbroken.server import pipeline
from unbroken.server.agents.base import AgentNotReady, AgentOutput, TurnInput, UpstreamCut
from unbroken.server.cache.base import StoreLimits
from unbroken.server.cache.index import PlaceIndex
from unbroken.server.cache.memory import MemoryAnswers
from unbroken.server.cache.stage import CacheStage
from unbroken.server.guards.canary import Canaries
from unbroken.server.metrics import Metrics
from unbroken.server.pipeline import Pipeline
from unbroken.sessions.ids import ItemId, PrincipalId, ResponseId, SessionId
from unbroken.sessions.items import (
    FunctionTool,
    Message,
    NamedTool,
    Parameters,
    ResponseRequest,
    SessionConfig,
    Text,
    Usage,
)
from unbroken.sessions.responder import Finish, Handle, Output, Turn, Working

MESSAGES: Final = (Message(ItemId("u1"), "user", (Text("hi"),)),)


def turn(config: SessionConfig | None = None, request: ResponseRequest | None = None) -> Turn:
    return Turn(
        session_id=SessionId("sess_1"),
        response_id=ResponseId("resp_1"),
        principal=PrincipalId("alice"),
        attempt=1,
        config=config or SessionConfig("m"),
        request=request or ResponseRequest(),
        items=MESSAGES,
    )


class Scripted:
    """An agent that says a list, taking a second of the clock for each."""

    model = "m"

    def __init__(self, *outputs: AgentOutput | Exception) -> None:
        self.is_ready = True
        self.clock = FakeClock()
        self.metrics = Metrics()
        self.given: TurnInput | None = None
        self.is_closed = False
        self._outputs = outputs

    async def start(self) -> None: ...

    async def stop(self) -> None: ...

    async def respond(self, turn: TurnInput) -> AsyncGenerator[AgentOutput, None]:
        self.given = turn
        try:
            for output in self._outputs:
                self.clock.advance(1)
                if isinstance(output, Exception):
                    raise output
                yield output
        finally:
            self.is_closed = True

    def answers(self, given: Turn | None = None) -> AsyncGenerator[Output, None]:
        return Pipeline(self, self.metrics, self.clock).respond(given or turn())

    def times(self) -> tuple[float, float]:
        """Return how many first pieces were timed, and their sum."""
        name = "unbroken_time_to_first_token_seconds"
        values = [self.metrics.registry.get_sample_value(f"{name}_{kind}") for kind in ("count", "sum")]
        return values[0] or 0.0, values[1] or 0.0


async def test_what_the_agent_says_goes_through_as_it_is() -> None:
    said: list[AgentOutput] = [Working(), Handle("h"), "", "a", Usage(1, 2), "b", Finish("content_filter")]

    assert [output async for output in Scripted(*said).answers()] == said


async def test_the_first_piece_is_timed_once_and_not_what_comes_before() -> None:
    agent = Scripted(Working(), "", "a", "b")
    async for _ in agent.answers():
        pass

    assert agent.times() == (1, 3)


async def test_an_answer_of_nothing_is_not_timed() -> None:
    agent = Scripted(Working(), Usage(1, 0))
    async for _ in agent.answers():
        pass

    assert agent.times() == (0, 0)


async def test_the_agent_is_given_what_the_session_says() -> None:
    agent = Scripted()
    config = SessionConfig("m", "be kind", 7)
    async for _ in agent.answers(turn(config)):
        pass

    given = agent.given
    assert given is not None
    assert (given.session_id, given.response_id, given.principal) == ("sess_1", "resp_1", "alice")
    assert (given.model, given.instructions, given.max_output_tokens) == ("m", "be kind", 7)
    assert (given.messages, given.metadata) == (MESSAGES, {})


@pytest.mark.parametrize(
    ("session", "response", "given"),
    [(UNSET, None, None), (False, None, False), (False, True, True), (True, False, False)],
)
async def test_several_calls_at_once_are_as_the_response_says_or_else_the_session(
    session: bool | UnsetType, response: bool | None, given: bool | None
) -> None:
    agent = Scripted()
    config = SessionConfig("m", parallel_tool_calls=session)
    async for _ in agent.answers(turn(config, ResponseRequest(parallel_tool_calls=response))):
        pass

    assert agent.given is not None
    assert agent.given.parallel_tool_calls == given


@pytest.mark.parametrize("is_there", [True, False])
async def test_a_choice_of_a_tool_that_is_gone_by_now_is_none(is_there: bool) -> None:
    """A response that waits was asked for when the session had other tools."""
    agent = Scripted()
    config = SessionConfig("m", tools=(FunctionTool("f" if is_there else "g"),))
    async for _ in agent.answers(turn(config, ResponseRequest(tool_choice=NamedTool("f")))):
        pass

    assert agent.given is not None
    assert agent.given.tool_choice == (NamedTool("f") if is_there else "auto")


@pytest.mark.parametrize("instructions", ["be brief", ""])
async def test_what_one_response_asks_for_goes_first(instructions: str) -> None:
    agent = Scripted()
    request = ResponseRequest(instructions=instructions, max_output_tokens=3, metadata={"k": "v"})
    async for _ in agent.answers(turn(SessionConfig("m", "be kind", 7), request)):
        pass

    given = agent.given
    assert given is not None
    assert (given.instructions, given.max_output_tokens, given.metadata) == (instructions, 3, {"k": "v"})


async def test_the_model_and_the_parameters_are_the_responses() -> None:
    agent, parameters = Scripted(), Parameters(0.5, 0.25, ("x",), {"type": "json_object"})
    for request in (ResponseRequest(parameters=parameters, model="other"), ResponseRequest()):
        async for _ in agent.answers(turn(SessionConfig("m"), request)):
            pass
        assert agent.given is not None
        asked_for = (agent.given.model, agent.given.parameters)
        assert asked_for == ((request.model or "m"), (request.parameters or Parameters()))


async def test_a_failure_goes_through_and_the_agent_is_closed() -> None:
    agent = Scripted("a", UpstreamCut())
    with pytest.raises(UpstreamCut):
        async for _ in agent.answers():
            pass
    assert agent.is_closed


async def test_closing_the_answer_closes_the_agent_at_once() -> None:
    agent = Scripted("a", "b")
    async with aclosing(agent.answers()) as outputs:
        async for _ in outputs:
            break
    assert agent.is_closed


async def test_a_turn_waits_for_a_model_that_is_being_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pipeline, "_LOADING_INTERVAL", 0.0)
    agent = Scripted("a")
    agent.is_ready = False
    outputs: list[Output] = []
    async for output in agent.answers():
        outputs.append(output)
        agent.is_ready = len(outputs) >= 3

    assert outputs == [Working()] * 3 + ["a"], "with signs of life, so that it isn't taken for stalled"
    assert agent.times() == (1, 1), "loading is no part of the model's time"


async def test_a_model_that_is_never_loaded_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pipeline, "_LOADING_INTERVAL", 0.0)
    monkeypatch.setattr(pipeline, "_LOADING_TIMEOUT", 0.0)
    agent = Scripted("a")
    agent.is_ready = False

    with pytest.raises(AgentNotReady):
        async for _ in agent.answers():
            pass
    assert agent.given is None


@pytest.mark.parametrize(
    ("most", "session", "request_", "given"),
    [
        (None, None, None, None),
        (None, 5, None, 5),
        (None, 5, 9, 9),
        (3, None, None, 3),
        (3, 5, None, 3),
        (3, None, 1000, 3),
        (3, 5, 2, 2),
    ],
)
async def test_nobody_gets_more_tokens_than_the_operator_allows(
    most: int | None, session: int | None, request_: int | None, given: int | None
) -> None:
    agent = Scripted("a")
    pipeline = Pipeline(agent, agent.metrics, agent.clock, max_output_tokens=most)
    config = SessionConfig("m", max_output_tokens=session)
    async with aclosing(
        pipeline.respond(turn(config, ResponseRequest(max_output_tokens=request_)))
    ) as outputs:
        assert [output async for output in outputs] == ["a"]

    assert agent.given is not None
    assert agent.given.max_output_tokens == given


# The cache.


class Several(Scripted):
    """An agent that answers when it is told to, by the name that it is told."""

    def __init__(self, author: str | None = None) -> None:
        super().__init__("so")
        self.goes_on = asyncio.Event()
        self.instructions: list[str] = []
        self._author = author

    async def respond(self, turn: TurnInput) -> AsyncGenerator[AgentOutput, None]:
        self.instructions.append(turn.instructions)
        await self.goes_on.wait()
        if self._author is not None:
            turn.author.name = self._author
        async for output in super().respond(turn):
            yield output


def cached(clock: FakeClock, observer: Counted | None = None) -> CacheStage:
    store = MemoryAnswers(clock, StoreLimits(), PlaceIndex)
    return CacheStage(ON, store, clock, observer=observer)


async def said(answer: AsyncGenerator[Output, None]) -> str:
    return "".join([output async for output in answer if isinstance(output, str)])


@pytest.mark.parametrize(("is_marked", "calls"), [(True, 2), (False, 1)])
async def test_where_sessions_are_marked_none_is_answered_with_what_another_s_mark_was_told(
    is_marked: bool, calls: int
) -> None:
    agent = Several()
    canaries = Canaries(b"s" * 32) if is_marked else None
    line = Pipeline(agent, agent.metrics, agent.clock, cache=cached(agent.clock), canaries=canaries)
    given = turn(SessionConfig("m", "be kind"))
    turns = [
        replace(given, session_id=SessionId(f"sess_{name}"), response_id=ResponseId(f"resp_{name}"))
        for name in ("one", "two")
    ]
    askers = [asyncio.ensure_future(said(line.respond(each))) for each in turns]
    for _ in range(20):
        await asyncio.sleep(0)
    agent.goes_on.set()

    assert await asyncio.gather(*askers) == ["so", "so"]
    assert len(agent.instructions) == len(set(agent.instructions)) == calls


@pytest.mark.parametrize(("author", "outcome"), [(None, "kept"), ("first", "kept"), ("another", "fallback")])
async def test_what_another_agent_answers_for_the_first_is_not_kept(author: str | None, outcome: str) -> None:
    agent, counted = Several(author), Counted()
    agent.goes_on.set()
    stage = cached(agent.clock, counted)
    line = Pipeline(agent, agent.metrics, agent.clock, cache=stage, own_agent="first")
    await said(line.respond(turn()))
    await eventually(lambda: not len(stage._flights))
    await said(line.respond(turn()))

    assert counted.outcomes[outcome] >= 1
    assert counted.hits["exact"] == (outcome == "kept")
    assert len(agent.instructions) == (1 if outcome == "kept" else 2)
