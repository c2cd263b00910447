"""Whatever happens in whatever order, each turn is answered once, and its reader has exactly its answer.

A machine of random steps: a caller who sends, stops and reads; connections that come, are lost with what was
on them, and whose last words are taken late; an agent that speaks, calls functions, ends, fails or is
interrupted; a server that forgets its log, loses its tail or takes nothing for a moment; other clients; and
processes that hand the conversation to one another. In the end all are well, and every view is compared.
"""

from __future__ import annotations

import itertools
import json
from typing import Any, cast

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

from tests.client.model import PASSING, Server, Wire
from unbroken.client.answer import Piece, Restarted, Result
from unbroken.client.calls import Call
from unbroken.client.conversation import UNKNOWN_OUTPUT, Conversation
from unbroken.client.errors import AnswerFailed, Refused
from unbroken.client.exchange import Exchange
from unbroken.client.limits import Limits
from unbroken.client.phase import Phase

OUTPUT = "function_call_output"
PIECES = ["a", "bc", " def", "é", "😀"]


class Reader:
    """A caller's view of one turn: what it makes of the pieces."""

    def __init__(self, exchange: Exchange, text: str = "") -> None:
        self.exchange = exchange
        self.text = text
        self.restarts = 0

    def take(self) -> None:
        while (piece := self.exchange.answer.take()) is not None:
            self._note(piece)

    def _note(self, piece: Piece) -> None:
        assert piece != ""
        if isinstance(piece, Restarted):
            self.text, self.restarts = piece.text, self.restarts + 1
        else:
            self.text += piece


class Life(RuleBasedStateMachine):
    """One conversation, from both sides."""

    @initialize()
    def begin(self) -> None:
        self.server = Server()
        self.names = itertools.count()
        self.now = 0.0
        self.wire: Wire | None = None
        self.late: list[bytes] = []  # what was said on connections that are gone
        self.readers: list[Reader] = []
        self.runs: dict[str, int] = {}  # by call
        self.running: list[tuple[Exchange, Call]] = []
        self.is_shared = False  # others have spoken in between
        self.forgotten: set[str] = set()  # turns that ended before the server lost its tail
        self.has_reset = self.has_lost_tail = False
        self.kept: tuple[str, list[tuple[str, str]]] | None = None  # a state, and what was read then
        self.has_gone_back = False
        self.conversation = self.made()

    def made(self) -> Conversation:
        return Conversation(
            limits=Limits(),
            draw=lambda: 0.5,
            new_id=lambda: f"n{next(self.names)}",
            patience=1e9,
        )

    # The caller.

    @rule(text=st.sampled_from(["hi", "ho"]))
    def send(self, text: str) -> None:
        if len(self.readers) < 6:
            self.readers.append(Reader(self.conversation.send(text, {})))

    @precondition(lambda self: self.readers)
    @rule(which=st.integers(0, 5))
    def stop(self, which: int) -> None:
        self.conversation.stop(self.readers[which % len(self.readers)].exchange)

    @rule()
    def stop_all(self) -> None:
        self.conversation.stop_all()

    @rule()
    def read(self) -> None:
        for reader in self.readers:
            reader.take()

    @precondition(lambda self: self.running)
    @rule()
    def return_from_a_function(self) -> None:
        exchange, call = self.running.pop(0)
        self.conversation.returned(exchange, call.id, f"result of {call.id}")

    @rule()
    def move_to_another_process(self) -> None:
        state = json.loads(json.dumps(self.conversation.state()))
        self.lose(0)
        self.conversation = self.made()
        self.conversation.restore(state)
        moved = {exchange.id: exchange for exchange in self.conversation.exchanges}
        for reader in self.readers:
            if not reader.exchange.is_over:
                reader.exchange = moved[reader.exchange.id]
        for _, call in self.running:
            self.runs[call.id] = 1  # it began to run, and nobody knows what came of it
        self.running = []

    @rule()
    def keep_state(self) -> None:
        texts = [(reader.exchange.id, reader.text) for reader in self.readers if not reader.exchange.is_over]
        self.kept = json.dumps(self.conversation.state()), texts

    @precondition(lambda self: self.kept is not None)
    @rule()
    def go_on_from_what_was_kept(self) -> None:
        """Whoever ran since then did more, and is gone: it may have sent all that is sent now again."""
        assert self.kept is not None
        state, texts = self.kept
        self.lose(3)
        known = {reader.exchange.id for reader in self.readers}
        self.conversation = self.made()
        self.conversation.restore(json.loads(state))
        moved = {exchange.id: exchange for exchange in self.conversation.exchanges}
        self.readers = [Reader(moved[turn_id], text) for turn_id, text in texts]
        self.forgotten |= known - set(moved)
        self.has_gone_back = True
        # What has returned is in the log, and isn't run again; of what hasn't, nobody knows.
        outputs = {each.get("call_id") for each in self.server.state.items if each["type"] == OUTPUT}
        self.runs = {call_id: count for call_id, count in self.runs.items() if call_id in outputs}
        self.running = []

    # The network.

    @precondition(lambda self: self.wire is None)
    @rule()
    def connect(self) -> None:
        self.conversation.opened()
        query = self.conversation.query()
        if "resume" not in query:
            self.late.clear()  # it was said in another session
        self.wire = self.server.connect(query)

    @precondition(lambda self: self.wire is not None)
    @rule(count=st.integers(1, 4))
    def deliver_up(self, count: int) -> None:
        assert self.wire is not None
        for _ in range(min(count, len(self.wire.up))):
            self.server.take(self.wire.up.pop(0))

    @precondition(lambda self: self.wire is not None)
    @rule(count=st.integers(1, 4))
    def deliver_down(self, count: int) -> None:
        assert self.wire is not None
        for _ in range(min(count, len(self.wire.down))):
            self.hear(self.wire.down.pop(0))

    def hear(self, data: bytes) -> None:
        frame = json.loads(data)
        if frame["type"] == "session.created":
            self.has_reset |= frame["session"]["unbroken"].get("resumed") is False
        self.conversation.receive(data, self.now)

    @precondition(lambda self: self.wire is not None)
    @rule(kept=st.integers(0, 3))
    def lose(self, kept: int) -> None:
        """Some of what was sent arrives late, perhaps behind what is said on the next; the rest never."""
        if self.wire is not None:
            self.late += self.wire.up[:kept]
            self.server.wire = self.wire = None
            self.conversation.lost()

    @precondition(lambda self: self.late)
    @rule()
    def arrive_late(self) -> None:
        wire, self.server.wire = self.server.wire, None
        before = len(self.server.state.log)
        self.server.take(self.late.pop(0))
        self.server.wire = wire
        if wire is not None:  # what it says in the log is shown to whoever is there now
            wire.down += [json.dumps(frame).encode() for frame in self.server.state.log[before:]]

    @rule(seconds=st.sampled_from([0.1, 10.0]))
    def wait(self, seconds: float) -> None:
        self.now += seconds

    # The server.

    @precondition(lambda self: self.server.state.reply is not None)
    @rule(piece=st.sampled_from(PIECES), anew=st.booleans())
    def speak(self, piece: str, anew: bool) -> None:
        self.server.speak(piece, anew=anew)

    @precondition(lambda self: self.server.state.reply is not None)
    @rule(status=st.sampled_from(["completed", "completed", "failed", "incomplete"]))
    def end(self, status: str) -> None:
        self.server.end(status)

    @precondition(lambda self: self.server.state.reply is not None)
    @rule(calls=st.integers(1, 2))
    def call(self, calls: int) -> None:
        if self.is_theirs():
            self.server.end()
        else:
            self.server.end("completed", *(f"call_{next(self.names)}" for _ in range(calls)))

    @precondition(lambda self: self.server.state.reply is not None)
    @rule(again=st.booleans())
    def interrupt(self, again: bool) -> None:
        self.server.interrupt(again=again)

    def is_theirs(self) -> bool:
        reply = self.server.state.reply
        return reply is not None and "unbroken_turn" not in reply.metadata

    @precondition(lambda self: self.server.state.reply is None and self.server.state.names)
    @rule(says_something=st.booleans())
    def another_client_asks(self, says_something: bool) -> None:
        self.is_shared = True
        if says_something:
            self.server.add_foreign()
        self.server.begin({})

    @rule()
    def forget(self) -> None:
        self.server.forget()

    @rule()
    def save(self) -> None:
        self.server.save()

    @precondition(lambda self: self.conversation.token is not None)
    @rule()
    def lose_tail(self) -> None:
        """What was said on old connections is lost, too: it would be taken as new."""
        self.lose(0)
        self.late.clear()
        self.forgotten |= {each.exchange.id for each in self.readers if each.exchange.is_over}
        self.has_lost_tail = True
        self.server.lose_tail()

    @rule(code=st.sampled_from(PASSING))
    def refuse_next(self, code: str) -> None:
        self.server.refusals.append(code)

    # What follows by itself, and what always holds.

    @invariant()
    def go_on(self) -> None:
        for exchange, call in self.conversation.due_calls():
            self.runs[call.id] = self.runs.get(call.id, 0) + 1
            self.running.append((exchange, call))
        if self.wire is not None:
            self.wire.up += self.conversation.outgoing(self.now)

    @invariant()
    def nothing_is_run_twice(self) -> None:
        assert set(self.runs.values()) <= {1}

    @invariant()
    def one_turn_is_under_way(self) -> None:
        phases = [exchange.phase for exchange in self.conversation.exchanges]
        assert Phase.OVER not in phases
        assert set(phases[1:]) <= {Phase.WAITING}

    @invariant()
    def whoever_is_up_to_date_has_the_text(self) -> None:
        wire = self.wire
        if wire is None or wire.up or wire.down or not self.conversation.is_welcome:
            return
        for reader in self.readers:
            if reader.exchange.phase is Phase.ANSWERING and not reader.exchange.is_undecided:
                reader.take()
                assert reader.text == reader.exchange.answer.text == self.truth(reader)

    def truth(self, reader: Reader) -> str:
        return "".join(self.server.state.texts.get(reader.exchange.id, {}).values())

    def teardown(self) -> None:
        """All goes well from here on: then all turns end, and each as it should."""
        if not hasattr(self, "conversation"):
            return
        self.server.refusals.clear()
        for _ in range(400):
            self.now += 10.0
            if self.wire is None:
                self.connect()
            wire = cast(Wire, self.wire)
            self.deliver_up(len(wire.up))
            self.deliver_down(len(wire.down))
            while self.running:
                self.return_from_a_function()
            while self.late:
                self.arrive_late()
            if self.server.state.reply is not None:
                self.server.end()
            self.go_on()
            self.nothing_is_run_twice()
            if not (self.conversation.exchanges or wire.up or wire.down or self.server.state.reply):
                break
        assert self.conversation.exchanges == []
        for reader in self.readers:
            self.check(reader)
        self.check_log()

    def check(self, reader: Reader) -> None:
        reader.take()
        exchange, outcome = reader.exchange, reader.exchange.outcome
        assert outcome is not None
        if isinstance(outcome, Refused) and outcome.code == "item_not_found" and self.has_lost_tail:
            self.forgotten.add(exchange.id)  # what its functions returned is of no call there any more
        if exchange.id in self.forgotten:
            return  # there is nothing to compare it with
        assert isinstance(outcome, Result | AnswerFailed)
        assert reader.text == exchange.answer.text == outcome.text
        status = self.server.state.statuses.get(exchange.id)
        if isinstance(outcome, AnswerFailed):
            # Where nothing else is left, all there is to say is what was told before the tail was lost.
            assert status == "failed" or (outcome.code == "interrupted" and self.has_lost_tail)
        elif outcome.status == "unknown":
            assert self.has_reset
        # Who starts over knows answers by their place, and others may have said something in between; and who
        # goes on from an old state may have turns of which others, too, were shown before their turn came.
        is_lost = self.has_reset and (self.is_shared or self.has_gone_back)
        if isinstance(outcome, Result) and not (
            outcome.status == "unknown" or exchange.is_stopping or is_lost
        ):
            assert outcome.status == status
        # What is stopped while functions run has ended here; there, it may have gone on.
        is_local = isinstance(outcome, Result) and outcome.usage is None and exchange.is_stopping
        assert is_local or is_lost or reader.text == self.truth(reader)
        if not (self.has_reset or "interrupted" in str(self.server.state.log)):
            assert reader.restarts == 0

    def check_log(self) -> None:
        """Everything was said once, in order, and asked once."""
        said = [item["id"] for item in self.server.state.items if item["id"].startswith("msg_")]
        assert len(said) == len(set(said))
        # What was stopped before it had arrived may do so late, and out of its order.
        kept = [each.exchange for each in self.readers if each.exchange.id not in self.forgotten]
        meant = [f"msg_{exchange.id}" for exchange in kept if not exchange.is_stopping]
        order = [each for each in said if each in meant]
        # Who goes on from an old state may send what was withdrawn since, and other things sent.
        assert sorted(order) == sorted(meant) if self.has_gone_back else order == meant
        begun = [name for name in self.server.state.begun if name]
        assert len(begun) == len(set(begun))
        for exchange in kept:
            assert exchange.is_stopping or f"{exchange.id}.0" in begun
        outputs = [item for item in self.server.state.items if item["type"] == "function_call_output"]
        for item in outputs:
            assert item["output"] in (f"result of {item['call_id']}", UNKNOWN_OUTPUT)


@pytest.mark.long
@pytest.mark.drawn
def test_whatever_happens() -> None:
    machine: Any = Life
    run_state_machine_as_test(
        machine, settings=settings(max_examples=4 * settings().max_examples, stateful_step_count=60)
    )
