"""What the gate reserves, holds and settles; over real doors in ``tests/server/realtime/test_quota.py``."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from decimal import Decimal
from typing import Any

import pytest

from tests.fakes.clock import FakeClock
from unbroken.server.agents.base import TurnInput
from unbroken.server.auth.directory import MemoryDirectory
from unbroken.server.auth.principal import Principal
from unbroken.server.metrics import Metrics
from unbroken.server.plan_tables import Mode
from unbroken.server.quota.base import MOST, Amount, Scope, UsageRecord
from unbroken.server.quota.gate import Gate, UnknownPrincipal
from unbroken.server.quota.memory import MemoryLedger
from unbroken.server.quota.plans import Plans
from unbroken.server.quota.prices import Price, Prices
from unbroken.server.quota.refusal import QuotaRefusal
from unbroken.server.quota_settings import PlanQuota
from unbroken.sessions.admission import SessionLimits
from unbroken.sessions.entries import CreateResponse, Entry, ResponseDone, SessionOpened
from unbroken.sessions.errors import Refusal, StoreUnavailable
from unbroken.sessions.ids import ItemId, Nonce, ResponseId, SessionId
from unbroken.sessions.items import (
    FunctionTool,
    Message,
    ResponseRequest,
    Reused,
    SessionConfig,
    Text,
    Usage,
)
from unbroken.sessions.responder import Finish, Output, ReasoningPiece, Turn, Working
from unbroken.sessions.session import Session

ALICE = Principal("alice", tenant="acme")
SESSION, RESPONSE = SessionId("sess_1"), ResponseId("resp_1")
PRICE = Price.of(Decimal(1), Decimal(10), Decimal("0.1"))
"""A millionth for a token that is read, ten for one that is said."""


class World:
    """A gate, and one turn of alice's."""

    def __init__(self, *, is_strict: bool = False, mode: Mode = "on", **quota: Any) -> None:
        self.clock = FakeClock()
        self.ledger = MemoryLedger(self.clock)
        self.directory = MemoryDirectory(self.clock)
        plans = Plans({"default": PlanQuota(**quota)}, {"default": mode})
        prices = Prices({"m": PRICE})
        self.waiting: list[ResponseId] = []
        """What waits behind the turn that runs."""
        self.gate = Gate(
            self.ledger,
            plans,
            prices,
            self.directory,
            self.clock,
            Metrics(),
            is_strict=is_strict,
            waiting=lambda _: self.waiting,
        )
        self.session = Session(SESSION, SessionLimits())
        self.session.apply(Entry(1, Nonce(1), SessionOpened(ALICE.id, SessionConfig("m"))))
        self.asked = False
        self.rounds = 0
        """How often its agent was asked, of one that answers in rounds."""
        self.most = 0
        """Tokens that were reserved when it was."""

    async def reserve(
        self, request: ResponseRequest | None = None, response_id: ResponseId = RESPONSE
    ) -> None:
        await self.directory.note(ALICE)
        asker = self.gate.asker(ALICE, None)
        assert asker is not None
        await asker.reserve(self.session, CreateResponse(response_id, request or ResponseRequest()))

    async def answer(self, *outputs: Output, text: str = "", resumed: Any = None) -> list[Output]:
        """Return what is let through of an answer to *text*."""
        return [output async for output in self.metered(outputs, text, resumed)]

    def metered(
        self, outputs: Sequence[Output], text: str = "", resumed: Any = None, attempt: int = 1
    ) -> AsyncGenerator[Output, None]:
        async def said() -> AsyncGenerator[Output, None]:
            self.asked = True
            for output in outputs:
                yield output

        return self.gate.metered(_turn(text, resumed, attempt), _given(text), said())

    async def answer_in_rounds(self, *rounds: tuple[str, Sequence[Output]], text: str = "") -> list[Output]:
        """Return what is let through of an answer in rounds: what each sends, and what comes of it."""
        turn = _turn(text)

        async def said() -> AsyncGenerator[Output, None]:
            for number, (sent, outputs) in enumerate(rounds):
                if not await self.gate.may_ask(turn, _given(sent), number):
                    yield Finish("quota_exceeded")
                    return
                self.rounds += 1
                self.most = max(self.most, (await self.used())["td"])
                for output in outputs:
                    yield output

        return [output async for output in self.gate.metered(turn, _given(text), said())]

    async def end(self, status: Any = "completed", usage: Usage | None = None, text: str = "") -> UsageRecord:
        """Return the record of the turn that has ended so."""
        output = (Message(ItemId("a1"), "assistant", (Text(text),)),) if text else ()
        self.gate.ended(self.session, ResponseDone(RESPONSE, status, 1, output, usage=usage))
        await self.gate.settled()
        return (await self.ledger.records("acme", 1))[0]

    async def used(self) -> dict[str, int]:
        return dict((await self.ledger.look("acme", [Scope("u", ALICE.id)]))[0])


def _items(text: str) -> tuple[Message, ...]:
    return (Message(ItemId("u1"), "user", (Text(text),)),)


def _turn(text: str = "", resumed: Any = None, attempt: int = 1) -> Turn:
    return Turn(
        session_id=SESSION,
        response_id=RESPONSE,
        principal=ALICE.id,
        attempt=attempt,
        config=SessionConfig("m"),
        request=ResponseRequest(),
        items=_items(text),
        resumption=resumed,
    )


def _given(text: str) -> TurnInput:
    return TurnInput(
        session_id=SESSION,
        response_id=RESPONSE,
        principal=ALICE.id,
        model="m",
        instructions="",
        items=_items(text) if text else (),
    )


async def test_what_was_said_is_held_before_it_is_let_through() -> None:
    world = World(tokens_per_day=4096)
    await world.reserve()
    seen = 0
    async for piece in world.metered(["x" * 400] * 100):
        if isinstance(piece, str):
            seen += 100
            assert (await world.used())["td"] >= seen

    assert piece == Finish("quota_exceeded")
    assert 4096 - 256 <= seen <= 4096


@pytest.mark.parametrize("size", [1, 3, 100, 4000])
async def test_f2_an_answer_counts_the_same_however_it_is_cut(size: int) -> None:
    """F2: streamed word by word, or all of it at once, where nobody tells what it took."""
    world = World()
    await world.reserve()
    text = "some words " * 364
    await world.answer(*(text[at : at + size] for at in range(0, len(text), size)))
    record = await world.end("cancelled", text=text)

    assert record.output_tokens == 1001
    assert (await world.used())["td"] == record.tokens


async def test_one_piece_that_is_too_large_is_not_let_through() -> None:
    world = World(tokens_per_day=4096)
    await world.reserve()

    assert await world.answer("x", "y" * 20_000) == ["x", Finish("quota_exceeded")]
    assert (await world.used())["td"] <= 4096


@pytest.mark.parametrize(
    "quota", [{"tokens_per_minute": 100}, {"cost_per_day": "0.001"}, {"tenant_tokens_per_day": 100}]
)
async def test_a_small_limit_is_no_reason_to_refuse_everything(quota: dict[str, Any]) -> None:
    """Of one, not all is reserved for the first part of an answer; and the last of it can be used."""
    world = World(**quota)
    await world.reserve()
    said = await world.answer(*["four"] * 200)

    assert said[-1] == Finish("quota_exceeded")
    assert 75 <= len(said) - 1 <= 100


async def test_cancelled_once_the_agent_was_asked_counts_what_it_was_sent() -> None:
    """It reads, and bills, whether anybody waits for it or not."""
    world = World()
    await world.reserve()
    await world.answer(Working(), text="x" * 4000)
    record = await world.end("cancelled")

    assert 1000 <= record.input_tokens <= 1100
    assert (record.output_tokens, record.is_estimate) == (0, True)


@pytest.mark.parametrize("status", ["cancelled", "interrupted", "incomplete"])
async def test_what_ends_before_the_agent_was_asked_counts_nothing(status: str) -> None:
    world = World()
    await world.reserve()
    record = await world.end(status)

    assert (record.tokens, record.cost) == (0, 0)
    assert (await world.used())["rd"] == 1


async def test_without_budget_the_agent_is_not_asked() -> None:
    """It waited for so long that its budget lapsed, and another took that."""
    world = World(tokens_per_day=2000)
    await world.reserve()
    world.clock.advance(301)
    await world.ledger.settle("acme", "other", (Scope("u", ALICE.id),), Amount(1999), None)

    assert await world.answer("x") == [Finish("quota_exceeded")]
    assert not world.asked
    assert (await world.end("incomplete")).tokens == 0


async def test_what_a_provider_tells_in_between_is_held_with_the_next_piece() -> None:
    """An agent may have rounds of its own, which all send everything: the estimate knows of one alone."""
    world = World(tokens_per_day=10_000)
    await world.reserve()
    said = await world.answer("x", Usage(5000, 10), "y", Usage(12_000, 20), "z")

    assert said == ["x", Usage(5000, 10), "y", Usage(12_000, 20), Finish("quota_exceeded")]
    assert 5000 <= (await world.used())["td"] <= 10_000
    await world.end("incomplete", Usage(12_000, 20))
    # The last piece was cut off here, and said by the provider.
    assert (await world.used())["td"] == 12_021


LONG = "x" * 40_000
"""Ten thousand tokens."""


async def test_what_a_round_sends_is_held_before_its_agent_is_asked() -> None:
    world = World(tokens_per_day=30_000)
    await world.reserve()
    said = await world.answer_in_rounds(("hi", ["x", Usage(5, 1)]), (LONG, ["y", Usage(10_012, 2)]))

    assert said[-1] == Usage(10_012, 2)
    assert world.rounds == 2
    assert 10_000 <= world.most <= 11_400


async def test_a_round_that_there_is_no_budget_for_is_not_begun() -> None:
    """What was said is kept, and paid; what would have been sent isn't."""
    world = World(tokens_per_day=10_000)
    await world.reserve()
    said = await world.answer_in_rounds(("hi", ["x", Usage(5, 1)]), (LONG, ["y"]))

    assert said == ["x", Usage(5, 1), Finish("quota_exceeded")]
    assert world.rounds == 1
    assert (await world.used())["td"] < 10_000
    record = await world.end("incomplete", Usage(5, 1))
    assert (record.input_tokens, record.output_tokens, record.is_estimate) == (5, 1, False)


async def test_a_first_round_sends_the_server_s_tools_too() -> None:
    """Nobody knew of them when the turn began: they are no reason to ask with less than it takes."""
    world = World(tokens_per_day=5000)
    await world.reserve()

    assert await world.answer_in_rounds((LONG, ["x"]), text="hi") == [Finish("quota_exceeded")]
    assert world.rounds == 0
    assert (await world.end("incomplete")).tokens == 0


@pytest.mark.parametrize(
    ("status", "said", "tokens"),
    [("cancelled", [], 10_010), ("failed", [], 6), ("failed", ["y" * 4000], 11_010)],
    ids=["cancelled", "failed before a word", "failed"],
)
async def test_a_round_that_was_cut_short_is_paid_as_a_turn_is(
    status: str, said: list[Output], tokens: int
) -> None:
    world = World(tokens_per_day=30_000)
    await world.reserve()
    await world.answer_in_rounds(("hi", ["x", Usage(5, 1)]), (LONG, [Working(), *said]))
    record = await world.end(status, None if status == "cancelled" else Usage(5, 1))

    assert abs(record.tokens - tokens) < 10


async def test_rounds_of_which_nobody_tells_are_all_counted() -> None:
    world = World(tokens_per_day=30_000)
    await world.reserve()
    await world.answer_in_rounds((LONG, ["x" * 400]), (LONG, ["y" * 400]), text="hi")
    record = await world.end("incomplete")

    assert 20_000 <= record.input_tokens <= 20_010
    assert record.output_tokens == 200


async def test_a_provider_s_last_word_does_not_cut_what_is_complete() -> None:
    world = World(tokens_per_day=2000)
    await world.reserve()

    assert await world.answer("x", Usage(9000, 9000)) == ["x", Usage(9000, 9000)]


@pytest.mark.parametrize("usage", [Usage(2**53 - 1, 2**53 - 1), Usage(2**53 - 1, 0, 2**53 - 1)])
async def test_absurd_figures_are_settled(usage: Usage) -> None:
    """And records still sum to counters."""
    world = World()
    await world.reserve()
    await world.answer("x", usage, "y")
    record = await world.end("completed", usage)
    used = await world.used()

    assert (used["td"], used["cd"]) == (record.tokens, record.cost)
    assert 0 < record.tokens <= MOST
    assert used["turns"] == 0


@pytest.mark.parametrize("usage", [Usage(-5, -5), Usage(None, 7)])  # type: ignore[arg-type]
async def test_an_agent_s_odd_figures_are_no_credit(usage: Usage) -> None:
    world = World(tokens_per_day=5000)
    await world.reserve()
    await world.answer("x", usage, "y" * 8000)

    assert (await world.used())["td"] >= 2000


REUSED = Usage(reused=Reused("exact", 5.0))


async def test_what_was_answered_before_takes_what_it_is_billed() -> None:
    """F7. It is not cut short for a budget that it doesn't need, however long it is."""
    world = World(tokens_per_day=2000)
    await world.reserve()
    said = await world.answer(REUSED, *["x" * 400] * 100)
    record = await world.end("completed", REUSED, "x" * 40_000)

    assert len(said) == 101
    assert (record.tokens, record.cost, record.reused, record.is_estimate) == (0, 0, "exact", False)
    used = await world.used()
    assert (used["td"], used["rd"], used["turns"]) == (0, 1, 0)


async def test_what_was_answered_before_and_is_billed_in_full_is_counted_in_full() -> None:
    """F7, with ``UNBROKEN_CACHE_BILLING=full``."""
    world = World(tokens_per_day=2000)
    await world.reserve()
    billed = Usage(100, 900, 50, Reused("semantic", 5.0))
    await world.answer(billed, *["x" * 400] * 10)
    record = await world.end("completed", billed, "x" * 4000)

    assert (record.tokens, record.reused) == (1000, "semantic")
    assert record.cost == PRICE.cost(100, 900, 50)


async def test_who_joined_a_call_and_is_left_with_it_pays() -> None:
    """The one who made it has gone: then it is theirs."""
    world = World(tokens_per_day=20_000)
    await world.reserve()
    flight = Usage(reused=Reused("flight", 0.0))
    await world.answer(flight, "x" * 4000, Usage(50, 900))
    record = await world.end("completed", Usage(50, 900))

    assert (record.tokens, record.reused) == (950, "")


async def test_who_joined_a_call_needs_a_budget_and_pays_nothing_if_another_does() -> None:
    """Who will pay is known at the end: without a budget, it would be everybody's way around it."""
    world = World(tokens_per_day=2000)
    await world.reserve()
    flight = Usage(reused=Reused("flight", 0.0))
    said = await world.answer(flight, "x" * 40_000, flight)
    record = await world.end("incomplete", flight)

    assert said == [flight, Finish("quota_exceeded")]
    assert (record.tokens, record.reused) == (0, "flight")
    assert (await world.used())["td"] == 0


@pytest.mark.parametrize("status", ["incomplete", "cancelled", "failed"])
async def test_what_was_told_after_a_round_and_said_since_is_paid_however_it_ends(status: str) -> None:
    world = World(tokens_per_day=100_000)
    await world.reserve()
    await world.answer(Usage(8000, 500), "x" * 4000)
    record = await world.end(status, None if status == "cancelled" else Usage(8000, 500))

    assert 9400 <= record.tokens <= 9600
    assert record.is_estimate


async def test_what_is_thought_and_not_shown_is_paid_by_who_cancels() -> None:
    world = World(tokens_per_day=100_000)
    await world.reserve()
    await world.answer(ReasoningPiece("x" * 40_000))
    record = await world.end("cancelled", None)

    assert record.tokens > 9000


async def test_definitions_of_functions_are_read_too() -> None:
    world = World(tokens_per_day=5000)
    tool = FunctionTool("f", "d" * 40_000, {})
    with pytest.raises(QuotaRefusal):
        await world.reserve(ResponseRequest(tools=(tool,)))


async def test_who_is_cut_off_while_a_budget_is_reserved_has_none() -> None:
    world = World()
    waits, goes_on = asyncio.Event(), asyncio.Event()
    reserve = world.ledger.reserve

    async def late(*args: Any, **kwargs: Any) -> Any:
        decision = await reserve(*args, **kwargs)
        waits.set()
        await goes_on.wait()
        return decision

    world.ledger.reserve = late  # type: ignore[method-assign]
    task = asyncio.create_task(world.reserve())
    await waits.wait()
    assert (await world.used())["turns"] == 1
    task.cancel()
    await asyncio.wait({task})
    await world.gate.settled()

    assert set((await world.used()).values()) == {0}


async def test_where_nobody_can_be_asked_a_strict_gate_refuses(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World()

    async def gone(*_: Any, **__: Any) -> Any:
        raise StoreUnavailable("redis://user:password@host")

    monkeypatch.setattr(world.ledger, "reserve", gone)
    with pytest.raises(Refusal, match="Send this again") as refused:
        await world.reserve()
    assert refused.value.code == "store_unavailable"
    assert "password" not in refused.value.message
    await world.gate.settled()


async def test_a_turn_that_runs_for_long_keeps_its_budget() -> None:
    world = World()
    await world.reserve()
    async for _ in world.metered([Working()] * 20):
        world.clock.advance(100)
        assert (await world.used())["turns"] == 1


async def test_what_waits_for_long_behind_a_turn_keeps_its_budget_and_its_place() -> None:
    """Turns at once are those that run or wait: nobody takes the place of one that has waited for long."""
    world = World(turns=2)
    await world.reserve()
    await world.reserve(response_id=ResponseId("resp_2"))
    world.waiting = [ResponseId("resp_2")]
    async for _ in world.metered([Working()] * 20):
        world.clock.advance(60)
        await world.gate.settled()
        with pytest.raises(QuotaRefusal, match="run or wait"):
            await world.reserve(response_id=ResponseId("resp_3"))

    world.waiting = []
    world.clock.advance(301)
    assert (await world.used())["turns"] == 0, "nobody holds it any more"


async def test_what_waits_behind_many_short_turns_keeps_its_place() -> None:
    """Each is too short to renew anything; together they aren't."""
    world = World(turns=2)
    await world.reserve()
    await world.reserve(response_id=ResponseId("resp_2"))
    world.waiting = [ResponseId("resp_2")]
    for _ in range(5):
        async for _piece in world.metered([Working()] * 9):
            world.clock.advance(10)
            await world.gate.settled()

    assert (await world.used())["turns"] == 2


@pytest.mark.parametrize("asks", ["renewal", "loosen"])
async def test_what_is_given_back_while_it_is_being_held_leaves_no_turn_behind(asks: str) -> None:
    """It was merged into another while the call was under way: nobody would end it again."""
    world = World(turns=5)
    await world.reserve()
    waits = CreateResponse(ResponseId("resp_2"), ResponseRequest())
    await world.reserve(response_id=waits.response_id)
    world.waiting = [waits.response_id]
    asker, keep = world.gate.asker(ALICE, None), world.ledger.keep
    assert asker is not None
    is_asked, goes_on = asyncio.Event(), asyncio.Event()

    async def late(*args: Any, **kwargs: Any) -> None:
        is_asked.set()
        await goes_on.wait()
        await keep(*args, **kwargs)

    world.ledger.keep = late  # type: ignore[method-assign]
    if asks == "renewal":
        await world.answer("x")
    else:
        asker.loosen(world.session, waits)
    await is_asked.wait()
    await world.ledger.release("acme", f"{SESSION}:{waits.response_id}")
    goes_on.set()
    await world.gate.settled()

    assert (await world.used())["turns"] == 1


async def test_a_turn_that_lapsed_while_it_waited_does_not_begin_beyond_the_limit() -> None:
    """Nobody could hold it: its nodes were away. Others have taken its place since."""
    world = World(turns=1)
    await world.reserve()
    world.clock.advance(301)
    await world.reserve(response_id=ResponseId("resp_2"))

    assert await world.answer("x") == [Finish("quota_exceeded")]
    assert not world.asked
    assert (await world.used())["turns"] == 1


async def test_a_second_attempt_begins_though_the_first_one_s_place_was_not_given_back_yet() -> None:
    world = World(turns=1)
    await world.reserve(response_id=ResponseId("resp_0"))

    assert [piece async for piece in world.metered(["x"], attempt=2)] == ["x"]


@pytest.mark.parametrize(
    ("seconds", "text", "calls"),
    [(0, "", 0), (30, "", 1), (0, "y" * 4000, 1)],
    ids=["", "long ago", "too little"],
)
async def test_who_has_reserved_enough_here_is_not_asked_again(seconds: int, text: str, calls: int) -> None:
    """One call less before the first word. It is good for one attempt."""
    world = World(tokens_per_day=10**6)
    asked: list[Amount] = []
    hold = world.ledger.hold

    async def counted(tenant: str, turn: str, scopes: Any, limits: Any, amount: Amount, **rest: Any) -> Any:
        asked.append(amount)
        return await hold(tenant, turn, scopes, limits, amount, **rest)

    world.ledger.hold = counted  # type: ignore[method-assign]
    await world.reserve()
    world.clock.advance(seconds)
    await world.answer("x", text=text)
    assert len(asked) == calls
    await world.answer("x", text=text)
    assert len(asked) == calls + 1


async def test_a_turn_that_has_budget_left_is_not_cut_short_for_want_of_more() -> None:
    """Others have taken the rest; it renews what it has, and says what it may."""
    world = World(tokens_per_day=2000)
    await world.reserve()
    await world.ledger.settle("acme", "other", (Scope("u", ALICE.id),), Amount(10_000), None)
    said = []
    async for piece in world.metered(["four"] * 1000):
        said.append(piece)
        world.clock.advance(1)

    assert said[-1] == Finish("quota_exceeded")
    assert 499 <= len(said) - 1 <= 500, "a fourth of the limit was reserved"


async def test_what_nobody_knows_was_written_is_held_for_a_moment() -> None:
    """Its client was cut off meanwhile: if it was, its run holds it; else it is not in anybody's way."""
    world = World(turns=1)
    await world.reserve()
    asker = world.gate.asker(ALICE, None)
    assert asker is not None
    asker.loosen(world.session, CreateResponse(RESPONSE, ResponseRequest()))
    await world.gate.settled()
    assert (await world.used())["turns"] == 1
    world.clock.advance(61)
    assert (await world.used())["turns"] == 0


@pytest.mark.parametrize("mode", ["on", "shadow"])
async def test_whom_nobody_knows_is_counted_for_nobody(mode: Mode) -> None:
    """Unless the operator would rather have nothing that isn't counted. In the shadow nobody is refused."""
    for is_strict in (False, True):
        world = World(is_strict=is_strict, mode=mode)
        if is_strict and mode == "on":
            with pytest.raises(UnknownPrincipal):
                await world.answer("x")
            assert not world.asked
        else:
            assert await world.answer("x") == ["x"]
        assert (await world.used())["rd"] == 0


async def test_a_turn_that_runs_is_settled_though_its_user_is_forgotten_meanwhile() -> None:
    world = World()
    await world.reserve()
    await world.answer("x" * 400)
    world.clock.advance(8 * 86_400)
    assert await world.directory.known(ALICE.id) is None

    assert (await world.end("completed", Usage(10, 100))).tokens == 110


async def test_where_nothing_is_counted_a_turn_leaves_nothing_behind() -> None:
    """Its plan is none of those for which it is."""
    world = World(mode="off", tokens_per_day=10)
    await world.directory.note(ALICE)
    assert world.gate.asker(ALICE, None) is None
    assert await world.answer_in_rounds(("hi", ["x" * 4000, Usage(1, 1000)]), (LONG, ["y"])) == [
        "x" * 4000,
        Usage(1, 1000),
        "y",
    ]
    world.gate.ended(world.session, ResponseDone(RESPONSE, "completed", 1, (), usage=Usage(1, 1000)))
    await world.gate.settled()

    assert set((await world.used()).values()) == {0}
    assert await world.ledger.records("acme", 1) == []


async def test_what_waits_and_was_written_while_its_connection_broke_is_held_like_all_others() -> None:
    """Nobody knew at first whether it was: it was held for a minute only."""
    world = World(turns=2)
    await world.reserve()
    answer = world.metered([Working()] * 20)
    await anext(answer)
    late = CreateResponse(ResponseId("resp_2"), ResponseRequest())
    await world.reserve(response_id=late.response_id)
    world.waiting = [late.response_id]
    asker = world.gate.asker(ALICE, None)
    assert asker is not None
    asker.loosen(world.session, late)
    for _ in range(12):
        world.clock.advance(10)
        await anext(answer)
        await world.gate.settled()

    assert (await world.ledger.look(ALICE.tenant, [Scope("u", ALICE.id)]))[0]["turns"] == 2
