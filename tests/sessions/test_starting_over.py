"""What a client is shown that comes back with, without, or with a useless cursor."""

from __future__ import annotations

from tests.sessions.conversation import open_world


async def test_old_refusals_are_repeated_only_to_whoever_knows_what_was_refused() -> None:
    """A page that was reloaded starts from nothing: errors of its former life would only confuse it."""
    async with open_world() as world:
        client = await world.client()
        await client.send({"type": "response.cancel", "event_id": "late"})
        before = client.last_id
        assert [frame["type"] for frame in client.read()] == ["error"]

        client.disconnect()
        await client.connect()
        client.read()
        assert client.errors() == []
        await client.send({"type": "response.cancel", "event_id": "again"})
        assert [frame["error"]["event_id"] for frame in client.read()] == ["again"]

        client.disconnect()
        await client.connect(after=before)
        assert "late" in [frame["error"]["event_id"] for frame in client.read() if "error" in frame]


async def test_a_response_that_ended_while_it_waited_is_shown_whole() -> None:
    async with open_world() as world:
        client = await world.client()
        await client.send({"type": "session.update", "session": {"unbroken": {"concurrency": "queue"}}})
        await client.ask()
        await client.send({"type": "response.create"})
        await client.send({"type": "response.cancel"})
        client.read()

        created = [frame["response"] for frame in client.of_type("response.created")]
        done = [frame["response"] for frame in client.of_type("response.done")]
        assert [response["status"] for response in done] == ["cancelled", "cancelled"]
        assert {each["id"]: each["conversation_id"] for each in created} == {
            each["id"]: each["conversation_id"] for each in done
        }
        assert len(world.responder.turns) == 1
