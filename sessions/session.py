"""One conversation, as a pure value: apply entries, decide on inputs.

A session learns everything from its log. :meth:`Session.apply` takes committed
entries one by one, foreign inputs among them; :meth:`Session.decide` says which
outputs the next unanswered input calls for, and changes nothing. So a session
that was rebuilt from its log, on another node, decides as the first one would.

No I/O, no clock, no wire format.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from typing import Final, assert_never

from msgspec import UNSET
from msgspec.structs import replace

from unbroken.sessions.admission import SessionLimits, admit, check_choice, full
from unbroken.sessions.concurrency import moved_on, not_active, while_active
from unbroken.sessions.conversation import Conversation, no_item
from unbroken.sessions.endings import Ended, Endings
from unbroken.sessions.entries import (
    FORMAT,
    Body,
    CancelAccepted,
    CancelResponse,
    Command,
    ConfigUpdated,
    CreateItem,
    CreateItems,
    CreateResponse,
    DeleteItem,
    Deltas,
    Entry,
    HandleNoted,
    InputKey,
    ItemAdded,
    ItemDeleted,
    OutputDone,
    OutputStarted,
    Refused,
    ResponseDone,
    ResponseMerged,
    ResponseQueued,
    ResponseStarted,
    SessionOpened,
    Status,
    Submitted,
    ToolStarted,
    TruncateItem,
    UpdateConfig,
)
from unbroken.sessions.errors import OutOfOrder, Refusal
from unbroken.sessions.ids import ChainId, ItemId, PrincipalId, ResponseId, SessionId
from unbroken.sessions.items import (
    ApprovalRequest,
    CallHead,
    FunctionCall,
    Item,
    Reasoning,
    SessionConfig,
)
from unbroken.sessions.joining import deleted, joined
from unbroken.sessions.outputs import Taken
from unbroken.sessions.production import continued, finished, written
from unbroken.sessions.response import Ongoing, Outcome, Response, ResponseOutput, Standing
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
_KEYS: Final = 16
_BEGUN_KEPT: Final = 8
"""Responses that are known again: a request may come twice within seconds, and then carries the same id."""


_STREAMING: Final = AttemptState.STREAMING
"""For what is asked at each piece: a member's name is looked up by code."""


class Session:
    """The state of one conversation after :attr:`applied` entries."""

    def __init__(self, session_id: SessionId, limits: SessionLimits) -> None:
        self.id: Final = session_id
        self.limits: Final = limits
        self.principal: PrincipalId | None = None
        """None until the log's first entry is applied."""
        self.config = SessionConfig(model="")
        self.opened_at: int | None = None
        """In milliseconds since 1970. None: nobody knows."""
        self.applied = 0
        """The last sequence number applied."""
        self.consumed = 0
        """The last input that was answered."""
        self.responses: dict[ResponseId, Response] = {}
        """Attempts that haven't ended, oldest first."""
        self.refusals: dict[int, Refused] = {}
        """The latest refusals, by their input."""
        self.keys: dict[int, InputKey] = {}
        """Those of the latest inputs, by their numbers."""
        self._conversation = Conversation(limits.weigh)
        self._inputs: deque[tuple[int, Submitted]] = deque()
        self._begun: tuple[ResponseId, ...] = ()  # the latest
        self._merged: tuple[ResponseId, ...] = ()  # of those, what another one answers
        self.endings = Endings()
        """How the latest attempts in the conversation ended."""
        self.ended_plan: str | None = None
        """By which plan the attempt was asked for that ended last. None: nobody has said. In no snapshot."""
        # The turn and the place of the attempt that ended last: another follows at once, or never.
        self._last_ended: tuple[int, ItemId | None] = (0, None)

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
                if response.attempt.state is not _STREAMING:  # else the table says: as it is
                    response.attempt.tell(Signal.PRODUCED)
                parts = body.parts
                response.outputs[body.output_index].parts += parts
                response.ordinal += len(parts)
                self.applied += len(parts)
                return
            case Submitted():
                self._inputs.append((entry.seq, body))
                if body.key is not None:
                    self.keys[entry.seq] = body.key
                    if len(self.keys) > _KEYS:
                        del self.keys[next(iter(self.keys))]
            case SessionOpened():
                self.principal = body.principal
                self.config = body.config
                self.opened_at = None if body.at is UNSET else body.at
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
                self.endings.note_deleted(body.item_id)
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
                | ResponseMerged()
                | ResponseStarted()
                | HandleNoted()
                | OutputStarted()
                | ToolStarted()
                | OutputDone()
                | ResponseDone()
            ):
                self._apply_response(body, entry.seq)
            case _:
                assert_never(body)
        self.applied = entry.seq

    def _apply_response(
        self,
        body: ResponseQueued
        | ResponseMerged
        | ResponseStarted
        | HandleNoted
        | OutputStarted
        | ToolStarted
        | OutputDone
        | ResponseDone,
        seq: int,
    ) -> None:
        match body:
            case ResponseQueued():
                attempt = Attempt(body.response_id, AttemptState.QUEUED)
                self._note_begun(body.response_id)
                self.responses[body.response_id] = Response(
                    attempt,
                    body.request,
                    turn=body.input,
                    started_at=seq,
                    anchor=self._conversation.last,
                    requests=body.requests,
                )
                self.consume(body.input)
            case ResponseMerged():
                response = self.responses[body.response_id]
                known = () if response.requests is UNSET else response.requests
                response.requests = (*known, body.event_id)
                self._note_merged(body.input)
                self.consume(body.input)
            case ResponseStarted():
                queued = self.responses.get(body.response_id)
                if queued is not None:
                    queued.attempt.tell(Signal.STARTED)
                    queued.ordinal = 1
                    if queued.requests is not UNSET:
                        queued.anchor = self._conversation.last
                else:
                    self._note_begun(body.response_id)
                    self.responses[body.response_id] = Response(
                        Attempt(body.response_id),
                        body.request,
                        turn=body.turn,
                        number=body.attempt,
                        started_at=seq,
                        ordinal=1,
                        anchor=self._anchor_of(body),
                    )
                    self.consume(body.turn)
            case HandleNoted():
                self.responses[body.response_id].note_handle(body.handle)
            case OutputStarted():
                response = self.responses[body.response_id]
                response.attempt.tell(Signal.PRODUCED)
                head = None if body.call is UNSET else body.call
                output = ResponseOutput(
                    body.item_id,
                    body.previous,
                    head if body.head is UNSET else body.head,
                    in_conversation=body.in_conversation,
                )
                response.outputs.append(output)
                response.ordinal += 1
                if body.in_conversation:
                    item = output.item("in_progress")
                    if isinstance(item, Reasoning):
                        raise AssertionError("can't happen: it is in no conversation")
                    self._conversation.insert(item, body.previous, is_open=True)
                    for waiting in self._in_conversation():
                        # It was asked for behind the same item, and comes behind this answer.
                        if waiting is not response and waiting.anchor == body.previous:
                            waiting.anchor = body.item_id
            case ToolStarted():
                response = self.responses[body.response_id]
                response.outputs[body.output_index].is_run = True
                response.ordinal += 1
            case OutputDone():
                response = self.responses[body.response_id]
                response.outputs[body.output_index].done = body.item
                response.ordinal += 1
                if body.in_conversation and not isinstance(body.item, Reasoning):
                    self._conversation.close(body.item)
            case ResponseDone():
                response = self.responses.pop(body.response_id)
                response.attempt.tell(_SIGNAL_OF_STATUS[body.status])
                self._last_ended = response.turn, response.anchor
                if response.request.in_conversation:
                    self.endings.note(Ended.of(response, body, self._end_of(response)))
                self.ended_plan = response.request.plan
            case _:
                assert_never(body)

    def _note_begun(self, response_id: ResponseId) -> None:
        self._begun = (*self._begun[1 - _BEGUN_KEPT :], response_id)

    def _note_merged(self, seq: int) -> None:
        for number, submitted in self._inputs:
            if number == seq and isinstance(submitted.command, CreateResponse):
                self._note_begun(submitted.command.response_id)
                self._merged = (*self._merged[1 - _BEGUN_KEPT :], submitted.command.response_id)

    def _anchor_of(self, started: ResponseStarted) -> ItemId | None:
        """Return the item that a response comes behind: a further attempt's is the first one's."""
        turn, anchor = self._last_ended
        return anchor if started.attempt > 1 and turn == started.turn else self._conversation.last

    def consume(self, seq: int) -> None:
        """Note that the inputs up to *seq* are answered, also those that called for no output."""
        self.consumed = max(self.consumed, seq)
        while self._inputs and self._inputs[0][0] <= self.consumed:
            self._inputs.popleft()

    # What is so.

    def was_merged(self, response_id: ResponseId) -> bool:
        """Whether a request of late is answered by another's response, as far as is known here."""
        return response_id in self._merged

    def later_attempt(self, response_id: str) -> ResponseId | None:
        """Return the latest attempt at the turn of one that was cut off; None: nobody knows of any."""
        return self.endings.later_attempt(response_id, self.responses.values())

    @property
    def conversation_bytes(self) -> int:
        """Bytes that all items take, roughly."""
        return self._conversation.size

    @property
    def weight(self) -> int:
        """What the conversation's whole items weigh, by the limits' measure."""
        return self._conversation.weight

    def items(self) -> list[Item]:
        """Return the conversation's whole items, in order."""
        return self._conversation.whole()

    def item(self, item_id: str) -> Item | None:
        """Return one item; None where there is none of that id. One being produced has no text yet."""
        return self._conversation.find(item_id)

    def standing(self) -> list[Standing]:
        """Return what to show to somebody who has seen nothing: items in order, and what is being said.

        An item that is being produced appears in its place, as a part of its response.
        """
        begun = (each for each in self.responses.values() if each.ordinal)
        return self._conversation.standing([part for each in begun for part in Ongoing.of(each)])

    def prompt(self, response_id: ResponseId) -> tuple[Item, ...]:
        """Return the items that a response that is about to start has to answer.

        Those that were there when it was asked for, and the answers to what was asked before.
        """
        response = self.responses[response_id]
        given = response.request.input
        return response.request.heard(self._conversation.through(response.anchor) if given is None else given)

    def call_ids(self, response_id: ResponseId) -> set[str]:
        """Return the names that the calls of a response that is about to start must not have."""
        given = self.responses[response_id].request.input or ()
        return self._conversation.call_ids | {
            each.call_id for each in given if isinstance(each, FunctionCall)
        }

    def approved(self, response_id: ResponseId) -> tuple[ApprovalRequest, ...]:
        """Return the tools' calls that a response that is about to start has to run first.

        Only one that answers the conversation runs any, and of those there is one at a time.
        """
        request = self.responses[response_id].request
        return tuple(self._conversation.approved()) if request.answers_conversation else ()

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

    @property
    def running_ids(self) -> list[ResponseId]:
        """Return the attempts that have begun to run and haven't ended."""
        return [each.id for each in self.responses.values() if each.attempt.state is not AttemptState.QUEUED]

    def is_running_after(self, bodies: Sequence[Body]) -> bool:
        """Return whether a response won't have ended once *bodies* are applied."""
        running = set(self.responses)
        for body in bodies:
            if type(body) is ResponseStarted or type(body) is ResponseQueued:
                running.add(body.response_id)
            elif type(body) is ResponseDone:
                running.discard(body.response_id)
        return bool(running)

    def _in_conversation(self) -> list[Response]:
        """Return the running response of the conversation and those that wait behind it, in order.

        What waited while a turn was begun anew is older than its further attempt.
        """
        found = [each for each in self.responses.values() if each.request.in_conversation]
        return sorted(found, key=lambda each: each.attempt.state is AttemptState.QUEUED)

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

    def check(self, command: Command) -> None:
        """Raise the Refusal that *command* would get as the next input; change nothing."""
        self._answer(self.applied + 1, Submitted(command, ChainId("")))

    def _answer(self, seq: int, submitted: Submitted) -> list[Body]:
        command = submitted.command
        match command:
            case CreateItem():
                place = admit(command, self._conversation, self.limits)
                return [ItemAdded(command.item, place, seq)]
            case CreateItems():
                return joined(self._conversation, self.limits, command.items, seq=seq)
            case DeleteItem():
                item = self._conversation.find(command.item_id)
                if item is None:
                    raise no_item(command.item_id, "item_id")
                return [ItemDeleted(each, seq) for each in deleted(item, self._conversation)]
            case TruncateItem():
                raise self._conversation.no_audio(command.item_id)
            case UpdateConfig():
                config = command.applied_to(self.config)
                tools = () if config.tools is UNSET else config.tools
                check_choice(config.tool_choice, tools, "session.tool_choice")
                return [ConfigUpdated(config, seq)]
            case CreateResponse():
                return self._begin(seq, command, submitted.event_id)
            case CancelResponse():
                return self._cancel(seq, command)
            case _:
                assert_never(command)

    def _begin(self, seq: int, command: CreateResponse, event_id: str | None) -> list[Body]:
        response_id, request = command.response_id, command.request
        if response_id in self._begun:  # its id was made for this input alone: it came twice
            return []
        config = request.config_in(self.config)
        check_choice(request.tool_choice_with(config), request.tools_with(config), "response.tool_choice")
        if not request.in_conversation:
            beside = len(self.responses) - len(self._in_conversation())
            if beside >= self.limits.beside:
                raise Refusal(
                    "too_many_responses",
                    f"{beside} responses run beside the conversation already. Wait for one of them to end.",
                )
            return [ResponseStarted(response_id, request, turn=seq)]
        if self._conversation.size >= self.limits.conversation_bytes:
            raise full(self.limits)
        active = self._in_conversation()
        if command.behind is not UNSET and (active or self._conversation.last != command.behind):
            raise moved_on()
        joins = joined(self._conversation, self.limits, command.said, command.removed)
        if not active:
            return [*joins, ResponseStarted(response_id, request, turn=seq)]
        begins = while_active(
            self.config.concurrency,
            command,
            seq,
            event_id,
            active=active,
            most_waiting=self.limits.queued,
        )
        return [*joins, *begins]

    def _cancel(self, seq: int, command: CancelResponse) -> list[Body]:
        if command.response_id is None:
            targets = self._in_conversation()
        else:
            # Whoever asks for it may not have heard yet that it is attempted again.
            meant = command.response_id, self.later_attempt(command.response_id)
            targets = [each for each in self.responses.values() if each.id in meant]
        if not targets:
            raise not_active(command.response_id)
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
            return [
                ResponseStarted(first.id, first.request, turn=first.turn, requests=first.merged),
            ]
        return []

    def _end_of(self, response: Response) -> ItemId | None:
        """Return the last item of a response, or else that which it answers; None: there is none."""
        for output in reversed(response.outputs):
            if output.in_conversation and self._conversation.find(output.item_id) is not None:
                return output.item_id  # others have been deleted since they ended
        return response.anchor

    def write(self, response_id: ResponseId, news: Sequence[Taken], ordinal: int) -> list[Body]:
        """Return what a response's run has produced, as entries from *ordinal* on.

        A function call whose id was given to another one meanwhile, by a client perhaps, gets its own.
        """
        response = self.responses[response_id]
        if len(news) == 1 and (more := continued(response, news[0], ordinal)) is not None:
            return [more]
        if response.request.in_conversation:
            known = len(response.outputs)
            news = [taken if taken.index < known else self._renamed(taken) for taken in news]
        return list(written(response, news, ordinal, self._end_of(response)))

    def _renamed(self, taken: Taken) -> Taken:
        head = taken.head
        if isinstance(head, CallHead) and self._conversation.call(head.call_id) is not None:
            return replace(taken, head=CallHead(f"call_of_{taken.item_id}", head.name))
        return taken

    def finish(self, response_id: ResponseId, outcome: Outcome) -> Iterator[Body]:
        """Yield what ends a response. Everything it produced must have been applied."""
        return finished(self.responses[response_id], outcome)

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
                begun=self._begun or UNSET,
                keys=list(self.keys.items()) or UNSET,
                endings=list(self.endings) or UNSET,
                opened_at=UNSET if self.opened_at is None else self.opened_at,
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
        session.opened_at = None if state.opened_at is UNSET else state.opened_at
        session.refusals = {refused.input: refused for refused in state.refusals}
        session._inputs.extend(state.inputs)
        session.keys = {} if state.keys is UNSET else dict(state.keys)
        session.endings = Endings(() if state.endings is UNSET else tuple(state.endings))
        session._begun = () if state.begun is UNSET else state.begun
        session._conversation = Conversation.restore(state.items, limits.weigh)
        for running in state.responses:
            session.responses[running.id] = running.response(session._conversation.last)
        return session

    def __repr__(self) -> str:
        return f"<Session {self.id} applied {self.applied}, {len(self.responses)} running>"
