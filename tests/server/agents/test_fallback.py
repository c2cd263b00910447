"""The chain of agents: who answers, and what comes out when some of them fail."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import aclosing
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from structlog.testing import capture_logs

from tests.fakes.agent import FakeAgent, Step
from tests.fakes.clock import FakeClock
from tests.server.agents.agent_contract import AgentContract, Subject, collect, text_of, turn
from unbroken.server.agents import base
from unbroken.server.agents.base import (
    AgentBusy,
    AgentError,
    AgentNotReady,
    AgentOutput,
    ContentUnsupported,
    ContextTooLong,
    Finish,
    FunctionCallPiece,
    Handle,
    Parameters,
    ReasoningPiece,
    ResponseGone,
    TurnInput,
    UpstreamCut,
    UpstreamRateLimited,
    UpstreamRefusedKey,
    UpstreamRejected,
    UpstreamStalled,
    UpstreamUnavailable,
    Usage,
    Working,
)
from unbroken.server.agents.breaker import BreakerLimits, BreakerState
from unbroken.server.agents.consequence import CONSEQUENCES, Consequence, consequence_of
from unbroken.server.agents.fallback import FallbackAgent, Member, Observer
from unbroken.server.agents.scripted import BadScript, ScriptedAgent

ERRORS = [kind for kind in vars(base).values() if isinstance(kind, type) and issubclass(kind, AgentError)]


class Told(Observer):
    def __init__(self) -> None:
        self.calls: list[tuple[str, str]] = []
        self.answers: list[tuple[str, str]] = []
        self.changes: list[tuple[str, BreakerState]] = []

    def called(self, name: str, outcome: str) -> None:
        self.calls.append((name, outcome))

    def answering(self, turn: TurnInput, name: str, model: str) -> None:
        self.answers.append((name, model))

    def breaker_changed(self, name: str, state: BreakerState) -> None:
        self.changes.append((name, state))


class Chain:
    """A started chain of fakes named a, b, c..."""

    def __init__(self, *agents: FakeAgent, patience: float = 20.0, **limits: Any) -> None:
        self.agents = agents
        self.clock = FakeClock()
        self.told = Told()
        self.agent = FallbackAgent(
            [
                Member(name=name, agent=agent, model=None if name == "a" else f"{name}-model")
                for name, agent in zip("abcdef", agents, strict=False)
            ],
            self.clock,
            limits=BreakerLimits(**limits),
            patience=patience,
            observer=self.told,
        )
        for agent in agents:
            agent.is_ready = True

    async def says(self) -> str:
        return text_of(await collect(self.agent, turn("hi")))

    @property
    def asked(self) -> list[int]:
        return [len(agent.turns) for agent in self.agents]


class ScriptedSubject(Subject):
    """A chain whose first agent is always out of order, and whose second is scripted."""

    def __init__(self) -> None:
        broken = FakeAgent([UpstreamUnavailable()])
        self.scripted = ScriptedAgent()
        self.agent = FallbackAgent(
            [Member(name="broken", agent=broken), Member(name="scripted", agent=self.scripted)], FakeClock()
        )

    def answering(self, number: int) -> tuple[TurnInput, str]:
        return turn(f"/say it is {number}"), f"it is {number}"

    def endless(self) -> TurnInput:
        return turn("/stall after 1")

    def silent(self) -> TurnInput:
        return turn("/stall")

    def failing(self) -> TurnInput:
        return turn("/fail after 2")

    async def begun(self) -> None:
        while not self.scripted.running:  # noqa: ASYNC110 - it has no event to wait for
            await asyncio.sleep(0)

    async def stopped(self) -> None:
        while self.scripted.running:  # noqa: ASYNC110 - it has no event to wait for
            await asyncio.sleep(0)


class TestFallbackAgentContract(AgentContract):
    @pytest.fixture
    async def subject(self) -> ScriptedSubject:
        subject = ScriptedSubject()
        await subject.agent.start()
        return subject


# Who is asked.


async def test_first_agent_answers_while_it_can() -> None:
    chain = Chain(FakeAgent(["one", Usage(1, 1), Finish()]), FakeAgent(["two"]))

    assert await collect(chain.agent, turn("hi", model="m-9")) == ["one", Usage(1, 1), Finish()]
    assert chain.asked == [1, 0]
    assert chain.agents[0].turns[0].model == "m-9"
    assert chain.told.calls == [("a", "completed")]
    assert chain.told.answers == [("a", "m-9")]


async def test_the_next_one_is_asked_for_the_same() -> None:
    chain = Chain(FakeAgent([UpstreamUnavailable()]), FakeAgent(["two"]))
    parameters = Parameters(0.5, 0.25, ("x",), {"type": "json_object"})
    await collect(chain.agent, turn("hi", parameters=parameters))

    assert [agent.turns[0].parameters for agent in chain.agents] == [parameters, parameters]


@pytest.mark.parametrize("kind", ERRORS)
async def test_what_a_failure_leads_to_is_in_the_table(kind: type[AgentError]) -> None:
    """Every kind of error is, by itself."""
    consequence = CONSEQUENCES[kind]
    chain = Chain(FakeAgent([Working(), kind()]), FakeAgent(["two"]), failures=2)

    if consequence is Consequence.END:
        with pytest.raises(kind):
            await chain.says()
        assert chain.asked == [1, 0]
    else:
        assert await chain.says() == "two"
        assert chain.agents[1].turns[0].model == "b-model"
        assert chain.told.answers == [("b", "b-model")]
        assert chain.told.calls == [("a", kind.code), ("b", "completed")]
        is_open = chain.agent.states["a"] is BreakerState.OPEN
        assert is_open == (consequence is Consequence.OPEN)
        await chain.says()
        is_open = chain.agent.states["a"] is BreakerState.OPEN
        assert is_open == (consequence in {Consequence.COUNT, Consequence.OPEN})


def test_table_says_what_was_decided() -> None:
    ends = {kind for kind, consequence in CONSEQUENCES.items() if consequence is Consequence.END}

    assert ends == {ContextTooLong, UpstreamRejected, ResponseGone}
    assert CONSEQUENCES[UpstreamRefusedKey] is Consequence.OPEN
    assert {CONSEQUENCES[kind] for kind in (AgentBusy, AgentNotReady, ContentUnsupported)} == {
        Consequence.NEXT
    }


def test_kind_that_is_not_in_the_table_follows_its_base() -> None:
    assert consequence_of(BadScript()) is CONSEQUENCES[AgentError]


@pytest.mark.parametrize("kind", ERRORS)
async def test_nothing_leads_on_after_the_first_piece(kind: type[AgentError]) -> None:
    chain = Chain(FakeAgent(["", "one", kind()]), FakeAgent(["two"]))
    outputs: list[AgentOutput] = []

    with pytest.raises(kind):
        async for output in chain.agent.respond(turn("hi")):
            outputs.append(output)  # noqa: PERF401 - what came before the failure is wanted

    assert outputs == ["one"]
    assert chain.asked == [1, 0]


async def test_nothing_leads_on_after_a_call_has_begun() -> None:
    call = FunctionCallPiece(0, name="f")
    chain = Chain(FakeAgent([Working(), call, UpstreamCut()]), FakeAgent(["two"]))
    outputs: list[AgentOutput] = []
    with pytest.raises(UpstreamCut):
        async with aclosing(chain.agent.respond(turn("hi"))) as answer:
            async for output in answer:
                outputs.append(output)  # noqa: PERF401 - what came before the error counts

    assert outputs == [Working(), call]
    assert chain.told.answers == [("a", "default")]


async def test_what_nobody_was_shown_doesnt_hold_a_chain_to_an_agent() -> None:
    thought = ReasoningPiece("Hm")
    hidden = Chain(FakeAgent([thought, UpstreamCut()]), FakeAgent([thought, "two", thought]))
    shown = Chain(FakeAgent([thought, UpstreamCut()]), FakeAgent(["two"]))

    said = await collect(hidden.agent, turn("hi"))
    assert said == [Working(thought=2), Working(), Working(thought=2), "two", thought], (
        "it says how much it was"
    )
    with pytest.raises(UpstreamCut):
        await collect(shown.agent, turn("hi", shows_reasoning=True))


async def test_bug_in_an_agent_ends_the_turn() -> None:
    chain = Chain(FakeAgent([RuntimeError("bug")]), FakeAgent(["two"]))

    with pytest.raises(RuntimeError):
        await chain.says()
    assert chain.told.calls == [("a", "crashed")]


async def test_answer_without_text_is_an_answer() -> None:
    chain = Chain(FakeAgent([Usage(1, 0), Finish("content_filter")]), FakeAgent(["two"]))

    assert await collect(chain.agent, turn("hi")) == [Usage(1, 0), Finish("content_filter")]
    assert chain.asked == [1, 0]


async def test_who_fails_before_the_text_has_not_finished_and_its_bill_comes_on_top() -> None:
    chain = Chain(
        FakeAgent([Usage(9, 9), Finish("content_filter"), UpstreamCut()]), FakeAgent(["two", Usage(3, 1)])
    )

    assert await collect(chain.agent, turn("hi")) == [
        Working(spent=Usage(9, 9)),
        Working(),
        "two",
        Usage(3, 1),
    ]


async def test_the_bill_of_the_last_one_that_fails_comes_on_top_too() -> None:
    chain = Chain(FakeAgent([UpstreamCut()]), FakeAgent([Usage(9, 9), UpstreamCut()]))
    outputs: list[AgentOutput] = []

    with pytest.raises(UpstreamCut):
        async for output in chain.agent.respond(turn("hi")):
            outputs.append(output)  # noqa: PERF401 - what came before the error counts

    assert outputs == [Working(), Working(spent=Usage(9, 9))]


async def test_last_error_comes_out_when_all_fail() -> None:
    chain = Chain(FakeAgent([UpstreamUnavailable()]), FakeAgent([UpstreamRateLimited(retry_after=7)]))

    with pytest.raises(UpstreamRateLimited) as failure:
        await chain.says()
    assert failure.value.retry_after == 7


async def test_silent_agent_is_left_before_the_turn_fails_for_silence() -> None:
    chain = Chain(FakeAgent([Working(), None]), FakeAgent(["two"]), patience=0.01)

    assert await chain.says() == "two"
    assert chain.told.calls[0] == ("a", UpstreamStalled.code)
    assert chain.agents[0].running == 0


async def test_patience_ends_with_the_first_piece_and_with_the_last_agent() -> None:
    """What is silent then is the run's affair."""
    for chain in (
        Chain(FakeAgent(["one", None]), FakeAgent(["two"]), patience=0.001),
        Chain(FakeAgent([None])),
    ):
        task = asyncio.create_task(collect(chain.agent, turn("hi")))
        await chain.agents[0].hanging.wait()
        done, _ = await asyncio.wait([task], timeout=0.02)
        assert not done
        task.cancel()
        await asyncio.wait([task])


# Breakers.


async def test_agent_that_keeps_failing_is_passed_over_and_tried_again() -> None:
    chain = Chain(
        FakeAgent(*[[UpstreamUnavailable()]] * 3, ["one"]), FakeAgent(["two"]), failures=3, cooldown=30
    )
    with capture_logs() as logs:
        for _ in range(5):
            assert await chain.says() == "two"
    assert chain.asked == [3, 5]
    changes = [(log["agent"], log["state"]) for log in logs if log["event"] == "breaker changed"]
    assert changes == [("a", "open")]

    chain.clock.advance(30)

    assert await chain.says() == "one"
    assert [state for _, state in chain.told.changes] == [
        BreakerState.OPEN,
        BreakerState.HALF_OPEN,
        BreakerState.CLOSED,
    ]


async def test_probe_that_is_stopped_leaves_room_for_another() -> None:
    chain = Chain(FakeAgent([UpstreamRefusedKey()], [None], ["one"]), FakeAgent(["two"]), cooldown=30)
    await chain.says()
    chain.clock.advance(30)
    probe = asyncio.create_task(chain.says())
    await chain.agents[0].hanging.wait()

    assert await chain.says() == "two", "one probe at a time"
    probe.cancel()
    await asyncio.wait([probe])

    assert await chain.says() == "one"
    assert ("a", "stopped") in chain.told.calls


async def test_when_all_are_passed_over_the_client_hears_for_how_long() -> None:
    chain = Chain(
        FakeAgent([UpstreamRefusedKey()]), FakeAgent([UpstreamRefusedKey(retry_after=90)]), cooldown=30
    )
    with pytest.raises(UpstreamRefusedKey):
        await chain.says()
    chain.clock.advance(10)

    with pytest.raises(UpstreamUnavailable) as failure:
        await chain.says()

    assert failure.value.retry_after == 20
    assert chain.asked == [1, 1]


async def test_answers_that_are_cut_count_too() -> None:
    chain = Chain(FakeAgent(["one", UpstreamCut()]), FakeAgent(["two"]), failures=2)
    for _ in range(2):
        with pytest.raises(UpstreamCut):
            await chain.says()

    assert await chain.says() == "two"


# Life cycle and handles.


async def test_chain_starts_and_stops_all_and_has_the_first_one_s_model() -> None:
    agents = FakeAgent(["one"], model="m-a"), FakeAgent(["two"], model="m-b")
    chain = FallbackAgent([Member(name=str(n), agent=agent) for n, agent in enumerate(agents)], FakeClock())

    assert not chain.is_ready
    await chain.start()
    assert chain.is_ready
    assert chain.model == "m-a"
    assert all(agent.is_ready for agent in agents)
    await chain.stop()
    assert not any(agent.is_ready for agent in agents)


async def test_agent_that_can_not_start_is_named_and_the_others_are_stopped() -> None:
    agents = FakeAgent(["one"]), FakeAgent(["two"])
    agents[1].failure_at_start = AgentNotReady("Set the key.")
    chain = FallbackAgent([Member(name=n, agent=a) for n, a in zip("ab", agents, strict=True)], FakeClock())

    with pytest.raises(AgentNotReady, match="b: Set the key"):
        await chain.start()
    assert not chain.is_ready


async def test_agent_that_is_not_ready_is_passed_over() -> None:
    chain = Chain(FakeAgent(["one"]), FakeAgent(["two"]))
    chain.agents[0].is_ready = False

    assert await chain.says() == "two"


async def test_handle_leads_back_to_the_agent_it_came_from() -> None:
    chain = Chain(FakeAgent([UpstreamUnavailable()]), FakeAgent([Handle("resp:1"), "two", Handle("x")]))

    outputs = await collect(chain.agent, turn("hi"))

    assert outputs == [Working(), Handle("b:resp:1"), "two", Handle("b:x")]
    rest = [o async for o in chain.agent.reattach(turn("hi"), Handle("b:resp:1"), 3, [2])]
    assert rest == ["rest"]
    assert [agent.reattached for agent in chain.agents] == [[], [("resp:1", 3, [2])]]
    for name in ("b:resp:2", "gone:resp:3"):  # of the second there is nobody to tell
        await chain.agent.abandon(Handle(name))
    assert [agent.abandoned for agent in chain.agents] == [[], ["resp:2"]]
    with pytest.raises(ResponseGone):
        [o async for o in chain.agent.reattach(turn("hi"), Handle("gone:resp:1"), 3)]


async def test_the_handle_of_one_that_failed_is_taken_back() -> None:
    """Before the next one says anything: nobody is to go on with what the first has in its name."""
    chain = Chain(
        FakeAgent([Handle("resp:1"), UpstreamCut()]),
        FakeAgent([UpstreamCut()]),
        FakeAgent([Handle("resp:3"), "three"]),
    )

    outputs = await collect(chain.agent, turn("hi"))

    taken_back = [Handle(""), Working(), Working()]
    assert outputs == [Handle("a:resp:1"), *taken_back, Handle("c:resp:3"), "three"]


async def test_closing_stops_the_agent_that_answers() -> None:
    chain = Chain(FakeAgent([UpstreamUnavailable()]), FakeAgent(["two", None]))
    async with aclosing(chain.agent.respond(turn("hi"))) as outputs:
        async for output in outputs:
            if output == "two":
                break

    assert chain.agents[1].running == 0


# Whatever fails, in whichever order.

STEPS: st.SearchStrategy[Step] = st.one_of(
    st.sampled_from(["", "x", "y", Working(), Usage(1, 1), Handle("h"), Finish()]),
    st.sampled_from(ERRORS).map(lambda kind: kind()),
)


@given(st.lists(st.lists(st.lists(STEPS, max_size=6), min_size=1, max_size=3), min_size=1, max_size=4))
def test_text_has_one_author_and_at_most_one_error_comes_out(scripts: list[list[list[Step]]]) -> None:
    def marked(script: Sequence[Step], author: str) -> list[Step]:
        return [step + author if isinstance(step, str) and step else step for step in script]

    async def run() -> None:
        agents = [
            FakeAgent(*[marked(script, name) for script in own], model=name)
            for name, own in zip("abcd", scripts, strict=False)
        ]
        chain = Chain(*agents, failures=2)
        for _ in range(4):
            outputs: list[AgentOutput] = []
            errors: list[AgentError] = []
            try:
                async for output in chain.agent.respond(turn("hi")):
                    assert not errors
                    outputs.append(output)
            except AgentError as error:
                errors.append(error)
            text = [output for output in outputs if isinstance(output, str) and output]
            assert len({piece[-1] for piece in text}) <= 1
            assert all(agent.running == 0 for agent in agents)
            chain.clock.advance(10)

    asyncio.run(run())
