"""A second message while a response runs (C9), under each policy that a session can have."""

from __future__ import annotations

from tests.server.realtime.agent import HeldTurn, ManualAgent
from tests.server.realtime.client import Client
from tests.server.realtime.serving import Served


async def with_policy(manual: Served[ManualAgent], policy: str) -> tuple[Client, HeldTurn]:
    """Return a client that asks for a second response while the first runs."""
    client = await manual.client()
    session = {"type": "realtime", "unbroken": {"concurrency": policy}}
    await client.send({"type": "session.update", "session": session})
    await client.ask("one")
    turn = await manual.agent.turn()
    turn.say("first ")
    await client.said("first ")
    await client.ask("two", metadata={"turn": "2"})
    return client, turn


async def test_c9_a_second_request_is_rejected(manual: Served[ManualAgent]) -> None:
    """The message itself is taken."""
    client, turn = await with_policy(manual, "reject")
    error = await client.error()
    turn.end()
    await client.done()

    assert error["code"] == "conversation_already_has_active_response"
    assert client.answers() == [("completed", "first ")]
    assert len(manual.agent.turns) == 1
    assert len(client.of("conversation.item.done")) == 3


async def test_c9_a_second_request_is_queued(manual: Served[ManualAgent]) -> None:
    client, turn = await with_policy(manual, "queue")
    await client.sync()
    assert len(manual.agent.turns) == 1
    turn.end()
    await client.done()
    second = await manual.agent.turn(1)
    second.say("second")
    second.end()
    response = await client.done()

    assert client.answers() == [("completed", "first "), ("completed", "second")]
    assert response["metadata"] == {"turn": "2"}
    assert [each.text for each in second.given.messages] == ["one", "first ", "two"]


async def test_c9_a_queued_request_is_cancelled(manual: Served[ManualAgent]) -> None:
    """Stop without a name stops what runs and what waits."""
    client, _ = await with_policy(manual, "queue")
    await client.sync()
    await client.cancel()
    await client.done()
    await client.done()

    assert sorted(client.answers()) == [("cancelled", ""), ("cancelled", "first ")]
    assert len(manual.agent.turns) == 1


async def test_c9_a_second_request_interrupts(manual: Served[ManualAgent]) -> None:
    client, turn = await with_policy(manual, "interrupt")
    first = await client.done()
    second = await manual.agent.turn(1)
    second.say("second")
    second.end()
    await client.done()

    assert first["unbroken"] == {"reason": "superseded"}
    assert client.answers() == [("cancelled", "first "), ("completed", "second")]
    assert turn.was_stopped


async def test_c9_queued_requests_have_a_bound(manual: Served[ManualAgent]) -> None:
    """And run in order."""
    client, turn = await with_policy(manual, "queue")
    for _ in range(9):
        await client.send({"type": "response.create"})
    assert (await client.error())["code"] == "response_queue_full"
    await client.sync()
    turn.end()
    for number in range(1, 9):
        waiting = await manual.agent.turn(number)
        waiting.say(str(number))
        waiting.end()
    for _ in range(9):
        await client.done()

    texts = ["first ", *(str(number) for number in range(1, 9))]
    assert client.answers() == [("completed", text) for text in texts]


async def test_c9_a_storm_of_interrupts_leaves_one_winner(manual: Served[ManualAgent]) -> None:
    """Each request supersedes the one before; the last is answered."""
    client, _ = await with_policy(manual, "interrupt")
    for _ in range(20):
        await client.send({"type": "response.create"})
    await client.sync()
    while manual.agent.turns[-1].was_stopped or len(client.of("response.done")) < 21:
        await client.done()
    winner = manual.agent.turns[-1]
    winner.say("last")
    winner.end()
    while not client.text().endswith("last"):
        await client.next()
    await client.done()

    answers = client.answers()
    assert answers[-1] == ("completed", "last")
    assert {status for status, _ in answers[:-1]} == {"cancelled"}
    assert len(answers) == 22


async def test_c9_requests_are_merged(manual: Served[ManualAgent]) -> None:
    """Each of their senders is told by the same response, which names them; a resend is no further one."""
    client = await manual.client()
    other = await manual.tab(client)
    session = {"type": "realtime", "unbroken": {"concurrency": "merge"}}
    await client.send({"type": "session.update", "session": session})
    await client.ask("one")
    first = await manual.agent.turn()
    await client.say("two")
    asked = {"type": "response.create", "event_id": "a", "unbroken": {"message_id": "m"}}
    await client.send(asked)
    await client.sync()
    await other.say("three")
    await other.send({**asked, "event_id": "again"}, {"type": "response.create", "event_id": "b"})
    await other.sync()
    await client.drop()
    await client.resume()
    await client.send(asked, {"type": "response.create"})
    await client.sync()
    await client.say("four")
    await client.sync()
    first.say("first")
    first.end()
    second = await manual.agent.turn(1)
    second.say("second")
    second.end()
    for each in (client, other):
        await each.done()
        response = await each.done()

        assert each.answers() == [("completed", "first"), ("completed", "second")]
        assert set(each.errors()) == {"item_not_found"}, "those that `sync` asked for"
        for told in (response, each.of("response.created")[-1]["response"]):
            assert told["unbroken"]["requests"] == [{"event_id": "a"}, {"event_id": "b"}, {}]
    assert [each.text for each in second.given.messages] == ["one", "first", "two", "three", "four"]
    assert len(manual.agent.turns) == 2


async def test_c9_merged_requests_are_cancelled_together(manual: Served[ManualAgent]) -> None:
    client, _ = await with_policy(manual, "merge")
    await client.send({"type": "response.create", "response": {"metadata": {"turn": "2"}}})
    await client.sync()
    await client.cancel()
    responses = [await client.done(), await client.done()]

    assert {response["status"] for response in responses} == {"cancelled"}
    assert [len(response.get("unbroken", {}).get("requests", ())) for response in responses].count(2) == 1
    assert len(manual.agent.turns) == 1


async def test_c9_who_starts_over_is_told_what_a_merged_response_answers(manual: Served[ManualAgent]) -> None:
    client, first = await with_policy(manual, "merge")
    await client.send({"type": "response.create", "event_id": "b", "response": {"metadata": {"turn": "2"}}})
    await client.sync()
    first.end()
    second = await manual.agent.turn(1)
    second.say("so far")
    await client.said("so far")
    await client.drop()
    await client.resume(after="event_of_another_log")
    created = await client.until("response.created")
    second.end()
    await client.done()

    assert client.resumed is False
    assert created["response"]["unbroken"]["requests"] == [{}, {"event_id": "b"}]
    assert client.answers() == [("completed", "so far")]
