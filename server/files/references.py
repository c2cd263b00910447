"""From what a client's message names or brings along to references that stand for files.

A codec knows no files: it leaves references whose media type is empty, and content that came within
the event as :class:`InlineImage` or :class:`InlineFile`. Before the message is written, they are
made whole here. The log never holds content.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Final, TypeAlias

from msgspec.structs import replace

from unbroken.server.files.base import (
    FileDetails,
    FileError,
    FileNotFound,
    FilesFull,
    FileStore,
    FileTooLarge,
    StoredFile,
    TooManyFiles,
)
from unbroken.server.files.kinds import IMAGES, UnsupportedKind, kind_of
from unbroken.sessions.entries import Command, CreateItem, CreateItems, CreateResponse
from unbroken.sessions.errors import NodeFull, Refusal
from unbroken.sessions.ids import PrincipalId
from unbroken.sessions.items import File, Image, Item, Message, Part, Reference, Text

__all__ = ["InlineFile", "InlineImage", "Referring", "needs_files", "referring", "refusal_of"]

_PURPOSE: Final = "user_data"

# By another name, as a reference has a field called `bytes`.
_Content: TypeAlias = bytes


class InlineImage(Image, frozen=True, tag="inline_image", omit_defaults=True):
    """A picture whose content came within the event. It isn't written anywhere as it is."""

    content: _Content = b""


class InlineFile(File, frozen=True, tag="inline_file", omit_defaults=True):
    """A document whose content came within the event. It isn't written anywhere as it is."""

    content: _Content = b""


@dataclass(slots=True)
class Referring:
    """A command whose references stand for files that are there."""

    command: Command
    is_wanted: bool = False
    """Set by whoever has written it: the files that came with it stay."""
    brought: list[StoredFile] = field(default_factory=list)
    """Those files."""
    store: FileStore | None = None
    """Where they are."""

    async def remove(self, principal: PrincipalId) -> None:
        """Remove the files that came with it, which are *principal*'s: nobody refers to them."""
        for file in self.brought:
            with suppress(FileError):
                assert self.store is not None
                await self.store.delete(file.id, principal)


def needs_files(command: Command) -> bool:
    """Return whether *command* has references that stand for nothing yet."""
    return any(
        _is_open(part) for item in _items(command) if isinstance(item, Message) for part in item.content
    )


@asynccontextmanager
async def referring(
    command: Command, principal: PrincipalId, store: FileStore | None, *, lifetime: float
) -> AsyncIterator[Referring]:
    """Have the references of *command* stand for files, while it is being written.

    Content that came within it becomes files, for *lifetime* seconds. They are removed again when it
    turns out that it isn't written: it is refused, or was written before. When nobody knows, as
    after a cancellation, they stay until they expire.

    Entering raises:
        Refusal: A file isn't there, or isn't what the part says; or there is no room.
        NodeFull: The node has no room.

    """
    if store is None:
        raise Refusal("unsupported_content", "This server takes no images and files. Send text.")
    done = Referring(command, store=store)
    try:
        done.command = await _made_whole(command, _Files(store, principal, lifetime, done.brought))
        yield done
    except (Refusal, NodeFull):
        done.is_wanted = False
        raise
    except BaseException:
        done.is_wanted = True
        raise
    finally:
        if not done.is_wanted:
            await done.remove(principal)


@dataclass(frozen=True, slots=True)
class _Files:
    store: FileStore
    principal: PrincipalId
    lifetime: float
    brought: list[StoredFile]

    async def find(self, part: Reference) -> StoredFile:
        if not isinstance(part, InlineImage | InlineFile):
            return await self.store.stat(part.file_id, self.principal)
        kind = kind_of(part.content)
        name = part.name or f"{'image' if kind in IMAGES else 'file'}.{kind.rpartition('/')[2]}"
        details = FileDetails(name=name, media_type=kind, purpose=_PURPOSE, lifetime=self.lifetime)
        async with self.store.upload(self.principal) as upload:
            await upload.write(part.content)
            file = await upload.commit(details)
        self.brought.append(file)
        return file


async def _made_whole(command: Command, files: _Files) -> Command:
    if isinstance(command, CreateItem):
        return replace(command, item=await _whole_item(command.item, files, "item"))
    if isinstance(command, CreateItems):
        return replace(command, items=await _whole_items(command.items, files, "items"))
    if isinstance(command, CreateResponse):
        said = await _whole_items(command.said, files)
        given = command.request.input
        if given is not None:
            given = await _whole_items(given, files)
        return replace(command, said=said, request=replace(command.request, input=given))
    return command


async def _whole_items(
    items: tuple[Item, ...], files: _Files, field: str = "response.input"
) -> tuple[Item, ...]:
    whole = [await _whole_item(item, files, f"{field}[{index}]") for index, item in enumerate(items)]
    return tuple(whole)


async def _whole_item(item: Item, files: _Files, param: str) -> Item:
    if not isinstance(item, Message):
        return item
    parts: list[Part] = []
    for index, part in enumerate(item.content):
        if isinstance(part, Text) or not _is_open(part):
            parts.append(part)
        else:
            parts.append(await _whole_part(part, files, f"{param}.content[{index}]"))
    return replace(item, content=tuple(parts))


async def _whole_part(part: Reference, files: _Files, param: str) -> Part:
    try:
        file = await files.find(part)
    except FilesFull:
        raise NodeFull from None
    except (FileError, UnsupportedKind) as error:
        raise refusal_of(error, param) from None
    is_image = file.media_type in IMAGES
    if is_image != isinstance(part, Image):
        wanted = "`input_image`" if is_image else "`input_file`"
        message = f"The file is {file.media_type}: send it in an {wanted} part."
        raise Refusal("unsupported_content", message, param=f"{param}.type")
    if isinstance(part, Image):
        return Image(file.id, file.media_type, file.bytes, file.name, part.detail)
    return File(file.id, file.media_type, file.bytes, file.name)


def refusal_of(error: FileError | UnsupportedKind, param: str | None = None) -> Refusal:
    """Return what a client is told of *error*."""
    match error:
        case UnsupportedKind():
            code = "unsupported_file_type"
        case FileNotFound():
            code = "file_not_found"
        case FileTooLarge():
            code = "file_too_large"
        case TooManyFiles():
            code = "too_many_files"
        case FilesFull():
            code = "server_full"
        case _:
            code = "files_unavailable"
    return Refusal(code, str(error), param=param)


def _items(command: Command) -> tuple[Item, ...]:
    match command:
        case CreateItem(item=item):
            return (item,)
        case CreateItems(items=items):
            return items
        case CreateResponse(said=said, request=request):
            return (*said, *(request.input or ()))
        case _:
            return ()


def _is_open(part: Part) -> bool:
    return not isinstance(part, Text) and not part.media_type
