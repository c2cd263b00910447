"""A store that has forgotten how sessions came to their owners, and sessions that nobody sees to."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Sequence
from typing import Any

import pytest
from structlog.testing import capture_logs

from tests.sessions.conversation import ALICE, Client, World, settle
from tests.sessions.town import (
    Town,
    actor_on,
    asked,
    begin_outage,
    distant,
    go,
    move,
    open_town,
    polls,
    tab_on,
    texts,
)
from unbroken.sessions.backends.base import NOBODY, Append
from unbroken.sessions.entries import CreateItem, InputKey, SessionOpened, Submitted
from unbroken.sessions.errors import CursorLost, StoreUnavailable
from unbroken.sessions.ids import ChainId, ItemId, Nonce, SessionId, new_incarnation, new_session_id
from unbroken.sessions.items import Message, SessionConfig, Text
from unbroken.sessions.session import Session

pytestmark = pytest.mark.parametrize("seed", [1, 2, 3, 4])


async def test_a_log_begun_anew_that_is_lost_again_is_begun_anew_again(seed: int) -> None:
    """By the store it is still the same node's, in the incarnation before."""
    async with open_town(seed=seed) as town:
        one, two, client = await asked(town)
        copied = town.copy()
        town.lose()
        one.responder.last.say("c")
        await settle()
        town.lose(copied)
        one.responder.last.say("d")
        await settle()
        assert actor_on(one, client).feed.is_durable
        with pytest.raises(CursorLost):
            client.read()
        await move(client, two)
        one.responder.last.end()
        await settle()
        client.read()

        assert texts(two, client) == ["hello", "abcd"]
        assert len(one.responder.turns) == 1


async def test_a_log_that_was_lost_twice_while_its_owner_was_alone_is_begun_anew_again(seed: int) -> None:
    async with open_town(seed=seed) as town:
        one, two, client = await asked(town)
        copied = town.copy()
        town.lose()
        one.responder.last.say("c")
        await settle()
        await begin_outage(one)
        one.responder.last.say("d")
        await settle()
        town.lose(copied)
        await town.store_is_back()
        assert actor_on(one, client).feed.is_durable
        with pytest.raises(CursorLost):
            client.read()
        await move(client, two)
        one.responder.last.end()
        await settle()
        client.read()

        assert texts(two, client) == ["hello", "abcd"]


async def test_an_input_whose_answer_is_lost_before_it_was_read_is_answered_again(
    seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Found by chaos: it was known by its name, and in no conversation. Another input had come in between."""
    async with open_town(seed=seed) as town:
        one = town.worlds[0]
        client = await one.client()
        await client.say("hello")
        await settle()
        session_id = SessionId(client.session_id or "")
        said = CreateItem(Message(ItemId("item_9"), "user", (Text("in between"),)))
        append = distant(one).append
        copied: dict[SessionId, Any] = {}

        async def write_behind(appends: Sequence[Append]) -> Any:
            if copied:
                return await append(appends)
            copied.update(town.copy())
            log = town.stored(client).log
            await town.memory.submit(
                session_id, Submitted(said, ChainId("elsewhere")), log.position(log.head)
            )
            result = await append(appends)
            distant(one).is_out = True
            return result

        monkeypatch.setattr(distant(one), "append", write_behind)
        await client.say("kept")
        await begin_outage(one)
        assert copied
        town.lose(copied)
        await town.store_is_back()
        await go(client, one)

        assert texts(one, client)[:2] == ["hello", "kept"]


@pytest.mark.parametrize("is_lost", [False, True])
async def test_an_input_that_was_taken_as_its_owner_went_on_alone_is_answered(
    seed: int, is_lost: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Found by chaos: its number was another's by then, and it was taken for answered."""
    async with open_town(seed=seed) as town:
        one, two, client = await asked(town)
        submit, copied = distant(one).submit, town.copy()
        receipts: list[Any] = []

        async def submit_slowly(*args: Any) -> Any:
            receipts.append(await submit(*args))
            if len(receipts) == 1:
                one.responder.last.say("c")
                await begin_outage(one)
                assert not actor_on(one, client).feed.is_durable
            return receipts[-1]

        monkeypatch.setattr(distant(one), "submit", submit_slowly)
        await client.say("kept")
        if is_lost:
            town.lose(copied)
        await town.store_is_back()
        await go(client, one)
        one.responder.last.end()
        await settle()
        await move(client, two)

        assert texts(two, client) == ["hello", "abc", "kept"]


async def test_what_is_read_as_its_owner_went_on_alone_is_no_part_of_what_that_says(
    seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with open_town(seed=seed) as town:
        one, two, client = await asked(town)
        tab = await tab_on(two, client)
        read = distant(one).read
        pages: list[Any] = []

        async def read_slowly(*args: Any, **options: Any) -> Any:
            page = await read(*args, **options)
            if page.entries and not pages:
                pages.append(page)
                actor_on(one, client)._go_on_alone()
                one.responder.last.say("c")
                for _ in range(50):  # all that can be done without the store
                    await asyncio.sleep(0)
            return page

        monkeypatch.setattr(distant(one), "read", read_slowly)
        await tab.say("kept")
        await settle()
        assert pages
        await town.store_is_back()
        await go(client, one)
        one.responder.last.end()
        await settle()
        await move(client, two)

        assert texts(two, client) == ["hello", "abc", "kept"]


async def test_who_takes_a_session_takes_for_answered_only_what_it_has_read_the_answer_of(
    seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with open_town(seed=seed) as town:
        one, two, client = await asked(town)
        tab = await tab_on(two, client)
        append, read = distant(one).append, distant(two).read
        copied: dict[SessionId, Any] = {}

        async def write_and_say_nothing(appends: Sequence[Append]) -> Any:
            if not copied:
                copied.update(town.copy())
                town.is_silent = True
            return await append(appends)

        async def lose_and_read(*args: Any, **options: Any) -> Any:
            if copied:
                town.lose(copied)
                monkeypatch.setattr(distant(two), "read", read)
            return await read(*args, **options)

        monkeypatch.setattr(distant(one), "append", write_and_say_nothing)
        await tab.say("kept")
        await settle()
        assert copied
        town.kill(one)
        monkeypatch.setattr(distant(two), "read", lose_and_read)
        town.is_silent = False
        town.notice(one)
        await settle()
        for _ in range(4):
            two.clock.advance(2)
            town.poll()
            await settle()
        await go(tab, two)

        assert "kept" in texts(two, tab)


async def test_what_is_written_while_a_log_is_begun_anew_is_kept(
    seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its owner has just read what others have written: else its name would be known, and it be nowhere."""
    async with open_town(seed=seed) as town:
        one, two, client = await asked(town)
        copied = town.copy()
        one.responder.last.say("c")
        await settle()
        town.lose(copied)
        session_id = SessionId(client.session_id or "")
        said = CreateItem(Message(ItemId("item_9"), "user", (Text("in between"),)))
        late = Submitted(said, ChainId("elsewhere"), key=InputKey("i:item_9", b"digest"))
        reseed = distant(one).reseed

        async def write_before(*args: Any, **options: Any) -> Any:
            log = town.stored(client).log
            await town.memory.submit(session_id, late, log.position(log.head))
            return await reseed(*args, **options)

        monkeypatch.setattr(distant(one), "reseed", write_before)
        one.responder.last.say("d")
        await settle()
        with pytest.raises(CursorLost):
            client.read()
        assert "in between" in texts(one, client)
        await move(client, two)
        one.responder.last.end()
        await settle()
        assert texts(two, client).count("in between") == 1


async def test_an_idle_session_that_the_store_has_lost_is_not_forgotten(seed: int) -> None:
    """It is found out when this node lets it go, and given back."""
    async with open_town(seed=seed) as town:
        one, two, client = await asked(town)
        one.responder.last.say(*40 * ["x" * 300])
        await settle()
        one.responder.last.end()
        await settle()
        town.lose()
        client.disconnect()
        for _ in range(6):
            one.clock.advance(30)
            await one.node.sweep()
            await settle()
        await go(client, two)

        assert texts(two, client)[0] == "hello"


async def test_a_session_begun_on_two_nodes_is_begun_once(seed: int) -> None:
    """Its client was on both before it said anything: where it comes second, it starts over."""
    async with open_town(seed=seed) as town:
        one, two = town.worlds
        client = await one.client()
        actor = actor_on(one, client)
        fence = await town.memory.create(actor.session.id, two.node.id, actor.log.incarnation)
        opened = SessionOpened(actor.principal, actor.session.config)
        await town.memory.append([Append(actor.session.id, fence, 0, Nonce(0), 0, [opened], is_busy=False)])
        with capture_logs() as logs, pytest.raises(CursorLost):
            await client.say("hi")
        await settle()
        assert [entry["event"] for entry in logs if "exc_info" in entry] == []


async def _given_up(town: Town) -> tuple[World, World, Client]:
    """Return a node that had to give a session up, and is its owner by a store that lost its tail."""
    one, two, client = await asked(town)
    tab = await tab_on(two, client)
    copied = town.copy()
    await begin_outage(one)
    one.responder.last.say("c")
    await settle()
    town.notice(one)
    await settle()
    client.disconnect()
    await town.store_is_back()
    tab.disconnect()
    town.kill(two)
    town.notice(two)
    town.lost.clear()  # the one isn't dead, after all
    town.lose(copied)
    assert actor_on(one, client).feed.ended is not None
    assert town.stored(client).owner == one.node.id
    return one, town.worlds[2], client


async def test_who_asks_for_a_session_that_was_given_up_is_given_it(seed: int) -> None:
    async with open_town(3, seed=seed) as town:
        _, three, client = await _given_up(town)
        await go(client, three)

        assert town.owner_of(client) is three.node
        assert client.statuses() == ["failed"]


async def test_a_session_that_was_given_up_is_asked_for_again(seed: int) -> None:
    """The wish was lost, and nobody says anything: the one that follows it asks once more."""
    async with open_town(3, seed=seed) as town:
        _, three, client = await _given_up(town)
        town.is_silent = True
        await go(client, three)
        assert town.owner_of(client) is None
        town.is_silent = False
        await polls(town, 3)
        client.read()

        assert town.owner_of(client) is three.node
        assert client.statuses() == ["failed"]


async def test_a_session_that_was_given_up_is_nobody_s_when_it_is_forgotten(seed: int) -> None:
    async with open_town(3, seed=seed) as town:
        one, _, client = await _given_up(town)
        await one.node.sweep()
        await settle()

        assert len(one.node.hub) == 0
        assert town.stored(client).owner == NOBODY


async def test_a_node_that_leaves_gives_up_what_it_can_t_go_on_with(seed: int) -> None:
    async with open_town(3, seed=seed) as town:
        one, _, client = await _given_up(town)
        one.node.begin_drain()
        await one.node.drained(60)

        assert town.stored(client).owner == NOBODY


@pytest.mark.parametrize("owner", ["the same", "dead", "nobody"])
async def test_what_a_store_has_forgotten_the_end_of_comes_to_an_end(seed: int, owner: str) -> None:
    """A session was answered, and every node has forgotten it. By the store it still runs."""
    async with open_town(seed=seed) as town:
        one, two, client = await asked(town)
        copied = town.copy()
        one.responder.last.end()
        await settle()
        client.disconnect()
        while len(one.node.hub):
            one.clock.advance(30)
            await one.node.sweep()
            await settle()
        if owner == "dead":
            town.kill(one)
            town.notice(one)
            two.clock.advance(2)
            await settle()
        town.lose(copied)
        if owner == "nobody":
            town.stored(client).owner = NOBODY
        for neighbour in town.neighbours.values():
            neighbour.on_gap()
        await town.store_is_back()

        assert not town.stored(client).is_busy
        await go(client, two)
        assert actor_on(two, client).session.running_ids == []


async def test_what_was_taken_and_could_not_be_read_is_given_back(
    seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the store it is this node's, which doesn't have it: so nobody would ever look for it."""
    async with open_town(seed=seed) as town:
        one, two, client = await asked(town)
        client.disconnect()
        town.kill(one)
        read = distant(two).read

        async def fail_once(*_: Any, **__: Any) -> Any:
            monkeypatch.setattr(distant(two), "read", read)
            raise StoreUnavailable

        monkeypatch.setattr(distant(two), "read", fail_once)
        town.notice(one)
        await town.store_is_back()
        assert town.stored(client).owner == NOBODY
        await polls(town, 60)

        assert not town.stored(client).has_work


async def test_a_session_that_crashes_its_owner_is_not_passed_round(
    seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with open_town(3, seed=seed) as town:
        one, _, client = await asked(town)
        one.responder.last.end()
        await settle()
        crashes = 0
        decide = Session.decide

        def crash(session: Session) -> Any:
            nonlocal crashes
            if session.id != client.session_id:
                return decide(session)
            crashes += 1
            raise RuntimeError("a bug")

        monkeypatch.setattr(Session, "decide", crash)
        await client.say("poison")
        client.disconnect()
        for _ in range(300):
            for world in town.worlds:
                world.clock.advance(1)
            town.poll()
            await settle()

        assert 0 < crashes <= 3


async def test_there_is_one_search_at_a_time(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """However often the store comes and goes."""
    async with open_town(seed=seed) as town:
        one, _, _ = await asked(town)
        answers, begun = asyncio.Event(), 0
        owners = distant(one).owners

        async def slow() -> Any:
            nonlocal begun
            begun += 1
            await answers.wait()
            return await owners()

        monkeypatch.setattr(distant(one), "owners", slow)
        for _ in range(20):
            one.node._outages.of(SessionId("")).note_failure(SessionId(""))
            for _ in range(4):
                one.clock.advance(1)
                await settle()
        assert begun == 1
        answers.set()
        await settle()
        assert begun == 2  # once more, for all that asked meanwhile


async def test_a_store_that_hangs_holds_up_nobody_who_is_forgotten(
    seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with open_town(seed=seed) as town:
        one = town.worlds[0]
        clients = [await one.client() for _ in range(40)]
        for client in clients:
            await client.say("hi")
            client.disconnect()
            actor_on(one, client)._abandon(CursorLost())
        answers, asks = asyncio.Event(), 0
        inspect = distant(one).inspect

        async def hang(*args: Any) -> Any:
            nonlocal asks
            asks += 1
            await answers.wait()
            raise StoreUnavailable

        monkeypatch.setattr(distant(one), "inspect", hang)
        await one.node.sweep()
        await settle()
        assert len(one.node.hub) == 0
        assert 0 < asks <= 16

        answers.set()
        await settle()
        assert asks <= 16  # the others don't ask what doesn't answer
        monkeypatch.setattr(distant(one), "inspect", inspect)
        for _ in range(4):
            one.clock.advance(1)
            await settle()
        assert {town.stored(client).owner for client in clients} == {NOBODY}


# Zombies.


async def _woken(town: Town) -> tuple[World, World, Client]:
    """Return a node that stood still while another one took its session, went on with it, and let it go."""
    one, two, client = await asked(town)
    tab = await tab_on(two, client)
    frozen = town.neighbours.pop(one.node.id)
    town.lost.add(one.node.id)
    for neighbour in list(town.neighbours.values()):
        neighbour.on_lost(one.node.id)
    await settle()
    for _ in range(3):
        await tab.ask("more")
        two.responder.last.say(*20 * ["x" * 300])
        await settle()
        two.responder.last.end()
        await settle()
    tab.disconnect()
    for _ in range(4):
        two.clock.advance(30)
        await two.node.sweep()
        await settle()
    await tab_on(two, client)
    town.neighbours[one.node.id] = frozen
    town.lost.discard(one.node.id)
    assert town.stored(client).log.floor > actor_on(one, client).session.applied
    return one, two, client


@pytest.mark.parametrize("steps", [0, 1, 2, 3, 4, 5, 6, 8, 10, 14, 20])
async def test_what_a_woken_zombie_takes_is_not_lost(seed: int, steps: int) -> None:
    """It finds a log that has gone on so far that it can't read on: it isn't its own any more."""
    async with open_town(seed=seed) as town:
        one, two, client = await _woken(town)
        one.responder.last.say("z")
        for _ in range(steps):
            await asyncio.sleep(0)
        try:
            await client.say("important")
        except CursorLost:
            return  # it was told
        await settle()
        with contextlib.suppress(CursorLost):
            client.read()
        await tab_on(two, client)
        assert client.errors() or "important" in texts(two, client)


async def test_a_woken_zombie_says_nothing_alone(seed: int) -> None:
    """Not even where the store has just failed."""
    async with open_town(seed=seed) as town:
        one, _, client = await _woken(town)
        one.node._outages.of(SessionId("")).note_failure(SessionId(""))
        one.responder.last.say("z")
        await settle()
        if one.responder.open:
            one.responder.last.say("in no log")
        await settle()
        with pytest.raises(CursorLost):
            client.read()
        assert "in no log" not in client.text()


@pytest.mark.parametrize("steps", [0, 1, 2, 4, 7, 12, 20])
async def test_what_a_zombie_takes_that_has_just_looked_is_not_lost(seed: int, steps: int) -> None:
    """It was told that it had missed something, and finds that it can't read on."""
    async with open_town(seed=seed) as town:
        one, two, client = await _woken(town)
        town.neighbours[one.node.id].on_gap()
        for _ in range(steps):
            await asyncio.sleep(0)
        try:
            await client.say("important")
        except CursorLost:
            return
        await settle()
        with contextlib.suppress(CursorLost):
            client.read()
        await tab_on(two, client)
        assert client.errors() or "important" in texts(two, client)


async def test_who_was_cut_off_for_long_takes_a_session_as_it_is(seed: int) -> None:
    """What it knows ends where the log has forgotten what follows: it would have overwritten that."""
    async with open_town(4, seed=seed) as town:
        one, two, client = await asked(town)
        three, four = town.worlds[2:]
        one.responder.last.end()
        await settle()
        client.read()
        town.is_silent = True  # nobody hears that the second one would like to have it
        await tab_on(two, client)
        town.is_silent = False
        await move(client, three)
        cut_off = town.neighbours.pop(two.node.id)
        actor_on(three, client).wanted_by = None
        for number in range(3):
            await client.ask(f"more {number}")
            three.responder.last.say(*20 * ["x" * 300])
            await settle()
            three.responder.last.end()
            await settle()
        client.disconnect()
        while len(three.node.hub):
            three.clock.advance(30)
            await three.node.sweep()
            await settle()
        assert town.stored(client).log.floor > actor_on(two, client).session.applied
        town.neighbours[two.node.id] = cut_off
        for world in (one, three):
            town.kill(world)
            town.lost.add(world.node.id)
        cut_off.on_lost(actor_on(two, client).fence.node)
        for _ in range(5):
            two.clock.advance(2)
            await settle()
        await go(client, four)
        await polls(town, 3)

        assert "more 0" in texts(four, client)


async def test_a_question_that_waits_in_a_log_begun_anew_is_answered_by_another(seed: int) -> None:
    """Its owner dies before it has begun to."""
    async with open_town(seed=seed) as town:
        one, two, client = await asked(town)
        one.responder.last.end()
        await settle()
        client.read()
        town.lose()
        asking = asyncio.create_task(client.send({"type": "response.create"}))
        while town.memory._sessions.get(SessionId(client.session_id or "")) is None:  # noqa: ASYNC110
            await asyncio.sleep(0)
        town.kill(one)
        asking.cancel()
        await settle()
        if not Session.restore(
            SessionId(client.session_id or ""),
            two.node.limits.session,
            town.stored(client).snapshot.data,
        ).is_busy:
            return
        town.notice(one)
        for _ in range(4):
            two.clock.advance(2)
            await settle()
        assert two.node.hub.get(SessionId(client.session_id or "")) is not None


async def test_a_search_among_its_own_comes_to_an_end(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """However many sessions begin meanwhile."""
    async with open_town(seed=seed) as town:
        one, _, _ = await asked(town)
        busy, asks = distant(one).busy, 0

        async def begin_one(*args: Any, **options: Any) -> Any:
            nonlocal asks
            asks += 1
            session_id, life = new_session_id(), new_incarnation()
            fence = await town.memory.create(session_id, one.node.id, life)
            begun = SessionOpened(ALICE, SessionConfig("m"))
            await town.memory.append([Append(session_id, fence, 0, Nonce(0), 0, [begun])])
            return await busy(*args, **options)

        monkeypatch.setattr(distant(one), "busy", begin_one)
        one.node._ownership._search.begin()
        await settle()
        assert asks == 1


async def test_what_comes_back_while_it_is_given_back_is_given_back_again(
    seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with open_town(seed=seed) as town:
        one, two, client = await asked(town)
        one.responder.last.end()
        await settle()
        actor = actor_on(one, client)
        session_id = actor.session.id
        one.node.hub.remove(actor)
        unfollow = distant(two).unfollow

        async def pass_on(*args: Any) -> None:
            monkeypatch.setattr(distant(two), "unfollow", unfollow)
            await town.memory.release(session_id, town.stored(client).fence, to=two.node.id)
            town.neighbours[two.node.id].on_news([session_id])
            for _ in range(5):
                await asyncio.sleep(0)
            await unfollow(*args)

        monkeypatch.setattr(distant(two), "unfollow", pass_on)
        town.neighbours[two.node.id].on_news([session_id])
        await settle()
        await settle()
        assert town.stored(client).owner == NOBODY
