"""A format as the next release might bring it: fields have other names, in entries and in snapshots."""

from __future__ import annotations

from typing import Any, Final

import orjson

from unbroken.sessions.entries import Body, decode_body, encode_body
from unbroken.sessions.errors import UnknownFormat
from unbroken.sessions.format import FORMAT_1, Format, Formats

__all__ = ["FORMAT_2", "held_release", "new_release", "old_release"]

_RENAMED: Final = {"parts": "pieces", "response_id": "response", "command": "asked"}
_STATE_RENAMED: Final = {"applied": "upto", "items": "conversation"}


def _renamed(fields: dict[str, Any], names: dict[str, str]) -> dict[str, Any]:
    return {names.get(name, name): value for name, value in fields.items()}


def _reversed(names: dict[str, str]) -> dict[str, str]:
    return {new: old for old, new in names.items()}


def _encode(body: Body) -> bytes:
    fields = orjson.loads(encode_body(body))["b"]
    return orjson.dumps({"v": 2, "body": _renamed(fields, _RENAMED)})


def _decode(data: bytes) -> Body:
    raw = orjson.loads(data)
    if raw["v"] != 2:
        raise UnknownFormat("not of format 2")
    return decode_body(orjson.dumps({"v": 1, "b": _renamed(raw["body"], _reversed(_RENAMED))}))


def _encode_state(data: bytes) -> bytes:
    return orjson.dumps({**_renamed(orjson.loads(data), _STATE_RENAMED), "v": 2})


def _decode_state(data: bytes) -> bytes:
    return orjson.dumps({**_renamed(orjson.loads(data), _reversed(_STATE_RENAMED)), "v": 1})


FORMAT_2: Final = Format(2, _encode, _decode, _encode_state, _decode_state)


def old_release() -> Formats:
    """Return what today's release reads and writes."""
    return Formats(FORMAT_1)


def new_release() -> Formats:
    """Return what the next one does."""
    return Formats(FORMAT_2, FORMAT_1)


def held_release() -> Formats:
    """Return what the next one does where it is to write what today's reads."""
    return Formats(FORMAT_2, FORMAT_1, latest=1)
