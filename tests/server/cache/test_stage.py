"""What caches of answers get wrong elsewhere, by number, over a store in memory and over a real Valkey.

I4 is in ``test_flight.py``, I5 in ``test_keeping.py``.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import fields, replace
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.fakes.clock import FakeClock
from tests.fakes.embedder import FakeEmbedder
from tests.server.cache.asking import ASKED, ON, REWORDED, SEMANTIC, TENANTS, Kitchen, kitchen, said, turn_of
from tests.server.cache.conftest import NewStore
from tests.server.realtime.serving import eventually as until
from unbroken.server.agents.base import TurnInput
from unbroken.server.auth.principal import Principal
from unbroken.server.cache.base import AnswerStore, CacheUnavailable, Found, Slot, StoreLimits
from unbroken.server.cache.index import PlaceIndex
from unbroken.server.cache.memory import MemoryAnswers
from unbroken.sessions.items import FunctionTool, NamedTool, Parameters, Usage

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


@pytest.mark.parametrize("question", ["What is my balance?", "Wie ist mein Kontostand?"])
async def test_i5_where_users_share_what_one_asks_of_himself_is_the_agent_s(
    store: AnswerStore, question: str
) -> None:
    cache = kitchen(store, TENANTS)
    people = [Principal("a", "acme"), Principal("b", "acme")]
    for principal in people:
        await cache.directory.note(principal)
    assert [(await cache.ask(question, who=who)).text for who in people] == ["answer 1", "answer 2"]
    assert [(await cache.ask(question, "Of which one?", "All", who=who)).tier for who in people] == [
        None,
        None,
    ]
    assert cache.counted.misses == {"personal": 4}
    assert (await kitchen(store).ask(question)).tier is None
    assert (await kitchen(store).ask(question)).tier == "exact"  # his own are his


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


@settings(
    max_examples=6 * settings().max_examples // 10,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
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
        {"parameters": Parameters(temperature=0.5)},
        {"parameters": Parameters(top_p=0.5)},
        {"parameters": Parameters(stop=("x",))},
        {"parameters": Parameters(format={"type": "json_object"})},
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


def test_i3_a_turn_has_nothing_else_that_decides_the_answer() -> None:
    """Whoever adds a field says here that it doesn't, or has it be part of the key."""
    in_key = {
        *("items", "model", "instructions", "tools", "tool_choice", "parallel_tool_calls"),
        *("max_output_tokens", "parameters", "metadata"),
    }
    aside = {
        *("session_id", "response_id", "principal", "files", "author", "custody", "shows_reasoning"),
        "trace",
    }

    assert {each.name for each in fields(TurnInput)} == in_key | aside


async def test_i3_with_tools_nothing_is_looked_up_or_kept(store: AnswerStore) -> None:
    cache = kitchen(store)
    await cache.ask(ASKED)
    tools = (FunctionTool("f"),)
    assert (await cache.ask(ASKED, tools=tools, may_use_tools=True)).tier is None
    assert cache.counted.misses["tools"] == 1


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


async def test_who_asks_something_new_does_not_wait_for_the_embedder(store: AnswerStore) -> None:
    """It takes longer than all else together. It is asked when the answer has been given."""
    embedder = FakeEmbedder()
    cache = Kitchen(store, SEMANTIC, embedder)
    cache.gate.clear()
    asking = asyncio.create_task(said(cache, turn_of(ASKED)))
    await until(lambda: cache.calls == 1)
    assert embedder.texts == []
    cache.gate.set()
    assert (await asking).tier is None
    await until(lambda: embedder.texts == [ASKED])
    await cache.ask("What is the capital of Peru?")
    await until(lambda: len(embedder.texts) == 2)
    assert (await cache.ask(REWORDED)).tier == "semantic"
    assert embedder.texts[2:] == [REWORDED]


async def test_i6_an_embedder_that_is_down_as_an_answer_is_kept_is_told(store: AnswerStore) -> None:
    """The same words find it all the same."""
    embedder = FakeEmbedder()
    embedder.fail()
    cache = Kitchen(store, SEMANTIC, embedder)
    await cache.ask(ASKED)
    await until(lambda: cache.counted.outcomes["embedder"] == 1)
    assert (await cache.ask(REWORDED)).tier is None
    assert (await cache.ask(ASKED)).tier == "exact"


async def test_what_is_forgotten_as_it_is_said_again_is_given_to_nobody_else(store: AnswerStore) -> None:
    """Whoever asks meanwhile looks for himself, and doesn't join the one who is given it."""
    cache = kitchen(store)
    await cache.ask(ASKED)
    saying = cache.begin(turn_of(ASKED))
    assert isinstance(await anext(saying), Usage)
    assert (await said(cache, turn_of(ASKED))).tier == "exact"
    assert cache.counted.hits == {"exact": 2}, "it joined a flight"
    await cache.stage.forget(None)
    assert (await said(cache, turn_of(ASKED))).tier is None
    await saying.aclose()


async def test_nobody_joins_what_was_asked_before_all_was_forgotten(store: AnswerStore) -> None:
    cache = kitchen(store)
    cache.gate.clear()
    first = asyncio.create_task(said(cache, turn_of(ASKED)))
    await until(lambda: cache.calls == 1)
    await cache.stage.forget(None)
    second = asyncio.create_task(said(cache, turn_of(ASKED)))
    await until(lambda: cache.calls == 2)
    cache.gate.set()
    assert [(await each).text for each in (first, second)] == ["answer 1", "answer 2"]


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
