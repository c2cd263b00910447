"""Who is asked when in doubt, about what, and what an answer decides."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from tests.server.guards.injection.guarded import (
    ATTACK,
    DOUBTFUL,
    HARMLESS,
    FakeDetector,
    KnowingDetector,
    ScriptedExaminer,
    guarded,
    passages,
)
from tests.server.realtime.serving import eventually
from unbroken.server.guards.injection.base import (
    Action,
    Detector,
    Origin,
)
from unbroken.server.guards.injection.firewall import FirewallLimits, Unchecked
from unbroken.server.guards.injection.policy import Mode, Policy
from unbroken.server.guards.injection.windows import PART
from unbroken.sessions.ids import PrincipalId, SessionId


@pytest.mark.parametrize(("score", "action"), [(0.9, Action.BLOCK), (0.1, Action.ALLOW)])
async def test_a_heavier_detector_decides_what_is_doubtful_and_nothing_else(
    score: float, action: Action
) -> None:
    detector = FakeDetector(score)
    with guarded(detectors=[detector]) as each:
        verdicts = [await each.screen(text, session=text) for text in (HARMLESS, ATTACK, DOUBTFUL)]
        await each.firewall.close()

    assert detector.asked == [DOUBTFUL]
    assert verdicts[-1].action is action
    assert verdicts[-1].reasons[0] == "service"
    assert detector.is_closed


async def test_the_next_detector_is_asked_when_one_fails() -> None:
    first, second = FakeDetector(), FakeDetector(0.9)
    first.fails = True
    with guarded(detectors=[first, second]) as each:
        assert (await each.screen(DOUBTFUL)).action is Action.BLOCK

    assert first.asked == second.asked == [DOUBTFUL]


async def test_a_decoy_does_not_take_a_heavier_detector_s_look() -> None:
    detector = KnowingDetector({"decoy": 0.1, "attack": 0.9, "more": 0.9})
    examiner = ScriptedExaminer({"fine": 0.1, "more": 0.55, "attack": 0.6, "decoy": 0.7})
    asked = passages(fine=Origin.TOOL, more=Origin.TOOL, attack=Origin.TOOL, decoy=Origin.USER)
    with guarded(detectors=[detector], examiner=examiner) as each:
        verdict = await each.firewall.screen(asked, SessionId("s"), PrincipalId("p"), plan="default")

    assert detector.asked == ["decoy", "attack"]  # the worst first, until one is an attack
    assert (verdict.action, verdict.score, verdict.param, verdict.origin) == (
        Action.BLOCK,
        0.9,
        "param-attack",
        Origin.TOOL,
    )
    assert verdict.reasons == ("service", "rule-attack")


async def test_what_a_heavier_detector_allows_is_allowed_if_it_allows_all_of_it() -> None:
    detector = KnowingDetector({"one": 0.1, "two": 0.2})
    examiner = ScriptedExaminer({"fine": 0.1, "one": 0.6, "two": 0.7})
    asked = passages(fine=Origin.TOOL, one=Origin.TOOL, two=Origin.USER)
    asked.append(asked[1])  # sent twice
    with guarded(detectors=[detector], examiner=examiner) as each:
        verdict = await each.firewall.screen(asked, SessionId("s"), PrincipalId("p"), plan="default")

    assert detector.asked == ["two", "one"]
    assert (verdict.action, verdict.param, verdict.score) == (Action.ALLOW, "param-two", 0.2)


@pytest.mark.parametrize("mode", ["on", "shadow"])
async def test_a_detector_is_told_whose_turn_it_is_and_whether_somebody_waits(mode: Mode) -> None:
    detector = FakeDetector()
    with guarded(
        detectors=[detector], policies={"default": Policy(mode=mode)}, fair_name=lambda _: "an address"
    ) as each:
        await each.screen(DOUBTFUL)
        await eventually(lambda: each.count("allow") == 1)

    (question,) = detector.questions
    assert (question.name, question.is_aside) == ("an address", mode == "shadow")


async def test_a_detector_is_told_what_looks_worst_in_a_long_text() -> None:
    detector = FakeDetector()
    text = f"{'The garden is quiet. ' * 3000}{DOUBTFUL}{' The garden is quiet.' * 3000}"
    with guarded(detectors=[detector]) as each:
        await each.screen(text)

    (question,) = detector.questions
    assert DOUBTFUL in question.part
    assert len(question.part) <= PART


@pytest.mark.parametrize("fault", ["hangs", "fails"])
@pytest.mark.parametrize("fails_closed", [True, False])
async def test_h8_a_detector_without_an_answer_is_dealt_with_as_set(fault: str, fails_closed: bool) -> None:
    detector: Any = FakeDetector()
    setattr(detector, fault, True)
    limits = FirewallLimits(timeout=0.2, fails_closed=fails_closed)
    detectors: Sequence[Detector] = [detector]
    with guarded(detectors=detectors, limits=limits) as each:
        if fails_closed:
            with pytest.raises(Unchecked):
                await each.screen(DOUBTFUL)
        else:
            assert (await each.screen(DOUBTFUL)).action is Action.ALLOW
        assert (await each.screen(ATTACK)).action is Action.BLOCK  # needs nobody else

    assert each.count("unchecked") == 1
