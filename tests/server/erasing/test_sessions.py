"""Conversations of somebody who has many, or more than are listed: each call does some, and it ends."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from typing import Any

import pytest

from tests.fakes.clock import FakeClock
from tests.server.conftest import Serve
from tests.server.erasing.test_erasing import ALICE
from tests.server.realtime.serving import Served
from tests.server.test_admin import KEY, Operator
from unbroken.server.agents.scripted import ScriptedAgent
from unbroken.server.erasing.base import Erasure, Progress, Report, Unerased
from unbroken.server.erasing.sessions import SessionEraser
from unbroken.server.erasing.transcripts import Transcripts
from unbroken.sessions.backends.memory import MemoryStore
from unbroken.sessions.backends.memory_index import MemoryIndex
from unbroken.sessions.backends.walk import Stretch
from unbroken.sessions.errors import UnknownFormat
from unbroken.sessions.ids import NodeId, SessionId, new_incarnation, new_session_id

OTHERS = 5000
"""Sessions of others: several stretches of the store's."""


class House:
    """A store with sessions of Alice's among many others', and erasers that last for one call each."""

    def __init__(self, served: Served[ScriptedAgent], store: MemoryStore, *, listed: int = 100) -> None:
        self.app = served.app
        self.store = store
        self.index = MemoryIndex(listed=listed)
        self.clock = FakeClock()
        self.stretches: list[int] = []
        """Of each walk that was begun, or gone on with, how many were looked at."""
        self.most = 1
        """Stretches of a walk after which time is up."""

    async def walk(self, place: str) -> AsyncGenerator[Stretch, None]:
        self.stretches.append(0)
        async for stretch in self.store.walk(place):
            if self.stretches[-1] == self.most:
                raise TimeoutError
            self.stretches[-1] += 1
            yield stretch

    def eraser(self) -> SessionEraser:
        nodes = (self.app.node, self.app.transient)
        return SessionEraser(
            nodes,
            self.store,
            self.index,
            self.walk,
            Transcripts(None),
            self.clock,
            listed=self.index._listed,
        )

    async def ask(self, *, is_thorough: bool = True) -> Report:
        """Ask as whoever comes to a node that knows of nobody who asked before."""
        return await Erasure([self.eraser()], self.index, self.clock).erase(ALICE, is_thorough=is_thorough)

    async def ask_until_done(self, *, is_thorough: bool = True) -> list[Report]:
        reports = [await self.ask(is_thorough=is_thorough)]
        while reports[-1].left:
            assert len(reports) < 100, "it doesn't end"
            self.clock.advance(1)
            reports.append(await self.ask(is_thorough=is_thorough))
        return reports


@pytest.fixture
async def house(server: Served[ScriptedAgent]) -> House:
    """One in which Alice has five sessions that aren't listed, and no node has."""
    store = server.app._stored.store
    assert isinstance(store, MemoryStore)
    client: Any = await server.openai("alice")
    for _ in range(5):
        made = await client.conversations.create()
        await others(store, OTHERS // 5)
        server.app.node.hub.clear(SessionId(made.id.replace("conv_", "sess_")))
    return House(server, store)


async def others(store: MemoryStore, count: int) -> None:
    for _ in range(count):
        await store.create(new_session_id("bob"), NodeId("elsewhere"), new_incarnation())


async def test_a_walk_is_gone_on_with_by_whoever_asks_again(house: House) -> None:
    reports = await house.ask_until_done()

    assert len(house.store) == OTHERS
    assert sum(report.erased.get("conversations", 0) for report in reports) == 5
    looked_at = [report.looked_at for report in reports]
    assert looked_at[-1] is None
    assert all(looked_at[:-1])
    assert looked_at[:-1] == sorted(set(looked_at[:-1]), key=lambda each: each or 0), "it gets on each time"
    assert sum(house.stretches) == -(-(OTHERS + 5) // 1000), "it never begins again"
    assert reports[-1] == Report({"conversations": reports[-1].erased["conversations"]}, ())


async def test_who_asks_again_at_once_for_what_else_was_left_has_nothing_looked_through(
    house: House,
) -> None:
    house.most = 100
    await house.ask_until_done()
    assert (await house.ask()).left == ()
    assert len(house.stretches) == 1

    house.clock.advance(61)
    await house.ask_until_done()
    assert len(house.stretches) == 2, "this was asked for by itself"


async def test_one_that_was_given_up_long_ago_is_begun_anew(house: House) -> None:
    await house.ask()
    house.clock.advance(3601)
    house.most = 100
    report = await house.ask()
    assert (report.left, house.stretches) == ((), [1, 6])


async def test_it_is_known_that_the_list_was_full_when_it_no_more_is(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What fell out of it is looked for, though whoever began was cut off while it did what is listed."""
    index = house.index = MemoryIndex(listed=3)
    at = int(1000 * house.clock.time())
    mine = [each async for stretch in house.store.walk() for each in stretch.session_ids]
    mine = [each for each in mine if await _is_alices(house, each)]
    assert len(mine) == 5
    await index.note(ALICE.id, {each: at - 5 + place for place, each in enumerate(mine)})

    erase, done, goes_on = house.store.erase, list[SessionId](), asyncio.Event()

    async def slow(session_id: SessionId) -> None:
        if len(done) == 2:
            await goes_on.wait()
        await erase(session_id)
        done.append(session_id)

    monkeypatch.setattr(house.store, "erase", slow)
    monkeypatch.setattr("unbroken.server.erasing.base._PATIENCE", 0.5)
    first = await house.ask(is_thorough=False)
    goes_on.set()
    assert first == Report({"conversations": 2}, ("conversations",))
    assert await index.count(ALICE.id) == 1, "what is gone isn't listed any more"

    reports = await house.ask_until_done(is_thorough=False)
    assert len(house.store) == OTHERS
    assert reports[0].looked_at


async def _is_alices(house: House, session_id: SessionId) -> bool:
    return (await house.store.inspect(session_id)).fence.node != "elsewhere"


async def test_what_began_since_and_fell_out_of_the_list_is_looked_for(house: House) -> None:
    index = house.index = MemoryIndex(listed=3)
    house.most = 100
    assert (await house.ask()).left == ()
    house.clock.advance(10)
    at = int(1000 * house.clock.time())
    await index.note(ALICE.id, {new_session_id(ALICE.id): at for _ in range(4)})
    house.clock.advance(10)
    assert (await house.ask()).left == ()
    assert house.stretches == [6, 5], "from the beginning"


async def test_what_began_after_it_was_first_asked_for_stays_however_often_it_is_asked_again(
    house: House,
) -> None:
    assert (await house.ask()).left == ("conversations",)
    house.clock.advance(10)
    at, since = int(1000 * house.clock.time()), new_session_id(ALICE.id)
    await house.index.note(ALICE.id, {since: at})
    house.clock.advance(10)
    await house.ask_until_done()
    assert await house.index.page(ALICE.id, 9) == [(since, at)]
    assert await house.index.note(ALICE.id, {}) < at, "nor is it erased late"

    house.clock.advance(10)
    assert (await house.ask()).erased == {"conversations": 1}, "that was over: this is asked for by itself"


async def test_after_an_hour_another_moment_is_meant(house: House) -> None:
    assert (await house.ask()).left == ("conversations",)
    house.clock.advance(10)
    await house.index.note(ALICE.id, {new_session_id(ALICE.id): int(1000 * house.clock.time())})
    house.clock.advance(3601)
    await house.ask_until_done()
    assert await house.index.page(ALICE.id, 9) == []


async def test_what_an_operator_asks_for_isn_t_over_when_what_the_user_asks_for_is(house: House) -> None:
    assert (await house.ask()).left == ("conversations",)
    house.clock.advance(10)
    assert (await house.ask(is_thorough=False)).looked_at, "it goes on with what the operator has begun"
    asked = await house.index.asked(ALICE.id, is_thorough=True)
    assert asked is not None
    assert asked.at == int(1000 * house.clock.time()) - 10_000


async def test_what_can_t_be_read_is_looked_for_again(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    house.most = 100

    async def unreadable(*_: Any) -> Any:
        raise UnknownFormat("planted")

    with monkeypatch.context() as patched:
        patched.setattr("unbroken.server.erasing.sessions.look_at", unreadable)
        assert (await house.ask()).left == ("conversations",)
    assert (await house.ask()).left == ()
    assert len(house.store) == OTHERS


async def test_how_far_it_is_is_answered(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    server = await serve(ScriptedAgent(), admin_key=KEY)

    class Slow:
        what = "conversations"

        async def erase(self, whose: Any, at: int, progress: Progress, *, is_thorough: bool) -> None:
            progress.erased, progress.looked_at = 2, 7000
            raise Unerased

    monkeypatch.setattr(server.app.erasure, "_erasers", (Slow(),))
    answer = await Operator(server).ask("DELETE", f"/admin/data?user={ALICE.user}")
    assert answer.status == 202
    assert answer.body == {
        "object": "user.data.deleted",
        "deleted": False,
        "erased": {"conversations": 2},
        "left": ["conversations"],
        "looked_at": 7000,
    }
