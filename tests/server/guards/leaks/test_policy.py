"""From settings to what is done for whom."""

from __future__ import annotations

import asyncio
import weakref
from collections.abc import AsyncGenerator
from dataclasses import replace
from typing import Any, Final

import pytest
from pydantic import ValidationError

from tests.fakes.clock import FakeClock
from tests.fakes.turns import turns_given
from tests.server.guards.leaks.samples import ALL, instructions
from unbroken.server.auth.directory import MemoryDirectory
from unbroken.server.auth.principal import Principal
from unbroken.server.config import Settings
from unbroken.server.guards.leaks.answer import AnswerFilter
from unbroken.server.guards.leaks.entities import DEFAULT_ACTIONS, ENTITIES
from unbroken.server.guards.leaks.filtering import LeakFiltering
from unbroken.server.guards.leaks.policy import LeakPolicy, LeakRules
from unbroken.server.guards.leaks.selection import actions_of, build_leak_policy
from unbroken.server.guards.leaks.verbatim import RUN, Instructions
from unbroken.server.guards.plan import plans_in
from unbroken.sessions.errors import StoreUnavailable
from unbroken.sessions.ids import ItemId, PrincipalId, ResponseId, SessionId
from unbroken.sessions.items import Message, ResponseRequest, SessionConfig, Text
from unbroken.sessions.responder import Output, Resumption, Turn

SECRET = b"a secret of at least 32 characters"
CARD = "4111111111111111"


def test_what_a_plan_does_not_say_is_as_for_all_others() -> None:
    rows = actions_of(("email=redact", "gold.email=ignore", "gold.card = flag", " default.ip=block"))

    assert rows["default"] == {**DEFAULT_ACTIONS, "email": "redact", "ip": "block"}
    assert rows["gold"] == {**rows["default"], "email": "ignore", "card": "flag"}


def test_everything_has_an_action_by_default() -> None:
    assert set(DEFAULT_ACTIONS) == set(ENTITIES) == set(ALL)


@pytest.mark.parametrize(
    ("setting", "value", "said"),
    [
        ("leak_actions", "mail=redact", "should be entity=action"),
        ("leak_actions", "email=hide", "should be entity=action"),
        ("leak_actions", "a b.email=flag", "should name a plan"),
        ("leak_actions", "email=flag,email=redact", "once for each plan"),
        ("leak_canaries", "short1", "at least 8"),
        ("leak_canaries", "lettersonly", "one digit"),
    ],
)
def test_what_makes_no_sense_is_refused_with_what_would(setting: str, value: str, said: str) -> None:
    given: dict[str, Any] = {setting: value}
    with pytest.raises(ValidationError, match=said):
        Settings(**given)


def turn(principal: PrincipalId, plan: str | None = None, *, instructions: str = "") -> Turn:
    return Turn(
        session_id=SessionId("sess_1"),
        response_id=ResponseId("resp_1"),
        principal=principal,
        attempt=1,
        config=SessionConfig("m", instructions),
        request=ResponseRequest(plan=plan),
        items=(Message(ItemId("u1"), "user", (Text("hi"),)),),
    )


class LostDirectory(MemoryDirectory):
    """One whose store is out of reach."""

    async def find(self, principal_id: PrincipalId) -> Principal | None:
        raise StoreUnavailable("out of reach")


async def says(policy: LeakPolicy, principal: PrincipalId) -> object:
    watch = await policy.watch_for(turn(principal))
    assert watch is not None
    answer = AnswerFilter(watch)
    return (answer.take(f"{CARD}, so")[0], answer.is_blocked)


async def test_plans_are_looked_up_and_who_is_not_found_is_as_all_others() -> None:
    settings = Settings(leaks=("on",), leak_actions=("gold.card=flag", "default.card=block"))
    gold, other = Principal("ann", plan="gold"), Principal("bob")
    for directory, expected in (
        (MemoryDirectory(FakeClock()), (f"{CARD}, ", False)),
        (LostDirectory(FakeClock()), ("", True)),
    ):
        await directory.note(gold)
        await directory.note(other)
        policy = build_leak_policy(settings, SECRET, plans_in(directory), lambda *_: None)

        assert await says(policy, gold.id) == expected
        assert await says(policy, other.id) == ("", True)
        assert await says(policy, PrincipalId("nobody")) == ("", True)


async def test_the_plan_that_a_turn_was_asked_by_counts_whichever_its_user_was_noted_by_last() -> None:
    settings = Settings(leaks=("on",), leak_actions=("gold.card=flag", "default.card=block"))
    directory = MemoryDirectory(FakeClock())
    policy = build_leak_policy(settings, SECRET, plans_in(directory), lambda *_: None)
    for noted, asked, is_blocked in (("gold", "default", True), ("default", "gold", False)):
        await directory.note(Principal("ann", plan=noted))
        watch = await policy.watch_for(turn(Principal("ann").id, asked))
        assert watch is not None
        assert (watch.actions["card"] == "block") is is_blocked


async def test_off_nothing_is_filtered() -> None:
    policy = build_leak_policy(
        Settings(leaks=("off",)), SECRET, plans_in(MemoryDirectory(FakeClock())), lambda *_: None
    )

    assert await policy.watch_for(turn(PrincipalId("ann"))) is None


async def test_a_plan_has_a_mode_of_its_own_and_all_others_are_in_shadow_unless_it_is_said() -> None:
    counted: list[tuple[str, str, int]] = []
    directory = MemoryDirectory(FakeClock())
    policy = build_leak_policy(
        Settings(leaks=("gold=on", "free=off")),
        SECRET,
        plans_in(directory),
        lambda *each: counted.append(each),
    )
    clock = FakeClock()
    said: dict[str, str] = {}
    for plan in ("gold", "free", "default"):
        who = Principal(plan, plan=plan)
        await directory.note(who)

        async def say(_: Turn) -> AsyncGenerator[Output, None]:
            yield f"{CARD}."

        answer = LeakFiltering(policy, clock).filtered(turn(who.id), say)
        said[plan] = "".join([output async for output in answer if isinstance(output, str)])

    assert said["free"] == said["default"] == f"{CARD}."
    assert CARD not in said["gold"]
    assert counted == [("card", "redact", 1), ("card", "redact_shadow", 1)]


async def test_an_answer_to_a_plan_whose_answers_pass_is_resumed_where_its_upstream_was() -> None:
    """Only what is filtered is read again from its beginning."""
    directory = MemoryDirectory(FakeClock())
    policy = build_leak_policy(
        Settings(leaks=("default=shadow", "gold=on")), SECRET, plans_in(directory), lambda *_: None
    )
    for plan, offset in (("default", 3), ("gold", 0)):
        who = Principal(plan, plan=plan)
        given: list[Turn] = []
        await directory.note(who)

        async def respond(turn: Turn, given: list[Turn] = given) -> AsyncGenerator[Output, None]:
            given.append(turn)
            yield "It is."

        resumed = replace(turn(who.id), resumption=Resumption("upstream_1", 3, (), "It ", ()))
        async for _ in LeakFiltering(policy, FakeClock()).filtered(resumed, respond):
            pass
        assert [each.resumption.offset for each in given if each.resumption is not None] == [offset]


@pytest.mark.parametrize("value", ["yes", "gold=", "=on"])
def test_what_is_no_mode_is_refused(value: str) -> None:
    with pytest.raises(ValidationError, match="should be off, shadow or on"):
        Settings(leaks=(value,))


def test_instructions_without_a_long_piece_are_not_watched_for() -> None:
    assert not instructions("Be kind.")
    assert not instructions(" ".join("word" for _ in range(RUN - 1)))
    assert instructions(" ".join(f"word{number}" for number in range(RUN)))


@pytest.mark.parametrize("count", [RUN - 1, 255, 256, 257, 256 + RUN, 700])
def test_instructions_that_are_read_in_steps_are_known_as_a_whole(count: int) -> None:
    words = [f"word{number}" for number in range(count)]
    read = instructions(" ".join(words))

    assert len(read.runs) == max(count - RUN + 1, 0)
    assert len(read.pairs) == count - 1
    assert all(hash(tuple(words[at : at + RUN])) in read.runs for at in range(count - RUN + 1))


LONG: Final = " ".join(f"w{number}" for number in range(10_000))


async def test_others_have_their_turn_while_long_instructions_are_read_once() -> None:
    policy = LeakPolicy(LeakRules(), SECRET)
    given = turn(PrincipalId("ann"), instructions=LONG)
    turns = await turns_given(policy.watch_for(given))
    assert turns >= 5000 // 256

    one, two = await asyncio.gather(policy.watch_for(given), policy.watch_for(given))
    assert one is not None
    assert two is not None
    assert one.instructions is two.instructions is not None
    assert await turns_given(policy.watch_for(given)) == 0


async def test_of_instructions_few_are_kept_and_those_in_use() -> None:
    policy = LeakPolicy(LeakRules(), SECRET)

    async def watched(text: str) -> weakref.ref[Instructions]:
        watch = await policy.watch_for(turn(PrincipalId("ann"), instructions=text))
        assert watch is not None
        assert watch.instructions is not None
        return weakref.ref(watch.instructions)

    used, others = [], []
    for number in range(20):
        used.append(await watched(LONG))
        others.append(await watched(f"{number} {LONG}"))

    assert used[0]() is used[-1]() is not None
    assert sum(other() is not None for other in others) <= 50_000 // 5000


async def test_instructions_whose_reader_was_stopped_are_read_by_the_next() -> None:
    policy = LeakPolicy(LeakRules(), SECRET)
    given = turn(PrincipalId("ann"), instructions=LONG)
    first = asyncio.ensure_future(policy.watch_for(given))
    for _ in range(3):
        await asyncio.sleep(0)
    second = asyncio.ensure_future(policy.watch_for(given))
    first.cancel()
    watch = await second

    assert watch is not None
    assert watch.instructions is not None
    assert watch.instructions.is_whole
