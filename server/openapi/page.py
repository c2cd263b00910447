"""Health, the page, and the document itself, described: what everybody gets who reaches the server."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Final

from unbroken.server.openapi.answer_schemas import shape
from unbroken.server.openapi.operation import (
    JSON,
    Answer,
    Described,
    Operation,
    Parameter,
    Schema,
    answered,
    header_of,
    path_field,
)
from unbroken.server.openapi.refusals import ENTRY, refusals
from unbroken.server.openapi.terms import Terms

__all__ = ["document", "health", "page"]

_MATCH: Final = header_of("If-None-Match", {"type": "string"}, "The `ETag` of what is known.")
_TAGGED: Final[Mapping[str, Schema]] = {"etag": {"required": True, "schema": {"type": "string"}}}


def health(_: Terms) -> Described:
    """Return what is said of liveness and readiness."""
    status = shape({"status": {"type": "string"}})
    too_often = refusals({429: ("too_many_requests",)})
    alive = shape({"status": {"const": "ok"}, "version": {"type": "string"}})
    return Described(
        operations=(
            Operation(
                method="get",
                path="/healthz",
                name="getLiveness",
                tag="Health",
                summary="Whether the process answers",
                access="nobody asked",
                answers={200: Answer(description="It does.", content={JSON: alive}), **too_often},
            ),
            Operation(
                method="get",
                path="/readyz",
                name="getReadiness",
                tag="Health",
                summary="Whether new connections are to be sent here",
                access="nobody asked",
                answers={
                    200: Answer(description="They are.", content={JSON: status}),
                    404: Answer(
                        description="It drains: nothing new, and leave open ones alone.",
                        content={JSON: status},
                    ),
                    503: Answer(description="Not yet: the agent loads.", content={JSON: status}),
                    **too_often,
                },
            ),
        )
    )


def page(paths: Collection[str]) -> Described:
    """Return what is said of the page's files, which are at *paths*."""
    folders: dict[str, list[str]] = {}
    operations: list[Operation] = []
    for path in sorted(paths):
        folder, _, name = path.rpartition("/")
        if folder:
            folders.setdefault(folder, []).append(name)
        else:
            operations.append(_file(path, "getPage" if path == "/" else "getIcon", ()))
    for folder, names in folders.items():
        field = path_field("name", {"enum": names}, "Which file.")
        operations.append(_file(f"{folder}/{{name}}", f"get{folder.title().replace('/', '')}File", (field,)))
    return Described(operations=tuple(operations))


def _file(path: str, name: str, fields: tuple[Parameter, ...]) -> Operation:
    kinds = ("text/html",) if path == "/" else ("text/css", "text/javascript", "text/plain", "image/svg+xml")
    content: dict[str, Schema] = {kind: {} for kind in kinds}
    missing = refusals({404: ("path_not_found",)}) if fields else {}
    return Operation(
        method="get",
        path=path,
        name=name,
        tag="Page",
        summary="The page to chat on" if path == "/" else "What the page is made of",
        access="nobody asked",
        parameters=(*fields, _MATCH),
        answers={
            200: Answer(description="The file.", content=content, headers=_TAGGED),
            304: Answer(description="It is what is known.", headers=_TAGGED),
            **refusals({429: ("too_many_requests",)}),
            **missing,
        },
    )


def document(_: Terms) -> Described:
    """Return what the document says of itself."""
    return Described(
        operations=(
            Operation(
                method="get",
                path="/openapi.json",
                name="getDocument",
                tag="Page",
                summary="This document",
                description="The same for everybody, as long as the server runs.",
                access="nobody asked",
                parameters=(_MATCH,),
                answers={
                    200: answered("It.", {JSON: {"type": "object"}}, _TAGGED),
                    304: answered("It is what is known.", headers=_TAGGED),
                    **refusals(ENTRY),
                },
            ),
        )
    )
