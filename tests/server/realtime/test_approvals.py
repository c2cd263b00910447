"""Calls of the server's tools that somebody is asked about first."""

from __future__ import annotations

import pytest

from tests.server.realtime.agent import ManualAgent
from tests.server.realtime.client import Frame
from tests.server.realtime.desk import approval, asked, at_desk, outputs_of
from tests.server.realtime.serving import eventually
from unbroken.server.agents.base import (
    FunctionCallPiece,
)


async def test_what_is_approved_of_is_run_once() -> None:
    async with at_desk() as (desk, served):
        client = await served.client()
        request = await asked(client)
        assert (desk.runs, request["arguments"]) == ([], '{"to": "Ada"}')
        other = await served.tab(client)
        await other.send(approval(request, arguments='{"to": "Eve"}'))
        await other.until("conversation.item.done")
        await client.send({"type": "response.create"})
        call, answer = (await client.done())["output"]
        await client.send(approval(request))
        refused = await client.error()
        await client.send({"type": "response.create"})
        await client.done()

    assert (call["approval_request_id"], call["output"]) == (request["id"], "Sent to Ada.")
    assert answer["content"][0]["text"] == "Returned: Sent to Ada."
    assert (refused["code"], refused["param"]) == ("approval_answered", "item.approval_request_id")
    assert desk.runs == [("mail", call["id"])]
    client.answers()


async def test_what_is_refused_is_told_to_the_model() -> None:
    async with at_desk() as (desk, served):
        client = await served.client()
        request = await asked(client)
        await client.send(approval(request, approve=False, reason="Too early."))
        await client.send({"type": "response.create"})
        (answer,) = (await client.done())["output"]

    said = "Returned: The user doesn't want this to be done. They say: Too early."
    assert answer["content"][0]["text"] == said
    assert desk.runs == []


@pytest.mark.parametrize(
    ("fields", "code", "param"),
    [
        ({"approval_request_id": "gone"}, "item_not_found", "item.approval_request_id"),
        ({"approval_request_id": None}, "invalid_event", "item.approval_request_id"),
        ({"approval_request_id": "question"}, "item_not_found", "item.approval_request_id"),
        ({"approve": None}, "invalid_event", "item.approve"),
        ({"reason": "x" * 2049}, "invalid_event", "item.reason"),
    ],
)
async def test_an_approval_of_nothing_is_refused(fields: Frame, code: str, param: str) -> None:
    async with at_desk() as (desk, served):
        client = await served.client()
        await client.say("hi", item_id="question")
        request = await asked(client)
        await client.send(approval(request, **fields))
        error = await client.error()
        await client.send({"type": "response.create"})
        await client.done()

    assert (error["code"], error["param"]) == (code, param)
    assert desk.runs == []


async def test_all_that_is_approved_of_is_run_however_much_at_once() -> None:
    async with at_desk(tool_calls=2) as (desk, served):
        client = await served.client()
        await client.ask("\n".join(f'/call mail {{"to": "{n}"}}' for n in range(3)))
        for request in (await client.done())["output"]:
            await client.send(approval(request))
        await client.send({"type": "response.create"})
        calls = outputs_of(await client.done(), "mcp_call")

    assert [call["output"] for call in calls] == ["Sent to 0.", "Sent to 1.", "Sent to 2."]
    assert len(desk.runs) == 3


async def test_a_call_that_was_approved_of_is_no_first_token() -> None:
    agent = ManualAgent()
    async with at_desk(agent) as (_, served):
        client = await served.client()
        await client.ask("go")
        (turn := await agent.turn()).say(FunctionCallPiece(0, '{"to": "Ada"}', "k", "mail"))
        turn.end()
        (request,) = (await client.done())["output"]
        await client.send(approval(request), {"type": "response.create"})
        await client.until("response.mcp_call.completed")
        turn = await agent.turn(1)
        waits = "unbroken_time_to_first_token_seconds_count 1.0"
        assert waits in served.app.metrics.exposition().decode()
        turn.say("Sent.")
        turn.end()
        await client.done()
        assert waits not in served.app.metrics.exposition().decode()


@pytest.mark.parametrize("which", [0, 1, 2], ids=["the request", "the response", "the call"])
async def test_deleting_one_of_them_deletes_all_and_runs_nothing(which: int) -> None:
    """Were the call deleted and its approval not, the next response would run it again."""
    async with at_desk() as (desk, served):
        client = await served.client()
        request = await asked(client)
        await client.send(approval(request, id="yes"))
        await client.send({"type": "response.create"})
        call = (await client.done())["output"][0]
        items = [request["id"], "yes", call["id"]]
        await client.send({"type": "conversation.item.delete", "item_id": items[which]})
        await eventually(lambda: True)
        for _ in items:
            await client.until("conversation.item.deleted")
        await client.ask("more")
        await client.done()

    assert {frame["item_id"] for frame in client.of("conversation.item.deleted")} == set(items)
    assert len(desk.runs) == 1


async def test_nobody_is_asked_about_a_call_that_makes_no_sense() -> None:
    """Clients parse the arguments that they show."""
    async with at_desk() as (desk, served):
        client = await served.client()
        await client.ask("/call mail {")
        call, answer = (await client.done())["output"]

    assert (call["type"], call["arguments"]) == ("mcp_call", "{")
    assert call["error"]["message"] == "The arguments aren't JSON. Nothing was done."
    assert answer["content"][0]["text"] == "Returned: Error: The arguments aren't JSON. Nothing was done."
    assert desk.runs == []
    client.answers()


ENDLESS = {
    "arguments": [FunctionCallPiece(0, "{", "k", "mail"), *70 * [FunctionCallPiece(0, 1000 * " ")]],
    "the first piece": [FunctionCallPiece(0, 70_000 * " ", "k", "mail")],
    "calls": [FunctionCallPiece(number, "{}", "", "mail") for number in range(200)],
}


@pytest.mark.parametrize("pieces", ENDLESS.values(), ids=ENDLESS)
async def test_calls_that_nobody_is_shown_have_an_end(pieces: list[FunctionCallPiece]) -> None:
    agent = ManualAgent()
    async with at_desk(agent) as (_, served):
        client = await served.client()
        await client.ask("go")
        turn = await agent.turn()
        turn.say(*pieces)
        response = await client.done()

    assert response["status"] == "failed"
    assert turn.was_stopped


async def test_an_answer_beside_the_conversation_asks_for_no_approval() -> None:
    agent = ManualAgent()
    async with at_desk(agent) as (_, served):
        client = await served.client()
        await client.ask("go", conversation="none")
        (turn := await agent.turn()).end()
        await client.done()

    names = [each.name for each in turn.given.tools]
    assert "weather" in names
    assert "mail" not in names
