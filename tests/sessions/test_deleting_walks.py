"""Whatever is on its way, and whoever is cut off, when a session is deleted: it stays deleted.

The walks are those of an owner's conversation, in which the session is deleted in the middle, as by a third
node that hears of nothing. Calls are held, fail, come late, or are lost before and after that.
"""

from __future__ import annotations

import asyncio
import gc
import random
from collections.abc import Iterable
from typing import Any

import pytest
from hypothesis import settings
from structlog.testing import capture_logs

from tests.sessions.conversation import ALICE, settle
from tests.sessions.town import open_town
from tests.sessions.walking import Walk
from unbroken.sessions.errors import SessionError, SessionNotFound
from unbroken.sessions.ids import SessionId

either = pytest.mark.parametrize("has_losses", [False, True], ids=["kept", "lost"])


class DeletingWalk(Walk):
    """A walk in the middle of which the session is deleted."""

    @property
    def session_id(self) -> SessionId:
        return SessionId(self.clients[0].session_id or "")

    def _lose(self) -> None:
        """Lose what was written before it was deleted. That it was isn't lost: nobody could know it then."""
        if self.session_id not in self.town.memory._deleted:
            super()._lose()

    async def go(self) -> None:
        await self._set_out()
        steps = self._draw.randint(10, 40)
        deleted_at = self._draw.randrange(steps)
        for number in range(steps):
            if number == deleted_at:
                self.steps.append("delete")
                await self.town.memory.erase(self.session_id)
            else:
                self._take_a_step()
            await settle(3000)
        await self._come_to_rest()


@pytest.mark.long
@either
def test_what_was_deleted_stays_deleted(has_losses: bool) -> None:
    """Walks that are always the same."""
    walk(range(50), has_losses=has_losses)


@pytest.mark.slow
@pytest.mark.drawn
@pytest.mark.timeout(240)
@either
def test_what_was_deleted_stays_deleted_on_many_walks(has_losses: bool) -> None:
    """Others each time. What fails is found again with the seed that is said."""
    first = random.SystemRandom().randrange(2**32)
    walk(range(first, first + 4 * settings().max_examples), has_losses=has_losses)


def walk(seeds: Iterable[int], *, has_losses: bool) -> None:
    """Make a walk of each seed. Where one fails, its seed is said, and what happened."""
    for seed in seeds:
        steps: list[str] = []
        try:
            asyncio.run(walk_once(seed, steps, has_losses=has_losses))
        except BaseException as exc:
            exc.add_note(f"walk({seed}, {has_losses=}):\n" + "\n".join(steps))
            raise


async def walk_once(seed: int, steps: list[str], *, has_losses: bool) -> None:
    random.seed(seed)  # what nodes draw, too
    unheard: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: unheard.append(context))
    with capture_logs() as logs:
        async with open_town(seed=seed) as town:
            made = DeletingWalk(town, seed, steps, has_losses=has_losses)
            await made.go()
            check_rest(made)
            await check_nodes(made)
        del made
    assert asyncio.all_tasks() == {asyncio.current_task()}
    gc.collect(0)  # what failed and nobody was told of is told of here
    assert unheard == []
    assert [
        each for each in logs if each["event"] in ("session crashed", "session lost", "task failed")
    ] == []


def check_rest(walk: DeletingWalk) -> None:
    """Nothing runs any more, nobody is connected without being told, and the store has nothing of it."""
    assert walk.one.responder.open == []
    assert walk.session_id not in walk.town.memory._sessions
    for client in walk.clients:
        assert client.attachment is not None
        with pytest.raises(SessionError):
            while client.attachment.cursor.take(512):
                pass


async def check_nodes(walk: DeletingWalk) -> None:
    """No node has it, or gets it; one that comes later least of all."""
    await walk.town.node()
    for world in walk.town.worlds:
        actor = world.node.hub.get(walk.session_id)
        assert actor is None or actor.feed.ended is not None
        with pytest.raises(SessionNotFound):
            await world.node.attach(walk.session_id, ALICE, None, walk.clients[0].chain)
