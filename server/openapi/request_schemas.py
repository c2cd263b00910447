"""Schemas of what requests bring: made of the structures that decode it, so that they can't say otherwise.

What the structures leave to later checks is said beside them, as keywords of JSON Schema: only what is
refused whatever the rest of the request says. A keyword that doesn't concern a value's type passes it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, TypeAlias

import msgspec

from unbroken.server.openapi.operation import Schema, ref

__all__ = [
    "FUNCTION_NAME",
    "METADATA",
    "NAME",
    "PARTS",
    "TOKENS",
    "TOOLS",
    "TOOL_CHOICE",
    "TOOL_CHOICE_PARAM",
    "TOOL_PARAM",
    "WHOLE",
    "Bounds",
    "request_schemas",
    "up_to",
]

Bounds: TypeAlias = Mapping[str, Mapping[str, Schema]]
"""Keywords by structure and field; those of a structure as a whole by the empty name."""

WHOLE: Final = ""
"""In place of a field: the structure."""

NAME: Final[Schema] = {"pattern": r"^[\x21-\x7e]{1,128}$"}
"""A name of the client's own."""

FUNCTION_NAME: Final[Schema] = {"type": "string", "pattern": r"^[A-Za-z0-9_\-]{1,64}$"}

TOKENS: Final[Schema] = {"minimum": 1, "maximum": 2**31 - 1}

METADATA: Final[Schema] = {
    "maxProperties": 16,
    "propertyNames": {"maxLength": 64},
    "additionalProperties": {"type": "string", "maxLength": 512},
}

PARTS: Final[Schema] = {"maxItems": 64}

TOOLS: Final[Schema] = {
    "maxItems": 128,
    "description": "All together up to 48 KiB. No two have the same name.",
}

TOOL_PARAM: Final[Mapping[str, Schema]] = {
    WHOLE: {"required": ["name"]},
    "type": {"enum": [None, "function"]},
    "name": FUNCTION_NAME,
}

TOOL_CHOICE: Final[Schema] = {"if": {"type": "string"}, "then": {"enum": ["auto", "none", "required"]}}

TOOL_CHOICE_PARAM: Final[Mapping[str, Schema]] = {
    WHOLE: {"required": ["name"]},
    "type": {"const": "function"},
    "name": FUNCTION_NAME,
}


def up_to(most: float) -> Schema:
    """Return what a number from 0 to *most* is."""
    return {"minimum": 0, "maximum": most}


def request_schemas(prefix: str, structure: type[msgspec.Struct], bounds: Bounds) -> dict[str, Schema]:
    """Return the schemas of *structure*, and of all that it is made of, by names that begin with *prefix*.

    A name of *bounds* that isn't there is an error: what it stood for is called otherwise by now.
    """
    _, found = msgspec.json.schema_components((structure,), ref_template="{name}")
    schemas: dict[str, dict[str, Any]] = {}
    for name, schema in found.items():
        schemas[_named(prefix, name)] = _plain(schema, prefix)
    for name, fields in bounds.items():
        bounded = schemas[_named(prefix, name)]
        for each, keywords in fields.items():
            _bound(bounded if each == WHOLE else bounded["properties"][each], keywords)
    return dict(schemas)


def _bound(schema: dict[str, Any], keywords: Schema) -> None:
    """Have *schema* say *keywords*, too."""
    if "type" in keywords and "anyOf" in schema:  # null is as left out, and that may not be
        (only,) = (each for each in schema.pop("anyOf") if each != {"type": "null"})
        schema.update(only)
    required = sorted({*schema.get("required", ()), *keywords.get("required", ())})
    schema.update(keywords)
    if required:
        schema["required"] = required


def _named(prefix: str, name: str) -> str:
    return prefix + name.strip("_").removesuffix("Param")


def _plain(schema: Any, prefix: str) -> Any:
    """Return what msgspec says in the document's words: as it stands there, and without what goes unsaid."""
    if isinstance(schema, list):
        return [_plain(each, prefix) for each in schema]
    if not isinstance(schema, dict):
        return schema
    if "$ref" in schema:
        return dict(ref(_named(prefix, schema["$ref"])))
    plain: dict[str, Any] = {}
    for key, value in schema.items():
        if key == "properties":
            plain[key] = {name: _plain(each, prefix) for name, each in value.items()}
        elif key == "description":
            plain[key] = value.replace("``", "`")
        elif (
            key != "title"
            and not (key == "default" and value is None)
            and not (key == "required" and not value)
        ):
            plain[key] = _plain(value, prefix)
    return plain
