"""The door ``WS /v1/agui/ws``: TanStack AI's ``webSocket()``, the runs of a conversation on one connection.

A connection whose address has an ``offset`` goes on with one run, and ends with it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from unbroken.server.errors import CloseCode
from unbroken.server.limits import ConnectionLimits
from unbroken.server.protocols.agui.decode import Run
from unbroken.server.protocols.agui.events import abort_failed_event, error_event
from unbroken.server.protocols.agui.socket import Abort, Unsaid, decode_frame
from unbroken.server.protocols.items import DecodeError
from unbroken.server.transports.agui_stream import RunFrames
from unbroken.server.transports.exchange import Exchange
from unbroken.server.transports.exchanges import Speaker
from unbroken.server.transports.field_names import AGUI
from unbroken.server.transports.http_way import HttpRefusal
from unbroken.server.transports.lanes import Lanes, LanesFull, QueueFull
from unbroken.server.transports.query import checked
from unbroken.server.transports.runs import Runs
from unbroken.server.transports.talk import FrameSource, Talk
from unbroken.server.transports.talk_door import Interlocutor
from unbroken.sessions.clock import Clock
from unbroken.sessions.errors import SessionError

__all__ = ["AguiSocket", "say_alone"]

_RUNS: Final = 32
"""That may be answered at once on one connection."""


@dataclass(frozen=True, slots=True)
class _Seen:
    """What a client has of a run that it comes back to."""

    thread_id: str | None
    run_id: str | None
    offset: str


@dataclass(slots=True, eq=False)
class _Asked:
    """A run that is being answered, or waits for that."""

    run: Run
    exchange: Exchange | None = None
    """The hold on it. None: it isn't there yet."""
    is_aborted: bool = False
    """Whether its client has given it up."""


class AguiSocket:
    """Makes who answers the clients of ``WS /v1/agui/ws``.

    Args:
        runs: The runs.
        limits: What a connection may do.
        clock: Where time comes from.

    """

    def __init__(self, runs: Runs, limits: ConnectionLimits, clock: Clock) -> None:
        self._runs = runs
        self._limits = limits
        self._clock = clock

    def __call__(self, speaker: Speaker, fields: Mapping[str, Sequence[str]]) -> Interlocutor:
        """Return who answers *speaker*.

        Raises:
            DecodeError: The address asks for what can't be.

        """
        thread_id, run_id, offset = (_field(fields, name) for name in ("threadId", "runId", "offset"))
        for name, param in ((thread_id, "threadId"), (run_id, "runId")):
            if name is not None:
                checked(name, param)
        seen = None if offset is None else _Seen(thread_id, run_id, offset)
        return _Connection(self._runs, speaker, self._limits, self._clock, seen)


class _Connection:
    """What is asked for on one connection. Each run is a lane of its own."""

    def __init__(
        self, runs: Runs, speaker: Speaker, limits: ConnectionLimits, clock: Clock, seen: _Seen | None
    ) -> None:
        self._runs = runs
        self._speaker = speaker
        self._limits = limits
        self._clock = clock
        self._seen = seen
        self._talk: Talk
        self._lanes: Lanes[_Asked]
        self._asked: set[_Asked] = set()  # until each has been told to its end

    def begin(self, talk: Talk) -> None:
        """See :class:`Interlocutor`."""
        self._talk = talk
        self._lanes = Lanes(talk, self._answer, most=_RUNS, most_waiting=self._limits.input_queue)
        if self._seen is not None:
            talk.spawn(self._resume(self._seen))

    def hear(self, data: str | bytes) -> None:
        """See :class:`~unbroken.server.transports.talk.Hear`."""
        try:
            said = decode_frame(data, max_depth=self._limits.frame_depth)
        except Unsaid as exc:
            self._refuse(exc, exc.run_id)
            return
        if isinstance(said, Abort):
            self._abort(said.run_id)
            return
        if self._seen is not None:
            message = "This connection goes on with one run. Open another, without `offset`, for others."
            self._refuse(DecodeError("invalid_request", message), said.id)
            return
        asked = _Asked(said)
        try:
            self._lanes.ask(said.id, asked)
        except (LanesFull, QueueFull):
            message = f"{_RUNS} runs are being answered, as many as may be. Wait for one of them."
            self._refuse(HttpRefusal(429, "websocket_stream_limit_reached", message), said.id)
        else:
            self._asked.add(asked)

    def _abort(self, run_id: str) -> None:
        for asked in self._asked:
            if asked.run.id == run_id and not asked.is_aborted:
                asked.is_aborted = True
                if asked.exchange is not None:
                    self._talk.spawn(self._stop(asked, asked.exchange))

    async def _answer(self, asked: _Asked) -> FrameSource | None:
        run = asked.run
        try:
            exchange = await self._runs.ask(self._speaker, run)
        except (DecodeError, SessionError, HttpRefusal) as exc:
            self._asked.discard(asked)
            self._refuse(exc, run.id)
            return None
        asked.exchange = exchange
        if asked.is_aborted:
            self._talk.spawn(self._stop(asked, exchange))  # it wasn't there yet to be stopped
        encoder = self._runs.encoder(exchange, run.thread_id, run.id)
        return RunFrames(exchange, encoder, -1, run.id, self._clock, lambda: self._asked.discard(asked))

    async def _stop(self, asked: _Asked, exchange: Exchange) -> None:
        """Stop one run, and no other of its thread. Where that fails, the run goes on."""
        try:
            await exchange.stop()
        except SessionError as exc:
            asked.is_aborted = False  # it may be tried again
            refusal = _told(exc)
            self._talk.say(abort_failed_event(refusal.code, refusal.message, run_id=asked.run.id))

    async def _resume(self, seen: _Seen) -> None:
        try:
            run = await self._runs.find(self._speaker, seen.thread_id, seen.run_id, seen.offset)
        except (DecodeError, SessionError, HttpRefusal) as exc:
            self._talk.end(CloseCode.POLICY, _refusal(exc, seen.run_id))
            return
        if run is None:
            self._talk.end(CloseCode.IDLE)
            return
        exchange, behind = run
        encoder = self._runs.encoder(exchange, seen.thread_id, seen.run_id)
        source = RunFrames(exchange, encoder, behind, seen.run_id, self._clock, lambda: None)
        self._talk.add(source, lambda: self._talk.end(CloseCode.IDLE))

    def _refuse(self, why: Exception, run_id: str | None) -> None:
        self._talk.say(_refusal(why, run_id))


def _told(why: Exception) -> HttpRefusal:
    refusal = why if isinstance(why, HttpRefusal) else AGUI.refusal_of(why)
    if refusal is None:
        raise why
    return refusal


def _refusal(why: Exception, run_id: str | None) -> bytes:
    """Return why a run can't be had."""
    refusal = _told(why)
    retry_after = refusal.retry_after if refusal.status in (429, 503) else None
    return error_event(refusal.code, refusal.message, run_id=run_id, retry_after=retry_after)


def _field(fields: Mapping[str, Sequence[str]], name: str) -> str | None:
    return next(reversed(fields.get(name, ())), None)


def say_alone(code: str, message: str, *, status: int, retry_after: int | None = None) -> bytes:  # noqa: ARG001 - the protocol has no place for it
    """Return an error of the whole connection."""
    return error_event(code, message, retry_after=retry_after)
