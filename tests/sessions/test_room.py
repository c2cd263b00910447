"""Nobody takes a node for themselves: whoever has much there makes room for their own."""

from __future__ import annotations

import pytest

from tests.sessions.conversation import Client, limits_of, open_world, settle
from tests.sessions.town import open_town
from unbroken.sessions.errors import NodeFull, SessionNotFound, TooManySessions
from unbroken.sessions.holders import Holder
from unbroken.sessions.ids import PrincipalId
from unbroken.sessions.replica import ActorLimits
from unbroken.sessions.run import RunLimits
from unbroken.sessions.session import SessionLimits

ALICE, BOB = PrincipalId("alice"), PrincipalId("bob")


async def left(client: Client, text: str = "hello") -> Client:
    """Have something said in a session, and nobody there any more."""
    await client.say(text)
    client.disconnect()
    return client


async def test_one_principal_does_not_keep_others_out_with_sessions_at_rest() -> None:
    async with open_world(limits_of(sessions=8, principal_share=0.25)) as world:
        others = await left(await world.client(BOB))
        mine = []
        for _ in range(20):
            mine.append(await left(await world.client()))
            world.clock.advance(1)

        assert len(world.node.hub) == 8, "nobody else needs it"
        await world.client(BOB)
        await others.connect(principal=BOB)
        for client in mine[-6:]:
            await client.connect()
        for client in mine[:-6]:
            with pytest.raises(SessionNotFound):
                await client.connect()


async def test_who_has_their_share_or_less_makes_room_for_nobody() -> None:
    async with open_world(limits_of(sessions=4, principal_share=0.5)) as world:
        for principal in (ALICE, BOB):
            for _ in range(2):
                await left(await world.client(principal))
        with pytest.raises(NodeFull):
            await world.client(PrincipalId("carol"))
        await world.client(BOB)


async def test_sessions_that_are_connected_make_no_room() -> None:
    async with open_world(limits_of(sessions=4, principal_share=0.5)) as world:
        first, second, *_ = [await world.client() for _ in range(4)]
        with pytest.raises(TooManySessions):
            await world.client()
        with pytest.raises(NodeFull):
            await world.client(BOB)
        first.disconnect()
        await world.client()
        second.disconnect()
        await world.client(BOB)


async def test_nor_do_those_that_have_something_to_do() -> None:
    async with open_world(limits_of(sessions=2, principal_share=0.5)) as world:
        for _ in range(2):
            client = await world.client()
            await client.ask()
            client.disconnect()
        with pytest.raises(TooManySessions):
            await world.client()
        for turn in world.responder.open:
            turn.end()
        await settle()
        await world.client()


async def test_one_principal_does_not_fill_a_node_with_bytes() -> None:
    limits = limits_of(
        bytes=100_000,
        principal_share=0.5,
        session=SessionLimits(conversation_bytes=20_000),
        actor=ActorLimits(run=RunLimits(), log_bytes=10_000),
    )
    async with open_world(limits) as world:
        mine = [await left(await world.client(), "x" * 8_000) for _ in range(20)]
        assert world.node.hub.size < 120_000
        await (await world.client(BOB)).say("x" * 8_000)

        with pytest.raises(SessionNotFound):
            await mine[0].connect()
        here = [await world.client()]
        with pytest.raises(TooManySessions):
            for _ in range(20):
                await here[-1].say("x" * 8_000)
                here.append(await world.client())
        for client in mine:
            with pytest.raises(SessionNotFound):
                await client.connect()
        here[0].disconnect()
        await here[1].say("there is room again")


async def test_strangers_count_by_address_and_leave_room_for_others() -> None:
    def holder(principal: PrincipalId) -> Holder:
        address, _, stranger = principal.partition("/")
        return Holder(address, is_stranger=bool(stranger))

    limits = limits_of(sessions=8, principal_share=0.25, strangers_share=0.5, room_timeout=600)
    async with open_world(limits, holder_of=holder) as world:
        first = await left(await world.client(PrincipalId("one/a")))
        for name in ("one/b", "one/c", "two/a", "two/b"):
            await left(await world.client(PrincipalId(name)))
        assert len(world.node.hub) == 4
        with pytest.raises(SessionNotFound):
            await first.connect(principal=PrincipalId("one/a"))
        with pytest.raises(NodeFull):
            await world.client(PrincipalId("three/a"))
        await world.client(PrincipalId("two/c"))
        for name in ("alice", "bob"):
            for _ in range(2):
                await left(await world.client(PrincipalId(name)))
        world.clock.advance(601)
        await world.client(PrincipalId("three/a"))


async def test_what_counts_goes_with_the_sessions() -> None:
    async with open_world(limits_of(sessions=4, principal_share=0.5, idle_timeout=100)) as world:
        for _ in range(4):
            await left(await world.client())
        world.clock.advance(200)
        await settle()
        assert len(world.node.hub) == 0
        for principal in (ALICE, BOB, BOB, BOB):
            await world.client(principal)
        with pytest.raises(NodeFull):
            await world.client()


async def test_what_a_shared_store_holds_is_lost_to_nobody() -> None:
    async with open_town(limits=limits_of(sessions=2, principal_share=0.5)) as town:
        one = town.worlds[0]
        mine = []
        for _ in range(4):
            mine.append(await left(await one.client()))
            one.clock.advance(0.1)
            await settle()
        assert len(one.node.hub) == 2
        for client in mine:
            await client.connect()
            client.disconnect()
            await settle()
        assert len(one.node.hub) == 2
