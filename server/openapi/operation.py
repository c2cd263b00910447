"""What is said of one request: plain values, and how OpenAPI 3.1 writes them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Literal, TypeAlias

__all__ = [
    "JSON",
    "REQUEST_ID",
    "SSE",
    "Access",
    "Answer",
    "Body",
    "Described",
    "Method",
    "Operation",
    "Parameter",
    "Schema",
    "answered",
    "field_of",
    "header_of",
    "header_ref",
    "path_field",
    "ref",
]

Schema: TypeAlias = Mapping[str, Any]
"""A JSON schema (draft 2020-12), or another part of the document that is written as it stands."""

JSON: Final = "application/json"
SSE: Final = "text/event-stream"

REQUEST_ID: Final[Schema] = {
    "description": "What the server's log calls the request: as it called itself, if it did.",
    "required": True,
    "schema": {"type": "string", "pattern": r"^[A-Za-z0-9._:\-]{1,128}$"},
}
"""The header that every answer of a door bears."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Parameter:
    """A field of the query, a header, or a part of the path."""

    name: str
    where: Literal["query", "header", "path"]
    schema: Schema
    description: str

    def fields(self) -> Schema:
        """Return it as OpenAPI writes it."""
        fields: dict[str, Any] = {"name": self.name, "in": self.where, "description": self.description}
        if self.where == "path":
            fields["required"] = True
        return {**fields, "schema": self.schema}


def field_of(name: str, schema: Schema, description: str) -> Parameter:
    """Return a field of the query, which may be left out."""
    return Parameter(name=name, where="query", schema=schema, description=description)


def header_of(name: str, schema: Schema, description: str) -> Parameter:
    """Return a header, which may be left out."""
    return Parameter(name=name, where="header", schema=schema, description=description)


def path_field(name: str, schema: Schema, description: str) -> Parameter:
    """Return a part of the path."""
    return Parameter(name=name, where="path", schema=schema, description=description)


@dataclass(frozen=True, slots=True, kw_only=True)
class Body:
    """What a request brings."""

    content: Mapping[str, Schema]
    """By media type."""
    is_required: bool = True
    description: str = ""

    def fields(self) -> Schema:
        """Return it as OpenAPI writes it."""
        said = {"description": self.description} if self.description else {}
        content = {kind: {"schema": schema} for kind, schema in self.content.items()}
        return {**said, "content": content, "required": self.is_required}


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What comes back."""

    description: str
    content: Mapping[str, Schema] = field(default_factory=dict)
    """By media type."""
    headers: Mapping[str, Schema] = field(default_factory=dict)
    links: Mapping[str, str] = field(default_factory=dict)
    """Operations that take the ``id`` of what comes back, and what they call it."""

    def fields(self) -> Schema:
        """Return it as OpenAPI writes it."""
        fields: dict[str, Any] = {"description": self.description}
        if self.links:
            fields["links"] = {
                name: {"operationId": name, "parameters": {parameter: "$response.body#/id"}}
                for name, parameter in self.links.items()
            }
        if self.headers:
            fields["headers"] = self.headers
        if self.content:
            fields["content"] = {kind: {"schema": schema} for kind, schema in self.content.items()}
        return fields


def answered(
    description: str,
    content: Mapping[str, Schema] | None = None,
    headers: Mapping[str, Schema] | None = None,
    links: Mapping[str, str] | None = None,
) -> Answer:
    """Return what a request is answered with that is served: it bears the request's id."""
    known = {"x-request-id": header_ref("request-id"), **(headers or {})}
    return Answer(description=description, content=content or {}, headers=known, links=links or {})


Method: TypeAlias = Literal["get", "post", "delete"]

Access: TypeAlias = Literal["nobody asked", "key", "stranger", "session", "socket"]
"""Who gets in: anybody; who has a key; strangers, too; who comes back with a used-up one; who has any."""

_SECURITY: Final[Mapping[Access, list[Schema]]] = {
    "nobody asked": [],
    "key": [{"key": []}],
    "stranger": [{"key": []}, {}],
    "session": [{"key": []}, {"key": [], "resume": []}, {"ticket": [], "resume": []}],
    "socket": [{"key": []}, {"ticket": []}, {"key": [], "resume": []}, {"ticket": [], "resume": []}],
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Operation:
    """One method at one path."""

    method: Method
    path: str
    name: str
    """Unique in the document, for who generates code."""
    tag: str
    summary: str
    description: str = ""
    access: Access = "session"
    parameters: tuple[Parameter, ...] = ()
    body: Body | None = None
    answers: Mapping[int, Answer]

    def fields(self) -> Schema:
        """Return it as OpenAPI writes it."""
        fields: dict[str, Any] = {"operationId": self.name, "tags": [self.tag], "summary": self.summary}
        if self.description:
            fields["description"] = self.description
        if self.parameters:
            fields["parameters"] = [each.fields() for each in self.parameters]
        if self.body is not None:
            fields["requestBody"] = self.body.fields()
        fields["responses"] = {str(status): self.answers[status].fields() for status in sorted(self.answers)}
        fields["security"] = _SECURITY[self.access]
        return fields


@dataclass(frozen=True, slots=True, kw_only=True)
class Described:
    """What a door has to say."""

    operations: tuple[Operation, ...]
    schemas: Mapping[str, Schema] = field(default_factory=dict)
    """What these refer to."""

    @staticmethod
    def joined(each: Iterable[Described]) -> Described:
        """Return what several doors have to say."""
        parts = list(each)
        operations: Iterator[Operation] = (operation for part in parts for operation in part.operations)
        schemas: dict[str, Schema] = {}
        for part in parts:
            schemas |= part.schemas
        return Described(operations=tuple(operations), schemas=schemas)


def header_ref(name: str) -> Schema:
    """Return a reference to a header of the document."""
    return {"$ref": f"#/components/headers/{name}"}


def ref(name: str) -> Schema:
    """Return a reference to a schema of the document."""
    return {"$ref": f"#/components/schemas/{name}"}
