"""What is noted of a turn that ends: what was said since the one before, and what was answered."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator

import msgspec
import pytest

from tests.sessions.conversation import Client, World, limits_of, open_world, settle
from unbroken.sessions.backends.memory import MemoryStore
from unbroken.sessions.backends.memory_outbox import MemoryOutbox
from unbroken.sessions.backends.outbox import OutboxLimits
from unbroken.sessions.errors import UnknownFormat
from unbroken.sessions.finished import FinishedTurn, decode_turn, encode_turn
from unbroken.sessions.items import FunctionCall, FunctionOutput, Item, Message, Reasoning
from unbroken.sessions.replica import ActorLimits
from unbroken.sessions.responder import FunctionCallPiece, ReasoningPiece
from unbroken.sessions.run import RunLimits


class Desk:
    """A node whose turns are noted, and a client."""

    def __init__(self, world: World, outbox: MemoryOutbox, client: Client) -> None:
        self.world, self.outbox, self.client = world, outbox, client

    async def answer(self, text: str) -> None:
        self.world.responder.last.say(text)
        self.world.responder.last.end()
        await settle()

    async def turns(self) -> list[FinishedTurn]:
        return [decode_turn(parcel.data) for parcel in await self.outbox.take(0, 100)]


@contextlib.asynccontextmanager
async def open_desk(*, notes_turns: bool = True) -> AsyncIterator[Desk]:
    outbox = MemoryOutbox(OutboxLimits())
    limits = limits_of(actor=ActorLimits(run=RunLimits(), notes_turns=notes_turns))
    async with open_world(limits, MemoryStore(outbox=outbox)) as world:
        yield Desk(world, outbox, await world.client())


def texts(items: tuple[Item, ...] | tuple[Reasoning | Item, ...]) -> list[str]:
    return [item.text for item in items if isinstance(item, Message)]


async def test_each_turn_has_what_was_said_since_the_one_before() -> None:
    async with open_desk() as desk:
        await desk.client.say("one")
        await desk.client.ask("two")
        await desk.answer("first")
        await desk.client.ask("three")
        await desk.answer("second")
        await desk.client.send({"type": "response.create"})  # once more, to the same
        await desk.answer("again")

        turns = await desk.turns()
        assert [texts(turn.input) for turn in turns] == [["one", "two"], ["three"], []]
        assert [texts(turn.output) for turn in turns] == [["first"], ["second"], ["again"]]
        assert [turn.status for turn in turns] == ["completed"] * 3
        assert sorted(turn.place for turn in turns) == [turn.place for turn in turns]
        assert {turn.model for turn in turns} == {"m"}
        assert all(turn.is_attended and turn.in_conversation for turn in turns)
        assert all(turn.ended_at >= turn.asked_at for turn in turns)


async def test_a_turn_that_is_cancelled_has_what_there_was_and_the_next_begins_behind_it() -> None:
    async with open_desk() as desk:
        await desk.client.ask("one")
        desk.world.responder.last.say("hal")
        await settle()
        await desk.client.send({"type": "response.cancel"})
        await desk.client.ask("two")
        await desk.answer("whole")

        cancelled, completed = await desk.turns()
        assert (cancelled.status, cancelled.reason, texts(cancelled.output)) == (
            "cancelled",
            "client",
            ["hal"],
        )
        assert texts(completed.input) == ["two"]


async def test_what_was_said_while_it_ran_belongs_to_the_next() -> None:
    async with open_desk() as desk:
        await desk.client.ask("one")
        await desk.client.say("meanwhile")
        await desk.answer("first")
        await desk.client.send({"type": "response.create"})
        await desk.answer("second")

        assert [texts(turn.input) for turn in await desk.turns()] == [["one"], ["meanwhile"]]


async def test_a_deleted_answer_takes_nothing_that_was_noted_into_the_next() -> None:
    async with open_desk() as desk:
        await desk.client.ask("one")
        await desk.answer("first")
        await desk.client.ask("two")
        await desk.answer("second")
        second = (await desk.turns())[-1].output[0].id
        await desk.client.send({"type": "conversation.item.delete", "item_id": second})
        await desk.client.ask("three")
        await desk.answer("third")

        assert texts((await desk.turns())[-1].input) == ["three"]


async def test_functions_are_noted_with_their_results() -> None:
    async with open_desk() as desk:
        await desk.client.ask("one")
        desk.world.responder.last.say(FunctionCallPiece(0, "{}", "call_1", "look"))
        desk.world.responder.last.end()
        await settle()
        output = {"type": "function_call_output", "call_id": "call_1", "output": "42"}
        await desk.client.send({"type": "conversation.item.create", "item": output})
        await desk.client.send({"type": "response.create"})
        await desk.answer("42")

        call, answer = await desk.turns()
        assert isinstance(call.output[0], FunctionCall)
        assert [type(item) for item in answer.input] == [FunctionOutput]


async def test_beside_the_conversation_there_is_what_was_given() -> None:
    async with open_desk() as desk:
        await desk.client.ask("one")
        await desk.answer("first")
        await desk.client.send({"type": "response.create", "response": {"conversation": "none"}})
        await desk.answer("aside")

        aside = (await desk.turns())[-1]
        assert not aside.in_conversation
        assert (aside.input, texts(aside.output)) == ((), ["aside"])


async def test_thought_is_noted_only_where_it_was_shown() -> None:
    async with open_desk() as desk:
        await desk.client.ask("one")
        desk.world.responder.last.say(ReasoningPiece("hm"))
        await desk.answer("first")

        (turn,) = await desk.turns()
        assert not any(isinstance(item, Reasoning) for item in turn.output)


async def test_nobody_was_there() -> None:
    async with open_desk() as desk:
        await desk.client.ask("one")
        desk.client.disconnect()
        await desk.answer("first")

        (parcel,) = await desk.outbox.take(0, 10)
        assert not parcel.is_attended


async def test_where_turns_are_not_noted_nothing_is_there() -> None:
    async with open_desk(notes_turns=False) as desk:
        await desk.client.ask("one")
        await desk.answer("first")

        assert await desk.turns() == []


async def test_what_a_later_release_wrote_is_not_guessed_at() -> None:
    async with open_desk() as desk:
        await desk.client.ask("one")
        await desk.answer("first")
        (turn,) = await desk.turns()
        assert decode_turn(encode_turn(turn)) == turn
        for data in (encode_turn(msgspec.structs.replace(turn, v=2)), b"{}", b"no"):
            with pytest.raises(UnknownFormat):
                decode_turn(data)
        known = msgspec.json.decode(encode_turn(turn))
        assert decode_turn(msgspec.json.encode({**known, "more": 1})) == turn
