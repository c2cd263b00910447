"""Images and files in messages: how clients name them, and how they are shown.

A client may send content within the event, as a data URI (RFC 2397), or name a file that it has
uploaded. Content is never shown again: everybody sees a reference. The API knows no such thing, so:

- An image is shown as ``input_image`` whose ``image_url`` is ``unbroken-file:`` and the file's id.
- A file is shown as ``input_text`` with the file's name, since clients drop items with kinds of part
  that the API doesn't list.

What is known of the file is beside it, under ``unbroken``; sent again, it is the same part.
Addresses elsewhere are refused: a server that fetches what strangers name reaches what they can't.
"""

from __future__ import annotations

from base64 import b64decode
from typing import Any, Final

from msgspec import Struct

from unbroken.server.files.names import clean_name
from unbroken.server.files.references import InlineFile, InlineImage
from unbroken.sessions.items import File, Image, ImageDetail, Reference

__all__ = [
    "SCHEME",
    "BadReference",
    "PartExtension",
    "PartParam",
    "reference_fields",
    "reference_of",
    "refers",
]

SCHEME: Final = "unbroken-file:"
"""Ahead of a file's id, where an address is expected."""

_REFERRING: Final = frozenset({"input_image", "input_file"})

_NOTHING_FETCHED: Final = (
    "Nothing is fetched from other addresses. Upload it with `POST /v1/files` and name it by "
    "`file_id`, or send it as a base64 data URI."
)


class PartExtension(Struct, frozen=True):
    """What this server adds to a content part."""

    file_id: str | None = None
    """The part is that file, whatever else it says: so what was shown can be sent again."""


class PartParam(Struct, frozen=True):
    """A content part."""

    type: str
    text: str | None = None
    image_url: str | None = None
    detail: str | None = None
    file_id: str | None = None
    file_data: str | None = None
    file_url: str | None = None
    filename: str | None = None
    unbroken: PartExtension | None = None


class BadReference(Exception):
    """A part doesn't say which image or file it is, or says it in a way that isn't taken."""

    def __init__(self, code: str, message: str, field: str) -> None:
        super().__init__(code)
        self.code = code
        self.message = message
        self.field = field


def refers(part: PartParam) -> bool:
    """Return whether *part* stands for an image or a file."""
    return part.type in _REFERRING or (part.unbroken is not None and part.unbroken.file_id is not None)


def reference_of(part: PartParam) -> Reference:
    """Return what *part* stands for: still open, as nobody has looked for the file.

    Raises:
        BadReference: It can't stand for anything.

    """
    shown = None if part.unbroken is None else part.unbroken.file_id
    if part.type == "input_image":
        return _image(part, part.file_id or shown)
    return _file(part, part.file_id or shown)


def reference_fields(part: Reference) -> dict[str, Any]:
    """Return *part* as clients see it."""
    known = {
        "file_id": part.file_id,
        "filename": part.name,
        "media_type": part.media_type,
        "bytes": part.bytes,
    }
    if isinstance(part, Image):
        url = SCHEME + part.file_id
        return {"type": "input_image", "image_url": url, "detail": part.detail, "unbroken": known}
    return {"type": "input_text", "text": f"[{part.name}]", "unbroken": known}


def _image(part: PartParam, file_id: str | None) -> Image:
    detail = _detail(part.detail)
    if file_id is None:
        url = part.image_url
        if url is None:
            raise BadReference(
                "invalid_event", "The part needs an `image_url` or a `file_id`.", field="image_url"
            )
        if _is_data(url):
            content = _content(url, "image_url")
            return InlineImage("", name=_name(part), detail=detail, content=content)
        file_id = _named(url, "image_url")
    return Image(file_id, detail=detail)


def _file(part: PartParam, file_id: str | None) -> File:
    if file_id is not None:
        return File(file_id)
    if part.file_data is not None:
        if not _is_data(part.file_data):
            message = "`file_data` must be a base64 data URI."
            raise BadReference("invalid_event", message, field="file_data")
        return InlineFile("", name=_name(part), content=_content(part.file_data, "file_data"))
    if part.file_url is not None:
        return File(_named(part.file_url, "file_url"))
    raise BadReference("invalid_event", "The part needs a `file_id` or `file_data`.", field="file_id")


def _detail(given: str | None) -> ImageDetail:
    match given:
        case None:
            return "auto"
        case "auto" | "low" | "high":
            return given
        case _:
            raise BadReference("invalid_event", "`detail` must be `auto`, `low` or `high`.", field="detail")


def _name(part: PartParam) -> str:
    return clean_name(part.filename or "")


def _is_data(url: str) -> bool:
    return url[:5].lower() == "data:"


def _content(url: str, field: str) -> bytes:
    head, comma, data = url.partition(",")
    if not comma or not head.lower().endswith(";base64"):
        raise BadReference("invalid_event", "A data URI must be in base64.", field=field)
    try:
        return b64decode(data, validate=True)
    except ValueError:
        raise BadReference("invalid_event", "The data URI isn't valid base64.", field=field) from None


def _named(url: str, field: str) -> str:
    if url.startswith(SCHEME):
        return url.removeprefix(SCHEME)
    if url.startswith("file-"):
        return url
    raise BadReference("unsupported_content", _NOTHING_FETCHED, field=field)
