"""From a request to an operation that can be executed: read, within its limits, and valid by the schema."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Final

import msgspec
import orjson
from graphql import (
    DocumentNode,
    GraphQLError,
    GraphQLSchema,
    NoSchemaIntrospectionCustomRule,
    OperationDefinitionNode,
    OperationType,
    get_operation_ast,
    parse,
    validate,
)
from graphql.validation import specified_rules
from msgspec import Struct

from unbroken.server.protocols.body import decoded
from unbroken.server.protocols.graphql.limits import DocumentLimits, check_document
from unbroken.server.protocols.items import DecodeError

__all__ = [
    "Documents",
    "Invalid",
    "Operation",
    "RequestParam",
    "check_variables",
    "decode_query",
    "decode_request",
]

_MOST_ERRORS: Final = 5
"""That are told of one document."""

_MOST_COMMENTS: Final = 100

_MOST_PARTS: Final = 4096
"""Of variables. A conversation with many tools has some hundreds."""


class RequestParam(Struct, frozen=True, rename="camel"):
    """What is to be executed, as GraphQL over HTTP and its protocols for streams all have it."""

    query: str
    variables: dict[str, Any] | None = None
    operation_name: str | None = None
    extensions: dict[str, Any] | None = None


_DECODER: Final = msgspec.json.Decoder(RequestParam)


def decode_request(data: bytes, *, max_depth: int) -> RequestParam:
    """Return what the body of a request holds. One: they aren't taken in batches.

    Raises:
        DecodeError: It holds nothing of the kind.

    """
    if data.lstrip()[:1] == b"[":
        message = "Requests aren't taken in batches: send one at a time, or several over one WebSocket."
        raise DecodeError("invalid_request", message)
    wanted = decoded(data, _DECODER, max_depth=max_depth)
    check_variables(wanted)
    return wanted


def check_variables(wanted: RequestParam) -> None:
    """Refuse what has more parts than anything that means something: to look at each takes its time.

    Raises:
        DecodeError: It has.

    """
    parts = 0
    left: list[Any] = [wanted.variables]
    while left:
        value = left.pop()
        if isinstance(value, dict | list):
            parts += 1
            if parts > _MOST_PARTS:
                message = f"The variables have more than {_MOST_PARTS} objects and lists. Send less at once."
                raise DecodeError("document_too_complex", message, param="variables")
            left += value.values() if isinstance(value, dict) else value


def decode_query(
    query: str, variables: str | None, operation_name: str | None, *, max_depth: int
) -> RequestParam:
    """Return what the fields of an address hold.

    Raises:
        DecodeError: They hold nothing of the kind.

    """
    said = b"" if variables is None else b',"variables":' + variables.encode("utf-8", "surrogatepass")
    named = orjson.dumps({"query": query, "operationName": operation_name})
    return decode_request(named[:-1] + said + b"}", max_depth=max_depth)


class Invalid(Exception):
    """A document can't be executed, for these reasons."""

    def __init__(self, errors: list[GraphQLError]) -> None:
        super().__init__(errors)
        self.errors = errors


@dataclass(frozen=True, slots=True)
class Operation:
    """What is to be executed, and can be."""

    document: DocumentNode
    node: OperationDefinitionNode
    name: str | None
    """By which it was named; None: it is the only one."""
    variables: dict[str, Any] = field(default_factory=dict)

    @property
    def is_subscription(self) -> bool:
        """Whether there is more than one answer to it."""
        return self.node.operation is OperationType.SUBSCRIPTION

    @property
    def is_mutation(self) -> bool:
        """Whether it changes anything."""
        return self.node.operation is OperationType.MUTATION


class Documents:
    """Reads documents.

    Args:
        schema: What there is to ask for.
        limits: How much of it at once.
        shows_schema: Whether the schema itself is told of, and its names suggested.

    """

    def __init__(self, schema: GraphQLSchema, limits: DocumentLimits, *, shows_schema: bool) -> None:
        self.schema: Final = schema
        self.shows_schema: Final = shows_schema
        self._limits = limits
        self._rules = [*specified_rules, *([] if shows_schema else [NoSchemaIntrospectionCustomRule])]

    def read(self, wanted: RequestParam) -> Operation:
        """Return the operation that a request is for.

        Raises:
            DecodeError: It asks for more than it may, or doesn't say for which operation.
            Invalid: It isn't GraphQL, or doesn't fit the schema.

        """
        limits, variables = self._limits, wanted.variables or {}
        if (
            len(wanted.query) > limits.bytes
            or len(wanted.query.encode("utf-8", "surrogatepass")) > limits.bytes
        ):
            message = f"The document may have {limits.bytes} bytes. Shorten it, or use variables."
            raise DecodeError("document_too_complex", message, param="query")
        try:
            document = parse(wanted.query, max_tokens=limits.tokens, max_comments=_MOST_COMMENTS)
        except GraphQLError as exc:
            if exc.message.endswith("Parsing aborted."):  # of tokens, of comments, or of levels
                what = exc.message.removeprefix("Syntax Error: ").removesuffix(" Parsing aborted.")
                raise DecodeError("document_too_complex", f"{what} Shorten it.", param="query") from None
            raise Invalid([exc]) from None
        check_document(document, variables, limits)
        errors = validate(
            self.schema,
            document,
            self._rules,
            max_errors=_MOST_ERRORS,
            hide_suggestions=not self.shows_schema,
        )
        if errors:
            raise Invalid(errors)
        node = get_operation_ast(document, wanted.operation_name)
        if node is None:
            message = "`operationName` has to name one of the document's operations."
            raise DecodeError("invalid_request", message, param="operationName")
        return Operation(document, node, wanted.operation_name, variables)
