"""A response as it is sent piece by piece, in whatever protocol's words: those are its subclasses'."""

from __future__ import annotations

import abc
from collections.abc import Callable, Iterable, Iterator
from typing import ClassVar, Final

import structlog

from unbroken.server.auth.lapse import Lapse
from unbroken.server.errors import ERROR_MEANINGS
from unbroken.server.transports.asking import refusal_of
from unbroken.server.transports.exchange import Exchange
from unbroken.sessions.errors import CursorLost, NodeDraining, SessionError
from unbroken.sessions.event_log import Record

__all__ = ["ExchangeStream"]

_MOST_BYTES: Final = 16_384
"""What is sent at once, with what is read together with the last of it."""


class ExchangeStream(abc.ABC):
    """See :class:`~unbroken.server.transports.sse.EventSource`.

    What is a :class:`~unbroken.server.transports.talk.FrameSource`, too, says no farewell where the answer
    goes on elsewhere: clients would take it for the answer's end, and the close's code says it.

    Args:
        exchange: The hold on the response, at its first entry. Who makes the stream lets go of it.
        on_close: Called once, when nobody reads any more.

    """

    _is_told_by_the_close: ClassVar[bool] = False

    def __init__(self, exchange: Exchange, on_close: Callable[[], None]) -> None:
        self._exchange = exchange
        self._on_close = on_close
        self._callback: Callable[[], None] | None = None
        self._farewell: bytes | None = None
        self._is_over = False
        self.is_elsewhere = False
        """See :attr:`FrameSource.is_elsewhere`."""

    @property
    @abc.abstractmethod
    def _is_done(self) -> bool:
        """Whether the response has ended, as far as was said: nothing follows."""

    @abc.abstractmethod
    def _said(self, records: Iterable[Record]) -> Iterator[bytes]:
        """Yield what is said of *records*, as the transport has it."""

    @abc.abstractmethod
    def _error(self, code: str, message: str, status: int) -> bytes:
        """Return why no more comes, as the transport has it; *status* is what HTTP would call it."""

    @property
    def is_over(self) -> bool:
        """See :attr:`EventSource.is_over`."""
        return self._is_over or self._is_done

    def take(self) -> bytes:
        """See :meth:`EventSource.take`."""
        return b"".join(self.read())

    def read(self) -> list[bytes]:
        """See :meth:`FrameSource.read`."""
        said: list[bytes] = []
        size = 0
        try:
            while size < _MOST_BYTES and not self.is_over and self._farewell is None:
                if not (records := self._exchange.take()):
                    break
                for each in self._said(records):
                    said.append(each)
                    size += len(each)
        except SessionError as exc:
            self._end(exc)
        except Exception as exc:  # noqa: BLE001 - the boundary: it is called back by what others wake
            structlog.get_logger().error("connection failed", exc_info=exc)
            self._say_farewell("internal_error", ERROR_MEANINGS["internal_error"], 500)
        if self._farewell is not None:
            said.append(self._farewell)
            self._farewell, self._is_over = None, True
        return said

    def _end(self, why: SessionError) -> None:
        if isinstance(why, NodeDraining) and self._is_told_by_the_close:
            self.is_elsewhere = self._is_over = True
            return
        if isinstance(why, CursorLost):  # it was read too slowly
            self._say_farewell("response_events_gone", ERROR_MEANINGS["response_events_gone"], 404)
            return
        refusal = refusal_of(why)
        if refusal is None:
            self._say_farewell("internal_error", ERROR_MEANINGS["internal_error"], 500)
        else:
            self._say_farewell(refusal.code, refusal.message, refusal.status)

    def _say_farewell(self, code: str, message: str, status: int) -> None:
        self._farewell = self._error(code, message, status)

    def lapse(self, reason: Lapse) -> None:
        """End the stream: what the client was let in with no longer counts. The response goes on."""
        if not self.is_over:
            self._say_farewell(reason.value, ERROR_MEANINGS[reason.value], 401)
            self._wake()

    def _wake(self) -> None:
        if self._callback is not None:
            self._callback()

    def listen(self, callback: Callable[[], None] | None) -> None:
        """See :meth:`EventSource.listen`."""
        self._callback = callback
        self._exchange.listen(callback)

    def close(self) -> None:
        """See :meth:`EventSource.close`."""
        self._on_close()
