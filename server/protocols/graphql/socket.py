"""``graphql-transport-ws``: its messages, both ways, and its close codes.

https://github.com/enisdenjo/graphql-ws/blob/master/PROTOCOL.md
"""

from __future__ import annotations

import enum
from typing import Any, Final, TypeAlias

import msgspec
import orjson
from msgspec import Struct

from unbroken.server.protocols.body import decoded
from unbroken.server.protocols.graphql.documents import RequestParam, check_variables
from unbroken.server.protocols.items import DecodeError
from unbroken.server.protocols.nesting import too_deep

__all__ = [
    "ACK",
    "PONG",
    "SUBPROTOCOL",
    "Complete",
    "GraphqlClose",
    "Init",
    "Ping",
    "Pong",
    "Said",
    "Subscribe",
    "close_reason",
    "complete",
    "decode_message",
    "error",
    "key_of",
    "next_head",
    "warning",
]

SUBPROTOCOL: Final = "graphql-transport-ws"

ACK: Final = b'{"type":"connection_ack"}'

PONG: Final = b'{"type":"pong"}'

_LONGEST_REASON: Final = 120
"""Bytes; a close frame has room for 123 (RFC 6455, section 5.5)."""

_MOST_ID: Final = 128
"""Characters of the name of an operation."""


class GraphqlClose(enum.IntEnum):
    """Why a connection is closed, in this protocol's own codes. Beside these there are the server's."""

    BAD_REQUEST = 4400
    """The message can't be taken."""

    UNAUTHORIZED = 4401
    """There was no valid key, or an operation came before the connection was acknowledged."""

    FORBIDDEN = 4403
    """Whoever it is may not connect."""

    INIT_TIMEOUT = 4408
    """Nothing was said in time."""

    SUBSCRIBER_EXISTS = 4409
    """An operation of this name runs."""

    TOO_MANY_INITS = 4429
    """The connection was begun twice."""


class Init(Struct, frozen=True):
    """The connection is to begin."""

    payload: dict[str, Any] | None = None


class Ping(Struct, frozen=True):
    """The client asks whether somebody is there."""


class Pong(Struct, frozen=True):
    """The client is there."""


class Subscribe(Struct, frozen=True):
    """An operation is to be executed, of whatever kind."""

    id: str
    payload: RequestParam


class Complete(Struct, frozen=True):
    """Nothing more of an operation is wanted."""

    id: str


Said: TypeAlias = Init | Ping | Pong | Subscribe | Complete


class _Head(Struct, frozen=True):
    type: Any = None


_INIT: Final = msgspec.json.Decoder(Init)
_SUBSCRIBE: Final = msgspec.json.Decoder(Subscribe)
_COMPLETE: Final = msgspec.json.Decoder(Complete)


def decode_message(data: str | bytes, *, max_depth: int) -> Said:
    """Return what a message says.

    Raises:
        DecodeError: It says nothing that can be done. By the protocol, the connection ends of it.

    """
    if isinstance(data, bytes):
        raise DecodeError("binary_frame", "Send text frames: this protocol has no binary ones.")
    raw = data.encode("utf-8", "surrogatepass")
    if (why := too_deep(raw, max_depth, "The message")) is not None:
        raise DecodeError("invalid_json", why)
    try:
        head = msgspec.json.decode(raw, type=_Head)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise DecodeError("invalid_json", "The message isn't a JSON object.") from None
    match head.type:
        case "connection_init":
            return decoded(raw, _INIT, max_depth=max_depth)
        case "ping":
            return Ping()
        case "pong":
            return Pong()
        case "subscribe":
            asked = decoded(raw, _SUBSCRIBE, max_depth=max_depth)
            check_variables(asked.payload)
            said: Subscribe | Complete = asked
        case "complete":
            said = decoded(raw, _COMPLETE, max_depth=max_depth)
        case _:
            raise DecodeError("unknown_event_type", "There is no message of this type.", param="type")
    if not 1 <= len(said.id) <= _MOST_ID:
        raise DecodeError("invalid_event", f"An `id` has 1 to {_MOST_ID} characters.", param="id")
    return said


def key_of(init: Init) -> str | None:
    """Return the key that comes with the beginning of a connection, as clients know to send one there."""
    payload = init.payload or {}
    for name in ("Authorization", "authorization"):
        value = payload.get(name)
        if isinstance(value, str):
            scheme, _, key = value.partition(" ")
            return (key.strip() or None) if scheme.lower() == "bearer" else None
    token = payload.get("token")
    return (token or None) if isinstance(token, str) else None


def next_head(operation: str) -> bytes:
    """Return what stands ahead of each result of an operation; behind it there is a brace."""
    return b'{"type":"next","id":%b,"payload":' % orjson.dumps(operation)


def complete(operation: str) -> bytes:
    """Return that nothing more of an operation comes."""
    return b'{"type":"complete","id":%b}' % orjson.dumps(operation)


def error(operation: str, errors: list[dict[str, Any]]) -> bytes:
    """Return why an operation isn't executed. Nothing more of it comes."""
    return orjson.dumps({"type": "error", "id": operation, "payload": errors})


def close_reason(code: str, message: str) -> str:
    """Return why a connection is closed, as far as there is room for it."""
    return f"{code}: {message}".encode("utf-8", "replace")[:_LONGEST_REASON].decode(errors="ignore")


def warning(fields: dict[str, Any]) -> bytes:
    """Return an error of the whole connection. The protocol has none: it travels with a ping."""
    return orjson.dumps({"type": "ping", "payload": fields})
