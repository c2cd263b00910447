"""Whatever becomes of calls of the store, an owner's conversation stays whole, and is the store's in the end.

Walks at random find what nobody thinks of: answers that come when the log is another by then, writes that
were lost before anybody heard of them. A walk that fails says its seed, with which it can be made again.
"""

from __future__ import annotations

import asyncio
import gc
import random
from collections import Counter
from collections.abc import Iterable
from typing import Any

import pytest
from hypothesis import settings
from structlog.testing import capture_logs

from tests.sessions.conversation import Client, limits_of, settle
from tests.sessions.town import actor_on, open_town, texts
from tests.sessions.walking import PAIR, Walk
from unbroken.sessions.finished import decode_turn
from unbroken.sessions.replica import ActorLimits
from unbroken.sessions.run import RunLimits

either = pytest.mark.parametrize("has_losses", [False, True], ids=["kept", "lost"])


FOUND = (1465965986, 1465966074)
"""Walks on which turns ended while a log was begun anew, and nobody heard of that: they were left out."""


@pytest.mark.long
@either
def test_a_conversation_stays_whole(has_losses: bool) -> None:
    """Walks that are always the same: some of them found defects that are mended."""
    first = 160 if has_losses else 0
    walk((*range(first, first + 50), *FOUND), has_losses=has_losses)


@pytest.mark.slow
@pytest.mark.drawn
@pytest.mark.timeout(240)
@either
def test_a_conversation_stays_whole_on_many_walks(has_losses: bool) -> None:
    """Others each time. What fails is found again with the seed that is said."""
    first = random.SystemRandom().randrange(2**32)
    walk(range(first, first + 8 * settings().max_examples), has_losses=has_losses)


@pytest.mark.slow
@either
def test_items_of_one_request_stay_together(has_losses: bool) -> None:
    walk(range(60), has_losses=has_losses, has_pairs=True)


@pytest.mark.slow
@pytest.mark.drawn
@pytest.mark.timeout(240)
@either
def test_items_of_one_request_stay_together_on_many_walks(has_losses: bool) -> None:
    first = random.SystemRandom().randrange(2**32)
    walk(range(first, first + 4 * settings().max_examples), has_losses=has_losses, has_pairs=True)


def walk(seeds: Iterable[int], *, has_losses: bool, has_pairs: bool = False) -> None:
    """Make a walk of each seed. Where one fails, its seed is said, and what happened."""
    for seed in seeds:
        steps: list[str] = []
        try:
            asyncio.run(walk_once(seed, steps, has_losses=has_losses, has_pairs=has_pairs))
        except BaseException as exc:
            exc.add_note(f"walk([{seed}], {has_losses=}, {has_pairs=}):\n" + "\n".join(steps))
            raise


async def walk_once(seed: int, steps: list[str], *, has_losses: bool, has_pairs: bool = False) -> None:
    random.seed(seed)  # what nodes draw, too
    unheard: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: unheard.append(context))
    with capture_logs() as logs:
        limits = limits_of(actor=ActorLimits(run=RunLimits(), notes_turns=True))
        async with open_town(seed=seed, limits=limits) as town:
            walk = Walk(town, seed, steps, has_losses=has_losses, has_pairs=has_pairs)
            await walk.go()
            check_words(walk)
            if not has_losses:
                check_inputs(walk)
            check_pairs(walk)
            check_rest(walk)
            check_store(walk)
            await check_turns(walk)
            await check_third(walk)
        del walk
    assert asyncio.all_tasks() == {asyncio.current_task()}
    gc.collect(0)  # what failed and nobody was told of is told of here
    assert unheard == []
    assert [
        each for each in logs if each["event"] in ("session crashed", "session lost", "task failed")
    ] == []


def texts_of(walk: Walk, role: str) -> list[str]:
    items = actor_on(walk.one, walk.clients[0]).session.items()
    return [item.text for item in items if getattr(item, "role", "") == role]


def check_words(walk: Walk) -> None:
    """Every word that the agent said is there once, in order; of what was cancelled, maybe not the last."""
    asked = Counter(turn.turn.response_id for turn in walk.one.responder.turns)
    assert max(asked.values()) == 1, "no answer is asked for twice"
    assert walk.two.responder.turns == []
    there = texts_of(walk, "assistant")
    said = ["".join(words) for words in walk.said.values()]
    if walk.is_cancelled:
        assert all(any(each.startswith(text) for each in said) for text in there)
    else:
        assert there == said


def check_inputs(walk: Walk) -> None:
    """Every item that was acknowledged is there."""
    items = [name for name in walk.taken if name.startswith("item")]
    assert set(items) <= set(texts_of(walk, "user"))


def check_pairs(walk: Walk) -> None:
    """Items that were one input are there together, one behind the other, or not at all."""
    there = texts(walk.one, walk.clients[0])
    first, second = ([text.removesuffix(end) for text in there if text.endswith(end)] for end in PAIR)
    assert first == second
    for name in first:
        assert there.index(name + PAIR[1]) == there.index(name + PAIR[0]) + 1


def check_rest(walk: Walk) -> None:
    """Nothing is there twice. Nothing runs or waits, and all of it is saved."""
    actor = actor_on(walk.one, walk.clients[0])
    assert actor.feed.ended is None
    assert actor.is_owner
    assert not actor.session.responses
    assert not actor.session.has_inputs
    assert not actor._runs
    assert actor.feed.is_durable
    assert max(Counter(texts(walk.one, walk.clients[0])).values()) == 1


def check_store(walk: Walk) -> None:
    """The store's log is the owner's."""
    stored = walk.town.stored(walk.clients[0]).log
    log = actor_on(walk.one, walk.clients[0]).log
    assert (stored.incarnation, stored.head, stored.head_nonce) == (log.incarnation, log.head, log.head_nonce)


async def check_turns(walk: Walk) -> None:
    """Every turn that ended is in the outbox, at least once, with what was said."""
    kept = [decode_turn(parcel.data) for parcel in await walk.town.outbox.take(0, 10**6)]
    noted = {turn.response_id: turn for turn in kept}
    session = actor_on(walk.one, walk.clients[0]).session
    for ended in list(session.endings)[-8:]:  # of those before, a store that loses everything has none
        turn = noted[ended.id]
        assert turn.status == ended.status
        assert [item.id for item in turn.output] == list(ended.output)


async def check_third(walk: Walk) -> None:
    """A node that loads the session sees the same."""
    third = await walk.town.node()
    client = Client(third, walk.clients[0].session_id)
    await client.connect()
    await settle()
    assert texts(third, client) == texts(walk.one, walk.clients[0])
