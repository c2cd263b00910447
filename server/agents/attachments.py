"""What messages refer to, as models are given it: read from the file store when the turn begins.

Newest first, as far as the turn's bound goes. Text files become text under their name, up to a mark that
they can't know: what follows is the user's. What can't be given is told of in the text, so that the
conversation goes on: a file that has expired, one of an older turn for which there is no room, a picture of
an older turn for a model that sees none. In the newest turn the last two are errors: an answer would be
about something else.
"""

from __future__ import annotations

import asyncio
import hashlib
from base64 import b64encode
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final, TypeAlias

from msgspec.structs import replace as replace_fields

from unbroken.server.agents.base import (
    AgentBusy,
    ContentUnsupported,
    ContextTooLong,
    FileReader,
    Image,
    Message,
    Prompted,
    Text,
    TurnInput,
)
from unbroken.server.files.base import FileNotFound, FilesUnavailable
from unbroken.server.files.kinds import TEXT
from unbroken.server.files.reading import ReadingBusy, TooMuchToRead
from unbroken.sessions.items import Reference

__all__ = [
    "NOTHING",
    "Contents",
    "Data",
    "as_text",
    "contents_of",
    "framed",
    "has_references",
    "pieces_of",
    "wire_message",
]

_TOO_MUCH: Final = "The images and files of this message are more than the model can be given. Send fewer."
_UNREADABLE: Final = "The files of this message can't be read at the moment. Try again."


@dataclass(frozen=True, slots=True)
class Data:
    """An image or a document."""

    part: Reference
    uri: str
    """Its content, as a data URI."""


Contents: TypeAlias = Mapping[str, str | Data]
"""By the file's id: what it is, or what is said in its place."""

NOTHING: Final[Contents] = {}


def has_references(items: Sequence[Prompted]) -> bool:
    """Return whether any message refers to a file."""
    return any(isinstance(item, Message) and item.references for item in items)


async def contents_of(items: Sequence[Prompted], files: FileReader, *, sees: bool = True) -> Contents:
    """Return what *items* refer to. *sees*: whether the model takes images and documents.

    Raises:
        ContentUnsupported: The newest turn refers to what the model doesn't take.
        ContextTooLong: The newest turn refers to more than a turn may read.
        AgentBusy: It can't be read at the moment.

    """
    contents: dict[str, str | Data] = {}
    is_newest = True
    for item in reversed(items):
        if not isinstance(item, Message):
            continue
        is_newest = is_newest and item.role != "assistant"
        for part in item.references:
            if part.file_id not in contents:
                contents[part.file_id] = await _content_of(part, files, sees=sees, is_newest=is_newest)
    return contents


async def _content_of(part: Reference, files: FileReader, *, sees: bool, is_newest: bool) -> str | Data:
    if not (sees or part.media_type == TEXT):
        if is_newest:
            raise ContentUnsupported
        return f"[{_named(part)}: it can't be seen]"
    try:
        content = await files.read(part)
    except FileNotFound:
        return f"[{_named(part)}: it has expired, and is gone]"
    except TooMuchToRead:
        if is_newest:
            raise ContextTooLong(_TOO_MUCH) from None
        return f"[{_named(part)}: left out, as there is too much]"
    except ReadingBusy:
        raise AgentBusy from None
    except FilesUnavailable:
        raise AgentBusy(_UNREADABLE) from None
    if part.media_type == TEXT:
        return framed(part, content.decode(errors="replace"))
    # Megabytes: not in the event loop.
    return Data(part, await asyncio.to_thread(_data_uri, part.media_type, content))


def framed(part: Reference, text: str) -> str:
    """Return the *text* of a file so that a model can tell it from what the user says.

    The mark where it ends comes of the file's id, which nobody knew when the content was written, and is
    the same in each turn, so that prompts are found in upstreams' caches.
    """
    mark = ""
    while not mark or mark in text:
        mark = hashlib.blake2b(f"{mark}{part.file_id}".encode(), digest_size=8).hexdigest()
    return f"[File {mark}: {_plain(part.name)}]\n{text}\n[End of file {mark}]"


def pieces_of(message: Message, contents: Contents) -> list[str | Data]:
    """Return what *message* is made of, in order."""
    return [
        part.text if isinstance(part, Text) else contents.get(part.file_id, f"[{_plain(part.name)}]")
        for part in message.content
    ]


def wire_message(
    message: Message, contents: Contents, wire_piece: Callable[[str | Data], dict[str, Any]]
) -> dict[str, Any] | None:
    """Return *message* as both APIs have it; *wire_piece* says how one of its pieces is written.

    None: it is an answer stopped before its first word, which says nothing; several servers refuse those.
    """
    if message.references:
        pieces = pieces_of(message, contents)
        return {"role": message.role, "content": [wire_piece(piece) for piece in pieces]}
    if message.text or message.role == "user":
        return {"role": message.role, "content": message.text}
    return None


async def as_text(turn: TurnInput) -> TurnInput:
    """Return *turn* with messages of text alone, for a model that sees nothing else.

    Raises:
        AgentError: As :func:`contents_of`.

    """
    contents = await contents_of(turn.items, turn.files, sees=False)
    items = tuple(
        replace_fields(item, content=(Text("\n\n".join(_texts(pieces_of(item, contents)))),))
        if isinstance(item, Message) and item.references
        else item
        for item in turn.items
    )
    return replace(turn, items=items)


def _texts(pieces: Sequence[str | Data]) -> list[str]:
    return [piece for piece in pieces if isinstance(piece, str) and piece]


def _named(part: Reference) -> str:
    return f"{'Image' if isinstance(part, Image) else 'File'} {_plain(part.name)}"


def _plain(name: str) -> str:
    """Return *name* without what ends the brackets that it stands in."""
    return name.translate(_BRACKETS)


_BRACKETS: Final = str.maketrans("[]", "()")


def _data_uri(media_type: str, content: bytes) -> str:
    return f"data:{media_type};base64,{b64encode(content).decode()}"
