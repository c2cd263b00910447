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
