"""From the bodies of requests about conversations to what is asked for.

Whatever a client sends, the outcome is a value or a :class:`DecodeError` that says what to do.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import msgspec
from msgspec import Struct

from unbroken.server.protocols.body import decoded
from unbroken.server.protocols.items import DecodeError
from unbroken.server.protocols.parameters import metadata_of
from unbroken.server.protocols.responses.decode import Opened, items_of, nothing_opened
from unbroken.server.protocols.responses.frames import InputParam
from unbroken.sessions.items import Item

__all__ = [
    "CreateParam",
    "ItemsParam",
    "NewConversation",
    "UpdateParam",
    "decode_create",
    "decode_items",
    "decode_update",
]

_MOST_ITEMS: Final = 20
"""Items that one request may bring."""


class CreateParam(Struct, frozen=True):
    """A conversation that is to begin."""

    items: list[InputParam] | None = None
    metadata: dict[str, str] | None = None


class UpdateParam(Struct, frozen=True):
    """What is to be noted of one."""

    metadata: dict[str, str] | None


class ItemsParam(Struct, frozen=True):
    """Items that are to be part of one."""

    items: list[InputParam]


_CREATE: Final = msgspec.json.Decoder(CreateParam)
_UPDATE: Final = msgspec.json.Decoder(UpdateParam)
_ITEMS: Final = msgspec.json.Decoder(ItemsParam)


@dataclass(frozen=True, slots=True)
class NewConversation:
    """A conversation that is to begin."""

    items: tuple[Item, ...]
    metadata: dict[str, str]


def decode_create(data: bytes, *, max_depth: int, opened: Opened = nothing_opened) -> NewConversation:
    """Return the conversation that a body asks for. Nothing in it asks for an empty one.

    *opened* knows the compactions that it brings.

    Raises:
        DecodeError: It can't be had.

    """
    wanted = decoded(data or b"{}", _CREATE, max_depth=max_depth)
    return NewConversation(_items(wanted.items or [], opened), metadata_of(wanted.metadata) or {})


def decode_update(data: bytes, *, max_depth: int) -> dict[str, str]:
    """Return what is to be noted of a conversation, in place of what is.

    Raises:
        DecodeError: It can't be.

    """
    return metadata_of(decoded(data, _UPDATE, max_depth=max_depth).metadata) or {}


def decode_items(data: bytes, *, max_depth: int, opened: Opened = nothing_opened) -> tuple[Item, ...]:
    """Return the items that are to be part of a conversation. *opened* knows the compactions among them.

    Raises:
        DecodeError: They can't be.

    """
    items = _items(decoded(data, _ITEMS, max_depth=max_depth).items, opened)
    if not items:
        raise DecodeError("invalid_request", "Name at least one item.", param="items")
    return items


def _items(given: list[InputParam], opened: Opened) -> tuple[Item, ...]:
    if len(given) > _MOST_ITEMS:
        raise DecodeError("invalid_request", f"`items` takes up to {_MOST_ITEMS} items.", param="items")
    try:
        items, references = items_of(given, "items", opened)
    except DecodeError as exc:
        if exc.code == "invalid_event":
            raise DecodeError("invalid_request", exc.message, param=exc.param) from None
        raise
    if references:
        message = "An item is named here that is part of a conversation. Say what it says."
        raise DecodeError("invalid_request", message, param="items")
    return items
