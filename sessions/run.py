"""One responder at work on one attempt: its task, its time-outs, and what it produced last."""

from __future__ import annotations

import asyncio
import math
import operator
import re
from collections.abc import Callable, Coroutine, Iterable
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Any, Final, assert_never

import structlog
from msgspec import UNSET
from structlog.contextvars import bind_contextvars

from unbroken.sessions.clock import Clock, Timer
from unbroken.sessions.entries import Failure
from unbroken.sessions.errors import ResponderError
from unbroken.sessions.ids import ItemId, ResponseId, new_call_id, new_item_id
from unbroken.sessions.items import CallHead, Usage
from unbroken.sessions.responder import Finish, FunctionCallPiece, Handle, Output, Responder, Turn, Working
from unbroken.sessions.response import Outcome

__all__ = ["CANCELLED", "INTERRUPTED", "Run", "RunLimits", "Spawn"]

Spawn = Callable[[Coroutine[Any, Any, None]], "asyncio.Task[None]"]
"""Starts a task that its owner, the node, will wait for."""

CANCELLED: Final = Outcome(status="cancelled")

INTERRUPTED: Final = Outcome(
    status="interrupted",
    failure=Failure("interrupted", "The server was restarted before the answer was complete. Ask again."),
)

_REASONS: Final = ("completed", "max_output_tokens", "content_filter")

_LONGEST_HANDLE: Final = 4096

_MOST_TOKENS: Final = 2**53 - 1
"""What every JSON reader takes without rounding."""

_PIECES_HELD: Final = 256
"""Pieces after which the responder waits until they are written."""


_CALL_COST: Final = 512
"""Bytes of the answer that a function call counts for beside its arguments: a bound on how many there are."""

_FUNCTION_NAME: Final = re.compile(r"[A-Za-z0-9_-]{1,64}")
_CALL_ID: Final = re.compile(r"[\x21-\x7e]{1,128}")


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


@dataclass(slots=True)
class _Call:
    """A function call that is being produced."""

    item_id: ItemId
    head: CallHead
    pieces: list[str] = field(default_factory=list)
    """Of its arguments, since they were taken."""
    surrogate: str = ""  # see Run
    is_empty: bool = True  # whether it has had no arguments yet


class Run:
    """A responder at work. Read :attr:`pieces` and :attr:`outcome` whenever *notify* was called."""

    def __init__(
        self,
        response_id: ResponseId,
        item_id: ItemId,
        limits: RunLimits,
        clock: Clock,
        notify: Callable[[], None],
    ) -> None:
        self.response_id: Final = response_id
        self.item_id: Final = item_id
        self.pieces: list[str] = []
        """What text has been produced since :meth:`take`."""
        self.handle: str | None = None
        """The upstream's name for the response, until it is written."""
        self.outcome: Outcome | None = None
        """How it ended. None: it hasn't, or there is something left to take first."""
        self._limits = limits
        self._clock = clock
        self._notify = notify
        self._room = asyncio.Event()
        self._room.set()
        self._task: asyncio.Task[None] | None = None
        self._ending: Outcome | None = None  # how it was stopped, by us
        self._room_bytes = limits.output_bytes
        self._surrogate = ""  # the first half of a pair, until the second comes
        self._outputs: list[_Call | None] = []  # in the order in which they began; None: the message
        self._has_text = False  # whether the message has begun
        self._calls: dict[int, _Call] = {}  # by their number
        self._call_ids: set[str] = set()  # those that can't be given to another call
        self._call_pieces = 0  # that have come since they were taken, a call's beginning counted as one
        self._usage: Usage | None = None
        self._finish = Finish()
        self._deadline = 0.0
        self.longest_gap: float | None = None
        """Seconds between two pieces that were the furthest apart; None: there were no two.

        Of pieces that are taken together, the last is known by the first: it may be too long by as much
        as their writer gathers them for.
        """
        self._last_piece: float | None = None  # when the pieces that were taken last began to come
        self._last_sign = 0.0  # when there was a sign of life, by the clock
        self._timer: Timer | None = None

    def start(self, spawn: Spawn, responder: Responder, turn: Turn, call_ids: Iterable[str] = ()) -> None:
        """Begin, in a task of its own that never raises. No new function call gets one of *call_ids*."""
        self._last_sign = self._clock.monotonic()
        self._deadline = self._last_sign + self._limits.turn_timeout
        self._watch()
        self._call_ids.update(call_ids)
        self._task = spawn(self._work(responder, turn))
        # A task that is cancelled before its first step never runs, not even its `finally`.
        self._task.add_done_callback(lambda _: self._end(self._ending or INTERRUPTED))

    def take(self) -> list[str]:
        """Return the pieces produced so far, and make room for more."""
        pieces = self.pieces
        if pieces:
            self.pieces = []
            if len(pieces) >= _PIECES_HELD:
                self._room.set()
        return pieces

    @property
    def has_news(self) -> bool:
        """Whether there is anything to take, or a handle."""
        return self.handle is not None or self._holds_pieces

    @property
    def _holds_pieces(self) -> bool:
        return bool(self.pieces or self._call_pieces)

    def take_all(self) -> list[tuple[ItemId, CallHead | None, list[str]]]:
        """Return all outputs, in the order in which they began, with their new pieces; make room for more."""
        text = self.take()
        if not self._calls:  # the usual case
            return [(self.item_id, None, text)] if text else []
        if self._call_pieces >= _PIECES_HELD:
            self._room.set()
        self._call_pieces = 0
        taken: list[tuple[ItemId, CallHead | None, list[str]]] = []
        for call in self._outputs:
            if call is None:
                taken.append((self.item_id, None, text))
            else:
                taken.append((call.item_id, call.head, call.pieces))
                call.pieces = []
        return taken

    def stop(self, outcome: Outcome) -> None:
        """End the attempt with *outcome*, as soon as the responder has stopped. The first stop counts."""
        if self._ending is not None or self.outcome is not None or self._task is None:
            return
        self._ending = outcome
        self._disarm()
        self._task.cancel()
        self._timer = self._clock.call_later(self._limits.stop_timeout, self._give_up)

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
                        if not self._add(output):
                            self._finish = Finish("max_output_tokens")
                            break
                        count = len(self.pieces)
                        if count == 1:  # of the others it has been told
                            self._last_sign = now = self._clock.monotonic()
                            if self._last_piece is not None:
                                gap = now - self._last_piece
                                if self.longest_gap is None or gap > self.longest_gap:
                                    self.longest_gap = gap
                            self._last_piece = now
                            self._notify()
                        elif count >= _PIECES_HELD:
                            await self._wait_for_room()
                    elif isinstance(output, FunctionCallPiece):
                        self._last_sign = self._clock.monotonic()
                        had = self._call_pieces
                        if not self._add_to_call(output):
                            self._finish = Finish("max_output_tokens")
                            break
                        if not had:
                            self._notify()
                        elif self._call_pieces >= _PIECES_HELD:
                            await self._wait_for_room()
                    else:
                        self._last_sign = self._clock.monotonic()
                        self._note(output)
            self._complete_surrogates()
            self._complete_arguments()
        except asyncio.CancelledError as exc:
            if self._ending is None:
                if self._task is not None and not self._task.cancelling():
                    outcome = self._crashed(exc)  # the responder's own: nobody cancelled this task
                else:  # not ours: the node itself is being cancelled
                    self._ending = INTERRUPTED
                    raise
        except ResponderError as exc:
            outcome = self._failed(exc.code, exc.message, exc.type, exc.retry_after)
        except GeneratorExit as exc:
            outcome = self._crashed(exc)  # of somebody else's making, or this very coroutine's end
            raise
        except BaseException as exc:  # noqa: BLE001 - the boundary: it may raise anything, SystemExit too
            outcome = self._crashed(exc)
        finally:
            self._end(self._ending or outcome or self._finished())

    async def _wait_for_room(self) -> None:
        self._room.clear()
        await self._room.wait()
        self._last_sign = self._clock.monotonic()

    def _add(self, text: str) -> bool:
        """Take in a piece; False: it reached beyond the limit, and only what fits was taken."""
        if text.isascii() and not self._surrogate:
            size = len(text)
            if size <= self._room_bytes and self._has_text:  # the usual case
                self._room_bytes -= size
                self.pieces.append(text)
                return True
        else:
            text, self._surrogate = _join_surrogates(self._surrogate + text)
        return self._append(text, None)

    def _add_to_call(self, piece: FunctionCallPiece) -> bool:
        """Take in a piece of a function call; as for :meth:`_add`."""
        call = self._calls.get(piece.index)
        if call is None:
            if self._room_bytes < _CALL_COST:
                return False
            self._room_bytes -= _CALL_COST
            call = self._calls[piece.index] = _Call(new_item_id(), self._head_of(piece))
            self._outputs.append(call)
            self._call_pieces += 1
        text, call.surrogate = _join_surrogates(call.surrogate + piece.arguments)
        return self._append(text, call)

    def _head_of(self, piece: FunctionCallPiece) -> CallHead:
        if _FUNCTION_NAME.fullmatch(piece.name) is None:
            message = "The agent called a function without a name, or by one that no function can have."
            raise ResponderError("agent_error", message)
        call_id = piece.call_id
        if _CALL_ID.fullmatch(call_id) is None or call_id in self._call_ids:
            call_id = new_call_id()  # some upstreams number their calls anew in each answer
        self._call_ids.add(call_id)
        return CallHead(call_id, piece.name)

    def _append(self, text: str, call: _Call | None) -> bool:
        """Add *text* to an output, as far as there is room; False: it was too much."""
        if not text:
            return True
        encoded = text.encode()
        room = self._room_bytes
        self._room_bytes -= len(encoded)
        if len(encoded) > room:
            text = encoded[: max(room, 0)].decode("utf-8", "ignore")
        if text and call is not None:
            call.pieces.append(text)
            call.is_empty = False
            self._call_pieces += 1
        elif text:
            if not self._has_text:
                self._has_text = True
                self._outputs.append(None)
            self.pieces.append(text)
        return len(encoded) <= room

    def _complete_surrogates(self) -> None:
        """Put a replacement where the second half of a pair never came."""
        if self._surrogate:
            self._surrogate = ""
            self._append("\ufffd", None)
        for call in self._calls.values():
            if call.surrogate:
                call.surrogate = ""
                self._append("\ufffd", call)

    def _complete_arguments(self) -> None:
        """Give calls without arguments empty ones: clients read them as JSON, and some models say nothing."""
        if self._finish.reason == "completed":
            for call in self._calls.values():
                if call.is_empty:
                    self._append("{}", call)

    def _note(self, output: Output) -> None:
        match output:
            case Working():
                pass
            case Usage():
                self._usage = _bill(output)
            case Finish():
                if output.reason not in _REASONS:
                    raise ValueError(f"a responder can't finish for the reason {output.reason!r}")
                self._finish = output
            case Handle():
                value: Any = output.value  # whatever its type says, an agent may yield anything
                if not isinstance(value, str) or len(value) > _LONGEST_HANDLE:
                    raise ValueError("a handle is a short string")
                self.handle = _clean(value)
                self._notify()
            case str() | FunctionCallPiece():
                raise AssertionError("can't happen: the caller takes pieces")
            case _:
                assert_never(output)

    def _finished(self) -> Outcome:
        if self._finish.reason == "completed":
            return Outcome(status="completed", usage=self._usage)
        return Outcome(status="incomplete", reason=self._finish.reason, usage=self._usage)

    def _failed(self, code: str, message: str, type_: str, retry_after: float | None = None) -> Outcome:
        wait = UNSET if retry_after is None or not math.isfinite(retry_after) else float(retry_after)
        failure = Failure(_clean(str(code)), _clean(str(message)), _clean(str(type_)), wait)
        return Outcome(status="failed", failure=failure, usage=self._usage)

    def _crashed(self, exc: BaseException) -> Outcome:
        # No message: it may quote the conversation or a secret.
        structlog.get_logger().error("responder crashed", error=type(exc).__qualname__)
        return self._failed("agent_crashed", "The agent failed unexpectedly.", "server_error")

    def _end(self, outcome: Outcome) -> None:
        if self.outcome is None:
            self._disarm()
            self.outcome = outcome
            self._notify()

    def _watch(self) -> None:
        """Look again when the time for a sign of life, or for the whole attempt, is over."""
        due = min(self._last_sign + self._limits.stall_timeout, self._deadline)
        self._timer = self._clock.call_later(due - self._clock.monotonic(), self._check_progress)

    def _check_progress(self) -> None:
        self._timer = None
        now = self._clock.monotonic()
        if now >= self._deadline:
            message = f"The answer wasn't complete after {self._limits.turn_timeout:g} seconds."
            self.stop(self._failed("turn_timeout", message, "server_error"))
        elif now >= self._last_sign + self._limits.stall_timeout and not self._holds_pieces:
            message = f"The agent produced nothing for {self._limits.stall_timeout:g} seconds."
            self.stop(self._failed("agent_stalled", message, "server_error"))
        else:
            if self._holds_pieces:
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


def _join_surrogates(text: str) -> tuple[str, str]:
    """Return *text* with surrogate pairs joined and lone ones replaced, and a first half at its end apart.

    Some upstreams cut an emoji's two UTF-16 halves apart, each escaped in a JSON string of its own.
    """
    rest = ""
    if text and "\ud800" <= text[-1] <= "\udbff":
        text, rest = text[:-1], text[-1]
    return _clean(text), rest


def _clean(text: str) -> str:
    """Return *text* with surrogate pairs joined and lone ones replaced: it can be written anywhere."""
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")


def _bill(usage: Usage) -> Usage:
    """Return *usage* in plain integers; what an upstream left out counts as 0.

    Raises:
        TypeError: It holds something that is no number of tokens.

    """
    counts: list[Any] = [usage.input_tokens, usage.output_tokens, usage.cached_tokens]
    return Usage(*(min(max(operator.index(count or 0), 0), _MOST_TOKENS) for count in counts))
