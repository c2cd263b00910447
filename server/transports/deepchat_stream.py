"""An answer as deep-chat's widget reads it: as server-sent events, or as frames."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

from unbroken.server.protocols.deepchat.encode import DeepChatEncoder, error_frame
from unbroken.server.transports.exchange import Exchange
from unbroken.server.transports.exchange_stream import ExchangeStream
from unbroken.server.transports.sse import event
from unbroken.sessions.event_log import Record

__all__ = ["DeepChatEvents", "DeepChatFrames"]


class DeepChatFrames(ExchangeStream):
    """See :class:`~unbroken.server.transports.talk.FrameSource`. Lets go of the exchange in the end."""

    _is_told_by_the_close = True

    def __init__(self, exchange: Exchange, encoder: DeepChatEncoder, on_close: Callable[[], None]) -> None:
        super().__init__(exchange, on_close)
        self._encoder = encoder

    @property
    def _is_done(self) -> bool:
        return self._encoder.is_done

    def _said(self, records: Iterable[Record]) -> Iterator[bytes]:
        return self._encoder.encode(records, is_last=self._exchange.is_at_head)

    def _error(self, code: str, message: str, status: int) -> bytes:  # noqa: ARG002 - it has no place for these
        return error_frame(message)

    def close(self) -> None:
        """See :meth:`FrameSource.close`."""
        self._exchange.close()
        super().close()


class DeepChatEvents(DeepChatFrames):
    """See :class:`~unbroken.server.transports.sse.EventSource`."""

    _is_told_by_the_close = False

    def _said(self, records: Iterable[Record]) -> Iterator[bytes]:
        for frame in super()._said(records):
            yield event(None, frame)

    def _error(self, code: str, message: str, status: int) -> bytes:
        return event(None, super()._error(code, message, status))
