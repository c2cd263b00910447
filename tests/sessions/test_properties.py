"""Whatever happens in whatever order, a conversation stays whole.

A machine of random steps: clients that speak, cancel, vanish between any two
frames and come back from the last id they saw; a responder that says pieces,
ends, fails or crashes; inputs from another node; an owner that is lost. After
each step the log is checked, and at the end every client's view.
"""

from __future__ import annotations

import asyncio
import random
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from tests.fakes.store import DistantStore
from tests.sessions.conversation import Client, World, limits_of, settle
from unbroken.sessions.backends.base import Opened
from unbroken.sessions.backends.memory import MemoryStore
from unbroken.sessions.entries import CreateItem, Deltas, Entry, OutputDone, ResponseDone, Submitted
from unbroken.sessions.errors import CursorLost, LostTail, ResponderError, SessionError
from unbroken.sessions.event_log import EventLog, Position
from unbroken.sessions.ids import ChainId, ItemId, SessionId, new_item_id
from unbroken.sessions.items import (
    ApprovalHead,
    FunctionCall,
    FunctionOutput,
    Message,
    Text,
    ToolCall,
    ToolError,
    ToolHead,
)
from unbroken.sessions.replica import ActorLimits
from unbroken.sessions.responder import (
    AsksApproval,
    FunctionCallPiece,
    ReasoningPiece,
    RunsTools,
    ToolCallPiece,
    ToolEnded,
)
from unbroken.sessions.run import RunLimits
from unbroken.sessions.session import Session, SessionLimits

TOOLS = ["mcp_call", "mcp_approval_request", "mcp_approval_response"]
PIECES = ["", "a", "bc", " def", "é", "😀", "\n", "x" * 40]


class Conversation(RuleBasedStateMachine):
    """One session, from all sides."""

    @initialize(
        seed=st.integers(0, 2**16),
        retain=st.sampled_from([500, 2_000, 50_000]),
        distant=st.booleans(),
        policy=st.sampled_from(["reject", "queue", "interrupt", "merge"]),
    )
    def begin(self, seed: int, retain: int, distant: bool, policy: str) -> None:
        self.loop = asyncio.new_event_loop()
        self.memory = memory = MemoryStore()
        # A log's size depends on its nonces, and where it is cut on its size: steps must be the same again.
        memory._draw = random.Random(seed).getrandbits
        self.distant = DistantStore(memory, seed)
        limits = limits_of(
            actor=ActorLimits(run=RunLimits(), retain_bytes=retain, log_bytes=retain * 2),
            session=SessionLimits(weigh=lambda item: item.size),
            connections_per_session=20,
        )
        self.world = World(self.distant if distant else memory, limits)
        self.is_distant = distant
        self.named = self.asked = 0
        self.sent: dict[str, str] = {}
        self.tools: dict[str, dict[ItemId, bool]] = {}  # by response: calls that go on, and whether they run
        self.approved: dict[str, set[str]] = {}  # by response: what it has begun of what was approved of
        self.steps = 0
        self.run(self.world.node.__aenter__())
        first = Client(self.world)
        self.run(first.connect())
        first.read()
        self.session_id = SessionId(first.session_id or "")
        self.clients = [first]
        self.send(first, {"type": "session.update", "session": {"unbroken": {"concurrency": policy}}})

    def run(self, work: Any) -> Any:
        return self.loop.run_until_complete(work)

    def settle(self) -> None:
        self.run(settle())

    def send(self, client: Client, event: dict[str, Any]) -> None:
        try:
            self.run(client.send(event))
        except SessionError:  # the session was lost under the connection
            client.disconnect()
        self.settle()

    def read(self, client: Client, count: int | None = None) -> None:
        try:
            client.read(count)
        except (CursorLost, SessionError):
            client.disconnect()

    def connected(self) -> list[Client]:
        return [client for client in self.clients if client.attachment is not None]

    # Steps.

    @precondition(lambda self: len(self.clients) < 4)
    @rule()
    def another_tab(self) -> None:
        client = Client(self.world, self.session_id)
        self.run(client.connect())
        self.clients.append(client)

    @precondition(lambda self: self.connected())
    @rule(data=st.data(), again=st.booleans())
    def say(self, data: st.DataObject, again: bool) -> None:
        client = data.draw(st.sampled_from(self.connected()))
        if again and self.sent:
            name = data.draw(st.sampled_from(sorted(self.sent)))
        else:
            self.named += 1
            name = f"u{self.named}"
            self.sent[name] = f"text of {name}"
        item = {
            "id": name,
            "type": "message",
            "role": "user",
            "content": [{"type": "input_text", "text": self.sent[name]}],
        }
        self.send(client, {"type": "conversation.item.create", "item": item})

    @precondition(lambda self: self.connected())
    @rule(data=st.data(), beside=st.booleans(), marked=st.booleans())
    def ask(self, data: st.DataObject, beside: bool, marked: bool) -> None:
        client = data.draw(st.sampled_from(self.connected()))
        response: dict[str, Any] = {"metadata": {"k": "v"}} if marked else {}
        if beside:
            response["conversation"] = "none"
        self.asked += 1
        event = {"type": "response.create", "event_id": f"ask{self.asked}", "response": response}
        self.send(client, event)

    @precondition(lambda self: self.connected())
    @rule(data=st.data(), by_id=st.booleans())
    def cancel(self, data: st.DataObject, by_id: bool) -> None:
        client = data.draw(st.sampled_from(self.connected()))
        event: dict[str, Any] = {"type": "response.cancel"}
        if by_id and self.world.responder.turns:
            event["response_id"] = data.draw(st.sampled_from(self.world.responder.turns)).turn.response_id
        self.send(client, event)

    @precondition(lambda self: self.connected() and self.sent)
    @rule(data=st.data())
    def delete(self, data: st.DataObject) -> None:
        client = data.draw(st.sampled_from(self.connected()))
        tools = [item["id"] for kind in TOOLS for item in items_of(client.frames, kind)]
        name = data.draw(st.sampled_from(list(dict.fromkeys([*sorted(self.sent), *tools]))))
        self.send(client, {"type": "conversation.item.delete", "item_id": name})

    @precondition(lambda self: self.world.responder.open)
    @rule(data=st.data(), pieces=st.lists(st.sampled_from(PIECES), min_size=1, max_size=9))
    def produce(self, data: st.DataObject, pieces: list[str]) -> None:
        data.draw(st.sampled_from(self.world.responder.open)).say(*pieces)
        self.settle()

    @precondition(lambda self: self.world.responder.open)
    @rule(
        data=st.data(),
        pieces=st.lists(st.tuples(st.integers(0, 2), st.sampled_from(PIECES)), min_size=1, max_size=9),
    )
    def call(self, data: st.DataObject, pieces: list[tuple[int, str]]) -> None:
        """Functions are called, perhaps several at once, under names that are sometimes taken."""
        turn = data.draw(st.sampled_from(self.world.responder.open))
        turn.say(*(FunctionCallPiece(index, piece, f"call_{index}", "f") for index, piece in pieces))
        self.settle()

    @precondition(lambda self: self.world.responder.open)
    @rule(data=st.data(), what=st.sampled_from(["think", "begin", "go on", "run", "end", "fail", "ask"]))
    def use_tools(self, data: st.DataObject, what: str) -> None:
        """An agent thinks, asks for an approval, and calls tools, each a piece at a time."""
        turn = data.draw(st.sampled_from(self.world.responder.open))
        begun = self.tools.setdefault(turn.turn.response_id, {})
        waiting = [item_id for item_id, is_run in begun.items() if not is_run]
        item_id = ItemId(f"tool_{len(self.tools)}_{len(begun)}_{self.steps}")
        self.steps += 1
        if what == "think":
            turn.say(ReasoningPiece("hm"))
        elif what == "ask":
            turn.say(AsksApproval(item_id, ApprovalHead("f", "tools", "{}")))
        elif what == "begin":
            used = self.approved.setdefault(turn.turn.response_id, set())
            left = [each.id for each in turn.turn.approved if each.id not in used]
            used.update(left[:1])
            turn.say(ToolCallPiece(item_id, "{", ToolHead("f", "tools", left[0] if left else None)))
            begun[item_id] = False
        elif what == "go on" and waiting:
            turn.say(ToolCallPiece(waiting[0], "}"))
        elif what == "run" and waiting:
            turn.say(RunsTools(tuple(waiting)))
            begun.update(dict.fromkeys(waiting, True))
        elif what in ("end", "fail") and begun:
            ended = next(iter(begun))
            del begun[ended]
            turn.say(ToolEnded(ended, "ok") if what == "end" else ToolEnded(ended, error=ToolError("no")))
        self.settle()

    @precondition(lambda self: self.connected())
    @rule(data=st.data(), approve=st.booleans())
    def approve(self, data: st.DataObject, *, approve: bool) -> None:
        """A client answers a request: perhaps twice, too early, or one that is gone."""
        client = data.draw(st.sampled_from(self.connected()))
        requests = list(dict.fromkeys(item["id"] for item in items_of(client.frames, "mcp_approval_request")))
        if requests:
            request = data.draw(st.sampled_from(requests))
            item = {"type": "mcp_approval_response", "approval_request_id": request, "approve": approve}
            self.send(client, {"type": "conversation.item.create", "item": item})

    @precondition(lambda self: self.connected())
    @rule(data=st.data(), wanted=st.booleans())
    def want_reasoning(self, data: st.DataObject, *, wanted: bool) -> None:
        client = data.draw(st.sampled_from(self.connected()))
        session = {"type": "realtime", "unbroken": {"reasoning": wanted}}
        self.send(client, {"type": "session.update", "session": session})

    @precondition(lambda self: self.connected())
    @rule(data=st.data(), index=st.integers(0, 2))
    def call_of_before(self, data: st.DataObject, index: int) -> None:
        """A client adds a call, perhaps under the name that an agent is about to give to one of its own."""
        client = data.draw(st.sampled_from(self.connected()))
        item = {"type": "function_call", "call_id": f"call_{index}", "name": "g", "arguments": "[]"}
        self.send(client, {"type": "conversation.item.create", "item": item})

    @precondition(lambda self: self.connected())
    @rule(data=st.data())
    def give_back(self, data: st.DataObject) -> None:
        """A client says what a function has returned: perhaps twice, too early, or of a call that is gone."""
        client = data.draw(st.sampled_from(self.connected()))
        called = list(dict.fromkeys(item["call_id"] for item in items_of(client.frames, "function_call")))
        if called:
            call_id = data.draw(st.sampled_from(called))
            item = {"type": "function_call_output", "call_id": call_id, "output": f"of {call_id}"}
            self.send(client, {"type": "conversation.item.create", "item": item})

    @precondition(lambda self: self.connected())
    @rule(data=st.data())
    def delete_a_call(self, data: st.DataObject) -> None:
        client = data.draw(st.sampled_from(self.connected()))
        kinds = ("function_call", "function_call_output")
        names = list(dict.fromkeys(item["id"] for kind in kinds for item in items_of(client.frames, kind)))
        if names:
            name = data.draw(st.sampled_from(names))
            self.send(client, {"type": "conversation.item.delete", "item_id": name})

    @precondition(lambda self: self.world.responder.open)
    @rule(data=st.data(), how=st.sampled_from(["end", "fail", "crash"]))
    def end(self, data: st.DataObject, how: str) -> None:
        turn = data.draw(st.sampled_from(self.world.responder.open))
        match how:
            case "end":
                turn.end()
            case "fail":
                turn.fail(ResponderError("agent_error", "The agent failed."))
            case _:
                turn.fail(RuntimeError("boom"))
        self.settle()

    @precondition(lambda self: self.connected())
    @rule(data=st.data(), count=st.integers(0, 12))
    def see(self, data: st.DataObject, count: int) -> None:
        self.read(data.draw(st.sampled_from(self.connected())), count)

    @precondition(lambda self: self.connected())
    @rule(data=st.data(), count=st.integers(0, 12))
    def vanish(self, data: st.DataObject, count: int) -> None:
        client = data.draw(st.sampled_from(self.connected()))
        self.read(client, count)
        if client.attachment is not None:
            client.disconnect()

    @rule(data=st.data())
    def come_back(self, data: st.DataObject) -> None:
        away = [client for client in self.clients if client.attachment is None]
        if away:
            self.run(data.draw(st.sampled_from(away)).resume())

    @rule()
    def foreign_input(self) -> None:
        """Another node writes an input; this one learns of it by a wake-up, or later."""
        actor = self.world.node.hub.get(self.session_id)
        if actor is None or not actor.is_opened:
            return
        self.named += 1
        item = Message(new_item_id(), "user", (Text("from elsewhere"),))
        submitted = Submitted(CreateItem(item), ChainId("elsewhere"))
        self.run(self.world.store.submit(self.session_id, submitted, actor.position))
        self.loop.call_soon(actor.look)
        self.settle()

    @precondition(lambda self: self.is_distant)
    @rule()
    def lose_the_owner(self) -> None:
        """The store turns against this owner in mid-work: it gives up, and whoever comes finds the log."""
        actor = self.world.node.hub.get(self.session_id)
        if actor is None or not actor.is_opened or not self.connected():
            return
        self.distant.fail_next_append(LostTail("planted"))
        self.send(self.connected()[0], {"type": "session.update", "session": {"instructions": "again"}})

    # What always holds.

    def entries(self) -> list[Entry]:
        actor = self.world.node.hub.get(self.session_id)
        if actor is None or not actor.is_opened:
            return []
        return self.stored()[1]

    def stored(self) -> tuple[Opened, list[Entry]]:
        """Return what the store holds, at one moment: the memory store never lets anything in between."""

        async def look() -> tuple[Opened, list[Entry]]:
            opened = await self.memory.acquire(self.session_id, self.world.node.id)
            floor = Position(opened.fence.incarnation, opened.floor, opened.floor_nonce)
            return opened, (await self.memory.read(self.session_id, floor, 10**6)).entries

        found: tuple[Opened, list[Entry]] = self.run(look())
        return found

    @invariant()
    def the_log_is_contiguous_and_every_attempt_ends_once(self) -> None:
        if not hasattr(self, "world"):
            return
        expected = None
        ended: set[str] = set()
        said: dict[str, str] = {}
        partial = False
        for entry in self.entries():
            if expected is None:
                partial = entry.seq != 1
            else:
                assert entry.seq == expected
            expected = entry.last + 1
            body = entry.body
            if isinstance(body, Deltas):
                assert body.response_id not in ended, "a piece after the end"
                said[body.item_id] = said.get(body.item_id, "") + "".join(body.parts)
            elif isinstance(body, OutputDone):
                if not partial:
                    assert body.item.text == said.get(body.item.id, "")
            elif isinstance(body, ResponseDone):
                assert body.response_id not in ended, "ended twice"
                ended.add(body.response_id)

    @invariant()
    def a_session_weighs_what_its_whole_items_do(self) -> None:
        actor = None if not hasattr(self, "world") else self.world.node.hub.get(self.session_id)
        if actor is not None:
            assert actor.session.weight == sum(item.size for item in actor.session.items())

    def teardown(self) -> None:
        if not hasattr(self, "world"):
            return
        try:
            self.finish()
        finally:
            self.run(self.world.node.__aexit__(None, None, None))
            self.loop.run_until_complete(self.loop.shutdown_asyncgens())
            self.loop.close()

    def finish(self) -> None:
        """Let everything end, and compare what each client has with what the session is."""
        self.distant.heal()
        for _ in range(12):  # sessions that were lost or reset on the way take more than one round
            for turn in self.world.responder.open:
                turn.end()
            for client in self.clients:
                if client.attachment is None:
                    self.run(client.resume())
                self.settle()
                self.read(client)
        actor = self.world.node.hub.get(self.session_id)
        assert actor is not None
        assert not actor.session.is_running
        items = actor.session.items()
        expected = [(item.id, item.text) for item in items]
        calls = [item.call_id for item in items if isinstance(item, FunctionCall)]
        returned = [item.call_id for item in items if isinstance(item, FunctionOutput)]
        assert len(set(calls)) == len(calls)
        assert len(set(returned)) == len(returned)
        assert set(returned) <= set(calls)
        run = [item.approval for item in items if isinstance(item, ToolCall) and item.approval is not None]
        assert len(set(run)) == len(run), "approved of once, run twice"
        for client in self.clients:
            assert view_of(client.frames) == expected
        self.check_rebuilt(actor.session)

    def check_rebuilt(self, live: Session) -> None:
        """The session that the store's snapshot and log make is the live one."""
        opened, entries = self.stored()
        rebuilt = Session(self.session_id, SessionLimits())
        if opened.snapshot is not None:
            rebuilt = Session.restore(self.session_id, SessionLimits(), opened.snapshot.data)
        log = EventLog(opened.fence.incarnation, floor=opened.floor, floor_nonce=opened.floor_nonce)
        for entry in entries:
            log.append(entry)
            if entry.seq > rebuilt.applied:
                rebuilt.apply(entry)
        rebuilt.consume(opened.consumed)
        if rebuilt.applied:
            assert rebuilt.snapshot() == live.snapshot()


def items_of(frames: list[dict[str, Any]], kind: str) -> list[dict[str, Any]]:
    """Return the items of that type that were added to the conversation."""
    added = [frame["item"] for frame in frames if frame["type"] == "conversation.item.added"]
    return [item for item in added if item["type"] == kind]


def text_of(item: dict[str, Any]) -> str:
    match item:
        case {"type": "mcp_approval_request" | "mcp_approval_response"}:
            return ""
        case {"arguments": text} | {"output": text}:
            return str(text)
        case _:
            return "".join(part["text"] for part in item["content"])


def view_of(frames: list[dict[str, Any]]) -> list[tuple[str, str]]:
    """Return the conversation as a client pieces it together, checking the protocol on the way."""
    order: list[str] = []
    texts: dict[str, str] = {}
    open_items: set[str] = set()
    created: set[str] = set()
    done: set[str] = set()
    answered: set[str] = set()  # the merged requests
    seen: set[str] = set()
    for frame in frames:
        assert frame["event_id"] not in seen, "the same frame twice"
        seen.add(frame["event_id"])
        match frame["type"]:
            case "conversation.item.added":
                item = frame["item"]
                assert item["id"] not in texts
                previous = frame.get("previous_item_id")
                order.insert(0 if previous is None else order.index(previous) + 1, item["id"])
                texts[item["id"]] = text_of(item)
                if item.get("status", "in_progress") == "in_progress":
                    open_items.add(item["id"])
            case "conversation.item.done":
                item = frame["item"]
                text = text_of(item)
                assert texts[item["id"]] == text, "the deltas don't make the final text"
                open_items.discard(item["id"])
            case "conversation.item.deleted":
                order.remove(frame["item_id"])
                del texts[frame["item_id"]]
            case "response.created":
                assert frame["response"]["id"] not in created
                created.add(frame["response"]["id"])
            case (
                "response.output_text.delta"
                | "response.function_call_arguments.delta"
                | "response.mcp_call_arguments.delta"
            ):
                assert frame["response_id"] in created - done
                if frame["item_id"] in texts:
                    texts[frame["item_id"]] += frame["delta"]
            case "response.done":
                response = frame["response"]
                merged = [each["event_id"] for each in response.get("unbroken", {}).get("requests", ())]
                assert not answered.intersection(merged), "a request was answered twice"
                answered.update(merged)
                assert response["id"] not in done, "ended twice"
                done.add(response["id"])
    assert not open_items
    assert created == done
    return [(item_id, texts[item_id]) for item_id in order]


@pytest.mark.drawn
def test_a_conversation_stays_whole() -> None:
    examples = 6 * settings().max_examples // 10
    run_state_machine_as_test(
        Conversation, settings=settings(max_examples=examples, stateful_step_count=40, deadline=None)
    )


@pytest.mark.slow
@pytest.mark.drawn
@pytest.mark.timeout(300)
def test_a_conversation_stays_whole_for_long() -> None:
    examples = 2 * settings().max_examples
    run_state_machine_as_test(
        Conversation, settings=settings(max_examples=examples, stateful_step_count=60, deadline=None)
    )


async def test_the_tools_of_this_module_work() -> None:
    """The view must notice what it claims to: a planted doubled delta, and a planted loss."""
    base: list[dict[str, Any]] = [
        {"type": "response.created", "event_id": "1", "response": {"id": "r"}},
        {
            "type": "conversation.item.added",
            "event_id": "2",
            "item": {"id": "i", "status": "in_progress", "content": []},
        },
        {
            "type": "response.output_text.delta",
            "event_id": "3",
            "response_id": "r",
            "item_id": "i",
            "delta": "ab",
        },
        {
            "type": "conversation.item.done",
            "event_id": "4",
            "item": {"id": "i", "status": "completed", "content": [{"text": "ab"}]},
        },
        {"type": "response.done", "event_id": "5", "response": {"id": "r"}},
    ]
    assert view_of(base) == [("i", "ab")]
    with pytest.raises(AssertionError, match="twice"):
        view_of([*base[:3], base[2], *base[3:]])
    with pytest.raises(AssertionError, match="don't make the final text"):
        view_of([*base[:2], *base[3:]])
