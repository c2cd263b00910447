"""A run in AG-UI's events: as server-sent events, or in TanStack AI's frames."""

from __future__ import annotations

import abc
from collections.abc import Callable, Iterable, Iterator
from typing import Final

from unbroken.server.protocols.agui.encode import RunEncoder
from unbroken.server.protocols.agui.events import error_event
from unbroken.server.protocols.agui.socket import PING, framed
from unbroken.server.transports.exchange import Exchange
from unbroken.server.transports.exchange_stream import ExchangeStream
from unbroken.server.transports.sse import event
from unbroken.sessions.clock import Clock, Timer
from unbroken.sessions.event_log import Record

__all__ = ["RunEvents", "RunFrames"]

_HEARTBEAT: Final = 15.0
"""Seconds without anything to say, after which a sign of life is sent: some proxies count data alone."""


class _Run(ExchangeStream, abc.ABC):
    """Lets go of the exchange in the end.

    Args:
        exchange: The hold on the response, at its first entry.
        encoder: Makes events of entries.
        behind: The number of the last event that the client has. -1: none.
        on_close: Called once, when nobody reads any more.

    """

    def __init__(
        self, exchange: Exchange, encoder: RunEncoder, behind: int, on_close: Callable[[], None]
    ) -> None:
        super().__init__(exchange, on_close)
        self._encoder = encoder
        self._behind = behind
        self._head = f"{exchange.response_id}.".encode()
        self._next = 0

    @property
    def _is_done(self) -> bool:
        return self._encoder.is_done

    def _said(self, records: Iterable[Record]) -> Iterator[bytes]:
        for said in self._encoder.encode(records, is_last=self._exchange.is_at_head):
            number, self._next = self._next, self._next + 1
            if number > self._behind:
                yield self._framed(b"%b%d" % (self._head, number), said)

    @abc.abstractmethod
    def _framed(self, offset: bytes, said: bytes) -> bytes:
        """Return an event as the transport has it, with its *offset*."""

    def close(self) -> None:
        """See :meth:`EventSource.close`."""
        self._exchange.close()
        super().close()


class RunEvents(_Run):
    """See :class:`~unbroken.server.transports.sse.EventSource`."""

    def _framed(self, offset: bytes, said: bytes) -> bytes:
        return b"id: %b\ndata: %b\n\n" % (offset, said)

    def _error(self, code: str, message: str, status: int) -> bytes:  # noqa: ARG002 - it has no place for it
        return event(None, error_event(code, message))


class RunFrames(_Run):
    """See :class:`~unbroken.server.transports.talk.FrameSource`.

    Args:
        exchange: See :class:`_Run`.
        encoder: See :class:`_Run`.
        behind: See :class:`_Run`.
        run_id: What the client calls the run.
        clock: Where time comes from.
        on_close: See :class:`_Run`.

    """

    _is_told_by_the_close = True

    def __init__(
        self,
        exchange: Exchange,
        encoder: RunEncoder,
        behind: int,
        run_id: str | None,
        clock: Clock,
        on_close: Callable[[], None],
    ) -> None:
        super().__init__(exchange, encoder, behind, on_close)
        self._run_id = run_id
        self._clock = clock
        self._is_quiet = self._is_silent = False  # nothing was said in this half, nor in the one before
        self._timer: Timer | None = None

    def read(self) -> list[bytes]:
        """See :meth:`FrameSource.read`."""
        frames = super().read()
        if frames:
            self._is_quiet = self._is_silent = False
        elif self._is_silent:
            self._is_silent = False
            return [PING]
        return frames

    def listen(self, callback: Callable[[], None] | None) -> None:
        """See :meth:`FrameSource.listen`."""
        super().listen(callback)
        if self._timer is not None:
            self._timer.cancel()
        self._timer = None if callback is None else self._clock.call_later(_HEARTBEAT / 2, self._beat)

    def _beat(self) -> None:
        self._is_quiet, self._is_silent = True, self._is_quiet
        self._timer = self._clock.call_later(_HEARTBEAT / 2, self._beat)
        if self._is_silent:
            self._wake()

    def _framed(self, offset: bytes, said: bytes) -> bytes:
        return framed(offset, said)

    def _error(self, code: str, message: str, status: int) -> bytes:  # noqa: ARG002 - it has no place for it
        return error_event(code, message, run_id=self._run_id)
