"""Sessions that nobody comes back to: they go as soon as nothing is left to do there, and not before."""

from __future__ import annotations

from tests.sessions.conversation import Client, open_world, settle


def drop(client: Client) -> None:
    assert client.attachment is not None
    client.attachment.drop()


async def test_one_at_rest_goes_at_once() -> None:
    async with open_world() as world:
        spoken, empty = await world.client(), await world.client()
        await spoken.say("hello")
        assert len(world.node.hub) == 2

        drop(spoken)
        drop(empty)
        await settle()

        assert (len(world.node.hub), world.node.hub.size) == (0, 0)


async def test_one_with_a_response_goes_when_that_has_ended() -> None:
    async with open_world() as world:
        client = await world.client()
        await client.ask()

        drop(client)
        await settle()
        assert len(world.node.hub) == 1
        world.responder.turns[0].end()
        await settle()

        assert len(world.node.hub) == 0
        assert world.ended == ["completed"]


async def test_one_that_somebody_else_watches_goes_with_them() -> None:
    async with open_world() as world:
        client = await world.client()
        await client.say("hello")
        other = Client(world)
        other.session_id = client.session_id
        await other.connect()

        drop(client)
        await settle()
        assert len(world.node.hub) == 1
        other.disconnect()
        await settle()

        assert len(world.node.hub) == 0
