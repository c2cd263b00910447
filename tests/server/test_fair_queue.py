from __future__ import annotations

import asyncio

import pytest

from unbroken.server.fair_queue import FairQueue, QueueFull, Ticket


def admitted(tickets: list[Ticket]) -> list[int]:
    return [index for index, ticket in enumerate(tickets) if ticket.is_admitted]


def test_slots_are_given_out_at_once_and_no_more_than_there_are() -> None:
    queue = FairQueue(slots=2, max_waiting=9)
    tickets = [queue.join("ann") for _ in range(4)]
    assert admitted(tickets) == [0, 1]
    assert len(queue) == 2


def test_one_principal_is_served_in_order() -> None:
    queue = FairQueue(slots=1, max_waiting=9)
    tickets = [queue.join("ann") for _ in range(4)]
    for index, ticket in enumerate(tickets):
        assert admitted(tickets) == [index]
        ticket.leave()


def test_ten_turns_of_one_delay_anothers_single_turn_by_one_turn_at_most() -> None:
    queue = FairQueue(slots=2, max_waiting=20)
    anns = [queue.join("ann") for _ in range(10)]
    bens = queue.join("ben")
    anns[0].leave()
    assert bens.is_admitted
    assert admitted(anns) == [1]


def test_waiting_principals_take_turns() -> None:
    queue = FairQueue(slots=1, max_waiting=20)
    running = queue.join("zoe")
    waiting = [queue.join(name) for name in ("ann", "ann", "ann", "ben", "ben", "cat")]
    order: list[str] = []
    while len(order) < len(waiting):
        running.leave()
        [running] = (ticket for ticket in waiting if ticket.is_admitted)
        order.append(running.principal)
    assert order == ["ann", "ben", "cat", "ann", "ben", "ann"]


def test_what_goes_on_and_asks_before_it_leaves_is_next_unless_another_principal_is() -> None:
    queue = FairQueue(slots=1, max_waiting=20)
    running, other = queue.join("ann"), queue.join("ann")
    order: list[str] = []
    bens = None
    for _ in range(4):
        following = queue.join("ann", goes_on=True)
        running.leave()
        bens = bens or queue.join("ben")
        if bens.is_admitted:
            order.append("ben")
            bens.leave()
        assert following.is_admitted
        order.append("ann")
        running = following
    assert order == ["ann", "ann", "ben", "ann", "ann"]
    assert not other.is_admitted
    running.leave()
    assert other.is_admitted


def test_whoever_leaves_while_waiting_is_forgotten() -> None:
    queue = FairQueue(slots=1, max_waiting=20)
    first, second, third = (queue.join("ann") for _ in range(3))
    second.leave()
    assert len(queue) == 1
    first.leave()
    assert third.is_admitted
    assert not second.is_admitted


def test_leaving_twice_frees_one_slot() -> None:
    queue = FairQueue(slots=1, max_waiting=20)
    first, second, third = (queue.join("ann") for _ in range(3))
    first.leave()
    first.leave()
    assert second.is_admitted
    assert not third.is_admitted


def test_the_queue_is_bounded() -> None:
    queue = FairQueue(slots=1, max_waiting=2)
    for name in ("ann", "ben", "cat"):
        queue.join(name)
    with pytest.raises(QueueFull):
        queue.join("dan")


def test_one_principal_cannot_fill_the_queue() -> None:
    queue = FairQueue(slots=1, max_waiting=8)
    for _ in range(1 + 4):
        queue.join("ann")
    with pytest.raises(QueueFull):
        queue.join("ann")
    queue.join("ben")


def test_a_queue_without_waiting_room_still_hands_out_its_slots() -> None:
    queue = FairQueue(slots=1, max_waiting=0)
    only = queue.join("ann")
    with pytest.raises(QueueFull):
        queue.join("ben")
    only.leave()
    assert queue.join("ben").is_admitted


async def test_waiting_ends_when_admitted_or_when_the_time_is_up() -> None:
    queue = FairQueue(slots=1, max_waiting=9)
    first, second = queue.join("ann"), queue.join("ben")
    assert await first.wait(60)
    assert not await second.wait(0.01)
    waiting = asyncio.create_task(second.wait(60))
    await asyncio.sleep(0)
    first.leave()
    assert await waiting


@pytest.mark.parametrize(("slots", "max_waiting"), [(0, 1), (1, -1)])
def test_senseless_sizes_are_refused(slots: int, max_waiting: int) -> None:
    with pytest.raises(ValueError, match="at least one slot"):
        FairQueue(slots=slots, max_waiting=max_waiting)
