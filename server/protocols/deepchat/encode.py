"""From log entries to what the widget shows: text, and errors. What is thought or called isn't shown."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Final

import orjson
from msgspec import UNSET

from unbroken.server.protocols.attempts import is_next_attempt
from unbroken.sessions.entries import OutputStarted, ResponseDone, ResponseStarted
from unbroken.sessions.event_log import Record, Slice
from unbroken.sessions.ids import ResponseId

__all__ = ["END", "DeepChatEncoder", "error_frame"]

END: Final = "[[END]]"
"""The text that ends an answer, unless the page says another: the widget's ``stream.simulation``."""

_CUT_SHORT: Final = {
    "content_filter": "The answer was cut short by the content filter.",
    "quota_exceeded": "The answer was cut short: a quota is used up.",
}

_STOPPED: Final = "The answer was stopped."
_EMPTY: Final = "There is nothing to show of the answer."


class DeepChatEncoder:
    """Encodes one answer for one widget: feed it what the log says of it, from its beginning on.

    Args:
        response_id: The response. A further attempt at the same turn takes the place of what was said.
        end: The text that ends each message. None: none, as the stream's end does.

    """

    def __init__(self, response_id: ResponseId, *, end: str | None = END) -> None:
        self._id = response_id
        self._end = None if end is None else orjson.dumps({"text": end})
        self._turn = 0
        self._texts: set[str] = set()  # the outputs that are text
        self._item_id = ""  # of the one that is shown
        self._overwrites = False  # whether what comes next takes the place of what is shown
        self._left: list[bytes] | None = None  # to be said of an attempt that another may follow
        self.is_done = False
        """Whether the answer has ended: nothing follows."""

    def encode(self, records: Iterable[Record], *, is_last: bool = True) -> Iterator[bytes]:
        """Yield the frames of *records*, those of other responses aside.

        *is_last*: nothing follows these so far. A further attempt would have: it is written with the end of
        the one before.
        """
        for record in records:
            if isinstance(record, Slice):
                if record.response_id == self._id and record.item_id in self._texts:
                    yield from self._pieces(record)
                continue
            body = record.body
            if self._left is not None and is_next_attempt(body, self._turn):
                self._id, self._left = body.response_id, None
                self._overwrites = bool(self._item_id)
                self._texts.clear()
            elif getattr(body, "response_id", None) != self._id:
                continue
            elif isinstance(body, ResponseStarted):
                self._turn = body.turn
            elif isinstance(body, OutputStarted) and body.call is UNSET and body.head is UNSET:
                self._texts.add(body.item_id)
            elif isinstance(body, ResponseDone):
                yield from self._ended(body)
        if is_last and self._left is not None and not self.is_done:
            self.is_done = True
            yield from self._left

    def _pieces(self, piece: Slice) -> Iterator[bytes]:
        if self._item_id != piece.item_id:
            if self._item_id and not self._overwrites and self._end is not None:
                yield self._end  # the next message has a place of its own
            self._item_id = piece.item_id
        for text in filter(None, piece.parts):
            fields: dict[str, object] = {"text": text, "role": "ai"}
            if self._overwrites:
                fields["overwrite"] = True
                self._overwrites = False
            yield orjson.dumps(fields)

    def _ended(self, body: ResponseDone) -> Iterator[bytes]:
        left = [self._end] if self._item_id and self._end is not None else []
        if body.status in ("failed", "interrupted"):
            left.append(error_frame("The answer failed." if body.failure is None else body.failure.message))
        elif body.status == "incomplete" and body.reason in _CUT_SHORT:
            left.append(error_frame(_CUT_SHORT[body.reason]))
        elif not self._item_id:  # the widget shows that it waits until it is told something
            left.append(error_frame(_STOPPED if body.status == "cancelled" else _EMPTY))
        if body.status == "interrupted":
            self._left = left
            return
        self.is_done = True
        yield from left


def error_frame(message: str) -> bytes:
    """Return why there is no answer, or no more of one."""
    return orjson.dumps({"error": message})
