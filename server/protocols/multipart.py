"""From the body of an upload (``multipart/form-data``, RFC 7578) to its fields and its one file. No I/O.

The pieces of the file are passed on as they come; in whatever pieces the body comes, they join to the
same. Everything but the file's content is bounded: the number of fields, their size, headers.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import Final

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

__all__ = ["FormReader", "InvalidForm"]

_FILE: Final = "file"
"""What the field with the file is called."""

_MOST_FIELDS: Final = 16
_MOST_FIELD_BYTES: Final = 4096
_MOST_NAME_BYTES: Final = 4096
_MOST_HEADERS: Final = 8
_MOST_BOUNDARY: Final = 70
"""Characters (RFC 2046, 5.1.1)."""


class InvalidForm(Exception):
    """The body isn't an upload. The text says what one is."""


class FormReader:
    """Reads one body.

    Args:
        content_type: The request's header.

    Raises:
        InvalidForm: It isn't that of a form.

    Attributes:
        filename: What the client calls the file; None until it begins.
        fields: The other fields, as far as they are complete.

    """

    def __init__(self, content_type: str) -> None:
        self.filename: str | None = None
        self.fields: dict[str, str] = {}
        self._content: list[bytes] = []  # of the file, in what was fed last
        self._parts = 0
        self._header: tuple[bytearray, bytearray] = (bytearray(), bytearray())
        self._disposition = ""
        self._field: str | None = None  # that is being read; None: it is the file
        self._value = bytearray()
        self._is_ended = False
        self._parser = MultipartParser(
            _boundary_of(content_type),
            {
                "on_part_begin": self._begin,
                "on_header_field": lambda data, start, end: self._header[0].extend(data[start:end]),
                "on_header_value": lambda data, start, end: self._header[1].extend(data[start:end]),
                "on_header_end": self._end_header,
                "on_headers_finished": self._name,
                "on_part_data": self._take,
                "on_part_end": self._end,
                "on_end": self._finish,
            },
            max_header_count=_MOST_HEADERS,
            max_header_size=_MOST_NAME_BYTES,
        )
        # It quotes what people send.
        self._parser.logger = logging.Logger("multipart", logging.CRITICAL + 1)

    def feed(self, data: bytes) -> Iterator[bytes]:
        """Return the pieces of the file's content in *data*.

        Raises:
            InvalidForm: It isn't what was said above.

        """
        try:
            self._parser.write(data)
        except FormParserError:
            raise InvalidForm("The body isn't valid multipart/form-data.") from None
        pieces, self._content = self._content, []
        return iter(pieces)

    def finish(self) -> str:
        """Return the file's name: that was all.

        Raises:
            InvalidForm: It wasn't, or there was no file.

        """
        if not self._is_ended:
            raise InvalidForm("The body ends before its last boundary.")
        if self.filename is None:
            raise InvalidForm("There is no `file` in the form: a part with a file name.")
        return self.filename

    def _begin(self) -> None:
        self._parts += 1
        if self._parts > _MOST_FIELDS:
            raise InvalidForm(f"The form has more than {_MOST_FIELDS} fields.")
        self._disposition = ""

    def _end_header(self) -> None:
        name, value = self._header
        if name.lower() == b"content-disposition":
            # Browsers and the SDK write names in UTF-8 (RFC 7578, 5.1.1), whatever a header is otherwise.
            self._disposition = value.decode("utf-8", "replace")
        self._header = (bytearray(), bytearray())

    def _name(self) -> None:
        # The library's own reader takes Latin-1 for all that there is.
        kind, options = parse_options_header(self._disposition.encode().decode("latin-1"))
        name = options.get(b"name", b"").decode("utf-8", "replace")
        if kind != b"form-data" or not name:
            raise InvalidForm("Each part of the form needs a name.")
        self._value = bytearray()
        self._field = name
        if name == _FILE and b"filename" in options:
            if self.filename is not None:
                raise InvalidForm("Send one file at a time.")
            self.filename = options[b"filename"].decode("utf-8", "replace")
            self._field = None
        elif b"filename" in options:
            raise InvalidForm("The file must be in the field `file`.")

    def _take(self, data: bytes, start: int, end: int) -> None:
        if self._field is None:
            self._content.append(data[start:end])
            return
        self._value += data[start:end]
        if len(self._value) > _MOST_FIELD_BYTES:
            raise InvalidForm(f"The field {self._field[:64]!r} has more than {_MOST_FIELD_BYTES} bytes.")

    def _end(self) -> None:
        if self._field is not None:
            if self._field in self.fields:
                raise InvalidForm(f"The field {self._field[:64]!r} is there twice.")
            self.fields[self._field] = self._value.decode("utf-8", "replace")

    def _finish(self) -> None:
        self._is_ended = True


def _boundary_of(content_type: str) -> bytes:
    kind, options = parse_options_header(content_type)
    boundary = options.get(b"boundary", b"")
    if kind != b"multipart/form-data" or not 0 < len(boundary) <= _MOST_BOUNDARY:
        raise InvalidForm("Send the file as multipart/form-data, with a boundary.")
    return boundary
