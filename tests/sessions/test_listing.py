"""Which sessions are listed, and what becomes of those that nobody could list in time."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from tests.sessions.conversation import ALICE, settle
from tests.sessions.town import Town, answered, move, open_town, polls
from unbroken.sessions.backends.index import Listed
from unbroken.sessions.backends.memory_index import MemoryIndex
from unbroken.sessions.errors import StoreUnavailable
from unbroken.sessions.ids import PrincipalId, SessionId


class Index(MemoryIndex):
    """One that can be out of reach."""

    is_out = False
    calls = 0

    async def note(self, principal: PrincipalId, sessions: Mapping[SessionId, int]) -> int:
        self.calls += 1
        if self.is_out:
            raise StoreUnavailable
        return await super().note(principal, sessions)

    async def drop(self, principal: PrincipalId, session_ids: Collection[SessionId]) -> None:
        await super().drop(principal, session_ids)


async def listed(index: Index) -> list[str]:
    return [each.session_id for each in await index.page(ALICE, 99) or []]


async def pass_time(town: Town, seconds: float) -> None:
    for world in town.worlds:
        world.clock.advance(seconds)
    await settle()


async def test_a_session_is_listed_once_it_has_begun() -> None:
    index = Index()
    async with open_town(seed=1, index=index) as town:
        client = await town.worlds[0].client()
        await settle()
        assert await listed(index) == []

        await client.ask()
        assert await listed(index) == [client.session_id]
        (entry,) = await index.page(ALICE, 9) or []
        assert entry == Listed(SessionId(client.session_id or ""), int(1000 * town.worlds[0].clock.time()))


async def test_what_could_not_be_listed_is_listed_later() -> None:
    index = Index()
    async with open_town(seed=1, index=index) as town:
        index.is_out = True
        clients = [await town.worlds[0].client() for _ in range(3)]
        for client in clients:
            await client.ask()
        assert await listed(index) == []
        calls = index.calls
        await settle()
        assert index.calls == calls, "it has a rest"

        index.is_out = False
        await pass_time(town, 1.5)
        assert sorted(await listed(index)) == sorted(client.session_id or "" for client in clients)


async def test_it_is_listed_again_while_it_lives_and_seldom() -> None:
    index = Index()
    async with open_town(seed=1, index=index) as town:
        one, _, client = await answered(town)
        before = index.calls
        for _ in range(5):
            await client.ask("more")
            one.responder.last.end()
            await settle()
        assert index.calls == before

        await index.drop(ALICE, [SessionId(client.session_id or "")])  # as one that has lost something
        await pass_time(town, 86_400 / 12 + 1)
        await client.ask("more")
        assert await listed(index) == [client.session_id]


async def test_whoever_takes_a_session_lists_it() -> None:
    """The node that it began on may have died of it."""
    index = Index()
    async with open_town(seed=1, index=index) as town:
        index.is_out = True
        one, two, client = await answered(town)
        town.kill(one)
        town.notice(one)
        index.is_out = False
        await move(client, two)
        await client.ask("more")
        assert await listed(index) == [client.session_id]


async def test_one_that_is_older_is_not_listed_again_each_time_that_it_moves() -> None:
    """Thousands may move at once."""
    index = Index()
    async with open_town(seed=1, index=index) as town:
        one, two, client = await answered(town)
        await pass_time(town, 120)
        calls = index.calls
        town.kill(one)
        town.notice(one)
        await move(client, two)
        await client.ask("more")
        two.responder.last.end()
        await settle()
        assert index.calls == calls

        await pass_time(town, 86_400 / 12 + 1)
        await client.ask("more")
        assert index.calls == calls + 1


async def test_what_a_store_is_given_back_is_listed_again() -> None:
    """What lists it may have been lost with it."""
    index = Index()
    async with open_town(seed=1, index=index) as town:
        one, _, client = await answered(town)
        await pass_time(town, 120)
        await index.drop(ALICE, [SessionId(client.session_id or "")])
        town.lose()
        await client.ask("more")
        one.responder.last.end()
        await pass_time(town, 3)
        await polls(town, 2)

        assert SessionId(client.session_id or "") in town.memory._sessions
        assert await listed(index) == [client.session_id]


async def test_what_was_not_listed_when_all_was_erased_is_erased_later() -> None:
    index = Index()
    async with open_town(seed=1, index=index) as town:
        index.is_out = True
        one, _, client = await answered(town)
        await index.note_erased(ALICE, int(1000 * one.clock.time()))
        index.is_out = False
        await pass_time(town, 1.5)

        assert SessionId(client.session_id or "") not in town.memory._sessions
        assert one.node.hub.get(SessionId(client.session_id or "")) is None


async def test_what_begins_after_all_was_erased_stays() -> None:
    index = Index()
    async with open_town(seed=1, index=index) as town:
        await index.note_erased(ALICE, int(1000 * town.worlds[0].clock.time()))
        await pass_time(town, 1.5)
        _, _, client = await answered(town)
        await pass_time(town, 1.5)
        assert SessionId(client.session_id or "") in town.memory._sessions
        assert await listed(index) == [client.session_id]
