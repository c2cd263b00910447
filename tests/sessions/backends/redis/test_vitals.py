from __future__ import annotations

from unbroken.sessions.backends.redis.vitals import Sign, Vitals
from unbroken.sessions.ids import NodeId

A, B = NodeId("node_a"), NodeId("node_b")
ALIVE = Sign(listens=True, lease="held")
SILENT = Sign(listens=False, lease="held")
FROZEN = Sign(listens=True, lease="none")
DEAF = Sign(listens=False, lease="held", is_deaf=True)
LEFT = Sign(listens=False, lease="left")


def vitals() -> Vitals:
    vitals = Vitals(listener_gap=0.5, lease_gap=1.0)
    vitals.settle(0)
    return vitals


def test_a_sign_has_to_be_missed_twice_and_long_enough() -> None:
    for sign, gap in ((SILENT, 0.5), (FROZEN, 1.0)):
        judge = vitals()
        assert judge.look({A: sign, B: ALIVE}, 10.0) == []
        assert judge.look({A: sign, B: ALIVE}, 10.0 + gap / 2) == []
        assert judge.look({A: sign, B: ALIVE}, 10.0 + gap) == [A]
        assert judge.is_lost(A)
        assert not judge.is_lost(B)


def test_a_sign_that_was_missed_once_is_forgotten_when_it_is_there_again() -> None:
    judge = vitals()
    for now in range(10, 20, 2):
        assert judge.look({A: SILENT}, now) == []
        assert judge.look({A: ALIVE}, now + 1) == []


def test_a_death_is_told_once_until_the_node_lives_again() -> None:
    judge = vitals()
    judge.look({A: SILENT}, 1)
    assert judge.look({A: SILENT}, 2) == [A]
    assert judge.look({A: SILENT}, 3) == judge.look({A: SILENT}, 4) == []
    judge.look({A: FROZEN}, 5)
    assert judge.is_lost(A)  # half a sign of life is none
    judge.look({A: ALIVE}, 6)
    assert not judge.is_lost(A)
    judge.look({A: SILENT}, 7)
    assert judge.look({A: SILENT}, 8) == [A]


def test_a_node_that_says_that_its_channel_is_broken_lives_as_long_as_its_lease() -> None:
    judge = vitals()
    for now in range(10, 20):
        assert judge.look({A: DEAF}, now) == []
    assert judge.look({A: SILENT._replace(lease="none")}, 20) == []
    assert judge.look({A: SILENT._replace(lease="none")}, 21) == [A]


def test_a_node_that_was_taken_for_dead_by_its_channel_and_says_that_it_lives_is_lost_no_more() -> None:
    judge = vitals()
    judge.look({A: SILENT}, 1)
    assert judge.look({A: SILENT}, 2) == [A]
    assert judge.look({A: DEAF}, 3) == []
    assert not judge.is_lost(A)


def test_nobody_is_judged_before_the_judge_has_settled_and_what_was_missed_before_is_void() -> None:
    judge = Vitals(listener_gap=0.5, lease_gap=1.0)
    assert judge.look({A: SILENT}, 1) == judge.look({A: SILENT}, 100) == []
    judge.settle(110)
    assert judge.look({A: SILENT}, 109) == []
    assert judge.look({A: SILENT}, 110) == []
    judge.settle(112)
    assert judge.look({A: SILENT}, 113) == []
    assert judge.look({A: SILENT}, 114) == [A]


def test_who_has_left_is_lost_and_yet_not_dead() -> None:
    judge = vitals()
    assert judge.look({A: LEFT}, 1) == judge.look({A: LEFT}, 9) == []
    assert judge.is_lost(A)


def test_the_dead_that_are_remembered_are_bounded() -> None:
    judge = vitals()
    nodes = [NodeId(f"node_{number}") for number in range(2000)]
    judge.look(dict.fromkeys(nodes, SILENT), 1)
    assert judge.look(dict.fromkeys(nodes, SILENT), 2) == nodes
    assert sum(map(judge.is_lost, nodes)) == 1024
    assert judge.is_lost(nodes[-1])
