"""Server-sent events, without I/O: bytes in, events out.

Follows the WHATWG HTML standard, "Parsing an event stream" and "Interpreting
an event stream" (https://html.spec.whatwg.org/multipage/server-sent-events.html),
with two differences that suit a server reading an upstream:

- ``data`` stays bytes. What is in it is JSON, whose decoder wants bytes and
  checks the encoding itself.
- A line or event above a bound is an error. The standard has no bound, and a
  broken upstream would otherwise fill the memory.

However the stream is cut into chunks, inside a CRLF or a character too, the
same events come out.
"""

from __future__ import annotations

from typing import Final

from msgspec import Struct

__all__ = ["DEFAULT_MAX_EVENT_BYTES", "Event", "EventStreamParser", "EventTooLong"]

DEFAULT_MAX_EVENT_BYTES: Final = 1024 * 1024

_BOM: Final = b"\xef\xbb\xbf"
_LF: Final = 0x0A
_CR: Final = 0x0D
# Far beyond any sane delay, and below the length at which int() refuses.
_MAX_RETRY_DIGITS: Final = 15


class Event(Struct, frozen=True, gc=False):
    """One event that was dispatched."""

    data: bytes
    """The ``data`` lines, joined by LF. Their encoding has not been checked."""
    type: str = "message"
    last_event_id: str = ""
    """The last ``id`` seen so far, on this event or an earlier one."""


class EventTooLong(ValueError):
    """A line, or the data of one event, is longer than the parser's bound."""

    def __init__(self, max_event_bytes: int) -> None:
        super().__init__(max_event_bytes)
        self.max_event_bytes = max_event_bytes

    def __str__(self) -> str:
        return f"an event of the stream is longer than {self.max_event_bytes} bytes"


class EventStreamParser:
    """Reads one event stream. Feed it what arrives; take the events.

    An event that the stream's end cuts off is not an event, as the standard
    says: there is nothing to call at the end.

    Args:
        max_event_bytes: Bound on one line, and on the ``data`` lines of one
            event together. The parser holds at most twice as much.

    """

    def __init__(self, *, max_event_bytes: int = DEFAULT_MAX_EVENT_BYTES) -> None:
        self._max_event_bytes = max_event_bytes
        self._head: bytes | None = b""  # what may yet become a byte order mark; None once that is settled
        self._after_cr = False  # a LF that comes next belongs to the line end already seen
        self._fragments: list[bytes] = []  # of the line that has begun and not ended
        self._fragments_bytes = 0
        self._data: list[bytes] = []  # of the event that has begun and not ended
        self._data_bytes = 0
        self._type = ""
        self._last_event_id = ""
        self._retry: int | None = None
        self._is_between_events = False  # the next byte begins a line, and that an event

    @property
    def retry(self) -> int | None:
        """The reconnection time that the stream last asked for, in milliseconds."""
        return self._retry

    def feed(self, chunk: bytes) -> list[Event]:
        """Take the next bytes of the stream and return the events they complete.

        Raises:
            EventTooLong: When a line or event passes the bound. Events of the
                same chunk are lost, and the parser must not be used again.

        """
        if self._is_between_events and chunk.startswith(b"data: ") and chunk.endswith(b"\n\n"):
            # Nearly every chunk of a model's stream: one event, of one line. Looking for a
            # number costs a quarter of looking for a string of it.
            data = chunk[6:-2]
            if len(chunk) <= self._max_event_bytes and _LF not in data and _CR not in data:
                return [Event(data, "message", self._last_event_id)]
        return self._feed(chunk)

    def _feed(self, chunk: bytes) -> list[Event]:
        if self._head is not None:
            chunk = self._without_bom(chunk)
        if not chunk:
            return []
        if self._after_cr:
            self._after_cr = False
            if chunk[0] == _LF:
                chunk = chunk[1:]
        if _CR in chunk:
            # A CR at the very end ends its line at once: waiting for a LF
            # that may never come would hold an event back.
            self._after_cr = chunk.endswith(b"\r")
            chunk = chunk.replace(b"\r\n", b"\n").replace(b"\r", b"\n")

        lines = chunk.split(b"\n")
        unfinished = lines.pop()
        if lines and self._fragments:
            self._fragments.append(lines[0])
            lines[0] = b"".join(self._fragments)
            self._fragments.clear()
            self._fragments_bytes = 0

        events: list[Event] = []
        for line in lines:
            if line.startswith(b"data: "):  # the common case; the rest is in _interpret
                self._add_data(line, line[6:])
            elif line:
                self._interpret(line)
            else:
                self._dispatch(events)

        if unfinished:
            self._fragments.append(unfinished)
            self._fragments_bytes += len(unfinished)
            if self._fragments_bytes > self._max_event_bytes:
                raise EventTooLong(self._max_event_bytes)
        self._is_between_events = not (
            unfinished or self._fragments or self._data or self._type or self._after_cr
        )
        return events

    def _without_bom(self, chunk: bytes) -> bytes:
        assert self._head is not None
        head = self._head + chunk
        if len(head) < len(_BOM) and _BOM.startswith(head):
            self._head = head
            return b""
        self._head = None
        return head.removeprefix(_BOM)

    def _interpret(self, line: bytes) -> None:
        if len(line) > self._max_event_bytes:
            raise EventTooLong(self._max_event_bytes)
        # A comment starts with a colon: its name is empty, and so unknown.
        name, _, value = line.partition(b":")
        value = value.removeprefix(b" ")
        if name == b"data":
            self._add_data(line, value)
        elif name == b"event":
            self._type = value.decode(errors="replace")
        elif name == b"id":
            if b"\0" not in value:
                self._last_event_id = value.decode(errors="replace")
        elif name == b"retry" and value.isdigit() and len(value) <= _MAX_RETRY_DIGITS:
            self._retry = int(value)

    def _add_data(self, line: bytes, value: bytes) -> None:
        # The whole line counts, so that no number of empty ones goes unseen.
        self._data_bytes += len(line)
        if self._data_bytes > self._max_event_bytes:
            raise EventTooLong(self._max_event_bytes)
        self._data.append(value)

    def _dispatch(self, events: list[Event]) -> None:
        if self._data:
            data = self._data[0] if len(self._data) == 1 else b"\n".join(self._data)
            events.append(Event(data, self._type or "message", self._last_event_id))
            self._data.clear()
            self._data_bytes = 0
        self._type = ""
