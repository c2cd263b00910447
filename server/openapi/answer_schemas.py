"""Schemas of what several doors answer with. They say what is always there; more may stand beside it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from unbroken.server.openapi.operation import Schema, ref

__all__ = ["QUOTA_HEADERS", "SHARED", "STREAM", "list_of", "shape"]

STREAM: Final[Schema] = {
    "type": "object",
    "required": ["data"],
    "properties": {
        "event": {"type": "string"},
        "data": {"type": "string", "description": "JSON, or `[DONE]` in the end."},
        "id": {"type": "string"},
    },
    "description": "Each of the server-sent events. A lone `:` now and then is a sign of life.",
}
"""What comes of a stream, event by event: OpenAPI 3.1 has no other place to say it."""


def _limit(what: str, of: str) -> Schema:
    schema: Schema = {"type": "integer"} if what != "reset" else {"type": "string", "pattern": r"^\d+s$"}
    return {"description": f"Of the {of} limit that is the closest to its end.", "schema": schema}


QUOTA_HEADERS: Final[Mapping[str, Schema]] = {
    f"x-ratelimit-{what}-{of}": _limit(what, of)
    for of in ("requests", "tokens")
    for what in ("limit", "remaining", "reset")
}
"""Of answers where what is used is counted."""


def shape(
    properties: Mapping[str, Any], *, optional: Mapping[str, Any] | None = None, says: str = ""
) -> Schema:
    """Return what has *properties*, and may have *optional* ones and others."""
    fields: dict[str, Any] = {"type": "object"}
    if says:
        fields["description"] = says
    return {**fields, "required": list(properties), "properties": {**properties, **(optional or {})}}


def list_of(each: Schema, *, optional: Mapping[str, Any] | None = None) -> Schema:
    """Return a list as OpenAI's APIs have them."""
    data = {"type": "array", "items": each}
    return shape({"object": {"const": "list"}, "data": data}, optional=optional)


_NUMBER: Final[Schema] = {"type": "integer", "minimum": 0}

SHARED: Final[Mapping[str, Schema]] = {
    "Item": shape(
        {"id": {"type": "string"}, "type": {"type": "string"}},
        optional={
            "status": {"type": "string"},
            "role": {"enum": ["user", "system", "assistant"]},
            "content": {"type": "array", "items": shape({"type": {"type": "string"}})},
            "call_id": {"type": "string"},
            "name": {"type": "string"},
            "arguments": {"type": "string"},
            "output": {"type": ["string", "null"]},
        },
        says="A message, a call, what came of one, or what was thought.",
    ),
    "Session": shape(
        {
            "type": {"const": "realtime"},
            "object": {"const": "realtime.session"},
            "id": {"type": "string"},
            "model": {"type": "string"},
            "instructions": {"type": "string"},
            "max_output_tokens": {"anyOf": [{"const": "inf"}, _NUMBER]},
            "tools": {"type": "array", "items": {"type": "object"}},
        },
        says="A session of Realtime, as it begins.",
    ),
    "File": shape(
        {
            "id": {"type": "string"},
            "object": {"const": "file"},
            "bytes": _NUMBER,
            "created_at": _NUMBER,
            "expires_at": _NUMBER,
            "filename": {"type": "string"},
            "purpose": {"enum": ["user_data", "vision", "assistants"]},
            "status": {"const": "processed"},
            "unbroken": shape({"media_type": {"type": "string"}}),
        },
        says="A file that the server keeps.",
    ),
    "Deleted": shape(
        {"id": {"type": "string"}, "object": {"type": "string"}, "deleted": {"const": True}},
        says="What is gone.",
    ),
    "Model": shape(
        {
            "id": {"type": "string"},
            "object": {"const": "model"},
            "created": _NUMBER,
            "owned_by": {"const": "unbroken"},
        },
        says="A model that a request may name.",
    ),
    "ModelList": list_of(ref("Model")),
}
"""By their names in the document."""
