"""Answers that are read for names before the cache keeps them."""

from __future__ import annotations

from collections.abc import AsyncGenerator

import pytest

from tests.server.guards.leaks.answering import collect, turn
from tests.server.guards.leaks.naming import Server
from unbroken.server.agents.base import TurnInput
from unbroken.server.cache.base import StoreLimits, Veto
from unbroken.server.cache.index import PlaceIndex
from unbroken.server.cache.memory import MemoryAnswers
from unbroken.server.cache.rules import CacheRules
from unbroken.server.cache.stage import CacheStage, Produce
from unbroken.server.metrics import Metrics
from unbroken.server.pipeline import Pipeline
from unbroken.server.quota.share import Share
from unbroken.sessions.responder import Finish, Output


@pytest.mark.parametrize("fails_closed", [True, False])
async def test_an_answer_with_a_name_in_it_or_that_nobody_could_read_is_not_kept(fails_closed: bool) -> None:
    """Also where it may be said: to one, who asked for it."""
    server = Server(fails_closed=fails_closed)

    assert await server.leaks.finds(turn(), "It is Ann.")
    assert not await server.leaks.finds(turn(), "Paris it is.")
    server.recogniser.fail()
    assert await server.leaks.finds(turn(), "Paris it is.")
    assert not server.unread
    assert not server.counted


async def test_an_answer_that_is_said_is_not_read_once_more_for_the_cache() -> None:
    """The cache has that done behind its end, where it would keep it."""

    class Off(CacheStage):
        async def answer(
            self,
            turn: TurnInput,
            produce: Produce,
            *,
            may_use_tools: bool,
            may_join: bool = True,
            share: Share | None = None,
            plan: str | None = None,
        ) -> AsyncGenerator[Output, None]:
            async for output in produce(Veto()):
                yield output

    server = Server("It is Ann. And Ann again. ", Finish(), is_shadow=True)
    server.recogniser.be_busy()
    server.recogniser.hang()
    cache = Off(CacheRules(), MemoryAnswers(server.clock, StoreLimits(), PlaceIndex), server.clock)
    answer = Pipeline(server.agent, Metrics(), server.clock, leaks=server.leaks, cache=cache).respond(turn())
    await collect(answer, server.outputs)

    assert server.outputs == ["It is Ann. And Ann again. ", Finish()]
    assert server.recogniser.texts == []


async def test_where_the_model_has_much_to_do_an_answer_is_not_read_for_the_cache_and_not_kept() -> None:
    server = Server()
    server.recogniser.be_busy()

    assert await server.leaks.finds(turn(), "Paris it is.")
    assert server.recogniser.texts == []


async def test_an_answer_is_read_for_the_cache_up_to_the_first_name() -> None:
    server = Server()

    assert await server.leaks.finds(turn(), "It is Ann. " + "So it goes on. " * 100 + "It is Maria.")
    assert "It is Maria." not in server.recogniser.texts
