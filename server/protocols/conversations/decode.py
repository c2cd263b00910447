"""From the bodies of requests about conversations to what is asked for.

Whatever a client sends, the outcome is a value or a :class:`DecodeError` that says what to do.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Final

import msgspec
from msgspec import Struct

from unbroken.server.protocols.body import decoded
from unbroken.server.protocols.items import DecodeError, check_name
from unbroken.server.protocols.parameters import metadata_of
from unbroken.server.protocols.responses.decode import Opened, items_of, nothing_opened
from unbroken.server.protocols.responses.frames import InputParam
from unbroken.sessions.items import Item

__all__ = [
    "CreateParam",
    "ItemsParam",
    "NewConversation",
    "NewItems",
    "UpdateParam",
    "decode_create",
    "decode_items",
    "decode_update",
    "name_of",
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
    digest: bytes
    """Of what the client said."""


@dataclass(frozen=True, slots=True)
class NewItems:
    """Items that are to be part of a conversation."""

    items: tuple[Item, ...]
    digest: bytes
    """Of what the client said."""


def name_of(header: str | None) -> str | None:
    """Return what a request is named by its ``Idempotency-Key``. None: it has none.

    Raises:
        DecodeError: It can't be a name.

    """
    if header is not None:
        try:
            check_name(header, "Idempotency-Key", None)
        except DecodeError as exc:
            raise DecodeError("invalid_request", exc.message, param=exc.param) from None
    return header


def decode_create(data: bytes, *, max_depth: int, opened: Opened = nothing_opened) -> NewConversation:
    """Return the conversation that a body asks for. Nothing in it asks for an empty one.

    *opened* knows the compactions that it brings.

    Raises:
        DecodeError: It can't be had.

    """
    wanted = decoded(data or b"{}", _CREATE, max_depth=max_depth)
    items = _items(wanted.items or [], opened)
    return NewConversation(items, metadata_of(wanted.metadata) or {}, _digest(wanted))


def decode_update(data: bytes, *, max_depth: int) -> dict[str, str]:
    """Return what is to be noted of a conversation, in place of what is.

    Raises:
        DecodeError: It can't be.

    """
    return metadata_of(decoded(data, _UPDATE, max_depth=max_depth).metadata) or {}


def decode_items(data: bytes, *, max_depth: int, opened: Opened = nothing_opened) -> NewItems:
    """Return the items that are to be part of a conversation. *opened* knows the compactions among them.

    Raises:
        DecodeError: They can't be.

    """
    wanted = decoded(data, _ITEMS, max_depth=max_depth)
    items = _items(wanted.items, opened)
    if not items:
        raise DecodeError("invalid_request", "Name at least one item.", param="items")
    return NewItems(items, _digest(wanted))


def _digest(wanted: CreateParam | ItemsParam) -> bytes:
    said = msgspec.json.encode(wanted, order="deterministic")  # names in any order say the same
    return hashlib.blake2b(said, digest_size=12).digest()


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
