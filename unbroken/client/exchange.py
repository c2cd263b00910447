"""One turn: what is said, what is asked, what is answered, and how it ends. No I/O, no clock.

A turn has rounds. In each, something is said (the user's message; then, what functions returned), the server
is known to have it, an answer is asked for, and comes. If it calls functions, another round follows. All is
said again under the same name until it is known to have arrived, so that it is done once.

Nothing but :meth:`Exchange._move` changes a turn's phase, along the table in :mod:`~unbroken.client.phase`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import astuple
from typing import Any, Final

from unbroken.client.answer import Answer, Result, Status
from unbroken.client.calls import Call, Calls
from unbroken.client.errors import AnswerFailed, AnswerTooLong, ClientError
from unbroken.client.limits import Limits
from unbroken.client.phase import NEXT, Phase
from unbroken.client.standing import Standing
from unbroken.client.wire import Item, ResponseEnded, Usage, message_item

__all__ = ["Exchange"]


class Exchange:
    """One turn. The conversation tells it what has happened; :attr:`outcome` is how it ended.

    Args:
        turn_id: Names it, and everything that is sent of it.
        message: What the user says.
        wishes: Further fields of the response that is asked for.
        limits: Of the answer, and of its rounds.

    """

    def __init__(self, turn_id: str, message: str, wishes: Mapping[str, Any], limits: Limits) -> None:
        self.id: Final = turn_id
        self.message: Final = message
        self.wishes: Final = wishes
        self.answer = Answer()
        self.outcome: Result | ClientError | None = None
        self.is_stopping = False
        self.was_asked = False
        """Whether this round's request was ever sent, on whatever connection."""
        self.is_doubtful = False
        """Whether what is sent again may have been done already, so that nothing would ever come of it."""
        self.response_id: str | None = None
        self.owed: list[str] = []
        """The items of this round that the server isn't known to have."""
        self.on_change: Callable[[], None] | None = None
        """Called when there is something to take, or it is over."""
        self._limits = limits
        self._is_inherited = False  # another process may have done more of it than is known
        self._phase = Phase.WAITING
        self._round = 0
        self._attempt = 0
        self._said: dict[str, Mapping[str, Any]] = {}  # the items that this round says
        self._current: list[str] = []  # the messages that this round's answer consists of
        self._usage: Usage | None = None
        self._end: ResponseEnded | None = None  # an end behind which another attempt may follow
        self._calls = Calls()
        self._standing = Standing()  # what was shown of it to whoever had to start over

    # What is so.

    @property
    def phase(self) -> Phase:
        """Where it is."""
        return self._phase

    def _move(self, phase: Phase) -> None:
        if phase not in NEXT[self._phase]:
            raise AssertionError(f"can't happen: {phase} after {self._phase}")
        self._phase = phase

    @property
    def is_over(self) -> bool:
        """Whether it has ended."""
        return self._phase is Phase.OVER

    @property
    def is_under_way(self) -> bool:
        """Whether something of it was sent, or may have been, and it hasn't ended."""
        return self._phase not in (Phase.WAITING, Phase.OVER)

    @property
    def is_undecided(self) -> bool:
        """Whether its answer has ended, unless another attempt at it follows."""
        return self._end is not None

    @property
    def name(self) -> str:
        """What the response to this round is found by."""
        return f"{self.id}.{self._round}"

    @property
    def request_name(self) -> str:
        """What this round's request is known again by."""
        return f"{self.name}.{self._attempt}"

    @property
    def stop_name(self) -> str:
        """What the cancel of this round's response is known again by."""
        return f"{self.name}.stop.{self.response_id}"

    # What is said.

    def begin(self) -> None:
        """Let it be sent: it is its turn."""
        item = message_item(self.message_id, self.message)
        self._owe([item])
        self._move(Phase.SAYING)
        self.is_doubtful = self._is_inherited
        if self._standing.is_there:  # another process has sent it
            self.settled(self.message_id)

    def _owe(self, items: Iterable[Mapping[str, Any]]) -> None:
        self._said = {item["id"]: item for item in items}
        self.owed = list(self._said)

    def item(self, item_id: str) -> Mapping[str, Any]:
        """Return what is owed under that id."""
        return self._said[item_id]

    @property
    def message_id(self) -> str:
        """The user's message, as an item."""
        return f"msg_{self.id}"

    def heard(self, item: Item) -> None:
        """Note that the conversation has an item: perhaps one of this turn, whoever sent it.

        Another process may have gone on with this turn, and have sent what functions returned there.
        """
        is_output = item.kind == "function_call_output"
        for owed in list(self.owed):
            if owed == item.id or (is_output and self._said[owed].get("call_id") == item.call_id):
                self.settled(owed)
        if is_output and self._phase is Phase.CALLING:
            self._calls.returned_elsewhere(item.call_id)
            self._next_round()

    def settled(self, item_id: str) -> None:
        """Note that an item need not be sent any more."""
        if item_id in self.owed:
            self.owed.remove(item_id)
            self._say_or_ask()

    def _say_or_ask(self) -> None:
        if not self.owed and self._phase is Phase.SAYING:
            self.is_doubtful &= self.was_asked or self._is_inherited
            self._move(Phase.ASKING)

    def refused(self, *, rename: bool) -> None:
        """Note that this round's request was not taken. *rename*: under this name it never will be."""
        if self._phase is Phase.ASKING:
            self._attempt += rename
            self.was_asked = False
            if self.is_stopping:
                self._finish("cancelled", "client_cancelled")

    def stop(self) -> None:
        """End it as soon as nothing of it can go on: at once, or when its answer has been stopped."""
        if self.is_over:
            return
        self.is_stopping = True
        may_be_asked = self._phase in (Phase.SAYING, Phase.ASKING) and self._is_inherited
        if not (self._phase is Phase.ANSWERING or self.was_asked or may_be_asked):
            self._finish("cancelled", "client_cancelled")

    # What is answered.

    def begun(self, response_id: str) -> None:
        """Note that an answer to this round has begun: the first, or another in its place."""
        if self._phase not in (Phase.SAYING, Phase.ASKING, Phase.ANSWERING):
            return
        if self.response_id not in (None, response_id):
            self._drop_current()
        self.owed.clear()
        self.is_doubtful = False
        self._end = None
        self._standing = Standing()
        self.response_id = response_id
        if self._phase is not Phase.ANSWERING:
            self._move(Phase.ANSWERING)
        self._changed()

    def said(self, response_id: str, item_id: str, delta: str) -> None:
        """Note more of the answer."""
        if response_id == self.response_id and self._phase is Phase.ANSWERING:
            self._note(item_id)
            self.answer.say(item_id, delta)
            self._check_size()

    def whole(self, response_id: str, item_id: str, text: str) -> None:
        """Note the whole text of a message of the answer."""
        if response_id == self.response_id and self._phase is Phase.ANSWERING:
            self._note(item_id)
            self.answer.settle(item_id, text)
            self._check_size()

    def _note(self, item_id: str) -> None:
        if item_id not in self._current:
            self._current.append(item_id)

    def _check_size(self) -> None:
        if self.answer.size > self._limits.answer_bytes:
            self.is_stopping = True
            self._fail_too_long("The answer is longer than this client takes.")
        self._changed()

    def ended(self, event: ResponseEnded, new_item_id: Callable[[], str]) -> None:
        """Note that the answer has ended. :attr:`is_undecided`: whether it has is to be asked."""
        if event.response_id != self.response_id or self._phase is not Phase.ANSWERING:
            return
        if event.code == "interrupted" and self._end is None:
            self._end = event  # the server may attempt it again: that is in the log right behind
            return
        self._settle(event, new_item_id)

    def decide(self, new_item_id: Callable[[], str]) -> None:
        """Note that nothing followed the end that was undecided."""
        if (end := self._end) is not None and self._phase is Phase.ANSWERING:
            self._settle(end, new_item_id)

    def _resettle(self, event: ResponseEnded, new_item_id: Callable[[], str]) -> None:
        self._move(Phase.ANSWERING)
        self._settle(event, new_item_id)

    def _settle(self, event: ResponseEnded, new_item_id: Callable[[], str]) -> None:
        self._end = None
        if event.usage is not None:
            self._usage = event.usage if self._usage is None else self._usage + event.usage
        for item in event.output:
            if item.kind == "message":
                self.answer.settle(item.id, item.text)
        calls = [item for item in event.output if item.kind == "function_call" and item.status == "completed"]
        match event.status:
            case "completed" if calls:
                self._call(calls, new_item_id)
            case "completed" | "incomplete" | "cancelled" as status:
                self._finish(status, event.reason)
            case _:
                code, text = event.code or "unknown_error", self.answer.text
                self.fail(AnswerFailed(code, event.message, retry_after=event.retry_after, text=text))

    # What is called.

    def _call(self, calls: list[Item], new_item_id: Callable[[], str]) -> None:
        self.was_asked = self.is_doubtful = False
        self._end = None
        if self.is_stopping:
            self._finish("cancelled", "client_cancelled")
        elif self._round + 1 >= self._limits.rounds:
            self._fail_too_long("The model called functions again and again without coming to an answer.")
        else:
            self._calls = Calls(
                Call(each.call_id, each.name, each.arguments, new_item_id()) for each in calls
            )
            self._move(Phase.CALLING)
            self._changed()

    def due_calls(self) -> Iterator[Call]:
        """Yield the calls that nobody has begun to run, each once."""
        return self._calls.due()

    def returned(self, call_id: str, output: str) -> None:
        """Note what a call came to. When all have, the next round begins."""
        if self._phase is Phase.CALLING:
            self._calls.returned(call_id, output)
            self._next_round()

    def lose_calls(self, output: str) -> None:
        """Note that calls that have begun to run were lost: *output* says so to the model."""
        if self._phase is Phase.CALLING:
            self._calls.lose(output)
            self._next_round()

    def _next_round(self) -> None:
        if not self._calls.are_done:
            return
        self._round += 1
        self._attempt = 0
        self.response_id = None
        self._current = []
        self._standing = Standing()
        self._owe(self._calls.outputs())
        self._calls = Calls()
        self._move(Phase.SAYING)
        self._say_or_ask()

    # Starting over.

    def begin_rebuild(self) -> None:
        """Forget what isn't certain any more: the server shows the conversation as it stands."""
        self.answer.hold()
        self._standing = Standing(self._current)
        if self._phase is Phase.ANSWERING:
            self._drop_current()
            self.response_id = None
            self._move(Phase.ASKING)

    def shown(self, item: Item) -> None:
        """Note an item of the conversation as it stands, in its order."""
        if item.id in self._said or item.id == self.message_id:
            self.heard(item)
            self._standing.begin()
        else:
            self._standing.note(item)

    def finish_rebuild(self, new_item_id: Callable[[], str]) -> None:
        """Note that all was shown: what stands behind what was said is the answer, unless that still runs."""
        if self._phase is Phase.SAYING:
            self.is_doubtful = True
        elif self._phase is Phase.ASKING:
            self._find_answer(new_item_id)
        self.answer.release()
        self._changed()

    def _find_answer(self, new_item_id: Callable[[], str]) -> None:
        found, end = self._standing, self._end
        if end is not None and found.ids and found.ids == {item.id for item in end.output}:
            self._resettle(end, new_item_id)  # it is there, and no other attempt has said anything
        elif not (found.is_there or found.items):  # it was lost, or somebody has deleted it
            self.is_doubtful = True
            self.owed = list(self._said)
            self._move(Phase.SAYING)
        elif found.is_known:
            self._settle_found(new_item_id)
        else:  # what stands there may be another client's answer
            self.is_doubtful = self.was_asked or self._is_inherited

    def _settle_found(self, new_item_id: Callable[[], str]) -> None:
        found, self._standing = self._standing, Standing()
        for item in found.messages:
            self.answer.settle(item.id, item.text)
        if found.is_whole and found.open_calls:
            self._call(found.open_calls, new_item_id)
        else:
            self._finish("completed" if found.is_whole else "unknown", None)

    def give_up(self, new_item_id: Callable[[], str]) -> None:
        """End what is doubtful: it was done before, and what was shown, or told, of it is all there is."""
        if self._standing.items:
            self._settle_found(new_item_id)
        elif self._end is not None:
            self._resettle(self._end, new_item_id)
        else:
            self._finish("unknown", None)

    # The end.

    def fail(self, error: ClientError) -> None:
        """End it because of *error*. Nothing happens if it has ended."""
        self._end_with(error)

    def _fail_too_long(self, message: str) -> None:
        self._end_with(AnswerTooLong("answer_too_long", message, text=self.answer.text))

    def _finish(self, status: Status, reason: str | None) -> None:
        self._end_with(Result(self.answer.text, status, reason, self._usage))

    def _end_with(self, outcome: Result | ClientError) -> None:
        if not self.is_over:
            self._move(Phase.OVER)
            self.outcome = outcome
            self.owed.clear()
            self._calls = Calls()
            self.answer.release()
            self._changed()

    def _drop_current(self) -> None:
        self.answer.drop(self._current)
        self._current = []

    def _changed(self) -> None:
        if self.on_change is not None:
            self.on_change()

    # Moving to another process.

    def state(self) -> dict[str, Any]:
        """Return it for another process, as JSON."""
        return {
            "id": self.id,
            "message": self.message,
            "wishes": dict(self.wishes),
            "phase": self._phase.value,
            "round": self._round,
            "attempt": self._attempt,
            "was_asked": self.was_asked,
            "is_stopping": self.is_stopping,
            "is_doubtful": self.is_doubtful,
            "response": self.response_id,
            "owed": self.owed,
            "said": list(self._said.values()),
            "current": self._current,
            "calls": self._calls.state(),
            "usage": None if self._usage is None else astuple(self._usage),
            "answer": self.answer.state(),
            "end": None if self._end is None else astuple(self._end),
        }

    @classmethod
    def restore(cls, state: Mapping[str, Any], limits: Limits) -> Exchange:
        """Return the turn that :meth:`state` made *state* of.

        Raises:
            KeyError, TypeError, ValueError: It made none of it.

        """
        exchange = cls(state["id"], state["message"], state["wishes"], limits)
        exchange._is_inherited = True
        exchange._phase = Phase(state["phase"])
        exchange._round = state["round"]
        exchange._attempt = state["attempt"]
        exchange.was_asked = state["was_asked"]
        exchange.is_stopping = state["is_stopping"]
        exchange.is_doubtful = state["is_doubtful"]
        exchange.response_id = state["response"]
        exchange._said = {item["id"]: item for item in state["said"]}
        exchange.owed = [item_id for item_id in state["owed"] if item_id in exchange._said]
        exchange._current = list(state["current"])
        exchange._calls = Calls.restore(state["calls"])
        exchange._usage = None if state["usage"] is None else Usage(*state["usage"])
        exchange.answer = Answer.restore(state["answer"])
        exchange._end = None if state["end"] is None else _end_of(state["end"])
        return exchange


def _end_of(fields: Iterable[Any]) -> ResponseEnded:
    response_id, status, reason, code, message, wait, usage, output = fields
    billed = None if usage is None else Usage(*usage)
    items = tuple(Item(*each) for each in output)
    return ResponseEnded(response_id, status, reason, code, message, wait, billed, items)
