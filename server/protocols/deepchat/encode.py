"""From log entries to what the widget shows: text, and errors. What is thought or called isn't shown."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import orjson
from msgspec import UNSET

from unbroken.server.protocols.attempts import TurnEncoder
from unbroken.sessions.entries import Body, OutputStarted, ResponseDone, ResponseStarted
from unbroken.sessions.event_log import Slice
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


class DeepChatEncoder(TurnEncoder):
    """Encodes one answer for one widget. See :class:`TurnEncoder`.

    Args:
        response_id: See there. A further attempt takes the place of what was said.
        end: The text that ends each message. None: none, as the stream's end does.

    """

    def __init__(self, response_id: ResponseId, *, end: str | None = END) -> None:
        super().__init__(response_id)
        self._end = None if end is None else orjson.dumps({"text": end})
        self._texts: set[str] = set()  # the outputs that are text
        self._item_id = ""  # of the one that is shown
        self._overwrites = False  # whether what comes next takes the place of what is shown

    def _begun_anew(self, body: ResponseStarted) -> Iterator[bytes]:  # noqa: ARG002 - nothing is said yet
        self._overwrites = bool(self._item_id)
        self._texts.clear()
        return iter(())

    def _told(self, body: Body) -> Iterator[bytes]:
        if isinstance(body, OutputStarted) and body.call is UNSET and body.head is UNSET:
            self._texts.add(body.item_id)
        elif isinstance(body, ResponseDone):
            yield from self._over(body, self._end_of(body))

    def _pieces(self, piece: Slice) -> Iterator[bytes]:
        if piece.item_id not in self._texts:
            return
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

    def _end_of(self, body: ResponseDone) -> list[bytes]:
        left = [self._end] if self._item_id and self._end is not None else []
        if body.status in ("failed", "interrupted"):
            left.append(error_frame("The answer failed." if body.failure is None else body.failure.message))
        elif body.status == "incomplete" and body.reason in _CUT_SHORT:
            left.append(error_frame(_CUT_SHORT[body.reason]))
        elif not self._item_id:  # the widget shows that it waits until it is told something
            left.append(error_frame(_STOPPED if body.status == "cancelled" else _EMPTY))
        return left


def error_frame(message: str) -> bytes:
    """Return why there is no answer, or no more of one."""
    return orjson.dumps({"error": message})
