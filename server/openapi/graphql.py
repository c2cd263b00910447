"""``/graphql``, described as far as HTTP goes: its schema says what there is to ask for (docs/graphql.md)."""

from __future__ import annotations

from typing import Any, Final

from unbroken.server.openapi.answer_schemas import QUOTA_HEADERS, STREAM, shape
from unbroken.server.openapi.operation import (
    JSON,
    SSE,
    Answer,
    Body,
    Described,
    Method,
    Operation,
    Parameter,
    Schema,
    answered,
    field_of,
    header_ref,
    ref,
)
from unbroken.server.openapi.terms import Terms

__all__ = ["graphql"]

_OWN: Final = "application/graphql-response+json"
_REFUSED: Final = {
    400: "The document can't be executed.",
    401: "No key, or not a valid one.",
    403: "It isn't for whoever asks, or not from there.",
    404: "What is named isn't there, or is somebody else's.",
    405: "What changes something is sent by POST.",
    408: "The body came too slowly.",
    409: "It doesn't fit what is there.",
    410: "It was deleted.",
    413: "It is larger than may be.",
    415: "It isn't `application/json`.",
    426: "It is no upgrade to a WebSocket, and no query.",
    429: "More than may be: try again after `Retry-After` seconds.",
    500: "The server failed.",
    503: "Not now: try again after `Retry-After` seconds.",
}


def graphql(terms: Terms) -> Described:
    """Return what is said of it; nothing, where it is off."""
    if not terms.settings.graphql:
        return Described(operations=())
    query = field_of("query", {"type": "string"}, "The document.")
    fields = (
        query,
        field_of("operationName", {"type": "string"}, "Which of its operations."),
        field_of("variables", {"type": "string"}, "An object, as JSON."),
    )
    request = shape(
        {"query": {"type": "string"}},
        optional={
            "operationName": {"type": ["string", "null"]},
            "variables": {"type": ["object", "null"]},
            "extensions": {"type": ["object", "null"]},
        },
    )
    error = shape(
        {"message": {"type": "string"}},
        optional={
            "path": {"type": "array"},
            "locations": {"type": "array"},
            "extensions": shape({"code": {"type": "string"}}),
        },
    )
    answer: dict[str, Any] = {
        "type": "object",
        "properties": {
            "data": {"type": ["object", "null"]},
            "errors": {"type": "array", "minItems": 1, "items": error},
        },
    }
    post = _operation("post", "askGraphql", "Ask in GraphQL", (), terms.body("GraphqlRequest"))
    get = _operation("get", "queryGraphql", "Ask in GraphQL, without changing anything", fields, None)
    return Described(operations=(get, post), schemas={"GraphqlRequest": request, "GraphqlAnswer": answer})


def _operation(
    method: Method, name: str, summary: str, parameters: tuple[Parameter, ...], body: Body | None
) -> Operation:
    content = {JSON: ref("GraphqlAnswer"), _OWN: ref("GraphqlAnswer")}
    refused = {status: _refusal(status, says) for status, says in _REFUSED.items()}
    if method == "get":
        refused[101] = Answer(description="With `Upgrade: websocket`: a connection for many operations.")
    return Operation(
        method=method,
        path="/graphql",
        name=name,
        tag="GraphQL",
        summary=summary,
        description="With `Accept: text/event-stream`, as graphql-sse has it. As a WebSocket, "
        "`graphql-transport-ws`. See docs/graphql.md.",
        parameters=parameters,
        body=body,
        answers={200: answered("The answer.", {**content, SSE: STREAM}, QUOTA_HEADERS), **refused},
    )


def _refusal(status: int, says: str) -> Answer:
    headers: dict[str, Schema] = {"x-request-id": header_ref("request-id")}
    if status in (429, 503):
        headers["retry-after"] = header_ref("retry-after")
    content = {JSON: ref("GraphqlAnswer"), _OWN: ref("GraphqlAnswer")}
    return Answer(description=says, content=content, headers=headers)
