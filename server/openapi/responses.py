"""``/v1/responses``, described."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from unbroken.server.openapi.answer_schemas import QUOTA_HEADERS, STREAM, list_of, shape
from unbroken.server.openapi.operation import (
    JSON,
    SSE,
    Answer,
    Described,
    Operation,
    Parameter,
    Schema,
    answered,
    field_of,
    header_of,
    path_field,
    ref,
)
from unbroken.server.openapi.refusals import (
    ASKING,
    BODY,
    CONNECTION,
    ENTRY,
    FOUND,
    KEY,
    PATH,
    QUOTAS,
    SESSION,
    Codes,
    refusals,
)
from unbroken.server.openapi.request_schemas import (
    METADATA,
    TOKENS,
    TOOL_CHOICE,
    TOOL_CHOICE_PARAM,
    TOOL_PARAM,
    TOOLS,
    Bounds,
    request_schemas,
    up_to,
)
from unbroken.server.openapi.terms import Terms
from unbroken.server.protocols.responses.frames import CreateParam

__all__ = ["IDEMPOTENCY_KEY", "INCLUDE", "responses"]

_TAG: Final = "Responses"
_ONE: Final = "/v1/responses/{response_id}"

IDEMPOTENCY_KEY: Final = header_of(
    "Idempotency-Key",
    {"type": "string", "pattern": r"^[\x21-\x7e]{1,128}$"},
    "The client's own name for the request: the same one sent again runs once.",
)

_TYPES: Final = (
    None,
    "message",
    "item_reference",
    "function_call",
    "function_call_output",
    "mcp_call",
    "mcp_approval_response",
    "reasoning",
    "mcp_list_tools",
    "compaction",
)

_FORMAT: Final[Schema] = {
    "properties": {"type": {"enum": ["text", "json_object", "json_schema"]}},
    "required": ["type"],
    "if": {"properties": {"type": {"const": "json_schema"}}},
    "then": {
        "required": ["name", "schema"],
        "properties": {"name": {"type": "string"}, "schema": {"type": "object"}},
    },
}

_BOUNDS: Final[Bounds] = {
    "CreateParam": {
        "input": {"maxItems": 2048},
        "max_output_tokens": TOKENS,
        "metadata": METADATA,
        "tools": TOOLS,
        "tool_choice": TOOL_CHOICE,
        "temperature": up_to(2),
        "top_p": up_to(1),
        "prompt": {"const": None, "description": "No templates are kept here."},
        "stream_id": {"description": "Names the lane, over a WebSocket."},
        "generate": {"description": "Over a WebSocket alone."},
    },
    "InputParam": {"type": {"enum": list(_TYPES)}},
    "TextParam": {"format": {"if": {"type": "object"}, "then": _FORMAT}},
    "ToolParam": TOOL_PARAM,
    "ToolChoiceParam": TOOL_CHOICE_PARAM,
    "Extension": {"message_id": {"maxLength": 128}},
}

_LINKS: Final = dict.fromkeys(
    ("getResponse", "deleteResponse", "cancelResponse", "listInputItems"), "response_id"
)

_BEGUN: Final[Codes] = {
    400: ("unsupported_prompt", "previous_response_not_found", "conversation_not_found"),
    404: ("response_events_gone",),
}


def responses(terms: Terms) -> Described:
    """Return what is said of it."""
    named = path_field("response_id", {"type": "string", "minLength": 1}, "As `response.id` says.")
    return Described(
        operations=(
            _create(terms),
            _get(named),
            Operation(
                method="delete",
                path=_ONE,
                name="deleteResponse",
                tag=_TAG,
                summary="Take what a response said out of its conversation",
                parameters=(named,),
                answers={
                    200: answered("It is gone.", {JSON: ref("Deleted")}),
                    **_refused(
                        {409: ("response_in_progress", "item_in_progress")}, {404: ("item_not_found",)}
                    ),
                },
            ),
            Operation(
                method="post",
                path=f"{_ONE}/cancel",
                name="cancelResponse",
                tag=_TAG,
                summary="Stop a response, wherever it runs",
                description="Harmless for one that has ended.",
                parameters=(named,),
                answers={200: answered("What it came to.", {JSON: ref("Response")}), **_refused()},
            ),
            _items(named),
        ),
        schemas={
            **request_schemas("Responses", CreateParam, _BOUNDS),
            "Response": _response(),
            "ItemPage": list_of(
                ref("Item"),
                optional={
                    "first_id": {"type": ["string", "null"]},
                    "last_id": {"type": ["string", "null"]},
                    "has_more": {"type": "boolean"},
                },
            ),
        },
    )


def _refused(*groups: Codes) -> dict[int, Answer]:
    return refusals(ENTRY, KEY, CONNECTION, PATH, SESSION, *groups)


def _create(terms: Terms) -> Operation:
    headers = QUOTA_HEADERS if terms.has_quotas else {}
    counted = (QUOTAS,) if terms.has_quotas else ()
    return Operation(
        method="post",
        path="/v1/responses",
        name="createResponse",
        tag=_TAG,
        summary="Ask for a response",
        description=(
            "As a whole, as server-sent events (`stream`), or for later (`background`). "
            "A client that leaves stops nothing."
        ),
        parameters=(IDEMPOTENCY_KEY,),
        body=terms.body("ResponsesCreate"),
        answers={
            200: answered(
                "The response, or its events.", {JSON: ref("Response"), SSE: STREAM}, headers, _LINKS
            ),
            **refusals(ENTRY, KEY, CONNECTION, SESSION, BODY, ASKING, _BEGUN, *counted),
        },
    )


def _get(named: Parameter) -> Operation:
    flag = {"enum": ["true", "True", "1", "false", "False", "0"]}
    number = {"type": "integer", "minimum": 0, "maximum": 10**15 - 1}
    return Operation(
        method="get",
        path=_ONE,
        name="getResponse",
        tag=_TAG,
        summary="Look at a response, or at its events",
        parameters=(
            named,
            field_of("stream", flag, "Whether its events are wanted: those that are yet to come among them."),
            field_of("starting_after", number, "With `stream`: the number of the last event that is known."),
            field_of(
                "include_obfuscation", flag, "Whether pieces are padded, so that nobody learns their lengths."
            ),
            *INCLUDE,
        ),
        answers={
            200: answered(
                "The response as it is by now, or its events.", {JSON: ref("Response"), SSE: STREAM}
            ),
            **_refused(FOUND, {404: ("response_events_gone",)}),
        },
    )


INCLUDE: Final = tuple(
    field_of(name, {"type": "array", "items": {"type": "string"}}, "Everything is included that there is.")
    for name in ("include", "include[]")
)


def _items(named: Parameter) -> Operation:
    return Operation(
        method="get",
        path=f"{_ONE}/input_items",
        name="listInputItems",
        tag=_TAG,
        summary="List what a response answers",
        parameters=(
            named,
            field_of("limit", {"type": "integer", "minimum": 1, "maximum": 100, "default": 20}, "How many."),
            field_of(
                "order", {"enum": ["asc", "desc"], "default": "desc"}, "The oldest first, or the newest."
            ),
            field_of("after", {"type": "string"}, "The item behind which the page begins."),
            *INCLUDE,
        ),
        answers={200: answered("A page of items.", {JSON: ref("ItemPage")}), **_refused(FOUND)},
    )


def _response() -> Schema:
    text, number = {"type": ["string", "null"]}, {"type": "integer", "minimum": 0}
    required: Mapping[str, Any] = {
        "id": {"type": "string"},
        "object": {"const": "response"},
        "created_at": {"type": "number"},
        "status": {"enum": ["queued", "in_progress", "completed", "incomplete", "failed", "cancelled"]},
        "background": {"type": "boolean"},
        "error": {
            "anyOf": [{"type": "null"}, shape({"code": {"type": "string"}, "message": {"type": "string"}})]
        },
        "incomplete_details": {"anyOf": [{"type": "null"}, shape({"reason": text})]},
        "instructions": text,
        "max_output_tokens": {"type": ["integer", "null"]},
        "metadata": {"type": "object", "additionalProperties": {"type": "string"}},
        "model": {"type": "string"},
        "output": {"type": "array", "items": ref("Item")},
        "parallel_tool_calls": {"type": "boolean"},
        "previous_response_id": text,
        "store": {"type": "boolean"},
        "temperature": {"type": "number"},
        "text": {"type": "object"},
        "tool_choice": {"type": ["string", "object"]},
        "tools": {"type": "array", "items": {"type": "object"}},
        "top_p": {"type": "number"},
        "usage": {
            "anyOf": [
                {"type": "null"},
                shape({"input_tokens": number, "output_tokens": number, "total_tokens": number}),
            ]
        },
    }
    added = {
        "conversation": shape({"id": {"type": "string"}}),
        "unbroken": {
            "type": "object",
            "properties": {"resume": {"type": "string"}, "superseded_by": {"type": "string"}},
            "description": "What this server adds. `resume` is a secret.",
        },
    }
    return shape(required, optional=added, says="A response, as it is by now.")
