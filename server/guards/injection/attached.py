"""What messages bring along, as it is to be looked at: the names of files, and what text files say.

Both are in the prompt. A name is the user's; what a file says may be anybody's, as a tool's result is.
What came within an event is looked at whole. A file of the store is read in parts, as it may have
megabytes, and each part is looked at before the next one is read.
"""

from __future__ import annotations

import asyncio
import codecs
from collections.abc import AsyncGenerator, Iterator, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import Final

from unbroken.server.files.base import FileError, FileNotFound, FileStore, StoredFile
from unbroken.server.files.kinds import TEXT, UnsupportedKind, kind_of
from unbroken.server.files.references import InlineFile, InlineImage
from unbroken.server.guards.injection.base import Origin, Passage
from unbroken.server.guards.injection.windows import SHARED
from unbroken.sessions.entries import Command, CreateItem, CreateItems, CreateResponse
from unbroken.sessions.ids import PrincipalId
from unbroken.sessions.items import Item, Message, Reference
from unbroken.sessions.session import Session

__all__ = ["NOTHING_BROUGHT", "Attached", "AttachedFiles", "Brought", "FilesUnread", "attached_to"]

_PART: Final = 64 * 1024
"""Characters of a file of the store that are looked at in one go."""

_AT_ONCE: Final = 16
"""Parts that are read at once: files that nobody has time for aren't in memory meanwhile."""


class FilesUnread(Exception):
    """What a file says isn't known. The text says why, and quotes nothing."""


@dataclass(frozen=True, slots=True)
class Attached:
    """A reference, and the field it came in."""

    part: Reference
    param: str


@dataclass(frozen=True, slots=True)
class Brought:
    """What came along."""

    passages: Sequence[Passage] = ()
    """Names, and what came within the event."""
    texts: Sequence[tuple[StoredFile, str]] = ()
    """Text files of the store, each with the field that names it."""


NOTHING_BROUGHT: Final = Brought()


def attached_to(command: Command, session: Session) -> list[Attached]:
    """Return what messages of *command* refer to, unless they are in *session* already."""
    match command:
        case CreateItem(item=item):
            return list(_of_item(item, "item"))
        case CreateItems(items=items):
            return [each for index, item in enumerate(items) for each in _of_item(item, f"items[{index}]")]
        case CreateResponse(request=request):
            return [
                each
                for index, item in enumerate((*command.said, *(request.input or ())))
                if session.item(item.id) is not item
                for each in _of_item(item, f"response.input[{index}]")
            ]
        case _:
            return []


def _of_item(item: Item, param: str) -> Iterator[Attached]:
    for index, part in enumerate(item.content if isinstance(item, Message) else ()):
        if isinstance(part, Reference):
            yield Attached(part, f"{param}.content[{index}]")


class AttachedFiles:
    """Reads what messages bring along.

    Args:
        store: Where files are. None: there are none, and messages that bring some are refused anyhow.
        most: Bytes of text files of the store that are read for one command.
        timeout: Seconds until a part of one has to be there.

    """

    def __init__(self, store: FileStore | None = None, *, most: int = 8 << 20, timeout: float = 2.0) -> None:
        self._store = store
        self._most = most
        self._timeout = timeout
        self._turns = asyncio.Semaphore(_AT_ONCE)

    async def brought(self, attached: Sequence[Attached], principal: PrincipalId) -> Brought:
        """Return what *principal* brings. What isn't there, or is of no kind that is taken, is left out."""
        if self._store is None:
            return NOTHING_BROUGHT
        passages, names = [], []
        texts: dict[str, tuple[StoredFile, str]] = {}
        for each in attached:
            if isinstance(each.part, InlineFile | InlineImage):
                name = each.part.name
            else:
                try:
                    file = await self._store.stat(each.part.file_id, principal)
                except FileNotFound:
                    continue  # it is going to be refused
                name = file.name
                if file.media_type == TEXT:
                    texts.setdefault(file.id, (file, f"{each.param}.file_id"))
            if name:
                names.append(Passage(Origin.USER, name, f"{each.param}.filename"))
            if isinstance(each.part, InlineFile):
                text = await asyncio.to_thread(_text_of, each.part.content)
                passages.append(Passage(Origin.TOOL, text, f"{each.param}.file_data"))
        return Brought([*passages, *_together(names)], list(texts.values()))

    async def parts(self, file: StoredFile, size: int) -> AsyncGenerator[str, None]:
        """Yield what *file* says, in parts that share what no attack that rules know is longer than.

        *size* is what it has in bytes, with those that the same command has brought before it.

        Raises:
            FilesUnread: It can't be read, or not in time, or is more than is read.

        """
        assert self._store is not None
        if size > self._most:
            raise FilesUnread("Files have more text than is looked at.")
        decoder = codecs.getincrementaldecoder("utf-8")("replace")  # as the agent is given it
        text, is_over = "", False
        async with aclosing(self._store.read(file.id, file.principal)) as pieces:
            while not is_over:
                try:
                    async with asyncio.timeout(self._timeout), self._turns:
                        while not is_over and len(text) < _PART:
                            piece = await anext(pieces, b"")
                            is_over = not piece
                            text += decoder.decode(piece, is_over)
                except FileNotFound:
                    return  # it is going to be refused, or told of as gone
                except (FileError, TimeoutError) as exc:
                    raise FilesUnread(f"A file can't be read ({type(exc).__name__}).") from None
                yield text[:_PART] if not is_over else text
                text = text[_PART - SHARED :]


def _text_of(content: bytes) -> str:
    """Return what a text file says; nothing, if it is none."""
    try:
        return content.decode(errors="replace") if kind_of(content) == TEXT else ""
    except UnsupportedKind:
        return ""


def _together(names: list[Passage]) -> list[Passage]:
    """Return *names* as one passage: each by itself has its cost, and they are read one after another."""
    if len(names) <= 1:
        return names
    param = (names[0].param or "").partition("[")[0]
    return [Passage(Origin.USER, "\n".join(each.text for each in names), param)]
