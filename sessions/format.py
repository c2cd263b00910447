"""The formats in which a node reads and writes what nodes share: so that two releases run beside each other.

A release reads the format that it brought, and the one before. It writes the
latest that all living nodes read, which they agree on (see the cluster that
they share). What is read is brought to this release's own form at once, so
nothing above a store knows that there are several.

A format's number stands for the entries and snapshots, and for how a store
lays them out: keys, their fields, and what scripts expect of both. Within a
format, fields may be added, each with a default, as long as who skips one does nothing wrong by it; all else
needs another number.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from unbroken.sessions.entries import FORMAT, Body, decode_body, encode_body, version_of
from unbroken.sessions.errors import UnknownFormat

__all__ = ["FORMAT_1", "Format", "Formats"]


def _unchanged(data: bytes) -> bytes:
    return data


@dataclass(frozen=True, slots=True)
class Format:
    """How one format is written and read. What it decodes is in this release's form."""

    number: int
    encode_body: Callable[[Body], bytes]
    decode_body: Callable[[bytes], Body]
    """Raises :class:`UnknownFormat` for what isn't of this format."""
    encode_state: Callable[[bytes], bytes] = _unchanged
    """Makes a snapshot of this format of one that a session of this release has made."""
    decode_state: Callable[[bytes], bytes] = _unchanged
    """The other way round."""


FORMAT_1: Final = Format(FORMAT, encode_body, decode_body)
"""The one that this release brings."""


class Formats:
    """What one node reads, and which of it it writes: the older one, until others are known to read more.

    Args:
        newest: The one that this release brings.
        older: The one before; None: there is none.
        latest: The number of the latest to agree to; None: the newest. With the older one's, the cluster
            goes on, or back, to what the release before reads.

    Raises:
        ValueError: The two aren't adjacent, or *latest* is none of them.

    """

    def __init__(self, newest: Format, older: Format | None = None, *, latest: int | None = None) -> None:
        if older is not None and older.number != newest.number - 1:
            raise ValueError(f"format {older.number} isn't the one before {newest.number}")
        self._formats = {each.number: each for each in (older, newest) if each is not None}
        self.newest: Final = newest.number
        self.oldest: Final = newest.number if older is None else older.number
        self.latest: Final = newest.number if latest is None else latest
        if self.latest not in self._formats:
            raise ValueError(f"this version writes the formats {self.oldest} to {self.newest}")
        self._written = self._formats[self.oldest]
        self.encode_body: Callable[[Body], bytes] = self._written.encode_body
        """Returns a body in the format that is written: itself, so that a token costs nothing more."""
        self.most_written = 0
        """The latest in which this node may have written anything; 0: nothing yet."""
        self.is_outdated = False
        """Whether the store holds, or may, what this release can't read."""
        self.on_unreadable: Callable[[], None] = _nothing
        """Called when something is found that this release can't read. It stays as it is."""
        self.on_outdated: Callable[[], None] = _nothing
        """Called when others have gone on to what this release can't read, while it was cut off."""

    @property
    def written(self) -> int:
        """The number of the format that is written."""
        return self._written.number

    def agree(self, number: int) -> None:
        """Write format *number* from here on."""
        self._written = self._formats[number]
        self.encode_body = self._written.encode_body
        self.most_written = max(self.most_written, number)

    def covers(self, lowest: int, highest: int) -> bool:
        """Return whether all formats from *lowest* to *highest* are read here."""
        return self.oldest <= lowest and highest <= self.newest

    def note_outdated(self, is_outdated: bool) -> None:
        """Note whether others have gone on without this node."""
        was_outdated, self.is_outdated = self.is_outdated, is_outdated
        if is_outdated and not was_outdated:
            self.on_outdated()

    def decode_body(self, data: bytes) -> Body:
        """Return the body that *data* holds.

        Raises:
            UnknownFormat: It is of none of the formats, or no body at all.

        """
        number = self.newest if len(self._formats) == 1 else version_of(data)
        try:
            if number is None:
                raise UnknownFormat("the log entry says no format")
            known = self._formats.get(number)
            if known is None:
                raise UnknownFormat(
                    f"the log entry has format {number}; this version reads {self.oldest} to {self.newest}"
                )
            return known.decode_body(data)
        except UnknownFormat:
            self.on_unreadable()
            raise

    def encode_state(self, data: bytes) -> bytes:
        """Return a session's snapshot in the format that is written."""
        return self._written.encode_state(data)

    def decode_state(self, data: bytes) -> bytes:
        """Return the snapshot in this release's form; as it is, if it can't be read: the session says so."""
        known = self._formats.get(version_of(data) or 0)
        if known is None:
            self.on_unreadable()
            return data
        return known.decode_state(data)


def _nothing() -> None:
    pass
