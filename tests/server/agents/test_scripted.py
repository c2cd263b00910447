from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from tests.server.agents.agent_contract import AgentContract, Subject, collect, message, text_of, turn
from unbroken.server.agents.base import (
    AgentError,
    Finish,
    FunctionCall,
    FunctionCallPiece,
    FunctionOutput,
    Parameters,
    TurnInput,
    UpstreamRateLimited,
    Usage,
    Working,
)
from unbroken.server.agents.scripted import BadScript, ScriptedAgent, answer_to
from unbroken.sessions.ids import ItemId


class ScriptedSubject(Subject):
    def __init__(self) -> None:
        self.agent: ScriptedAgent = ScriptedAgent()

    def answering(self, number: int) -> tuple[TurnInput, str]:
        return turn(f"say {number}"), f"You said: say {number}"

    def endless(self) -> TurnInput:
        return turn("/stall after 3")

    def silent(self) -> TurnInput:
        return turn("/stall")

    def failing(self) -> TurnInput:
        return turn("/fail after 2")

    async def begun(self) -> None:
        await asyncio.sleep(0)  # the task goes as far as it can at its first turn in the loop
        assert self.agent.running == 1

    async def stopped(self) -> None:
        assert self.agent.running == 0


class TestScriptedAgentContract(AgentContract):
    @pytest.fixture
    async def subject(self) -> AsyncIterator[ScriptedSubject]:
        subject = ScriptedSubject()
        await subject.agent.start()
        yield subject
        await subject.agent.stop()


@pytest.fixture
async def agent() -> ScriptedAgent:
    agent = ScriptedAgent()
    await agent.start()
    return agent


async def test_plain_text_is_echoed_a_word_at_a_time(agent: ScriptedAgent) -> None:
    outputs = await collect(
        agent, turn("first", message("x", "assistant"), "two  words", instructions="be nice")
    )

    assert ["You ", "said: ", "two  ", "words", Usage(input_tokens=6, output_tokens=4)] == outputs


async def test_a_conversation_without_a_user_is_answered_too(agent: ScriptedAgent) -> None:
    assert text_of(await collect(agent, turn())) == "You said nothing."


@pytest.mark.parametrize(
    ("script", "outputs"),
    [
        ("/tokens 3", ["word1", " word2", " word3", Usage(input_tokens=2, output_tokens=3)]),
        ("/tokens 2 1", ["word1", " word2", Usage(input_tokens=3, output_tokens=2)]),
        ("/say a  b", ["a  ", "b", Usage(input_tokens=3, output_tokens=2)]),
        ("/working 2 1", [Working(), Working(), Usage(input_tokens=3)]),
        ("/empty", [Usage(input_tokens=1)]),
        ("/length 1", ["word1", Usage(input_tokens=2, output_tokens=1), Finish("max_output_tokens")]),
        ("/filter", [Usage(input_tokens=1), Finish("content_filter")]),
        ("/filter after 1", ["word1", Usage(input_tokens=3, output_tokens=1), Finish("content_filter")]),
        ("/say a\n\n/working 1 0\n/say b", ["a", Working(), "b", Usage(input_tokens=7, output_tokens=2)]),
    ],
)
async def test_script_says_what_comes(agent: ScriptedAgent, script: str, outputs: list[object]) -> None:
    assert outputs == await collect(agent, turn(script))
    assert answer_to(script) == "".join(output for output in outputs if isinstance(output, str))


async def test_failure_is_of_the_kind_asked_for(agent: ScriptedAgent) -> None:
    with pytest.raises(UpstreamRateLimited):
        await collect(agent, turn("/fail upstream_rate_limited after 1"))


async def test_crash_is_no_agent_error(agent: ScriptedAgent) -> None:
    with pytest.raises(RuntimeError, match="the script says so"):
        await collect(agent, turn("/crash after 1"))


async def test_output_limit_is_heeded(agent: ScriptedAgent) -> None:
    outputs = await collect(agent, turn("/tokens 5", max_output_tokens=2))

    assert ["word1", " word2", Usage(input_tokens=2, output_tokens=2), Finish("max_output_tokens")] == outputs
    assert Finish("max_output_tokens") not in await collect(agent, turn("/tokens 2", max_output_tokens=2))


async def test_stop_texts_are_heeded(agent: ScriptedAgent) -> None:
    outputs = await collect(agent, turn("/tokens 20", parameters=Parameters(stop=("word3", "word2"))))

    assert outputs == ["word1", " ", Finish("completed")]


async def test_slow_close_takes_its_time(agent: ScriptedAgent) -> None:
    """Its cleanup is still going on when the turn has been cancelled."""
    has_piece = asyncio.Event()

    async def consume() -> None:
        async for _ in agent.respond(turn("/slow-close 20 after 1")):
            has_piece.set()

    task = asyncio.create_task(consume())
    await has_piece.wait()
    task.cancel()
    await asyncio.sleep(0)

    assert not task.done()
    assert agent.running == 1
    with pytest.raises(asyncio.CancelledError):
        await task
    assert agent.running == 0


async def test_functions_are_called_and_their_output_answered(agent: ScriptedAgent) -> None:
    script = '/call f {"a": "b c"}\n/call g'
    pieces = [each for each in await collect(agent, turn(script)) if isinstance(each, FunctionCallPiece)]
    asked = message(script)
    call, output = FunctionCall(ItemId("a"), "k", "f", "{}"), FunctionOutput(ItemId("b"), "k", "/tokens 9")
    answer = await collect(agent, turn(asked, items=(asked, call, output)))

    assert [(piece.index, piece.name) for piece in pieces if piece.name] == [(0, "f"), (1, "g")]
    assert "".join(piece.arguments for piece in pieces if piece.index == 0) == '{"a": "b c"}'
    assert "".join(piece.arguments for piece in pieces if piece.index == 1) == "{}"
    assert text_of(answer) == "Returned: /tokens 9"


@pytest.mark.parametrize(
    "script",
    [
        "/nothing",
        "/tokens",
        "/tokens x",
        "/tokens -1",
        "/tokens 99999999",
        "/fail nothing",
        "/stall after",
        "/say",
        "/call",
        "/say a\n/no",
    ],
)
async def test_bad_script_is_refused_whole(agent: ScriptedAgent, script: str) -> None:
    with pytest.raises(BadScript, match="It knows /tokens"):
        await anext(agent.respond(turn(script)))


async def test_other_tasks_run_between_pieces(agent: ScriptedAgent) -> None:
    order: list[str] = []

    async def consume(name: str) -> None:
        async for output in agent.respond(turn("/tokens 3")):
            if isinstance(output, str):
                order.append(name)  # noqa: PERF401 - the order is what is tested

    await asyncio.gather(consume("a"), consume("b"))

    assert order == ["a", "b"] * 3


async def test_calls_are_counted_when_they_are_made(agent: ScriptedAgent) -> None:
    await collect(agent, turn("hi"))
    with pytest.raises(AgentError):
        await collect(agent, turn("/fail"))

    assert agent.calls == 2


async def test_demonstration_pauses_before_each_piece() -> None:
    agent = ScriptedAgent(delay=0.001)
    await agent.start()

    assert text_of(await collect(agent, turn("hi"))) == "You said: hi"
