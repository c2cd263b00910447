"""One responder at work on one attempt: its task, its time-outs, and its end.

What it produces is kept in :mod:`~unbroken.sessions.outputs` until it is taken.
"""

from __future__ import annotations

import asyncio
import math
import operator
from collections.abc import Callable, Coroutine, Iterable, Sequence
from contextlib import aclosing
from dataclasses import dataclass, replace
from typing import Any, Final

import structlog
from msgspec import UNSET
from structlog.contextvars import bind_contextvars

from unbroken.sessions.clock import Clock, Timer
from unbroken.sessions.custody import Custody
from unbroken.sessions.entries import Failure
from unbroken.sessions.errors import ResponderError
from unbroken.sessions.ids import ItemId, ResponseId
from unbroken.sessions.items import Usage
from unbroken.sessions.outputs import Outputs, Taken, cleaned
from unbroken.sessions.responder import (
    AsksApproval,
    Finish,
    FunctionCallPiece,
    Handle,
    Interjection,
    Notes,
    Output,
    ReasoningPiece,
    Responder,
    RunsTools,
    ToolCallPiece,
    ToolEnded,
    Turn,
    Unbilled,
    Working,
)
from unbroken.sessions.response import Outcome, ResponseOutput

__all__ = ["CANCELLED", "INTERRUPTED", "Run", "RunLimits", "Spawn"]

Spawn = Callable[[Coroutine[Any, Any, None]], "asyncio.Task[None]"]
"""Starts a task that its owner, the node, will wait for."""

CANCELLED: Final = Outcome(status="cancelled")

INTERRUPTED: Final = Outcome(
    status="interrupted",
    failure=Failure("interrupted", "The server was restarted before the answer was complete. Ask again."),
)

_REASONS: Final = ("completed", "max_output_tokens", "content_filter", "quota_exceeded")

_LONGEST_HANDLE: Final = 4096

_MOST_TOKENS: Final = 2**53 - 1
"""What every JSON reader takes without rounding."""

_BEAT: Final = 1.0
"""Seconds by which a time-out may be late, and still says something about the responder."""

_PIECES_HELD: Final = 256
"""Pieces after which the responder waits until they are written."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunLimits:
    """What an attempt is given. Times are in seconds."""

    stall_timeout: float = 60.0
    """Without a sign of life for so long, the attempt fails."""
    turn_timeout: float = 1800.0
    """After so long the attempt fails, whatever it still produces: signs of life alone may go on for ever."""
    stop_timeout: float = 2.0
    """A responder that was stopped and doesn't end is no longer waited for after so long."""
    output_bytes: int = 256 * 1024
    """UTF-8 bytes after which the answer is cut off, as incomplete."""


class Run:
    """A responder at work. Call :meth:`take`, and read :attr:`outcome`, whenever *notify* was called."""

    def __init__(
        self,
        response_id: ResponseId,
        limits: RunLimits,
        clock: Clock,
        notify: Callable[[], None],
    ) -> None:
        self.response_id: Final = response_id
        self.handle: str | None = None
        """The upstream's name for the response, until it is written. Empty: it has none any more."""
        self.outcome: Outcome | None = None
        """How it ended. None: it hasn't, or there is something left to take first."""
        self.is_rest_lost = False
        """Whether it failed to go on with another owner's: see :attr:`ResponderError.is_rest_lost`."""
        self.custody = Custody()
        """Whether its upstream's work may be stopped."""
        self.given_up: list[Custody] = []
        """The same of those that it goes on without, until that is written."""
        self._limits = limits
        self._clock = clock
        self._notify = notify
        self._room: asyncio.Event | None = None  # set when there is some again, if the responder waits for it
        self._task: asyncio.Task[None] | None = None
        self._interjection: Interjection | None = None
        self._ending: Outcome | None = None  # how it was stopped, by us
        self._outputs = Outputs(limits.output_bytes)
        self._awaited: set[ItemId] = set()  # the calls that are run once the log says so
        self._written: asyncio.Event | None = None  # set when it does
        self._shows_reasoning = False
        self._usage: Usage | None = None
        self._notes: Notes | None = None
        self._finish = Finish()
        self._deadline = 0.0
        self._due = 0.0  # when that is looked at next
        self.longest_gap: float | None = None
        """Seconds between two pieces that were the furthest apart; None: there were no two.

        Of pieces that are taken together, the last is known by the first: it may be too long by as much
        as their writer gathers them for.
        """
        self._last_piece: float | None = None  # when the pieces that were taken last began to come
        self._last_sign = 0.0  # when there was a sign of life, by the clock
        self._timer: Timer | None = None

    def start(
        self,
        spawn: Spawn,
        responder: Responder,
        turn: Turn,
        call_ids: Iterable[str] = (),
        known: Sequence[ResponseOutput] = (),
    ) -> None:
        """Begin, in a task of its own that never raises. No new function call gets one of *call_ids*.

        Where the turn is resumed, *known* is what has been written of it.
        """
        self.custody = turn.custody
        self._interjection = turn.interjection
        self._interjection.take = self._interject
        self._last_sign = self._clock.monotonic()
        self._deadline = self._last_sign + self._limits.turn_timeout
        self._watch()
        self._outputs = Outputs(self._limits.output_bytes, call_ids, known)
        self._shows_reasoning = turn.config.reasoning is True
        self._task = spawn(self._work(responder, turn))
        # A task that is cancelled before its first step never runs, not even its `finally`.
        self._task.add_done_callback(lambda _: self._end(self._ending or INTERRUPTED))

    def take(self) -> list[Taken]:
        """Return what is new of each output, in the order in which they began; make room for more."""
        taken = self._outputs.take()
        if self._room is not None:
            self._room.set()
        return taken

    def note_started(self, item_id: ItemId) -> None:
        """Note that the log says that a call is being run."""
        self._awaited.discard(item_id)
        if self._written is not None and not self._awaited:
            self._written.set()

    def stop(self, outcome: Outcome) -> None:
        """End the attempt with *outcome*, as soon as the responder has stopped. The first stop counts."""
        if self._ending is not None or self.outcome is not None or self._task is None:
            return
        self._ending = outcome
        if outcome is CANCELLED and self._interjection is not None:
            self._interjection.take = None  # what comes after a cancel is dropped
        self._disarm()
        self._task.cancel()
        self._timer = self._clock.call_later(self._limits.stop_timeout, self._give_up)

    def pass_on(self) -> None:
        """Stop, and leave the upstream's work to another owner."""
        self.custody.pass_on()
        self.stop(INTERRUPTED)

    async def _work(self, responder: Responder, turn: Turn) -> None:
        outcome: Outcome | None = None
        # In this run's task alone; what the responder logs has them too.
        bind_contextvars(
            session_id=turn.session_id, turn=turn.number, response_id=turn.response_id, attempt=turn.attempt
        )
        try:
            async with aclosing(responder.respond(turn)) as outputs:
                async for output in outputs:
                    if self._ending is not None:
                        break  # it swallowed the cancellation
                    if isinstance(output, str):
                        if not output:
                            self._last_sign = self._clock.monotonic()
                            continue
                        if not self._outputs.add_text(output):
                            self._finish = Finish("max_output_tokens")
                            break
                        count = len(self._outputs.text)
                        if count == 1:  # of the others it has been told
                            self._last_sign = now = self._clock.monotonic()
                            if self._last_piece is not None:
                                gap = now - self._last_piece
                                if self.longest_gap is None or gap > self.longest_gap:
                                    self.longest_gap = gap
                            self._last_piece = now
                            self._notify()
                            count = self._outputs.others
                        if count >= _PIECES_HELD:
                            await self._wait_for_room()
                    elif not await self._receive(output):
                        self._finish = Finish("max_output_tokens")
                        break
            self._outputs.complete(is_whole=self._finish.reason == "completed")
        except asyncio.CancelledError as exc:
            if self._ending is None:
                if self._task is not None and not self._task.cancelling():
                    outcome = self._crashed(exc)  # the responder's own: nobody cancelled this task
                else:  # not ours: the node itself is being cancelled
                    self._ending = INTERRUPTED
                    raise
        except ResponderError as exc:
            self.is_rest_lost = exc.is_rest_lost
            outcome = self._failed(exc.code, exc.message, exc.type, exc.retry_after)
        except GeneratorExit as exc:
            outcome = self._crashed(exc)  # of somebody else's making, or this very coroutine's end
            raise
        except BaseException as exc:  # noqa: BLE001 - the boundary: it may raise anything, SystemExit too
            outcome = self._crashed(exc)
        finally:
            self._end(self._ending or outcome or self._finished())

    def _interject(self, output: Output) -> None:
        """Take in what the responder says beside what it yields: while it waits, or as it is stopped."""
        if self.outcome is not None:
            return
        match output:
            case str():
                if output:
                    self._outputs.add_text(output)  # what is too much is left out, and the next piece ends it
            case FunctionCallPiece() | ReasoningPiece() | ToolCallPiece():
                if self._shows_reasoning or not isinstance(output, ReasoningPiece):
                    self._outputs.add(output)
            case _:
                self._note(output)
        self._notify()

    async def _receive(self, output: Output) -> bool:
        """Take in what isn't text; False: it reached beyond the limit."""
        self._last_sign = self._clock.monotonic()
        outputs, had = self._outputs, self._outputs.others
        has_room = True
        match output:
            case ReasoningPiece() if not (self._shows_reasoning and output.text):
                return True
            case FunctionCallPiece() | ReasoningPiece() | ToolCallPiece():
                has_room = outputs.add(output)
            case AsksApproval():
                has_room = outputs.ask(output)
            case ToolEnded():
                outputs.end_tool(output)
            case RunsTools():
                await self._wait_until_written(output)
            case _:
                self._note(output)
        if outputs.others and not had:
            self._notify()
        elif outputs.others >= _PIECES_HELD:
            await self._wait_for_room()
        return has_room

    async def _wait_until_written(self, runs: RunsTools) -> None:
        self._outputs.run(runs)
        self._awaited.update(runs.item_ids)
        if self._awaited:
            self._written = asyncio.Event()
            self._notify()
            await self._written.wait()
            self._written = None
            self._last_piece = None  # what the tools take is no gap in what the agent says
            self._last_sign = self._clock.monotonic()

    async def _wait_for_room(self) -> None:
        self._room = asyncio.Event()
        await self._room.wait()
        self._room = None
        self._last_sign = self._clock.monotonic()

    def _note(self, output: Output) -> None:
        match output:
            case Working():
                pass
            case Usage():
                self._usage = _bill(output)
            case Unbilled():
                self._usage = None
            case Notes():
                self._notes = output
            case Finish():
                if output.reason not in _REASONS:
                    raise ValueError(f"a responder can't finish for the reason {output.reason!r}")
                self._finish = output
            case Handle():
                value: Any = output.value  # whatever its type says, an agent may yield anything
                if not isinstance(value, str) or len(value) > _LONGEST_HANDLE:
                    raise ValueError("a handle is a short string")
                self.handle = cleaned(value)
                if not self.handle:
                    self.given_up.append(self.custody.give_up())
                self._notify()
            case _:
                raise TypeError(f"a responder can't yield a {type(output).__name__}")

    def _finished(self) -> Outcome:
        if self._finish.reason == "completed":
            return Outcome(status="completed", usage=self._usage)
        return Outcome(status="incomplete", reason=self._finish.reason, usage=self._usage)

    def _failed(self, code: str, message: str, type_: str, retry_after: float | None = None) -> Outcome:
        wait = UNSET if retry_after is None or not math.isfinite(retry_after) else float(retry_after)
        failure = Failure(cleaned(str(code)), cleaned(str(message)), cleaned(str(type_)), wait)
        return Outcome(status="failed", failure=failure, usage=self._usage)

    def _crashed(self, exc: BaseException) -> Outcome:
        # No message: it may quote the conversation or a secret.
        structlog.get_logger().error("responder crashed", error=type(exc).__qualname__)
        return self._failed("agent_crashed", "The agent failed unexpectedly.", "server_error")

    def _end(self, outcome: Outcome) -> None:
        if self.outcome is None:
            self._disarm()
            if self._interjection is not None:
                self._interjection.take = None
            self.outcome = outcome if self._notes is None else replace(outcome, notes=self._notes.values)
            self._notify()

    def _watch(self) -> None:
        """Look again when the time for a sign of life, or for the whole attempt, is over."""
        self._due = min(self._last_sign + self._limits.stall_timeout, self._deadline)
        self._timer = self._clock.call_later(self._due - self._clock.monotonic(), self._check_progress)

    def _check_progress(self) -> None:
        self._timer = None
        now = self._clock.monotonic()
        if now - self._due > _BEAT:  # the process stood still: what has come meanwhile hasn't been read yet
            self._last_sign = now
            self._deadline = max(self._deadline, now + _BEAT)
            self._watch()
        elif now >= self._deadline:
            message = f"The answer wasn't complete after {self._limits.turn_timeout:g} seconds."
            self.stop(self._failed("turn_timeout", message, "server_error"))
        elif now >= self._last_sign + self._limits.stall_timeout and not self._outputs:
            message = f"The agent produced nothing for {self._limits.stall_timeout:g} seconds."
            self.stop(self._failed("agent_stalled", message, "server_error"))
        else:
            if self._outputs:
                self._last_sign = now  # it waits for the store, not we for it
            self._watch()

    def _give_up(self) -> None:
        structlog.get_logger().warning("responder does not stop", response_id=self.response_id)
        if self._ending is not None:
            self._end(self._ending)

    def _disarm(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


def _bill(usage: Usage) -> Usage:
    """Return *usage* in plain integers; what an upstream left out counts as 0.

    Raises:
        TypeError: It holds something that is no number of tokens.

    """
    counts: list[Any] = [usage.input_tokens, usage.output_tokens, usage.cached_tokens]
    read, said, cached = (min(max(operator.index(count or 0), 0), _MOST_TOKENS) for count in counts)
    return Usage(read, said, cached, usage.reused)
