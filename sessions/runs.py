"""The responders that work on one session: started, stopped, and made to match what its log says.

Also what its last owner left: responses that nobody works on any more.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import replace
from functools import partial
from typing import Final

import structlog

from unbroken.sessions.clock import Clock
from unbroken.sessions.custody import Custody
from unbroken.sessions.entries import Body, HandleNoted, ResponseDone
from unbroken.sessions.errors import NodeDraining
from unbroken.sessions.ids import ItemId, PrincipalId, ResponseId, SessionId, new_response_id
from unbroken.sessions.recovery import another_attempt, resumption_of
from unbroken.sessions.responder import Abandoning, Responder, Resuming, Resumption, Turn
from unbroken.sessions.response import Response
from unbroken.sessions.run import CANCELLED, INTERRUPTED, Run, RunLimits, Spawn
from unbroken.sessions.session import Session
from unbroken.sessions.turn import AttemptState

__all__ = ["Runs", "log_end"]

_CANCELLING: Final = AttemptState.CANCELLING
"""For what is asked at each piece: a member's name is looked up by code."""

# What nearly every session has: no memory for each.
_NONE: Final[frozenset[ResponseId]] = frozenset()
_NOTHING: Final[Mapping[ResponseId, Resumption]] = {}


class Runs:
    """The runs of one session's owner.

    Args:
        session: What they work on.
        principal: Whom for.
        responder: What answers.
        clock: Where time comes from.
        limits: What a run may do.
        attempts: How often a turn is attempted whose owners are lost.
        spawn: Starts a task that its owner, the node, will wait for.
        heard: Called when one has something new, or has ended.
        on_end: Told of each that has ended here.
        is_sole: Whether nobody else can own the session.

    """

    __slots__ = (
        "_attempts",
        "_clock",
        "_heard",
        "_is_interrupting",
        "_is_sole",
        "_limits",
        "_on_end",
        "_orphans",
        "_owed",
        "_principal",
        "_responder",
        "_resumed",
        "_runs",
        "_session",
        "_spawn",
    )

    def __init__(
        self,
        session: Session,
        principal: PrincipalId,
        responder: Responder,
        clock: Clock,
        limits: RunLimits,
        *,
        attempts: int,
        spawn: Spawn,
        heard: Callable[[], None],
        on_end: Callable[[Run], None],
        is_sole: bool,
    ) -> None:
        self._session = session
        self._principal = principal
        self._responder = responder
        self._clock = clock
        self._limits = limits
        self._attempts = attempts
        self._spawn = spawn
        self._heard = heard
        self._on_end = on_end
        self._runs: dict[ResponseId, Run] = {}
        self._orphans = _NONE  # what ran under an owner that is gone
        self._resumed = _NOTHING  # of those, what goes on here
        self._is_interrupting = False
        self._is_sole = is_sole
        # Of what has ended, or is gone on without, and the store isn't known to hold that.
        self._owed: tuple[Custody, ...] = ()

    def __len__(self) -> int:
        return len(self._runs)

    @property
    def has_ended(self) -> bool:
        """Whether one of them has ended, and the log doesn't say so yet."""
        return any(run.outcome is not None for run in self._runs.values())

    def produced(self) -> tuple[list[Body], bool]:
        """Return what they have produced since the last time, and whether one has ended."""
        bodies: list[Body] = []
        has_ended = False
        for run in self._runs.values():
            if run.outcome is not None:
                has_ended = True
            news = run.take()
            if not news and run.handle is None:
                continue
            response = self._session.responses[run.response_id]
            ordinal = response.ordinal
            if run.handle is not None and run.handle == response.handle:
                run.handle = None  # it is known, and once more would be a takeover
            if run.handle is not None:
                bodies.append(HandleNoted(run.response_id, run.handle, ordinal))
                run.handle = None
                ordinal += 1
                if run.given_up:
                    self._owed += tuple(run.given_up)
                    run.given_up.clear()
            if response.attempt.state is not _CANCELLING:  # what comes after a cancel is dropped
                bodies += self._session.write(run.response_id, news, ordinal)
        return bodies, has_ended

    def ended(self) -> list[Body]:
        """Return what ends the first attempt that has come to its end, or what lets it go on here."""
        for response in self._session.responses.values():
            run = self._runs.get(response.id)
            state = response.attempt.state
            is_lost = False  # whether it ends because its owner is gone
            if run is not None:
                outcome = run.outcome
                if outcome is not None and run.is_rest_lost and response.id in self._resumed:
                    outcome, is_lost = replace(INTERRUPTED, usage=outcome.usage, notes=outcome.notes), True
            elif self._is_interrupting:
                outcome = INTERRUPTED
            elif state is AttemptState.CANCELLING:
                outcome = CANCELLED  # it never began to run, or its owner is gone
            elif response.id in self._orphans:
                if self._resume(response):
                    return [HandleNoted(response.id, response.handle or "", response.ordinal)]
                outcome, is_lost = INTERRUPTED, True
            else:
                outcome = None
            if outcome is not None:
                if run is not None:
                    del self._runs[response.id]
                    self._on_end(run)
                    self._owed += (run.custody,)
                elif response.id in self._orphans:
                    self._abandon(response)
                if response.id in self._resumed:
                    self._resumed = {key: each for key, each in self._resumed.items() if key != response.id}
                bodies = list(self._session.finish(response.id, outcome))
                if is_lost:
                    another = new_response_id(self._session.id, self._clock.time())
                    bodies += another_attempt(response, another, self._attempts)
                return bodies
        return []

    def reconcile(self) -> None:
        """Start and stop runs until they match the session's state."""
        for response in self._session.responses.values():
            run = self._runs.get(response.id)
            state = response.attempt.state
            if run is None:
                resumption = self._resumed.get(response.id)
                is_ours = response.id not in self._orphans and not self._is_interrupting
                if is_ours and (state is AttemptState.STARTING or resumption is not None):
                    self._start(response, resumption)
            elif state is AttemptState.CANCELLING:
                run.stop(CANCELLED)

    def _start(self, response: Response, resumption: Resumption | None) -> None:
        run = Run(response.id, self._limits, self._clock, self._heard)
        self._runs[response.id] = run
        known = () if resumption is None else response.outputs
        turn = self._turn(response, resumption)
        run.start(self._spawn, self._responder, turn, self._session.call_ids(response.id), known)

    def _turn(self, response: Response, resumption: Resumption | None) -> Turn:
        return Turn(
            session_id=self._session.id,
            response_id=response.id,
            principal=self._principal,
            attempt=response.number,
            number=response.turn,
            config=response.request.config_in(self._session.config),
            request=response.request,
            items=self._session.prompt(response.id),
            approved=self._session.approved(response.id),
            resumption=resumption,
            custody=Custody(is_sole=self._is_sole),
        )

    def note_started(self, response_id: ResponseId, item_id: ItemId) -> None:
        """Note that the log says that a call is being run."""
        if (run := self._runs.get(response_id)) is not None:
            run.note_started(item_id)

    # Owners change.

    def adopt(self, response_ids: Iterable[ResponseId]) -> None:
        """Note what ran under an owner that is gone."""
        self._orphans = frozenset(response_ids) or _NONE

    def _resume(self, response: Response) -> bool:
        """Let an orphan go on here, if its upstream keeps it alive; True: once that is in the log."""
        resumption = self._resumption(response)
        if resumption is None:
            return False
        self._orphans -= {response.id}
        self._resumed = {**self._resumed, response.id: resumption}
        return True

    def _abandon(self, response: Response) -> None:
        """Have an orphan's upstream stop, if it still works, once the orphan's end is in the store.

        Else that is billed, and nobody has it.
        """
        if response.handle is not None and isinstance(self._responder, Abandoning):
            custody = Custody(is_sole=False)
            custody.stop(partial(self._tell_to_stop, self._responder, response.handle))
            self._owed += (custody,)

    def _tell_to_stop(self, responder: Abandoning, handle: str) -> None:
        with suppress(NodeDraining):
            self._spawn(responder.abandon(handle))

    def settle(self) -> None:
        """Note that the store has taken, under this owner's fence, all that was to be written.

        So it holds each end, and with which upstream no response goes on.
        """
        owed, self._owed = self._owed, ()
        for custody in owed:
            custody.settle()

    def _resumption(self, response: Response) -> Resumption | None:
        responder = self._responder
        can_resume = isinstance(responder, Resuming) and responder.can_resume
        return resumption_of(response) if can_resume else None

    @property
    def are_recoverable(self) -> bool:
        """Whether another owner could go on with, or begin anew, all that runs here."""
        return all(
            response.attempt.state is AttemptState.QUEUED
            or self._resumption(response) is not None
            or another_attempt(response, response.id, self._attempts)
            for response in self._session.responses.values()
        )

    def interrupt(self) -> None:
        """End every response now, as interrupted, and begin none: the node is shutting down."""
        self._is_interrupting = True
        for run in self._runs.values():
            run.stop(INTERRUPTED)

    def stay(self) -> bool:
        """Begin responses again. What was stopped stays so. Return whether none was begun until now."""
        was_interrupting, self._is_interrupting = self._is_interrupting, False
        return was_interrupting

    def stop(self) -> None:
        """Stop all, and forget them: nobody will write what they have produced.

        What their upstreams do by themselves is the next owner's, who goes on with it or has it stopped.
        """
        for run in self._runs.values():
            run.stop(INTERRUPTED)
        self._forget()

    def end(self) -> list[ResponseDone]:
        """Stop all for good, and return how each response ends: cancelled. No other owner goes on with any.

        What their upstreams do by themselves is stopped, too.
        """
        bodies: list[Body] = []
        for response in tuple(self._session.responses.values()):
            if response.id in self._orphans:
                self._abandon(response)
            bodies += self._session.finish(response.id, CANCELLED)
        for run in self._runs.values():
            for custody in (run.custody, *run.given_up):
                custody.settle()
            run.stop(CANCELLED)
            self._on_end(run)
        self.settle()
        self._forget()
        return [body for body in bodies if isinstance(body, ResponseDone)]

    def pass_on(self) -> None:
        """As :meth:`stop`, and leave their upstreams' work to another owner, which may be at it already."""
        for run in self._runs.values():
            run.pass_on()
        for custody in self._owed:
            custody.pass_on()
        self._owed = ()
        self._forget()

    def _forget(self) -> None:
        self._runs.clear()
        self._orphans, self._resumed = _NONE, _NOTHING


def log_end(session_id: SessionId, done: ResponseDone) -> None:
    """Log that a response has ended."""
    log = structlog.get_logger()
    # What is as it should be is counted, not logged by default: a line costs a third of an answer.
    (log.debug if done.status == "completed" else log.info)(
        "response ended",
        session_id=session_id,
        response_id=done.response_id,
        status=done.status,
        code=None if done.failure is None else done.failure.code,
    )
