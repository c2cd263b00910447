"""What a node counts for its sessions is what they take: its bound is one on memory."""

from __future__ import annotations

import gc
import tracemalloc
from collections.abc import AsyncGenerator, Awaitable, Callable
from typing import Final

import pytest

from tests.fakes.clock import FakeClock
from tests.sessions.conversation import limits_of, settle
from unbroken.sessions.account import Account
from unbroken.sessions.backends.memory import MemoryStore
from unbroken.sessions.entries import (
    CreateItem,
    CreateResponse,
    DeleteItem,
    Entry,
    InputKey,
    ItemAdded,
    ItemDeleted,
    Submitted,
    UpdateConfig,
)
from unbroken.sessions.ids import (
    ItemId,
    Nonce,
    PrincipalId,
    new_chain_id,
    new_item_id,
    new_response_id,
    new_session_id,
)
from unbroken.sessions.items import ApprovalHead, Message, ResponseRequest, SessionConfig, Text, ToolHead
from unbroken.sessions.node import Attachment, Node
from unbroken.sessions.responder import (
    AsksApproval,
    Output,
    ReasoningPiece,
    Responder,
    RunsTools,
    ToolCallPiece,
    ToolEnded,
    Turn,
)

SESSIONS: Final = 8


class Verbose:
    """Answers at length, differently each time."""

    def __init__(self) -> None:
        self.calls = 0

    async def respond(self, turn: Turn) -> AsyncGenerator[Output, None]:
        self.calls += 1
        for number in range(300):
            yield f"{self.calls} word {number} of many, "


class Busy:
    """Thinks at length, and has tools run that return much; what it says itself is short."""

    def __init__(self) -> None:
        self.calls = 0

    async def respond(self, turn: Turn) -> AsyncGenerator[Output, None]:
        self.calls += 1
        text = turn.config.instructions  # says what to do
        for number in range(10):
            if text == "think":
                yield ReasoningPiece("".join((3_000 * "t", str(self.calls), str(number))))
                yield "so"
                continue
            item_id = new_item_id()
            arguments = "".join(('{"a": "', 3_000 * "a", str(self.calls), str(number), '"}'))
            if text == "ask":
                yield AsksApproval(item_id, ApprovalHead("f", "tools", arguments))
                continue
            yield ToolCallPiece(item_id, arguments if text == "arguments" else "{}", ToolHead("f", "tools"))
            yield RunsTools((item_id,))
            result = "short" if text == "arguments" else "".join((8_000 * "r", str(self.calls), str(number)))
            yield ToolEnded(item_id, result)


class World:
    def __init__(self) -> None:
        self.responder: Responder = Verbose()
        self.node = Node(
            store=MemoryStore(),
            responder=self,
            clock=FakeClock(),
            limits=limits_of(),
            on_response=lambda _session, _done: None,
        )
        self._sent = 0

    def respond(self, turn: Turn) -> AsyncGenerator[Output, None]:
        return self.responder.respond(turn)

    async def begin(self, instructions: str = "") -> Attachment:
        config = SessionConfig("m", instructions=instructions, reasoning=True)
        return await self.node.create(PrincipalId("alice"), config, new_chain_id())

    async def send(self, session: Attachment, command: object) -> None:
        self._sent += 1
        name = f"message-{self._sent}"
        key = InputKey(name, name.encode())
        await session.submit(Submitted(command, session.cursor.chain, name, key))  # type: ignore[arg-type]
        await settle(3)

    async def say(self, session: Attachment, text: str) -> ItemId:
        item = Message(new_item_id(), "user", (Text(f"{text}{self._sent}"),))
        await self.send(session, CreateItem(item, None))
        return item.id


Use = Callable[[World], Awaitable[Attachment]]


async def nothing(world: World) -> Attachment:
    return await world.begin()


async def one_message(world: World) -> Attachment:
    session = await world.begin()
    await world.say(session, "hello")
    return session


async def many_messages(world: World) -> Attachment:
    session = await world.begin()
    for _ in range(100):
        await world.say(session, "hello")
    return session


async def long_messages(world: World) -> Attachment:
    session = await world.begin()
    for _ in range(10):
        await world.say(session, 5_000 * "x")
    return session


async def other_alphabet(world: World) -> Attachment:
    session = await world.begin()
    for _ in range(10):
        await world.say(session, 2_000 * "\u4e16")
    return session


async def deleted_messages(world: World) -> Attachment:
    """They are in no conversation any more, and yet in the log."""
    session = await world.begin()
    for _ in range(10):
        await world.send(session, DeleteItem(await world.say(session, 5_000 * "x")))
    return session


async def messages_twice(world: World) -> Attachment:
    """The second of each id is refused, and yet in the log."""
    session = await world.begin()
    item_id = await world.say(session, "hello")
    for number in range(10):
        item = Message(item_id, "user", (Text(5_000 * "y" + str(number)),))
        await world.send(session, CreateItem(item, None))
    return session


async def refusals(world: World) -> Attachment:
    session = await world.begin()
    for number in range(300):
        await world.send(session, DeleteItem(f"no-such-item-{number}"))
    return session


async def instructions(world: World) -> Attachment:
    return await world.begin("".join(("be kind", 20_000 * "!")))


async def new_instructions(world: World) -> Attachment:
    session = await world.begin()
    for number in range(5):
        await world.send(session, UpdateConfig(instructions=8_000 * "!" + str(number)))
    return session


async def answers(world: World) -> Attachment:
    session = await world.begin()
    await world.say(session, "hello")
    for _ in range(3):
        await world.send(session, CreateResponse(new_response_id(new_session_id(), 0), ResponseRequest()))
        await settle(100)
    return session


async def answers_beside(world: World) -> Attachment:
    session = await world.begin()
    for _ in range(3):
        item = Message(new_item_id(), "user", (Text("".join((5_000 * "z", str(_)))),))
        request = ResponseRequest(in_conversation=False, input=(item,))
        await world.send(session, CreateResponse(new_response_id(new_session_id(), 0), request))
        await settle(100)
    return session


def busy(what: str, *, in_conversation: bool) -> Use:
    async def use(world: World) -> Attachment:
        if not isinstance(world.responder, Busy):
            world.responder = Busy()
        session = await world.begin(what)
        await world.say(session, "hello")
        request = ResponseRequest(in_conversation=in_conversation)
        await world.send(session, CreateResponse(new_response_id(new_session_id(), 0), request))
        await settle(100)
        return session

    use.__name__ = what if in_conversation else f"{what}_beside"
    return use


USES: Final[list[Use]] = [
    nothing,
    one_message,
    many_messages,
    long_messages,
    other_alphabet,
    deleted_messages,
    messages_twice,
    refusals,
    instructions,
    new_instructions,
    answers,
    answers_beside,
    *(busy(what, in_conversation=True) for what in ("think", "results", "arguments", "ask")),
    *(busy(what, in_conversation=False) for what in ("think", "results", "arguments")),
]


@pytest.mark.long
@pytest.mark.parametrize("use", USES)
async def test_it_is_right_within_a_factor_of_two(use: Use) -> None:
    world = World()
    async with world.node:
        sessions = [await use(world)]  # what is made once is no session's
        await settle()
        gc.collect()
        counted = world.node.hub.size
        tracemalloc.start()
        try:
            sessions += [await use(world) for _ in range(SESSIONS)]
            await settle()
            for actor in world.node.hub:
                world.node.hub.account(actor)
            for session in sessions:
                session.close()
            sessions.clear()
            gc.collect()
            taken = tracemalloc.get_traced_memory()[0]
        finally:
            tracemalloc.stop()
        counted = world.node.hub.size - counted

    assert taken / 2 <= counted <= taken * 2, f"{counted / taken:.2f} of {taken / SESSIONS:.0f} bytes"


async def test_what_is_remembered_of_inputs_is_bounded_and_counted() -> None:
    store = MemoryStore(dedupe_window=3)
    world = World()
    world.node = Node(
        store=store,
        responder=Verbose(),
        clock=FakeClock(),
        limits=limits_of(),
        on_response=lambda _session, _done: None,
    )
    async with world.node:
        session = await world.begin()
        sizes = []
        for _ in range(5):
            await world.say(session, "hello")
            sizes.append(store.keys_bytes(session.session.id))

        assert sizes[0] > 0
        assert sizes == [sizes[0], 2 * sizes[0], 3 * sizes[0], 3 * sizes[0], 3 * sizes[0]]
        assert store.keys_bytes(new_response_id(new_session_id(), 0)) == 0  # type: ignore[arg-type]  # any other name


def test_what_the_log_has_forgotten_is_not_subtracted_any_more() -> None:
    account = Account()
    message = Message(ItemId("i"), "user", (Text(5_000 * "x"),))
    account.note(Entry(2, Nonce(1), ItemAdded(message, None, 1)), 0)
    assert account.repeated == 10_000
    account.note(Entry(4, Nonce(1), ItemDeleted(ItemId("i"), 3)), message.size)
    assert account.repeated == 5_000, "the conversation doesn't count it any more"
    account.forget(1)
    assert account.repeated == 5_000
    account.forget(2)
    account.forget(4)
    assert account.repeated == 0
