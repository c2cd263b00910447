"""Stories of one conversation, over the model of a server: what is sent, when, and never again."""

from __future__ import annotations

import itertools
import json
from typing import Any

from tests.client.model import Server, Wire
from unbroken.client.answer import Result
from unbroken.client.conversation import Conversation
from unbroken.client.limits import Limits
from unbroken.client.phase import Phase


class Talk:
    """A conversation, and the server that it is with."""

    def __init__(self) -> None:
        self.server = Server()
        self.now = 0.0
        self._names = itertools.count()
        self.conversation = self.another()
        self.wire = Wire()

    def another(self, state: str | None = None) -> Conversation:
        made = Conversation(
            limits=Limits(), draw=lambda: 0.5, new_id=lambda: f"n{next(self._names)}", patience=60.0
        )
        if state is not None:
            made.restore(json.loads(state))
        return made

    def connect(self) -> None:
        self.conversation.opened()
        self.wire = self.server.connect(self.conversation.query())

    def exchange(self) -> list[str]:
        """Carry everything either way until nothing is left. Return the types of what the client sent."""
        sent: list[str] = []
        while True:
            frames = self.conversation.outgoing(self.now)
            sent += [json.loads(frame)["type"] for frame in frames]
            for frame in frames:
                self.server.take(frame)
            if not (frames or self.wire.down):
                return sent
            while self.wire.down:
                self.conversation.receive(self.wire.down.pop(0), self.now)


CREATE, ASK, CANCEL = "conversation.item.create", "response.create", "response.cancel"
QUESTION = "conversation.item.retrieve"


def test_the_message_goes_first_and_the_question_when_it_has_arrived() -> None:
    talk = Talk()
    exchange = talk.conversation.send("hi", {})
    assert talk.conversation.outgoing(0.0) == []
    talk.connect()
    assert talk.exchange() == [CREATE, ASK]
    talk.server.speak("one")
    talk.server.end()
    assert talk.exchange() == []

    assert isinstance(exchange.outcome, Result)
    assert talk.conversation.exchanges == []


def test_a_stop_is_said_of_each_attempt_anew() -> None:
    """The first was stopped too late: it had been interrupted, and another one runs."""
    talk = Talk()
    exchange = talk.conversation.send("hi", {})
    talk.connect()
    talk.exchange()
    talk.conversation.stop(exchange)
    talk.server.interrupt(again=True)
    assert talk.exchange() == [CANCEL, QUESTION, CANCEL]
    talk.server.end()
    talk.exchange()

    assert isinstance(exchange.outcome, Result)
    assert exchange.outcome.status == "cancelled"


def test_functions_wait_until_it_is_known_what_another_process_has_run() -> None:
    talk = Talk()
    talk.conversation.send("hi", {})
    talk.connect()
    talk.exchange()
    kept = json.dumps(talk.conversation.state())
    talk.server.end("completed", "call_1")
    talk.exchange()
    ((exchange, call),) = talk.conversation.due_calls()
    talk.conversation.returned(exchange, call.id, "result")
    talk.exchange()
    talk.conversation = talk.another(kept)
    talk.connect()
    while talk.wire.down:
        talk.conversation.receive(talk.wire.down.pop(0), 0.0)
        assert list(talk.conversation.due_calls()) == []
    talk.exchange()

    assert list(talk.conversation.due_calls()) == []
    (exchange,) = talk.conversation.exchanges
    assert (exchange.phase, exchange.name) == (Phase.ANSWERING, f"{exchange.id}.1")


def test_what_was_dropped_unread_is_sent_again_after_a_pause() -> None:
    talk = Talk()
    talk.conversation.send("hi", {})
    talk.connect()
    talk.server.refusals = ["input_queue_full"]
    assert talk.exchange() == [CREATE]
    assert talk.conversation.due is not None
    talk.now = talk.conversation.due

    assert talk.exchange() == [CREATE, ASK]
    assert talk.conversation.due is None


def test_nothing_is_asked_while_another_client_is_answered() -> None:
    talk = Talk()
    talk.connect()
    talk.exchange()
    talk.server.begin({})
    talk.conversation.send("hi", {})
    assert talk.exchange() == [CREATE]
    talk.server.end()

    assert talk.exchange() == [ASK]


def test_a_session_that_is_gone_is_begun_anew_only_if_nothing_was_said_in_it() -> None:
    talk = Talk()
    talk.connect()
    talk.exchange()
    talk.conversation.send("hi", {})
    talk.conversation.outgoing(0.0)  # it never arrives
    talk.conversation.lost()
    assert not talk.conversation.begin_anew()
    assert talk.conversation.query() == {}
    talk.connect()
    assert talk.exchange() == [CREATE, ASK]

    assert talk.conversation.begin_anew(), "something is lost with it"
    assert talk.conversation.query()["resume"] == "token"


def test_only_what_waits_for_the_log_is_held_back_by_a_reconnection() -> None:
    talk = Talk()
    talk.connect()
    talk.exchange()
    talk.conversation.lost()
    talk.connect()
    assert talk.exchange() == []
    talk.conversation.send("hi", {})
    assert talk.exchange() == [CREATE, ASK]
    talk.conversation.lost()
    talk.connect()

    assert talk.exchange() == [QUESTION]


def test_a_state_is_small_and_has_no_more_than_is_needed() -> None:
    talk = Talk()
    talk.connect()
    for _ in range(20):
        talk.conversation.send("hi", {})
        talk.exchange()
        talk.server.speak("word " * 1000)
        talk.server.end()
        talk.exchange()
    state: dict[str, Any] = talk.conversation.state()

    assert state["exchanges"] == []
    assert len(json.dumps(state)) < 500
