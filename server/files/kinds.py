"""What a file is, by its content. What a client calls it counts for nothing.

The media types are those that models take. Pictures and PDF are known by their first bytes;
everything else is plain text if all of it is UTF-8 without control characters, or refused. So a page
of HTML is text, and is served as such.

A file may be valid as several types at once. Nothing here depends on its being none of the others:
content is only ever served as a download of the type said here, in a sandbox.
"""

from __future__ import annotations

import codecs
from typing import Final

__all__ = ["IMAGES", "PDF", "TEXT", "Kind", "UnsupportedKind", "kind_of"]

PDF: Final = "application/pdf"
TEXT: Final = "text/plain"
IMAGES: Final = frozenset({"image/png", "image/jpeg", "image/gif", "image/webp"})

_HEAD: Final = 12
"""Bytes by which every type but text is known."""

_MAGIC: Final = (
    (b"\x89PNG\r\n\x1a\n", "image/png"),
    (b"\xff\xd8\xff", "image/jpeg"),
    (b"GIF87a", "image/gif"),
    (b"GIF89a", "image/gif"),
    (b"%PDF-", PDF),
)

_CONTROL: Final = bytes(set(range(0x20)) - set(b"\t\n\f\r")) + b"\x7f"


class UnsupportedKind(Exception):
    """It is none of the types that are taken."""

    def __str__(self) -> str:
        return (
            "Files can be PNG, JPEG, GIF or WebP pictures, PDF, or plain text in UTF-8. This is none of them."
        )


class Kind:
    """Finds out what content is, while it comes. In whatever pieces, the outcome is the same."""

    def __init__(self) -> None:
        self._head = b""
        self._type: str | None = None  # once it is known; text is known at the end
        self._text: codecs.IncrementalDecoder | None = None  # while it may be text

    def feed(self, data: bytes) -> None:
        """Look at the next piece.

        Raises:
            UnsupportedKind: It can't be anything any more.

        """
        if self._type is not None:
            return
        if self._text is not None:
            self._read_text(data)
            return
        self._head += data
        if len(self._head) >= _HEAD:
            self._decide()

    def finish(self) -> str:
        """Return the media type of the whole.

        Raises:
            UnsupportedKind: It is none that is taken, or there is no content.

        """
        if not self._head:
            raise UnsupportedKind
        if self._type is None and self._text is None:
            self._decide()
        if self._type is not None:
            return self._type
        self._read_text(b"", is_end=True)
        return TEXT

    def _decide(self) -> None:
        self._type = _by_magic(self._head)
        if self._type is None:
            self._text = codecs.getincrementaldecoder("utf-8")()
            self._read_text(self._head)

    def _read_text(self, data: bytes, *, is_end: bool = False) -> None:
        assert self._text is not None
        try:
            self._text.decode(data, is_end)
        except UnicodeDecodeError:
            raise UnsupportedKind from None
        if len(data.translate(None, _CONTROL)) != len(data):
            raise UnsupportedKind


def kind_of(content: bytes) -> str:
    """Return the media type of *content*.

    Raises:
        UnsupportedKind: It is none that is taken.

    """
    kind = Kind()
    kind.feed(content)
    return kind.finish()


def _by_magic(head: bytes) -> str | None:
    if head.startswith(b"RIFF") and head[8:12] == b"WEBP":
        return "image/webp"
    return next((kind for magic, kind in _MAGIC if head.startswith(magic)), None)
