"""What a client is shown that comes back with, without, or with a useless cursor."""

from __future__ import annotations

import pytest

from tests.sessions.conversation import open_world, settle
from tests.sessions.town import actor_on, answered, asked, come_back, open_town, tab_on, texts

near_or_far = pytest.mark.parametrize("seed", [None, 1, 2])


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


@near_or_far
async def test_who_has_seen_the_new_log_is_not_shown_the_one_of_before(seed: int | None) -> None:
    """Where it comes back to, nobody has heard that the session was lost and begun anew."""
    async with open_town(seed=seed) as town:
        one, two, client = await answered(town)
        client.read()
        await tab_on(two, client)
        town.is_silent = True
        town.lose()
        actor_on(one, client).look()
        await settle()
        await client.resume()
        await client.ask("more")
        one.responder.last.say("c")
        one.responder.last.end()
        await settle()
        client.read()

        client.disconnect()
        await come_back(client, two)
        assert client.resumed
        assert texts(two, client) == ["hello", "ab", "more", "c"]


@near_or_far
async def test_who_has_seen_more_elsewhere_resumes_on_a_node_that_takes_itself_for_the_owner(
    seed: int | None,
) -> None:
    """It was cut off from the others, which have taken its session; and hasn't noticed."""
    async with open_town(seed=seed) as town:
        one, two, client = await asked(town)
        await tab_on(one, client)  # so that it isn't passed on
        client.disconnect()
        await come_back(client, two)
        town.is_silent = True
        one.responder.last.end()
        await settle()
        client.read()
        town.notice(one)
        await settle()
        await client.ask("more")
        two.responder.last.say("c")
        await settle()
        client.read()
        assert actor_on(one, client).is_owner

        client.disconnect()
        await come_back(client, one)
        assert client.resumed
        assert not actor_on(one, client).is_owner
