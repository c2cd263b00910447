"""I1 to I9: what caches of answers get wrong elsewhere. Over a store in memory, and over a real Valkey."""

from __future__ import annotations

import asyncio
import functools
import gc
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.fakes.clock import FakeClock
from tests.fakes.embedder import FakeEmbedder
from tests.server.cache.asking import ON, Asked, Kitchen, said, turn_of
from tests.server.cache.conftest import NewStore
from tests.server.realtime.serving import eventually as until
from unbroken.server.agents.base import File, Message, Text, UpstreamCut, Usage
from unbroken.server.auth.principal import Principal
from unbroken.server.cache.base import AnswerStore, CacheUnavailable, Found, Slot, StoreLimits
from unbroken.server.cache.flight import Flights
from unbroken.server.cache.index import PlaceIndex
from unbroken.server.cache.memory import MemoryAnswers
from unbroken.server.cache.rules import CacheRules
from unbroken.sessions.ids import ItemId
from unbroken.sessions.items import FunctionTool, NamedTool, Reused
from unbroken.sessions.responder import Finish, FunctionCallPiece, Handle, Output, Working

SEMANTIC = replace(ON, semantic={"default": "on"})
TENANTS = replace(SEMANTIC, scope="tenant")

ASKED = "How do I reset the red router?"
REWORDED = "How can I reset the red router?"


def kitchen(store: AnswerStore, rules: CacheRules = SEMANTIC, **named: Any) -> Kitchen:
    return Kitchen(store, rules, FakeEmbedder(), **named)


# I1: a tenant's, or a user's, answers are theirs.


async def test_i1_another_user_asks_for_himself(store: AnswerStore) -> None:
    cache = kitchen(store)
    await cache.ask(ASKED)
    for name, question in (("bob", ASKED), ("eve", REWORDED)):
        assert (await cache.ask(question, who=Principal(name))).tier is None
    assert cache.calls == 3


async def test_i1_two_users_who_ask_at_once_are_two_calls(store: AnswerStore) -> None:
    cache = kitchen(store)
    cache.gate.clear()
    askers = [asyncio.create_task(said(cache, turn_of(ASKED, who=Principal(name)))) for name in ("a", "b")]
    await until(lambda: cache.calls == 2)
    cache.gate.set()
    assert {answer.text for answer in await asyncio.gather(*askers)} == {"answer 1", "answer 2"}
    assert cache.counted.hits == {}


async def test_i1_in_the_scope_of_tenants_users_share_and_tenants_do_not(store: AnswerStore) -> None:
    cache = kitchen(store, TENANTS)
    people = [Principal("a", "acme"), Principal("b", "acme"), Principal("a", "other")]
    for principal in people:
        await cache.directory.note(principal)
    assert (await cache.ask(ASKED, who=people[0])).text == "answer 1"
    assert (await cache.ask(ASKED, who=people[1])).text == "answer 1"
    assert (await cache.ask(REWORDED, who=people[1])).tier == "semantic"
    assert (await cache.ask(ASKED, who=people[2])).text == "answer 2"


async def test_i1_whose_tenant_is_not_known_is_by_himself(store: AnswerStore) -> None:
    """A directory that has forgotten somebody never makes him one of no tenant, together with all such."""
    cache = kitchen(store, TENANTS)
    await cache.ask(ASKED, who=Principal("a", "acme"))
    assert (await cache.ask(ASKED, who=Principal("b", "acme"))).tier is None


_WORDS = st.sampled_from(
    ["how", "what", "reset", "open", "red", "blue", "router", "door", "not", "7", "Paris", "the"]
)
_STEP = st.tuples(
    st.sampled_from(["acme", "other", "acme\0other", ""]),
    st.sampled_from(["ada", "bob", ""]),
    st.lists(_WORDS, min_size=1, max_size=6).map(" ".join),
    st.booleans(),
)


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(steps=st.lists(_STEP, max_size=25), scope=st.sampled_from(["user", "tenant"]), by_redis=st.booleans())
async def test_i1_no_answer_ever_crosses_a_tenant(
    steps: Sequence[tuple[str, str, str, bool]], scope: Any, by_redis: bool, valkey_store: NewStore
) -> None:
    """Whoever asks whatever, in any order, under a threshold that lets nearly everything through."""
    store = valkey_store() if by_redis else MemoryAnswers(FakeClock(), StoreLimits(), PlaceIndex)
    cache = kitchen(store, replace(TENANTS, scope=scope, threshold=0.0))
    owners: dict[str, Principal] = {}
    for tenant, user, text, is_known in steps:
        who = Principal(user, tenant)
        if is_known:
            await cache.directory.note(who)
        asked = await cache.ask(text, who=who)
        owner = owners.setdefault(asked.text, who) if asked.tier is None else owners.get(asked.text, who)
        if owner is not who:
            assert owner.tenant == tenant
            assert scope == "tenant" or owner.user == user


# I2: what is swapped misses.


@pytest.mark.parametrize(
    "other",
    [
        "How do I not reset the red router?",
        "How do I reset the red routers 2?",
        "How do I reset the blue router?",
        "How do I reset the red router on Monday?",
        "How do I reset the red router in Paris?",
        "How does the red router reset?",
        "When do I reset the red router?",
    ],
)
async def test_i2_another_question_that_is_near_misses(store: AnswerStore, other: str) -> None:
    cache = kitchen(store)
    await cache.ask(ASKED)
    assert (await cache.ask(other)).tier is None


async def test_i2_a_nearer_question_that_differs_does_not_hide_one_that_does_not(store: AnswerStore) -> None:
    cache = kitchen(store)
    await cache.ask("how do i reset the red router")
    await cache.ask(ASKED.replace("red", "blue"))
    assert (await cache.ask(REWORDED)).text == "answer 1"


# I3: whatever decides the answer is in the key.


@pytest.mark.parametrize(
    "changed",
    [
        {"instructions": "Be brief."},
        {"model": "other"},
        {"max_output_tokens": 7},
        {"metadata": {"k": "v"}},
        {"tool_choice": "none"},
        {"parallel_tool_calls": True},
        {"tool_choice": NamedTool("f")},
    ],
    ids=lambda changed: next(iter(changed)),
)
@pytest.mark.parametrize("question", [ASKED, REWORDED])
async def test_i3_what_is_asked_under_other_terms_misses(
    store: AnswerStore, changed: dict[str, Any], question: str
) -> None:
    cache = kitchen(store)
    await cache.ask(ASKED)
    assert (await cache.ask(question, **changed)).tier is None
    assert (await cache.ask(ASKED)).tier == "exact"


async def test_i3_with_tools_nothing_is_looked_up_or_kept(store: AnswerStore) -> None:
    cache = kitchen(store)
    await cache.ask(ASKED)
    tools = (FunctionTool("f"),)
    assert (await cache.ask(ASKED, tools=tools, may_use_tools=True)).tier is None
    assert cache.counted.misses["tools"] == 1


# I4: one upstream call for all who ask at once.


async def test_i4_all_who_ask_at_once_are_answered_by_one_call(store: AnswerStore) -> None:
    cache = kitchen(store)
    cache.outputs = [Working(), Handle("h"), "a ", "b", Usage(3, 2)]
    cache.gate.clear()
    askers = [asyncio.create_task(said(cache, turn_of(ASKED))) for _ in range(20)]
    await until(lambda: cache.counted.hits["flight"] == 19)
    cache.gate.set()
    answers = await asyncio.gather(*askers)
    await cache.settled()

    assert cache.calls == 1
    assert {answer.text for answer in answers} == {"a b"}
    bills = [[output for output in answer.outputs if isinstance(output, Usage)][-1] for answer in answers]
    assert sum(bill.input_tokens for bill in bills) == 3, "it is billed once"
    assert [answer.tier for answer in answers].count("flight") == 19
    handles = sum(Handle("h") in answer.outputs for answer in answers)
    assert handles == 1, "one alone may have the upstream stopped"


async def test_i4_who_comes_late_is_told_so_first_of_all_and_whatever_the_agent_says(
    store: AnswerStore,
) -> None:
    """An agent may say nothing of what it cost, and an asker may leave before it does."""
    cache = kitchen(store)
    cache.outputs = ["a ", "b"]
    cache.gate.clear()
    askers = [asyncio.create_task(said(cache, turn_of(ASKED))) for _ in range(2)]
    await until(lambda: cache.counted.hits["flight"] == 1)
    cache.gate.set()
    first, late = await asyncio.gather(*askers)

    assert first.outputs == ["a ", "b"]
    assert late.outputs == [Usage(reused=Reused("flight", 0.0)), "a ", "b"]


async def test_i4_who_comes_when_it_has_just_failed_asks_anew(store: AnswerStore) -> None:
    cache = kitchen(store)
    cache.outputs = [UpstreamCut()]  # type: ignore[list-item]
    with pytest.raises(UpstreamCut):
        await said(cache, turn_of(ASKED))
    cache.outputs = None
    assert (await said(cache, turn_of(ASKED))).text == "answer 2"


@pytest.mark.parametrize("leaver", [0, 1, 2])
async def test_i4_who_leaves_leaves_alone(store: AnswerStore, leaver: int) -> None:
    cache = kitchen(store)
    cache.gate.clear()
    askers = [asyncio.create_task(said(cache, turn_of(ASKED))) for _ in range(3)]
    await until(lambda: cache.calls == 1 and cache.counted.hits["flight"] == 2)
    askers[leaver].cancel()
    with pytest.raises(asyncio.CancelledError):
        await askers[leaver]
    cache.gate.set()
    answers = [await asker for number, asker in enumerate(askers) if number != leaver]
    await cache.settled()

    assert {answer.text for answer in answers} == {"answer 1"}
    assert cache.calls == 1
    assert cache.stopped == 0
    bills = [[output for output in answer.outputs if isinstance(output, Usage)][-1] for answer in answers]
    assert sum(bill.input_tokens for bill in bills) == 3, "whoever stays pays"
    assert (await cache.ask(ASKED)).tier == "exact"


async def test_i4_the_last_one_takes_the_call_along(store: AnswerStore) -> None:
    cache = kitchen(store)
    cache.gate.clear()
    askers = [asyncio.create_task(said(cache, turn_of(ASKED))) for _ in range(2)]
    await until(lambda: cache.calls == 1 and cache.counted.hits["flight"] == 1)
    for asker in askers:
        asker.cancel()
    await asyncio.gather(*askers, return_exceptions=True)

    assert cache.stopped == 1, "by the time the last asker has gone"
    cache.gate.set()
    assert (await cache.ask(ASKED)).text == "answer 2", "a cancelled answer is nobody's"


async def test_i4_one_that_fails_as_it_is_ended_is_nobody_s_and_no_complaint() -> None:
    flights = Flights()

    async def ask() -> AsyncGenerator[Output, None]:
        try:
            await asyncio.Event().wait()
            yield ""
        except asyncio.CancelledError:
            raise UpstreamCut from None

    async def settle(_: Sequence[Output]) -> None:
        raise AssertionError("nobody wants it")

    complaints: list[Any] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: complaints.append(context))
    flight, _ = flights.board("key", ask, settle)
    await asyncio.sleep(0)
    await flights.leave(flight)
    del flight
    gc.collect()

    assert len(flights) == 0
    assert complaints == []


async def test_i4_a_failure_is_each_asker_s(store: AnswerStore) -> None:
    cache = kitchen(store)
    cache.outputs = ["half", UpstreamCut()]  # type: ignore[list-item]
    cache.gate.clear()
    askers = [asyncio.create_task(said(cache, turn_of(ASKED))) for _ in range(3)]
    await until(lambda: cache.counted.hits["flight"] == 2)
    cache.gate.set()
    assert [type(exc) for exc in await asyncio.gather(*askers, return_exceptions=True)] == [UpstreamCut] * 3
    cache.outputs = None
    assert (await cache.ask(ASKED)).tier is None


async def test_i4_a_slow_asker_holds_up_nobody_and_misses_nothing(store: AnswerStore) -> None:
    cache = kitchen(store)
    cache.outputs = [f"{number} " for number in range(2000)]
    async with aclosing(cache.begin(turn_of(ASKED))) as slow:
        first = await anext(slow)
        fast = await said(cache, turn_of(ASKED))
        rest = [output async for output in slow]
    assert [first, *rest] == cache.outputs
    assert fast.text == "".join(map(str, cache.outputs))


async def test_i4_the_agent_waits_for_askers_who_do_not_read(store: AnswerStore) -> None:
    cache = kitchen(store)
    cache.outputs = [f"{number} " for number in range(2000)]
    async with aclosing(cache.begin(turn_of(ASKED))) as slow:
        await anext(slow)
        (flight,) = cache.stage._flights._flights.values()
        await until(lambda: len(flight.outputs) >= 256)
        for _ in range(100):
            await asyncio.sleep(0)
        assert len(flight.outputs) < 300


# I5: what is never kept.


@pytest.mark.parametrize(
    ("outputs", "reason"),
    [
        (["half", Finish("max_output_tokens")], "truncated"),
        (["bad", Finish("content_filter")], "filtered"),
        (["Write to ada@example.org"], "personal"),
        (["So: ", FunctionCallPiece(0, "{}", "c", "f")], "tools"),
        ([Working()], "empty"),
    ],
    ids=["truncated", "filtered", "personal", "tools", "empty"],
)
async def test_i5_what_is_not_whole_or_not_for_all_is_not_kept(
    store: AnswerStore, outputs: list[Output], reason: str
) -> None:
    cache = kitchen(store)
    cache.outputs = outputs
    await cache.ask(ASKED)
    assert (await cache.ask(ASKED)).tier is None
    assert cache.counted.outcomes == {reason: 2}


async def test_i5_what_failed_is_not_kept(store: AnswerStore) -> None:
    """However much of it was said. What was cancelled: see I4."""
    cache = kitchen(store)
    cache.outputs = ["answer ", UpstreamCut()]  # type: ignore[list-item]
    with pytest.raises(UpstreamCut):
        await cache.ask(ASKED)
    cache.outputs = None
    assert (await cache.ask(REWORDED)).text == "answer 2"
    assert cache.counted.hits == {}


async def test_i5_a_filter_s_veto_counts(store: AnswerStore) -> None:
    cache = kitchen(store)
    cache.veto = "filtered"
    await cache.ask(ASKED)
    assert (await cache.ask(ASKED)).tier is None


async def test_i5_an_answer_is_looked_through_behind_its_end_and_kept_only_then(store: AnswerStore) -> None:
    cache, goes_on, texts = kitchen(store), asyncio.Event(), list[str]()

    async def found(text: str) -> bool:
        texts.append(text)
        await goes_on.wait()
        return text != "answer 2"

    cache.found = found
    assert (await said(cache, turn_of(ASKED))).text == "answer 1"
    assert cache.counted.outcomes == {}
    goes_on.set()
    await cache.settled()
    assert cache.counted.outcomes == {"filtered": 1}
    await cache.ask(ASKED)
    assert (await cache.ask(ASKED)).text == "answer 2"
    assert cache.counted.outcomes == {"filtered": 1, "kept": 1}
    assert texts == ["answer 1", "answer 2"], "and none that comes from the cache"


@pytest.mark.parametrize("why", ["off", "question", "answer", "veto"])
async def test_i5_what_is_not_kept_anyhow_is_not_looked_through(store: AnswerStore, why: str) -> None:
    cache = kitchen(store, replace(SEMANTIC, modes={"default": "off" if why == "off" else "on"}))
    texts: list[str] = []

    async def found(text: str) -> bool:
        texts.append(text)
        return False

    cache.found = found
    cache.veto = "fallback" if why == "veto" else None
    cache.outputs = ["So.", Finish("max_output_tokens")] if why == "answer" else None
    await cache.ask("What time is it?" if why == "question" else ASKED)

    assert (texts, cache.calls) == ([], 1)


@pytest.mark.parametrize(
    ("texts", "reason"),
    [
        (("My name is Ada. Who am I?",), "personal"),
        (("Write to ada@example.org", "Done", "What did I ask?"), "personal"),
        (("What time is it?",), "passing"),
        (("   ",), "empty"),
    ],
)
async def test_i5_a_personal_or_passing_question_is_the_agent_s(
    store: AnswerStore, texts: tuple[str, ...], reason: str
) -> None:
    cache = kitchen(store)
    for _ in range(2):
        assert (await cache.ask(*texts)).tier is None
    assert cache.counted.misses == {reason: 2}
    assert cache.counted.outcomes == {}


async def test_i5_files_and_reasoning_are_the_agent_s(store: AnswerStore) -> None:
    cache = kitchen(store)
    message = Message(ItemId("i"), "user", (Text(ASKED), File("file_1", "text/plain", 1)))
    for _ in range(2):
        assert (await cache.ask(ASKED, shows_reasoning=True)).tier is None
        assert (await cache.ask(items=(message,))).tier is None
    assert cache.counted.misses == {"reasoning": 2, "content": 2}


# I6: what is down is a miss.


@pytest.mark.parametrize("fault", ["fail", "hang"])
async def test_i6_an_embedder_that_is_down_or_late_is_a_miss(store: AnswerStore, fault: str) -> None:
    embedder = FakeEmbedder()
    cache = Kitchen(store, replace(SEMANTIC, patience=5 if fault == "fail" else 1), embedder)
    await cache.ask(ASKED)
    getattr(embedder, fault)()
    assert (await cache.ask(REWORDED)).text == "answer 2"
    assert cache.counted.misses["embedder"] == 1
    assert (await cache.ask(ASKED)).tier == "exact", "the same words need none"


class _Lost(MemoryAnswers):
    """A store that is down, or never answers."""

    hangs = False

    async def find(self, slot: Slot) -> Found:
        if self.hangs:
            await asyncio.Event().wait()
        raise CacheUnavailable("down, as the test asked for")


@pytest.mark.parametrize("hangs", [False, True])
async def test_i6_a_store_that_is_down_or_late_is_a_miss(hangs: bool) -> None:
    lost = _Lost(FakeClock(), StoreLimits())
    lost.hangs = hangs
    cache = Kitchen(lost, replace(ON, patience=0.01))
    assert (await cache.ask(ASKED)).text == "answer 1"
    assert cache.counted.misses == {"store": 1}


# I7: what leans on what was said before.


async def test_i7_a_follow_up_is_found_only_behind_the_same_conversation(store: AnswerStore) -> None:
    cache = kitchen(store)
    gym, video = ("My gym costs too much.", "Cancel it?"), ("My video service is dull.", "Cancel it?")
    first = await cache.ask(*gym, "Yes, cancel it")
    assert (await cache.ask(*video, "Yes, cancel it")).tier is None
    assert (await cache.ask(*gym, "Yes please, cancel it")).tier is None, (
        "by its words alone it may be anything"
    )
    assert (await cache.ask("Yes, cancel it")).tier is None
    again = await cache.ask(*gym, "Yes, cancel it")
    assert (again.tier, again.text) == ("exact", first.text)
    assert cache.counted.misses["follow_up"] == 3


# I8: what was kept ends.


async def test_i8_an_answer_is_good_for_its_lifetime(new_store: NewStore) -> None:
    clock = FakeClock()
    cache = kitchen(new_store(StoreLimits(lifetime=0.2), clock=clock), clock=clock)
    await cache.ask(ASKED)
    assert (await cache.ask(REWORDED)).tier == "semantic"
    async with asyncio.timeout(10):
        while True:  # Valkey goes by its own clock
            clock.advance(0.05)
            slot_lost = (await cache.ask(REWORDED)).text != "answer 1"
            if slot_lost:
                break


async def test_i8_another_version_finds_nothing(store: AnswerStore) -> None:
    cache = kitchen(store)
    await cache.ask(ASKED)
    assert (await cache.changed(version="2").ask(ASKED)).tier is None
    assert (await cache.ask(ASKED)).tier == "exact"


@pytest.mark.parametrize("tenant", [None, "acme"])
async def test_i8_what_an_operator_has_forgotten_is_gone(store: AnswerStore, tenant: str | None) -> None:
    cache = kitchen(store, TENANTS)
    acme, other = Principal("a", "acme"), Principal("b", "other")
    for principal in (acme, other):
        await cache.directory.note(principal)
        await cache.ask(ASKED, who=principal)
    await cache.stage.forget(tenant)
    assert (await cache.ask(REWORDED, who=acme)).tier is None
    assert (await cache.ask(ASKED, who=other)).tier == (None if tenant is None else "exact")


async def test_i8_an_answer_on_its_way_while_all_is_forgotten_is_not_kept(store: AnswerStore) -> None:
    cache = kitchen(store)
    cache.gate.clear()
    asker = asyncio.create_task(said(cache, turn_of(ASKED)))
    await until(lambda: cache.calls == 1)
    await cache.stage.forget(None)
    cache.gate.set()
    await asker
    await cache.settled()
    assert (await cache.ask(ASKED)).tier is None


# I9: it does hit.


async def test_i9_the_same_question_hits_however_it_is_written(store: AnswerStore) -> None:
    cache = kitchen(store)
    first = await cache.ask(ASKED)
    for again in (ASKED, f"  {ASKED}\n", "How do I  reset the red router?"):
        asked = await cache.ask(again)
        assert (asked.tier, asked.text) == ("exact", first.text)
    for again in (REWORDED, "how do i reset the red router", "Please, how do I reset the red router"):
        asked = await cache.ask(again)
        assert (asked.tier, asked.text) == ("semantic", first.text)
    assert cache.calls == 1
    assert cache.counted.hits == {"exact": 3, "semantic": 3}


async def test_i9_a_long_conversation_hits_too(store: AnswerStore) -> None:
    cache = kitchen(store)
    said_before = ("Hello", "Good day", "Why is the sky blue?", "Because.")
    await cache.ask(*said_before, "Why?")
    assert (await cache.ask(*said_before, "Why?")).tier == "exact"


async def test_i9_another_node_finds_it(new_store: NewStore, request: pytest.FixtureRequest) -> None:
    if "memory" in request.node.name:
        one = two = new_store()
    else:
        one, two = new_store(), new_store()
    await kitchen(one).ask(ASKED)
    other = kitchen(two)
    assert (await other.ask(ASKED)).tier == "exact"
    assert (await other.ask(REWORDED)).tier == "semantic"


# What a hit is.


async def test_a_hit_says_what_it_is_and_costs_nothing(store: AnswerStore) -> None:
    cache = kitchen(store)
    await cache.ask(ASKED)
    cache.clock.advance(7)
    bill = next(output for output in (await cache.ask(ASKED)).outputs if isinstance(output, Usage))
    assert (bill.input_tokens, bill.output_tokens) == (0, 0)
    assert bill.reused.tier == "exact"  # type: ignore[union-attr]
    assert bill.reused.age == 7  # type: ignore[union-attr]


async def test_a_hit_may_be_billed_in_full(store: AnswerStore) -> None:
    cache = kitchen(store, replace(SEMANTIC, is_free=False))
    await cache.ask(ASKED)
    bill = next(output for output in (await cache.ask(ASKED)).outputs if isinstance(output, Usage))
    assert (bill.input_tokens, bill.output_tokens) == (3, 2)


async def test_a_hit_comes_piece_by_piece_at_its_pace(store: AnswerStore) -> None:
    cache = kitchen(store, replace(SEMANTIC, pace=10))
    cache.outputs = ["a ", "b ", "c"]
    await cache.ask(ASKED)
    pieces: list[str] = []

    async def read() -> None:
        async for output in cache.begin(turn_of(ASKED)):
            pieces.extend([output] if isinstance(output, str) else [])

    reading = asyncio.create_task(read())
    for count in (1, 2, 3):
        await until(functools.partial(lambda count: len(pieces) == count, count))
        for _ in range(20):
            await asyncio.sleep(0)
        assert len(pieces) == count, "no piece before its time"
        cache.clock.advance(0.1)
    await reading
    assert pieces == cache.outputs


async def test_a_hit_can_be_left(store: AnswerStore) -> None:
    cache = kitchen(store, replace(SEMANTIC, pace=1))
    cache.outputs = ["a ", "b"]
    await cache.ask(ASKED)
    async with aclosing(cache.begin(turn_of(ASKED))) as answered:
        await anext(answered)
        await anext(answered)
    assert cache.clock.pending == 0
    assert len(cache.stage._flights) == 0


# Modes.


async def test_in_shadow_each_is_asked_and_what_would_have_been_said_is_compared(store: AnswerStore) -> None:
    cache = kitchen(store, replace(SEMANTIC, modes={"default": "shadow"}))
    cache.outputs = ["hold the button"]
    assert [(await cache.ask(ASKED)).tier for _ in range(2)] == [None, None]
    cache.outputs = ["something else altogether"]
    assert (await cache.ask(REWORDED)).tier is None
    assert cache.calls == 3
    assert cache.counted.comparisons == {("exact", True): 1, ("semantic", False): 1}
    assert cache.counted.hits == {}


async def test_a_share_of_hits_is_asked_all_the_same(store: AnswerStore) -> None:
    cache = kitchen(store, replace(SEMANTIC, sample=0.1))
    await cache.ask(ASKED)
    cache.draw = 0.05
    assert (await cache.ask(ASKED)).tier is None
    cache.draw = 0.5
    assert (await cache.ask(ASKED)).tier == "exact"
    assert sum(cache.counted.comparisons.values()) == 1


async def test_the_tiers_have_modes_of_their_own(store: AnswerStore) -> None:
    cache = kitchen(store, replace(SEMANTIC, semantic={"default": "shadow"}))
    await cache.ask(ASKED)
    assert (await cache.ask(REWORDED)).tier is None
    assert (await cache.ask(ASKED)).tier == "exact"
    assert cache.counted.comparisons.total() == 1


async def test_a_plan_has_modes_of_its_own(store: AnswerStore) -> None:
    cache = kitchen(store, replace(SEMANTIC, modes={"default": "on", "free": "off"}))
    free = Principal("f", plan="free")
    await cache.directory.note(free)
    for _ in range(2):
        assert (await cache.ask(ASKED, who=free)).tier is None
    assert cache.counted.misses == {}
    await cache.ask(ASKED)
    assert (await cache.ask(ASKED)).tier == "exact"


async def test_what_ends_takes_its_calls_along(store: AnswerStore) -> None:
    cache = kitchen(store)
    cache.gate.clear()
    asker = asyncio.create_task(said(cache, turn_of(ASKED)))
    await until(lambda: cache.calls == 1)
    await cache.stage.stop()
    with pytest.raises(asyncio.CancelledError):
        await asker
    assert cache.stopped == 1
    assert isinstance(await Kitchen(store).ask("x y z"), Asked)
