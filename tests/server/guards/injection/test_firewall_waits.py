"""Who waits for a verdict and for how long: time-outs, shares, threads, and what nobody waits for."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import structlog

from tests.server.guards.injection.guarded import (
    ATTACK,
    DOUBTFUL,
    HARMLESS,
    FakeDetector,
    FakeExaminer,
    HeldClassifier,
    guarded,
)
from tests.server.guards.injection.models import FakeClassifier, reading
from tests.server.realtime.serving import eventually
from unbroken.server.fair_names import FairNames
from unbroken.server.guards.injection.base import (
    Action,
    Origin,
    Passage,
    Verdict,
)
from unbroken.server.guards.injection.examiner import Examiner
from unbroken.server.guards.injection.firewall import FirewallLimits, Unchecked
from unbroken.server.guards.injection.policy import Mode, Policy
from unbroken.server.guards.injection.windows import PART
from unbroken.sessions.ids import PrincipalId, SessionId


@pytest.mark.parametrize("fails_closed", [True, False])
async def test_h8_what_takes_too_long_or_waits_too_long_is_dealt_with_as_set(fails_closed: bool) -> None:
    held = HeldClassifier()
    limits = FirewallLimits(timeout=0.2, waiting=1, fails_closed=fails_closed)
    with guarded(examiner=Examiner(reading(held)), limits=limits) as each:
        try:
            both = await asyncio.gather(
                each.screen(HARMLESS), each.screen(f"{HARMLESS}?"), return_exceptions=True
            )
        finally:
            held.let_go.set()

    assert each.count("unchecked") == 2
    for outcome in both:
        assert isinstance(outcome, Unchecked) if fails_closed else outcome == Verdict(Action.ALLOW, 0.0)


@pytest.mark.parametrize("mode", ["on", "shadow"])
async def test_strangers_of_one_address_have_one_share(mode: Mode) -> None:
    names = FairNames()
    for number in range(5):
        names.note(f"stranger {number}", "an address")
    held = HeldClassifier()
    limits = FirewallLimits(waiting=8, share=0.25, timeout=60.0)
    with guarded(
        examiner=Examiner(reading(held)),
        limits=limits,
        policies={"default": Policy(mode=mode)},
        fair_name=names.of,
    ) as each:
        asked = [
            asyncio.create_task(each.screen(HARMLESS, principal=principal))
            for principal in (*(f"stranger {number}" for number in range(5)), "somebody")
        ]
        await eventually(lambda: each.count("unchecked") == 3)
        held.let_go.set()
        outcomes = await asyncio.gather(*asked, return_exceptions=True)
        await eventually(lambda: each.count("allow") == 3)

    if mode == "on":
        assert [isinstance(outcome, Unchecked) for outcome in outcomes] == [False, False, *3 * [True], False]


async def test_h8_in_shadow_nothing_is_refused_for_lack_of_an_answer() -> None:
    detector = FakeDetector()
    detector.fails = True
    with guarded(detectors=[detector], policies={"default": Policy(mode="shadow")}) as each:
        assert (await each.screen(DOUBTFUL)).action is Action.ALLOW
        await eventually(lambda: each.count("unchecked") == 1)


async def test_in_shadow_nobody_waits_for_a_verdict() -> None:
    held = HeldClassifier()
    with guarded(examiner=Examiner(reading(held)), policies={"default": Policy(mode="shadow")}) as each:
        assert (await each.screen(DOUBTFUL)).action is Action.ALLOW  # while the model stands still
        assert each.count("flag") == 0
        held.let_go.set()
        await eventually(lambda: each.count("flag") == 1)


async def test_what_nobody_waits_for_is_examined_in_threads_of_its_own() -> None:
    policies = {"default": Policy(), "shadow": Policy(mode="shadow")}
    with ThreadPoolExecutor(1, thread_name_prefix="aside") as aside:
        examiner = FakeExaminer()
        with guarded(examiner=examiner, policies=policies, aside=aside) as each:
            await each.screen("first", principal="shadow", plan="shadow")
            await eventually(lambda: each.count("allow") == 1)
            await each.screen("second", principal="usual")

    assert [name.startswith("aside") for name in examiner.threads] == [True, False]


async def test_in_shadow_so_much_waits_and_what_comes_beyond_that_is_unchecked() -> None:
    held = HeldClassifier()
    limits = FirewallLimits(waiting=4, share=0.5)
    with guarded(
        examiner=Examiner(reading(held)), policies={"default": Policy(mode="shadow")}, limits=limits
    ) as each:
        for number in range(3):
            await each.screen(f"{HARMLESS} {number}", principal="greedy")
        assert each.count("unchecked") == 1  # nobody takes all the places
        for number in range(3):
            await each.screen(f"{HARMLESS} {number}", principal=f"other {number}")
        assert each.count("unchecked") == 2
        held.let_go.set()
        await eventually(lambda: each.count("allow") == 4)
        await each.screen(f"{HARMLESS} at last", principal="greedy")
        await eventually(lambda: each.count("allow") == 5)


async def test_who_is_in_shadow_takes_no_place_of_those_who_wait() -> None:
    policies = {"default": Policy(), "shadow": Policy(mode="shadow")}
    held = HeldClassifier()
    with guarded(
        examiner=Examiner(reading(held)),
        policies=policies,
        limits=FirewallLimits(waiting=1, share=1.0),
    ) as each:
        await each.screen(HARMLESS, principal="shadow", plan="shadow")
        waits = asyncio.create_task(each.screen(HARMLESS, session="another", principal="usual"))
        held.let_go.set()
        assert (await waits).action is Action.ALLOW
        await eventually(lambda: each.count("allow") == 2)


async def test_a_firewall_that_is_closed_looks_at_nothing_any_more() -> None:
    held = HeldClassifier()
    with guarded(examiner=Examiner(reading(held)), policies={"default": Policy(mode="shadow")}) as each:
        for number in range(3):
            await each.screen(f"{HARMLESS} {number}")
        others = asyncio.all_tasks() - {asyncio.current_task()}
        await each.firewall.close()
        assert len(others) == 3
        assert all(task.done() for task in others)
        held.let_go.set()
    assert each.count("allow") == 0


async def test_the_event_loop_goes_on_while_a_text_is_examined() -> None:
    held = HeldClassifier()
    with guarded(examiner=Examiner(reading(held))) as each:
        screening = asyncio.ensure_future(each.screen(HARMLESS))
        for _ in range(100):
            await asyncio.sleep(0)
        assert not screening.done()
        held.let_go.set()
        assert (await screening).action is Action.ALLOW


async def test_a_short_text_does_not_wait_for_the_whole_of_a_long_one() -> None:
    examiner = FakeExaminer()
    with guarded(examiner=examiner) as each:
        await asyncio.gather(each.screen("long " * 50), each.screen("short", principal="q"))

    assert examiner.taken.index("short") < 5
    assert examiner.taken.count("long") == 50


@pytest.mark.parametrize("mode", ["on", "shadow"])
async def test_nobodys_texts_keep_those_of_others_waiting(mode: Any) -> None:
    examiner = FakeExaminer()
    limits = FirewallLimits(later=0)
    with guarded(examiner=examiner, policies={"default": Policy(mode=mode)}, limits=limits) as each:
        long = [
            asyncio.ensure_future(each.screen("long " * 5, session=f"s{number}", principal="greedy"))
            for number in range(12)
        ]
        await eventually(lambda: "long" in examiner.taken)
        begun = len(examiner.taken)
        short = asyncio.ensure_future(each.screen("short", principal="other"))
        await eventually(lambda: "short" in examiner.taken)
        assert examiner.taken.index("short") - begun < 10  # of the 60 steps of the others
        await asyncio.gather(*long, short)
        await eventually(lambda: each.count("allow") == 13)

    assert examiner.taken.count("long") == 60


async def test_in_shadow_a_question_goes_on_its_way_first() -> None:
    examiner = FakeExaminer()
    policies = {"default": Policy(mode="shadow")}
    with guarded(examiner=examiner, policies=policies, limits=FirewallLimits(later=3600)) as each:
        await each.screen("asked")
        for _ in range(100):
            await asyncio.sleep(0)
        assert examiner.taken == []


async def test_in_shadow_the_texts_of_one_are_looked_at_one_after_another() -> None:
    """Half of them unchecked would be worse than the last of them late."""
    examiner = FakeExaminer()
    with guarded(examiner=examiner, policies={"default": Policy(mode="shadow")}) as each:
        for word in ("a", "b", "c"):
            await each.screen(f"{word} {word} {word}")
        await eventually(lambda: each.count("allow") == 3)

    assert examiner.taken == ["a"] * 3 + ["b"] * 3 + ["c"] * 3


async def test_in_shadow_a_long_text_takes_the_places_of_many() -> None:
    held = HeldClassifier()
    limits = FirewallLimits(waiting=16, share=0.5)
    with guarded(
        examiner=Examiner(reading(held)), policies={"default": Policy(mode="shadow")}, limits=limits
    ) as each:
        for number in range(3):
            await each.screen(f"{number} {HARMLESS * (3 * PART // len(HARMLESS))}", principal="greedy")
        assert each.count("unchecked") == 1  # 9 parts, of which 8 may be one's
        await each.screen(HARMLESS, principal="other")
        assert each.count("unchecked") == 1
        held.let_go.set()
        await eventually(lambda: each.count("allow") == 3)


async def test_what_takes_too_long_is_not_gone_on_with() -> None:
    examiner = FakeExaminer()
    with guarded(examiner=examiner, limits=FirewallLimits(timeout=0.05)) as each:
        with pytest.raises(Unchecked):
            await each.screen("endless")
        await each.screen("a word")  # behind the last step: from here on nothing is under way
        taken = len(examiner.taken)
        await each.screen("another word")

        assert len(examiner.taken) == taken + 2


async def test_one_who_is_cut_off_leaves_nothing_waiting() -> None:
    held = HeldClassifier()
    with guarded(examiner=Examiner(reading(held)), limits=FirewallLimits(waiting=4)) as each:
        screening = asyncio.ensure_future(each.screen(HARMLESS))
        await asyncio.sleep(0)
        screening.cancel()
        with pytest.raises(asyncio.CancelledError):
            await screening
        held.let_go.set()
        assert (await each.screen(HARMLESS)).action is Action.ALLOW


async def test_nobody_takes_all_the_places() -> None:
    held = HeldClassifier()
    limits = FirewallLimits(waiting=4, share=0.5)
    with guarded(examiner=Examiner(reading(held)), limits=limits) as each:
        texts = [asyncio.ensure_future(each.screen(f"{HARMLESS} {number}")) for number in range(3)]
        for _ in range(20):
            await asyncio.sleep(0)
        other = asyncio.ensure_future(each.screen(HARMLESS, principal="q"))
        for _ in range(20):
            await asyncio.sleep(0)
        assert [text.done() for text in texts] == [False, False, True]
        assert not other.done()
        held.let_go.set()
        with pytest.raises(Unchecked):
            await texts[2]
        assert (await other).action is Action.ALLOW
        assert (await asyncio.gather(*texts[:2]))[0].action is Action.ALLOW
        assert (await each.screen(f"{HARMLESS} 2")).action is Action.ALLOW


@pytest.mark.parametrize("fails_closed", [True, False])
async def test_h8_a_bug_is_dealt_with_as_set_and_quotes_nothing(fails_closed: bool) -> None:
    examiner = FakeExaminer(error=ValueError("the very text"))
    limits = FirewallLimits(fails_closed=fails_closed)
    with structlog.testing.capture_logs() as logs, guarded(examiner=examiner, limits=limits) as each:
        if fails_closed:
            with pytest.raises(Unchecked):
                await each.screen("text")
        else:
            assert (await each.screen("text")).action is Action.ALLOW

    assert each.count("unchecked") == 1
    assert "ValueError" in str(logs)
    assert "very" not in str(logs)


async def test_many_passages_cost_as_much_as_one() -> None:
    model = FakeClassifier(word=0.5)
    passages = [
        Passage(Origin.USER, f"A word {number}.", f"item.content[{number}].text") for number in range(2000)
    ]
    passages.append(Passage(Origin.TOOL, ATTACK, "item.output"))
    with guarded(examiner=Examiner(reading(model))) as each:
        verdict = await each.firewall.screen(passages, SessionId("s"), PrincipalId("p"), plan="default")

    assert len(model.shown) <= 2
    assert (verdict.action, verdict.origin, verdict.param) == (Action.BLOCK, Origin.TOOL, "item.output")
