"""Who pays for a call that several wait for: nobody's leaving makes it free."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from typing import Final, Literal

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.fakes.clock import FakeClock
from tests.server.cache.asking import ASKED, ON, turn_of
from tests.server.quota.gating import PRICE
from unbroken.server.cache.base import StoreLimits, Veto
from unbroken.server.cache.index import PlaceIndex
from unbroken.server.cache.memory import MemoryAnswers
from unbroken.server.cache.stage import CacheStage
from unbroken.server.quota.estimate import said_bytes, tokens_of
from unbroken.server.quota.meter import begun, used
from unbroken.server.quota.share import Share
from unbroken.sessions.entries import ResponseDone
from unbroken.sessions.ids import ResponseId
from unbroken.sessions.items import Reused, Usage
from unbroken.sessions.responder import Output, ReasoningPiece, Unbilled

PROMPT: Final = 8
PIECE: Final = "x" * 40
BILL: Final = Usage(500, 1000)
SHARED: Final = Usage(reused=Reused("flight", 0.0))


class Agent:
    """Says as much as the test lets it."""

    def __init__(self, outputs: Sequence[Output]) -> None:
        self.calls: list[list[Output]] = []
        """What was said in each."""
        self._outputs = outputs
        self._allowed = asyncio.Semaphore(0)

    def say(self, number: int) -> None:
        for _ in range(number):
            self._allowed.release()

    async def respond(self, _: Veto) -> AsyncGenerator[Output, None]:
        said: list[Output] = []
        self.calls.append(said)
        for output in self._outputs:
            await self._allowed.acquire()
            said.append(output)
            yield output
        await self._allowed.acquire()

    @property
    def cost(self) -> int:
        """Tokens that it has taken, by what it told last, and as estimated since."""
        cost = 0
        for call in self.calls:
            told, said = 0, 0
            for output in call:
                if isinstance(output, Usage):
                    told, said = output.total_tokens, 0
                else:
                    said += said_bytes(output)
            cost += told + tokens_of(said)
        return cost


class Asker:
    """A session that asks, and counts what it is given."""

    def __init__(self, stage: CacheStage, agent: Agent) -> None:
        self.reads = asyncio.Event()
        self.reads.set()
        self.outputs: list[Output] = []
        self._share = Share()
        self._meter = begun("m", PRICE, {}, PROMPT, None, share=self._share)
        self._usage: Usage | None = None
        self._status: Literal["completed", "cancelled"] = "cancelled"
        self._stage, self._agent = stage, agent
        self._task = asyncio.create_task(self._ask())

    async def _ask(self) -> None:
        answer = self._stage.answer(
            turn_of(ASKED), self._agent.respond, may_use_tools=False, share=self._share
        )
        async with aclosing(answer) as outputs:
            async for output in outputs:
                self.outputs.append(output)
                self._meter.take(output)
                if isinstance(output, Usage):
                    self._usage = output
                elif isinstance(output, Unbilled):
                    self._usage = None
                await self.reads.wait()
        self._status = "completed"

    async def leave(self) -> int:
        """Cancel, if it isn't complete. Return what is counted."""
        self._task.cancel()
        await asyncio.wait([self._task])
        return await self.end()

    async def end(self) -> int:
        await asyncio.wait([self._task])
        usage = self._usage if self._status == "completed" else None
        done = ResponseDone(ResponseId("r"), self._status, 1, (), usage=usage)
        return used(done, self._meter)[0].total_tokens


def stage_of() -> CacheStage:
    clock = FakeClock()
    return CacheStage(ON, MemoryAnswers(clock, StoreLimits(), PlaceIndex), clock)


async def turns_pass() -> None:
    """Let what can go on do so. What is asserted holds however far that is."""
    for _ in range(20):
        await asyncio.sleep(0)


async def test_who_is_left_with_a_call_pays_for_all_of_it() -> None:
    """The first has gone after two pieces, and the second goes just before the bill."""
    stage, agent = stage_of(), Agent([PIECE] * 100 + [BILL])
    first = Asker(stage, agent)
    agent.say(2)
    await turns_pass()
    second = Asker(stage, agent)
    await turns_pass()
    assert await first.leave() == PROMPT + 20
    agent.say(98)
    await turns_pass()

    assert await second.leave() == PROMPT + 1000
    assert len(agent.calls) == 1


async def test_who_is_left_with_a_call_is_told_before_it_says_more() -> None:
    """It may say nothing, until that is the turn's end."""
    stage, agent = stage_of(), Agent([PIECE])
    first, second = Asker(stage, agent), Asker(stage, agent)
    agent.say(1)
    await turns_pass()
    assert second.outputs == [SHARED, PIECE]
    await first.leave()
    await turns_pass()

    assert second.outputs == [SHARED, PIECE, Unbilled()]
    await second.leave()


async def test_who_is_left_with_a_call_of_which_nobody_tells_pays_what_was_sent_and_said() -> None:
    stage, agent = stage_of(), Agent([PIECE] * 100)
    first, second = Asker(stage, agent), Asker(stage, agent)
    await turns_pass()
    await first.leave()
    agent.say(101)

    assert await second.end() == PROMPT + 1000


@pytest.mark.parametrize("leaves", [True, False], ids=["leaves", "stays"])
async def test_one_bill_is_paid_once(leaves: bool) -> None:
    """Also by who was first to ask, and reads slowly."""
    stage, agent = stage_of(), Agent([PIECE] * 10 + [BILL])
    first, second, third = (Asker(stage, agent) for _ in range(3))
    first.reads.clear()
    agent.say(5)
    await turns_pass()
    counted = [await first.leave()] if leaves else []
    agent.say(7)
    await turns_pass()
    first.reads.set()
    rest = [each for each in (first, second, third) if not (leaves and each is first)]
    counted += [await each.end() for each in rest]

    assert sorted(counted) == ([0, PROMPT + 10, 1500] if leaves else [0, 0, 1500])


async def test_what_was_said_ahead_of_who_leaves_is_paid() -> None:
    """An agent goes on while its asker waits: with its bill, if it comes to it."""
    stage, agent = stage_of(), Agent([PIECE] * 100 + [BILL])
    only = Asker(stage, agent)
    only.reads.clear()
    agent.say(50)
    await turns_pass()
    assert await only.leave() == PROMPT + 500

    again = Agent([PIECE] * 100 + [BILL])
    only = Asker(stage, again)
    only.reads.clear()
    again.say(101)
    await turns_pass()
    assert await only.leave() == 1500


async def test_what_the_cache_answers_is_not_handed_on() -> None:
    stage, agent = stage_of(), Agent([PIECE, BILL])
    agent.say(3)
    assert await Asker(stage, agent).end() == 1500
    await turns_pass()
    first, second = Asker(stage, agent), Asker(stage, agent)
    counted = await first.leave(), await second.end()

    assert len(agent.calls) == 1
    assert sum(counted) <= PROMPT


_STEPS = st.lists(
    st.one_of(
        st.just(("board", 0)),
        st.tuples(st.just("say"), st.integers(1, 8)),
        st.tuples(st.sampled_from(["leave", "hold", "go"]), st.integers(0, 5)),
        st.just(("pass", 0)),
    ),
    max_size=30,
)

_OUTPUTS = st.one_of(
    st.integers(0, 12).map(lambda number: [*[PIECE] * number, BILL]),
    st.integers(1, 12).map(lambda number: [PIECE] * number),
    st.tuples(st.integers(1, 6), st.integers(0, 6)).map(
        lambda parts: [Usage(500, 0), *[PIECE] * parts[0], Usage(500, 100), *[PIECE] * parts[1], BILL]
    ),
    st.integers(1, 6).map(lambda number: [*[ReasoningPiece(PIECE)] * number, PIECE, BILL]),
)


@settings(
    max_examples=2 * settings().max_examples, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
@given(outputs=_OUTPUTS, steps=_STEPS)
async def test_whoever_leaves_whenever_all_that_the_agent_said_is_paid(
    outputs: list[Output], steps: list[tuple[str, int]]
) -> None:
    stage, agent = stage_of(), Agent(outputs)
    askers = [Asker(stage, agent)]
    counted = 0
    for op, number in steps:
        asker = askers[number % len(askers)] if askers else None
        match op:
            case "board":
                askers.append(Asker(stage, agent))
            case "say":
                agent.say(number)
            case "pass":
                await turns_pass()
            case "leave" if asker is not None:
                askers.remove(asker)
                counted += await asker.leave()
                if not askers:
                    break  # the next one would ask anew
            case "hold" if asker is not None:
                asker.reads.clear()
            case "go" if asker is not None:
                asker.reads.set()
    for asker in askers:
        counted += await asker.leave()

    assert counted >= agent.cost
