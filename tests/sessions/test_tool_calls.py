"""Calls of the server's tools in the log: written before they run, and never run twice."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from typing import Any

import pytest

from tests.fakes.store import DistantStore
from tests.sessions.conversation import Client, World, limits_of, open_world, settle
from unbroken.sessions.backends.base import Append
from unbroken.sessions.backends.memory import MemoryStore
from unbroken.sessions.entries import Entry, ToolStarted
from unbroken.sessions.errors import LostTail, StoreError
from unbroken.sessions.ids import ItemId
from unbroken.sessions.items import ApprovalHead, ToolCall, ToolHead
from unbroken.sessions.responder import (
    AsksApproval,
    Output,
    ReasoningPiece,
    RunsTools,
    ToolCallPiece,
    ToolEnded,
    Turn,
    Working,
)

MAIL = ToolHead("mail", "tools")
A, REQUEST = ItemId("item_a"), ItemId("item_r")


@pytest.fixture
async def world() -> AsyncIterator[World]:
    async with open_world() as opened:
        yield opened


async def say(world: World, *pieces: Output) -> None:
    world.responder.last.say(*pieces)
    await settle()


async def crash(world: World, client: Client) -> None:
    """Lose the session's owner, and have the session built anew from its log."""
    client.disconnect()
    next(iter(world.node.hub)).feed.end(LostTail("planted"))
    await client.resume()
    await settle()
    client.read()


def call_in(world: World) -> ToolCall:
    (call,) = [item for item in next(iter(world.node.hub)).session.items() if isinstance(item, ToolCall)]
    return call


class Careful:
    """A responder that notes when it may run its tool."""

    def __init__(self) -> None:
        self.has_run = False

    async def respond(self, turn: Turn) -> AsyncGenerator[Output, None]:
        yield ToolCallPiece(A, "{}", MAIL)
        yield RunsTools((A,))
        self.has_run = True
        yield ToolEnded(A, "sent")


@pytest.mark.parametrize("seed", range(5))
async def test_a_tool_runs_once_the_log_says_so(seed: int) -> None:
    """With a store behind a network: the entry is in it before the tool is run."""
    store, careful = DistantStore(MemoryStore(), seed), Careful()
    async with open_world(store=store) as world:
        world.node._responder = careful
        client = await world.client()
        await client.ask()
        client.read()

    kinds = client.types()
    assert careful.has_run
    assert kinds.index("response.mcp_call.in_progress") < kinds.index("response.mcp_call.completed")


async def test_a_tool_is_not_run_when_that_cant_be_written() -> None:
    store, careful = DistantStore(MemoryStore()), Careful()
    async with open_world(store=store) as world:
        world.node._responder = careful
        client = await world.client()
        await client.say("hello")
        append, failed = store.append, False

        async def failing(appends: Sequence[Append]) -> list[Sequence[Entry] | StoreError]:
            nonlocal failed
            if any(isinstance(body, ToolStarted) for each in appends for body in each.bodies):
                failed = True
                store.fail_next_append(StoreError("planted"))
            return await append(appends)

        store.append = failing  # type: ignore[method-assign]
        await client.send({"type": "response.create"})

    assert failed
    assert not careful.has_run


async def test_what_had_started_when_its_owner_was_lost_is_never_run_again(world: World) -> None:
    client = await world.client()
    await client.ask()
    await say(world, ToolCallPiece(A, "{}", MAIL), RunsTools((A,)))
    await crash(world, client)
    call = call_in(world)
    await client.ask("and now?")

    assert client.statuses() == ["failed"]
    assert call.error is not None
    assert "It may have done its work" in call.error.message
    assert (call.status, call.output) == ("incomplete", None)
    assert len(world.responder.turns) == 2, "the question behind it, and no second attempt"
    assert call in world.responder.last.turn.items


async def test_what_had_not_started_is_said_not_to_have_run(world: World) -> None:
    client = await world.client()
    await client.ask()
    await say(world, ToolCallPiece(A, "{", MAIL))
    await crash(world, client)
    call = call_in(world)

    assert call.error is not None
    assert call.error.message == "The tool was not run: the response ended first."
    assert call.arguments == "{"


async def approve(client: Client) -> None:
    item = {"type": "mcp_approval_response", "approval_request_id": REQUEST, "approve": True}
    await client.send({"type": "conversation.item.create", "item": item})


@pytest.mark.parametrize("started", [False, True])
async def test_an_approved_call_is_begun_once_ever(world: World, *, started: bool) -> None:
    """Also when its owner is lost, before or after the tool was started."""
    client = await world.client()
    await client.ask()
    await say(world, AsksApproval(REQUEST, ApprovalHead("mail", "tools", "{}")))
    world.responder.last.end()
    await settle()
    await approve(client)
    await client.send({"type": "response.create"})
    (request,) = world.responder.last.turn.approved
    await say(world, ToolCallPiece(A, "{}", ToolHead("mail", "tools", REQUEST)))
    if started:
        await say(world, RunsTools((A,)))
    await crash(world, client)
    await approve(client)
    await client.send({"type": "response.create"})

    assert (request.id, request.arguments) == (REQUEST, "{}")
    assert world.responder.last.turn.approved == ()
    assert call_in(world).approval == REQUEST
    client.read()
    assert client.errors() == ["approval_answered"]


async def test_only_an_answer_of_the_conversation_runs_what_is_approved(world: World) -> None:
    client = await world.client()
    await client.ask()
    await say(world, AsksApproval(REQUEST, ApprovalHead("mail", "tools", "{}")))
    world.responder.last.end()
    await settle()
    await approve(client)
    others: list[dict[str, Any]] = [{"conversation": "none"}, {"input": []}]
    for response in others:
        await client.send({"type": "response.create", "response": response})
        assert world.responder.last.turn.approved == ()
        world.responder.last.end()
        await settle()
    await client.send({"type": "response.create"})

    assert len(world.responder.last.turn.approved) == 1


async def test_a_request_can_be_answered_while_its_response_goes_on(world: World) -> None:
    """And is run by the next response, not by that one."""
    client = await world.client()
    await client.ask()
    await say(world, AsksApproval(REQUEST, ApprovalHead("mail", "tools", "{}")), "Shall I?")
    await approve(client)
    client.read()

    assert client.errors() == []
    assert world.responder.last.turn.approved == ()


async def test_an_output_that_ended_may_be_deleted_while_its_response_goes_on(world: World) -> None:
    client = await world.client()
    await client.ask()
    await say(world, "One", ToolCallPiece(A, "{}", MAIL), RunsTools((A,)), ToolEnded(A, "sent"))
    client.read()
    first = client.of_type("response.output_item.done")[0]["item"]["id"]
    for item_id in (A, first):
        await client.send({"type": "conversation.item.delete", "item_id": item_id})
    await say(world, "Two")
    world.responder.last.end()
    await settle()
    client.read()

    session = next(iter(world.node.hub)).session
    assert [item.text for item in session.items()] == ["hello", "Two"]
    (added,) = [
        frame
        for frame in client.of_type("conversation.item.added")
        if frame["item"]["id"] == session.items()[1].id
    ]
    assert added["previous_item_id"] == session.items()[0].id
    assert client.errors() == []
    assert client.statuses() == ["completed"]


async def test_pieces_after_a_cancel_are_dropped_and_the_tool_is_not_run(world: World) -> None:
    client = await world.client()
    await client.ask()
    world.responder.last.ignores_cancel = True
    await say(world, ToolCallPiece(A, "{}", MAIL))
    await client.send({"type": "response.cancel"})
    await say(world, RunsTools((A,)))
    world.clock.advance(10)
    await settle()
    client.read()

    assert client.statuses() == ["cancelled"]
    call = call_in(world)
    assert call.error is not None
    assert "not run" in call.error.message


async def test_reasoning_stays_out_of_a_session_that_didnt_ask() -> None:
    async with open_world(limits_of()) as world:
        client = await world.client()
        await client.ask()
        await say(world, ReasoningPiece("Hm"), "One")
        log = next(iter(world.node.hub)).log

    assert "Hm" not in repr(log.read(0, 1000))


async def test_what_runs_is_not_taken_to_be_stalled_while_it_works(world: World) -> None:
    client = await world.client()
    await client.ask()
    await say(world, ToolCallPiece(A, "{}", MAIL), RunsTools((A,)))
    for _ in range(5):
        world.clock.advance(50)
        await say(world, Working())
    await say(world, ToolEnded(A, "sent"))
    world.responder.last.end()
    await settle()
    client.read()

    assert client.statuses() == ["completed"]
