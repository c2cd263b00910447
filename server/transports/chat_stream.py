"""An answer as server-sent events in Chat Completions' words: data alone, with an end that says so."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Final

import orjson

from unbroken.server.protocols.chat.encode import ChatEncoder
from unbroken.server.transports.exchange import Exchange
from unbroken.server.transports.exchange_stream import ExchangeStream
from unbroken.server.transports.refusal import error_type
from unbroken.server.transports.sse import event
from unbroken.sessions.event_log import Record

__all__ = ["ChatStream"]

_DONE: Final = event(None, b"[DONE]")


class ChatStream(ExchangeStream):
    """See :class:`~unbroken.server.transports.sse.EventSource`.

    Args:
        exchange: The hold on the response, at its first entry. Who makes the stream lets go of it.
        encoder: Makes chunks of entries.
        on_close: Called once, when nobody reads any more.

    """

    def __init__(self, exchange: Exchange, encoder: ChatEncoder, on_close: Callable[[], None]) -> None:
        super().__init__(exchange, on_close)
        self._encoder = encoder

    @property
    def _is_done(self) -> bool:
        return self._encoder.is_done

    def _said(self, records: Iterable[Record]) -> Iterator[bytes]:
        for each in self._encoder.encode(records):
            yield event(None, each)
        if self._encoder.is_done and not self._encoder.is_failed:
            yield _DONE

    def _error(self, code: str, message: str, status: int) -> bytes:
        error = {"message": message, "type": error_type(status), "param": None, "code": code}
        return event(None, orjson.dumps({"error": error}))
