"""HTTP/1.1 as a client that asks for streams, without I/O: a request's head out, a response's bytes in.

The parser is llhttp, Node.js's, by way of httptools (RFC 9112). Requests are GET and POST; nothing is asked
to be upgraded, and no request follows another that isn't answered.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final

import httptools

__all__ = ["Malformed", "ResponseParser", "request_head"]

_MAX_HEAD: Final = 65_536
"""Bytes of a response in a row that are no body: a head, what is said of a chunk, what follows the body."""

_FORBIDDEN: Final = re.compile(rb"[\r\n\x00]")
"""What would end a field early (RFC 9110, section 5.5)."""


class Malformed(Exception):
    """It isn't HTTP/1.1, it is more of a head than anybody means well with, or it has ended too early."""


def request_head(method: bytes, target: bytes, headers: Iterable[tuple[bytes, bytes]]) -> bytes:
    """Return the head of a request.

    Raises:
        ValueError: A line would have an end of its own within it.

    """
    lines = [b"%b %b HTTP/1.1" % (method, target), *(b"%b: %b" % field for field in headers)]
    for line in lines:
        if _FORBIDDEN.search(line):
            # Not what is in it: that may be a key.
            raise ValueError("A field of the request holds a line break or a NUL.")
    return b"\r\n".join([*lines, b"", b""])


class ResponseParser:
    """Reads one response, and interim ones ahead of it. Its body is in :attr:`body` until it is taken."""

    def __init__(self) -> None:
        self._parser: httptools.HttpResponseParser | None = httptools.HttpResponseParser(self)
        self.status = 0
        """0: the head isn't complete."""
        self.headers: list[tuple[bytes, bytes]] = []
        self.is_complete = False
        self.has_surplus = False
        """Whether something came that belongs to no answer."""
        self.body = bytearray()
        self._bare = 0
        self._is_interim = False
        self._is_delimited = False
        self._is_kept = False

    @property
    def may_follow(self) -> bool:
        """Whether another request may go over the connection."""
        return self.is_complete and not self.has_surplus and self._is_kept

    def feed(self, data: bytes) -> None:
        """Read on.

        Raises:
            Malformed: There is nothing more to be had of it.

        """
        if self.is_complete or self._parser is None:
            self.has_surplus = True
            return
        self._bare += len(data)
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade) as exc:
            if not self.is_complete:
                raise Malformed(type(exc).__name__) from None
            self.has_surplus = True  # of no kind that is known
        if self.is_complete:
            self.end()
        elif self._bare > _MAX_HEAD:
            raise Malformed("too long a head")

    def feed_eof(self) -> None:
        """Take in that the peer has closed.

        Raises:
            Malformed: In mid-answer.

        """
        if self.is_complete:
            return
        if self.status == 0 or self._is_delimited:
            raise Malformed("closed in mid-answer")
        self.is_complete, self._is_kept = True, False

    def end(self) -> None:
        """Read no further. What holds this in a circle is let go of."""
        self._parser = None

    def take(self) -> bytes:
        """Return what there is of the body, which then isn't there any more."""
        data = bytes(self.body)
        self.body.clear()
        return data

    # What the parser calls.

    def on_message_begin(self) -> None:
        """Note that an answer begins."""
        if self.is_complete:
            self.has_surplus = True

    def on_header(self, name: bytes, value: bytes) -> None:
        """Take a field, of the head or behind the body."""
        if self.status:
            return  # a trailer: nobody reads those
        self.headers.append((name, value))
        match name.lower():
            case b"transfer-encoding":
                if value.strip().lower() != b"chunked":
                    raise Malformed("a transfer coding of another kind")
                self._is_delimited = True
            case b"content-length":
                self._is_delimited = True

    def on_headers_complete(self) -> None:
        """Settle what kind of answer it is."""
        if self.is_complete or self._parser is None:
            return
        status = self._parser.get_status_code()
        if status < 100:
            raise Malformed("no status")
        self._is_interim = 100 <= status < 200
        if self._is_interim:  # such as 103: the answer follows (RFC 9110, section 15.2)
            self.headers.clear()
            self._is_delimited = False
            return
        self.status = status
        self._is_kept = self._parser.should_keep_alive()

    def on_body(self, data: bytes) -> None:
        """Take a piece of the body."""
        if self._is_interim:
            raise Malformed("an interim response with a body")
        if not self.is_complete:
            self.body += data
            self._bare = 0

    def on_message_complete(self) -> None:
        """Note that an answer has ended."""
        if not self._is_interim:
            self.is_complete = True
