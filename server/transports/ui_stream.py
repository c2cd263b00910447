"""An answer in the AI SDK's chunks: as server-sent events, or as frames that answer one request."""

from __future__ import annotations

import abc
from collections.abc import Callable, Iterable, Iterator
from typing import Final

from unbroken.server.protocols.ui.encode import UiEncoder
from unbroken.server.protocols.ui.socket import chunk_head, error_frame, frame
from unbroken.server.transports.exchange import Exchange
from unbroken.server.transports.exchange_stream import ExchangeStream
from unbroken.server.transports.sse import event
from unbroken.sessions.event_log import Record

__all__ = ["UiEvents", "UiFrames"]

_DONE: Final = event(None, b"[DONE]")


class _Chunks(ExchangeStream, abc.ABC):
    """Lets go of the exchange in the end."""

    def __init__(self, exchange: Exchange, encoder: UiEncoder, on_close: Callable[[], None]) -> None:
        super().__init__(exchange, on_close)
        self._encoder = encoder

    @property
    def _is_done(self) -> bool:
        return self._encoder.is_done

    def close(self) -> None:
        """See :meth:`EventSource.close`."""
        self._exchange.close()
        super().close()


class UiEvents(_Chunks):
    """See :class:`~unbroken.server.transports.sse.EventSource`."""

    def _said(self, records: Iterable[Record]) -> Iterator[bytes]:
        for chunk in self._encoder.encode(records, is_last=self._exchange.is_at_head):
            yield event(None, chunk)
        if self._encoder.is_done:
            yield _DONE

    def _error(self, code: str, message: str, status: int) -> bytes:  # noqa: ARG002 - it has no place for these
        return event(None, self._encoder.error(message)) + _DONE


class UiFrames(_Chunks):
    """See :class:`~unbroken.server.transports.talk.FrameSource`."""

    _is_told_by_the_close = True

    def __init__(
        self, exchange: Exchange, encoder: UiEncoder, request_id: str, on_close: Callable[[], None]
    ) -> None:
        super().__init__(exchange, encoder, on_close)
        self._request_id = request_id
        self._head = chunk_head(request_id)
        self._next = 0

    def _said(self, records: Iterable[Record]) -> Iterator[bytes]:
        for chunk in self._encoder.encode(records, is_last=self._exchange.is_at_head):
            if not self._next:
                yield frame("start", self._request_id)
            yield b'%b%d,"chunk":%b}' % (self._head, self._next, chunk)
            self._next += 1
        if self._encoder.is_done:
            yield frame("end", self._request_id)

    def _error(self, code: str, message: str, status: int) -> bytes:  # noqa: ARG002 - it has no place for it
        return error_frame(code, message, self._request_id)
