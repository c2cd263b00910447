"""``/v1/files``, described."""

from __future__ import annotations

from typing import Final

from unbroken.server.openapi.answer_schemas import shape
from unbroken.server.openapi.operation import (
    JSON,
    Body,
    Described,
    Operation,
    Schema,
    answered,
    field_of,
    path_field,
    ref,
)
from unbroken.server.openapi.refusals import ENTRY, FOUND, KEY, PATH, Codes, refusals
from unbroken.server.openapi.terms import Terms

__all__ = ["files"]

_TAG: Final = "Files"

_ONE: Final[Codes] = {404: ("file_not_found",), 503: ("files_unavailable",)}

_LINKS: Final = dict.fromkeys(("getFile", "deleteFile", "downloadFile"), "file_id")

_PURPOSE: Final[Schema] = {"enum": ["user_data", "vision", "assistants"]}

_HEADERS: Final = {
    name: {"required": True, "schema": {"type": "string"}}
    for name in ("content-disposition", "content-security-policy")
}


def files(terms: Terms) -> Described:
    """Return what is said of it; nothing, where no files are kept."""
    if not terms.has_files:
        return Described(operations=())
    named = path_field("file_id", {"type": "string", "minLength": 1}, "As `id` says.")
    one = refusals(ENTRY, KEY, PATH, _ONE)
    path = "/v1/files/{file_id}"
    operations = (
        _list(),
        _create(terms),
        Operation(
            method="get",
            path=path,
            name="getFile",
            tag=_TAG,
            summary="Look at a file",
            parameters=(named,),
            answers={200: answered("It.", {JSON: ref("File")}), **one},
        ),
        Operation(
            method="delete",
            path=path,
            name="deleteFile",
            tag=_TAG,
            summary="Delete a file",
            parameters=(named,),
            answers={200: answered("It is gone.", {JSON: ref("Deleted")}), **one},
        ),
        Operation(
            method="get",
            path=f"{path}/content",
            name="downloadFile",
            tag=_TAG,
            summary="Download a file",
            parameters=(named,),
            answers={
                200: answered("What it holds, as the type that it is.", {"*/*": {}}, _HEADERS),
                **refusals(ENTRY, KEY, PATH, _ONE, {429: ("too_many_transfers",)}),
            },
        ),
    )
    page = shape(
        {
            "object": {"const": "list"},
            "data": {"type": "array", "items": ref("File")},
            "has_more": {"type": "boolean"},
        },
        optional={"first_id": {"type": "string"}, "last_id": {"type": "string"}},
    )
    return Described(operations=operations, schemas={"FilePage": page})


def _list() -> Operation:
    return Operation(
        method="get",
        path="/v1/files",
        name="listFiles",
        tag=_TAG,
        summary="List your files",
        parameters=(
            field_of("limit", {"type": "integer", "minimum": 1, "maximum": 10_000}, "How many."),
            field_of(
                "order", {"enum": ["asc", "desc"], "default": "desc"}, "The oldest first, or the newest."
            ),
            field_of("purpose", {"type": "string"}, "Those of that purpose."),
            field_of("after", {"type": "string"}, "The file behind which the page begins."),
        ),
        answers={
            200: answered("A page of files.", {JSON: ref("FilePage")}),
            **refusals(ENTRY, KEY, FOUND, {503: ("files_unavailable",)}),
        },
    )


def _create(terms: Terms) -> Operation:
    most = terms.settings.max_file_bytes
    expiry = ("expires_after[anchor]", "expires_after[seconds]")
    form = shape(
        {
            "file": {
                "type": "string",
                "format": "binary",
                "description": f"Up to {most} bytes: a picture, a PDF or a text, by its content.",
            },
            "purpose": _PURPOSE,
        },
        optional={
            expiry[0]: {"const": "created_at"},
            expiry[1]: {"type": "integer", "minimum": 3600, "maximum": 2_592_000},
        },
    )
    form = {**form, "dependentRequired": {expiry[0]: [expiry[1]], expiry[1]: [expiry[0]]}}
    return Operation(
        method="post",
        path="/v1/files",
        name="uploadFile",
        tag=_TAG,
        summary="Upload a file, for messages to name",
        body=Body(content={"multipart/form-data": form}),
        answers={
            200: answered("It is kept.", {JSON: ref("File")}, links=_LINKS),
            **refusals(
                ENTRY,
                KEY,
                FOUND,
                {
                    400: ("invalid_upload",),
                    403: ("too_many_files",),
                    408: ("upload_stalled",),
                    413: ("file_too_large",),
                    415: ("unsupported_file_type",),
                    429: ("too_many_transfers",),
                    503: ("server_draining", "files_unavailable"),
                },
            ),
        },
    )
