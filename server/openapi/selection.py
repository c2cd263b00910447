"""The document of one server: the doors that it has, and what holds for all of them."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection
from typing import Any, Final

from unbroken import __version__
from unbroken.server.openapi import (
    agui,
    archive,
    chat,
    client_secrets,
    compaction,
    conversations,
    files,
    graphql,
    page,
    responses,
    sessions,
    sockets,
    ui,
)
from unbroken.server.openapi.answer_schemas import SHARED
from unbroken.server.openapi.operation import Described, Operation, Schema, field_of
from unbroken.server.openapi.refusals import HEADERS, codes_of, error_schema
from unbroken.server.openapi.terms import Terms

__all__ = ["described", "document"]

_DOORS: Final = (
    responses.responses,
    compaction.compaction,
    chat.chat,
    chat.models,
    ui.ui,
    agui.agui,
    agui.deepchat,
    sessions.session_events,
    conversations.conversations,
    conversations.own_data,
    archive.archive,
    graphql.graphql,
    sessions.usage,
    files.files,
    client_secrets.client_secrets,
    sockets.sockets,
    page.health,
    page.document,
)
"""Each says what it has on a server's terms. A door that is off says nothing."""

_ABOUT: Final = """\
A stateful server for AI agents. What is said through one door is watched, gone on with and stopped through \
the others.

- Errors are OpenAI's: `{"error": {"message", "type", "param", "code"}}`. What is somebody \
else's is answered as what isn't there.
- Paths that take `GET` take `HEAD`. Other methods than those here are answered with 405, and `Allow`.
- Paths below `/v1/` answer `OPTIONS` as CORS has it. Pages of the server's own origin, and of those that \
the operator lists, may call them.
- Fields of the query that aren't listed are refused (400 `invalid_query`), those of a WebSocket's address \
skipped. Fields of a body that aren't \
listed are skipped.
"""

_OF_BALANCERS: Final = (
    field_of(
        "affinity",
        {"type": "string"},
        "Something of the client's own, by which a balancer in front sends all that has it to the same node.",
    ),
    field_of("try", {"type": "string"}, "Another one has a balancer in front choose another node."),
)
"""What may be said at every path, and means nothing to the server."""

_SECURITY: Final[Schema] = {
    "key": {
        "type": "http",
        "scheme": "bearer",
        "description": "A key of the operator's, a token of an issuer that they trust, or a short-lived key: "
        "over HTTP one that was used for a session, with that session's `resume`.",
    },
    "ticket": {
        "type": "apiKey",
        "in": "query",
        "name": "ticket",
        "description": "In place of a key, for clients that can set nothing but an address; over HTTP "
        "with `resume`.",
    },
    "resume": {
        "type": "apiKey",
        "in": "query",
        "name": "resume",
        "description": "Beside a key or a ticket: the token of the session that the request is about.",
    },
}


def described(terms: Terms, page_paths: Collection[str]) -> Described:
    """Return what there is on a server of these *terms*, whose page has files at *page_paths*."""
    return Described.joined([*(door(terms) for door in _DOORS), page.page(page_paths)])


def document(terms: Terms, page_paths: Collection[str]) -> dict[str, Any]:
    """Return the whole document, as JSON has it."""
    parts = described(terms, page_paths)
    answers = [answer for operation in parts.operations for answer in operation.answers.values()]
    codes = {code for answer in answers for code in codes_of(answer)}
    paths: dict[str, dict[str, Any]] = {}
    for operation in parts.operations:
        paths.setdefault(operation.path, {})[operation.method] = _whole(operation).fields()
    return {
        "openapi": "3.1.0",
        "info": {"title": "Unbroken", "version": __version__, "description": _ABOUT},
        "servers": [{"url": "/"}],
        "paths": dict(sorted(paths.items())),
        "components": {
            "headers": HEADERS,
            "schemas": {"Error": error_schema(codes), **SHARED, **parts.schemas},
            "securitySchemes": _SECURITY,
        },
    }


def _whole(operation: Operation) -> Operation:
    """Return it with what holds for all of them."""
    return dataclasses.replace(operation, parameters=(*operation.parameters, *_OF_BALANCERS))
