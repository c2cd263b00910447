"""One conversation, as a pure value: apply entries, decide on inputs.

A session learns everything from its log. :meth:`Session.apply` takes committed
entries one by one, foreign inputs among them; :meth:`Session.decide` says which
outputs the next unanswered input calls for, and changes nothing. So a session
that was rebuilt from its log, on another node, decides as the first one would.

No I/O, no clock, no wire format.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final, Literal, assert_never

from msgspec import UNSET

from unbroken.sessions.conversation import Conversation, no_item
from unbroken.sessions.entries import (
    FORMAT,
    Body,
    CancelAccepted,
    CancelResponse,
    ConfigUpdated,
    CreateItem,
    CreateResponse,
    DeleteItem,
    Deltas,
    Entry,
    HandleNoted,
    ItemAdded,
    ItemDeleted,
    OutputDone,
    OutputStarted,
    Refused,
    ResponseDone,
    ResponseQueued,
    ResponseStarted,
    SessionOpened,
    Status,
    Submitted,
    UpdateConfig,
)
from unbroken.sessions.errors import OutOfOrder, Refusal
from unbroken.sessions.ids import ItemId, PrincipalId, ResponseId, SessionId
from unbroken.sessions.items import Concurrency, Message, SessionConfig, Text
from unbroken.sessions.response import Ongoing, Outcome, Response, Standing
from unbroken.sessions.snapshot import RunningState, SessionState, decode_state, encode_state
from unbroken.sessions.turn import Attempt, AttemptState, Signal

__all__ = ["Session", "SessionLimits"]

_SIGNAL_OF_STATUS: Final[dict[Status, Signal]] = {
    "completed": Signal.COMPLETED,
    "incomplete": Signal.CUT_SHORT,
    "cancelled": Signal.STOPPED,
    "failed": Signal.FAILED,
    "interrupted": Signal.OWNER_LOST,
}

_REFUSALS_KEPT: Final = 256


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionLimits:
    """What one session may hold."""

    conversation_bytes: int = 2 * 1024 * 1024
    """All items together; answers are let finish, so one may go beyond."""
    items: int = 10_000
    beside: int = 4
    """Responses that run outside the conversation at the same time."""
    queued: int = 8
    """Responses that wait behind the running one."""


class Session:
    """The state of one conversation after :attr:`applied` entries."""

    def __init__(self, session_id: SessionId, limits: SessionLimits) -> None:
        self.id: Final = session_id
        self.limits: Final = limits
        self.principal: PrincipalId | None = None
        """None until the log's first entry is applied."""
        self.config = SessionConfig(model="")
        self.applied = 0
        """The last sequence number applied."""
        self.consumed = 0
        """The last input that was answered."""
        self.responses: dict[ResponseId, Response] = {}
        """Attempts that haven't ended, oldest first."""
        self.refusals: dict[int, Refused] = {}
        """The latest refusals, by their input."""
        self._conversation = Conversation()
        self._inputs: deque[tuple[int, Submitted]] = deque()

    # What has happened.

    def apply(self, entry: Entry) -> None:
        """Take in the next committed entry.

        Raises:
            OutOfOrder: *entry* does not follow the last one directly. Nothing has changed.
            IllegalTransition: The log holds what no correct owner writes.

        """
        if entry.seq != self.applied + 1:
            raise OutOfOrder(self.applied + 1, entry.seq)
        body = entry.body
        match body:
            case Deltas():
                response = self.responses[body.response_id]
                if response.attempt.state is not AttemptState.STREAMING:  # else the table says: as it is
                    response.attempt.tell(Signal.PRODUCED)
                response.parts += body.parts
                response.ordinal += len(body.parts)
            case Submitted():
                self._inputs.append((entry.seq, body))
            case SessionOpened():
                self.principal = body.principal
                self.config = body.config
            case ConfigUpdated():
                self.config = body.config
                self.consume(body.input)
            case ItemAdded():
                self._conversation.insert(body.item, body.previous)
                self.consume(body.input)
            case ItemDeleted():
                for response in self.responses.values():
                    if response.anchor == body.item_id:
                        response.anchor = self._conversation.before(body.item_id)
                self._conversation.delete(body.item_id)
                self.consume(body.input)
            case Refused():
                self.refusals[body.input] = body
                while len(self.refusals) > _REFUSALS_KEPT:
                    del self.refusals[next(iter(self.refusals))]
                self.consume(body.input)
            case CancelAccepted():
                response = self.responses[body.response_id]
                response.attempt.tell(Signal.CANCEL_ACCEPTED)
                response.cancel_reason = body.reason
                self.consume(body.input)
            case (
                ResponseQueued()
                | ResponseStarted()
                | HandleNoted()
                | OutputStarted()
                | OutputDone()
                | ResponseDone()
            ):
                self._apply_response(body, entry.seq)
            case _:
                assert_never(body)
        self.applied = entry.last

    def _apply_response(
        self,
        body: ResponseQueued | ResponseStarted | HandleNoted | OutputStarted | OutputDone | ResponseDone,
        seq: int,
    ) -> None:
        match body:
            case ResponseQueued():
                attempt = Attempt(body.response_id, AttemptState.QUEUED)
                self.responses[body.response_id] = Response(
                    attempt,
                    body.request,
                    turn=body.input,
                    started_at=seq,
                    anchor=self._conversation.last,
                )
                self.consume(body.input)
            case ResponseStarted():
                queued = self.responses.get(body.response_id)
                if queued is not None:
                    queued.attempt.tell(Signal.STARTED)
                    queued.ordinal = 1
                else:
                    self.responses[body.response_id] = Response(
                        Attempt(body.response_id),
                        body.request,
                        turn=body.turn,
                        number=body.attempt,
                        started_at=seq,
                        ordinal=1,
                        anchor=self._conversation.last,
                    )
                    self.consume(body.turn)
            case HandleNoted():
                response = self.responses[body.response_id]
                response.handle = body.handle
                response.ordinal += 1
            case OutputStarted():
                response = self.responses[body.response_id]
                response.attempt.tell(Signal.PRODUCED)
                response.item_id = body.item_id
                response.previous = body.previous
                response.ordinal += 1
                if body.in_conversation:
                    begun = Message(body.item_id, "assistant", (), "in_progress")
                    self._conversation.insert(begun, body.previous, is_open=True)
                    for waiting in self._in_conversation():
                        # It was asked for behind the same item, and comes behind this answer.
                        if waiting is not response and waiting.anchor == body.previous:
                            waiting.anchor = body.item_id
            case OutputDone():
                self.responses[body.response_id].ordinal += 1
                if body.in_conversation:
                    self._conversation.close(body.item)
            case ResponseDone():
                self.responses.pop(body.response_id).attempt.tell(_SIGNAL_OF_STATUS[body.status])
            case _:
                assert_never(body)

    def consume(self, seq: int) -> None:
        """Note that the inputs up to *seq* are answered, also those that called for no output."""
        self.consumed = max(self.consumed, seq)
        while self._inputs and self._inputs[0][0] <= self.consumed:
            self._inputs.popleft()

    # What is so.

    @property
    def conversation_bytes(self) -> int:
        """Bytes that all items take, roughly."""
        return self._conversation.size

    def items(self) -> list[Message]:
        """Return the conversation's whole items, in order."""
        return self._conversation.whole()

    def item(self, item_id: str) -> Message | None:
        """Return one item; None where there is none of that id. One being produced has no text yet."""
        return self._conversation.find(item_id)

    def standing(self) -> list[Standing]:
        """Return what to show to somebody who has seen nothing: items in order, and what is being said.

        An item that is being produced appears in its place, as its response.
        """
        begun = (each for each in self.responses.values() if each.ordinal)
        return self._conversation.standing([Ongoing.of(each) for each in begun])

    def prompt(self, response_id: ResponseId) -> tuple[Message, ...]:
        """Return the items that a response that is about to start has to answer.

        Those that were there when it was asked for, and the answers to what was asked before.
        """
        response = self.responses[response_id]
        given = response.request.input
        return tuple(self._conversation.through(response.anchor)) if given is None else given

    @property
    def is_running(self) -> bool:
        """Whether any response hasn't ended."""
        return bool(self.responses)

    @property
    def running_from(self) -> int | None:
        """The first entry of the oldest response that hasn't ended; None: there is none."""
        return next((response.started_at for response in self.responses.values()), None)

    @property
    def has_inputs(self) -> bool:
        """Whether an input waits to be answered."""
        return bool(self._inputs)

    @property
    def is_busy(self) -> bool:
        """Whether there is something left to say: a response hasn't ended, or an input isn't answered."""
        return self.is_running or self.has_inputs

    def _in_conversation(self) -> list[Response]:
        """Return the running response of the conversation and those that wait behind it, in order."""
        return [each for each in self.responses.values() if each.request.in_conversation]

    # What follows.

    def decide(self) -> tuple[int, list[Body]]:
        """Return the oldest unanswered input and the outputs that answer it.

        The outputs may be none, when what was asked for is so already. Call
        only while :attr:`has_inputs`.
        """
        seq, submitted = self._inputs[0]
        try:
            return seq, self._answer(seq, submitted)
        except Refusal as refusal:
            refused = Refused(
                seq, submitted.chain, refusal.code, refusal.message, refusal.param, submitted.event_id
            )
            return seq, [refused]

    def _answer(self, seq: int, submitted: Submitted) -> list[Body]:
        command = submitted.command
        match command:
            case CreateItem():
                return [ItemAdded(command.item, self._place(command), seq)]
            case DeleteItem():
                item = self._conversation.find(command.item_id)
                if item is None:
                    raise no_item(command.item_id, "item_id")
                if self._conversation.is_open(item.id):
                    raise Refusal(
                        "item_in_progress",
                        "The item is still being produced. Cancel its response first.",
                        param="item_id",
                    )
                return [ItemDeleted(item.id, seq)]
            case UpdateConfig():
                return [ConfigUpdated(_changed(self.config, command), seq)]
            case CreateResponse():
                return self._begin(seq, command)
            case CancelResponse():
                return self._cancel(seq, command)
            case _:
                assert_never(command)

    def _place(self, command: CreateItem) -> ItemId | None:
        item, conversation = command.item, self._conversation
        if conversation.find(item.id) is not None:
            raise Refusal("item_id_taken", f"An item {item.id!r} exists already.", param="item.id")
        if (
            conversation.size + item.size > self.limits.conversation_bytes
            or len(conversation) >= self.limits.items
        ):
            raise _full(self.limits)
        return conversation.place(command.previous)

    def _begin(self, seq: int, command: CreateResponse) -> list[Body]:
        response_id, request = command.response_id, command.request
        if not request.in_conversation:
            beside = len(self.responses) - len(self._in_conversation())
            if beside >= self.limits.beside:
                raise Refusal(
                    "too_many_responses",
                    f"{beside} responses run beside the conversation already. Wait for one of them to end.",
                )
            return [ResponseStarted(response_id, request, turn=seq)]
        if self._conversation.size >= self.limits.conversation_bytes:
            raise _full(self.limits)
        active = self._in_conversation()
        if not active:
            return [ResponseStarted(response_id, request, turn=seq)]
        match self.config.concurrency:
            case Concurrency.REJECT:
                raise Refusal(
                    "conversation_already_has_active_response",
                    f"Response {active[0].id} is in progress. Wait until it is done, or cancel it.",
                )
            case Concurrency.QUEUE:
                if len(active) > self.limits.queued:
                    raise Refusal(
                        "response_queue_full",
                        f"{len(active) - 1} responses wait already. Wait until one is done, or cancel.",
                    )
                return [ResponseQueued(response_id, request, seq)]
            case Concurrency.INTERRUPT:
                stops: list[Body] = [
                    CancelAccepted(each.id, "superseded")
                    for each in active
                    if each.attempt.accepts(Signal.CANCEL_ACCEPTED)
                ]
                return [*stops, ResponseQueued(response_id, request, seq)]
            case other:
                assert_never(other)

    def _cancel(self, seq: int, command: CancelResponse) -> list[Body]:
        if command.response_id is None:
            targets = self._in_conversation()
        else:
            targets = [each for each in self.responses.values() if each.id == command.response_id]
        if not targets:
            raise Refusal(
                "response_cancel_not_active",
                "There is no response in progress to cancel."
                if command.response_id is None
                else f"Response {command.response_id[:64]!r} isn't in progress.",
                param=None if command.response_id is None else "response_id",
            )
        return [
            CancelAccepted(each.id, "client", seq)
            for each in targets
            if each.attempt.accepts(Signal.CANCEL_ACCEPTED)
        ]

    def promote(self) -> list[Body]:
        """Return what starts the next waiting response, if the conversation is free for it."""
        active = self._in_conversation()
        if active and active[0].attempt.state is AttemptState.QUEUED:
            first = active[0]
            return [ResponseStarted(first.id, first.request, turn=first.turn)]
        return []

    def begin_output(self, response_id: ResponseId, item_id: ItemId, ordinal: int) -> OutputStarted:
        """Return what begins a response's output, as its entry *ordinal*."""
        response = self.responses[response_id]
        in_conversation = response.request.in_conversation
        previous = response.anchor if in_conversation else None
        return OutputStarted(response_id, item_id, in_conversation, previous, ordinal)

    def finish(self, response_id: ResponseId, outcome: Outcome) -> Iterator[Body]:
        """Yield what ends a response. Everything it produced must have been applied."""
        response = self.responses[response_id]
        status, reason = outcome.status, outcome.reason
        if response.attempt.state is AttemptState.CANCELLING and status != "interrupted":
            # However the responder ended meanwhile: the client was told that it is cancelled.
            status, reason = "cancelled", response.cancel_reason
        output: tuple[Message, ...] = ()
        ordinal = response.ordinal
        if response.item_id is not None:
            whole: Literal["completed", "incomplete"] = "completed" if status == "completed" else "incomplete"
            text = "".join(response.parts)
            item = Message(response.item_id, "assistant", (Text(text),), whole)
            output = (item,)
            yield OutputDone(response_id, item, response.request.in_conversation, response.previous, ordinal)
            ordinal += 1
        yield ResponseDone(
            response_id,
            status,
            ordinal,
            output,
            reason,
            outcome.failure if status in ("failed", "interrupted") else None,
            outcome.usage,
            response.request.metadata,
            response.request.in_conversation,
        )

    # Being moved.

    def snapshot(self) -> bytes:
        """Return the state after :attr:`applied` entries, encoded for :meth:`restore`."""
        return encode_state(
            SessionState(
                v=FORMAT,
                applied=self.applied,
                consumed=self.consumed,
                principal=self.principal,
                config=self.config,
                items=self._conversation.state(),
                inputs=list(self._inputs),
                responses=[RunningState.of(each) for each in self.responses.values()],
                refusals=list(self.refusals.values()),
            )
        )

    @classmethod
    def restore(cls, session_id: SessionId, limits: SessionLimits, data: bytes) -> Session:
        """Return the session that :meth:`snapshot` made *data* of.

        Raises:
            UnknownFormat: It was written by a later version, or isn't a snapshot at all.

        """
        state = decode_state(data)
        session = cls(session_id, limits)
        session.applied = state.applied
        session.consumed = state.consumed
        session.principal = state.principal
        session.config = state.config
        session.refusals = {refused.input: refused for refused in state.refusals}
        session._inputs.extend(state.inputs)
        session._conversation = Conversation.restore(state.items)
        for running in state.responses:
            session.responses[running.id] = running.response(session._conversation.last)
        return session

    def __repr__(self) -> str:
        return f"<Session {self.id} applied {self.applied}, {len(self.responses)} running>"


def _full(limits: SessionLimits) -> Refusal:
    return Refusal(
        "conversation_full",
        f"The conversation holds its {limits.conversation_bytes} bytes or {limits.items} items. "
        "Delete items, or start a new session.",
    )


def _changed(config: SessionConfig, change: UpdateConfig) -> SessionConfig:
    return SessionConfig(
        model=config.model,
        instructions=config.instructions if change.instructions is UNSET else change.instructions,
        max_output_tokens=(
            config.max_output_tokens if change.max_output_tokens is UNSET else change.max_output_tokens
        ),
        concurrency=config.concurrency if change.concurrency is UNSET else change.concurrency,
    )
