"""A response as server-sent events in OpenAI Responses' words."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

from unbroken.server.protocols.responses.encode import Event, ResponseEncoder
from unbroken.server.transports.exchange import Exchange
from unbroken.server.transports.exchange_stream import ExchangeStream
from unbroken.server.transports.sse import event
from unbroken.sessions.event_log import Record

__all__ = ["ResponseStream"]


class ResponseStream(ExchangeStream):
    """See :class:`~unbroken.server.transports.sse.EventSource`.

    Args:
        exchange: The hold on the response, at its first entry. It is closed in the end.
        encoder: Makes events of entries.
        on_close: Called once, when nobody reads any more.

    """

    def __init__(self, exchange: Exchange, encoder: ResponseEncoder, on_close: Callable[[], None]) -> None:
        super().__init__(exchange, on_close)
        self._encoder = encoder

    @property
    def _is_done(self) -> bool:
        return self._encoder.is_done

    def _said(self, records: Iterable[Record]) -> Iterator[bytes]:
        return map(self._framed, self._encoder.encode(records, is_last=self._exchange.is_at_head))

    def _framed(self, said: Event) -> bytes:
        """Return an event as the transport has it."""
        return event(said.type, said.data)

    def _error(self, code: str, message: str, status: int) -> bytes:  # noqa: ARG002 - of use elsewhere
        return self._framed(self._encoder.error(code, message))

    def _say_farewell(self, code: str, message: str, status: int) -> None:
        if status != 410:  # what was deleted is gone by its id, too
            message = f"{message} Get the response by its id, to go on."
        super()._say_farewell(code, message, status)

    def close(self) -> None:
        """See :meth:`EventSource.close`."""
        self._exchange.close()
        super().close()
