"""Which errors may come, with which status. What several doors have in common is a group of codes."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import Any, Final, TypeAlias

from unbroken.server.errors import ERROR_MEANINGS
from unbroken.server.openapi.answer_schemas import QUOTA_HEADERS
from unbroken.server.openapi.operation import JSON, REQUEST_ID, Answer, Schema, header_ref, ref

__all__ = [
    "ASKING",
    "BODY",
    "CONNECTION",
    "ENTRY",
    "FAILURES",
    "FOUND",
    "HEADERS",
    "KEY",
    "PATH",
    "QUOTAS",
    "SESSION",
    "Codes",
    "codes_of",
    "error_schema",
    "refusals",
]

Codes: TypeAlias = Mapping[int, Collection[str]]
"""Error codes, by the status that they come with."""

ENTRY: Final[Codes] = {
    400: ("invalid_query",),
    403: ("host_not_allowed", "origin_not_allowed"),
    429: ("too_many_requests", "too_many_failed_attempts", "too_many_connections_from_address"),
    503: ("server_full", "server_overloaded"),
}
"""Wherever somebody is looked at before they are let in."""

KEY: Final[Codes] = {401: ("invalid_api_key",), 403: ("insufficient_scope",), 503: ("store_unavailable",)}
"""Where a key is asked for."""

CONNECTION: Final[Codes] = {429: ("too_many_connections_of_key", "too_many_connections_of_tenant")}
"""Where a request counts as a connection of its key's."""

PATH: Final[Codes] = {404: ("path_not_found",)}
"""Where a part of the path is the client's: what has a slash may be another path, or none."""

SESSION: Final[Codes] = {
    403: ("session_pinned",),
    404: ("response_not_found",),
    410: ("session_deleted",),
    429: ("too_many_connections", "too_many_sessions_of_key"),
    500: ("internal_error",),
    503: ("server_full", "server_draining", "server_overloaded", "session_too_new", "store_unavailable"),
}
"""Where a session is looked for, and known again."""

FOUND: Final[Codes] = {400: ("invalid_request",)}
"""Where the query says which part is wanted."""

BODY: Final[Codes] = {
    400: ("invalid_json", "invalid_request"),
    408: ("body_stalled",),
    413: ("body_too_large",),
    415: ("invalid_request",),
}
"""Where there is a body that is JSON."""

ASKING: Final[Codes] = {
    400: (
        "approval_answered",
        "audio_input_unsupported",
        "content_filter",
        "conversation_full",
        "file_not_found",
        "file_too_large",
        "function_call_answered",
        "invalid_compaction",
        "item_id_taken",
        "item_in_progress",
        "too_many_files",
        "unsupported_content",
        "unsupported_file_type",
        "unsupported_format",
        "unsupported_item",
        "unsupported_tool",
    ),
    403: ("too_many_stored_sessions",),
    404: ("model_not_found", "item_not_found", "session_not_found"),
    409: ("message_id_reused", "conversation_already_has_active_response", "conversation_moved_on"),
    429: ("response_queue_full", "too_many_responses"),
    503: ("guard_unavailable", "files_unavailable"),
}
"""Where a response is asked for."""

QUOTAS: Final[Codes] = {
    400: ("request_exceeds_quota",),
    429: ("rate_limit_exceeded", "quota_exceeded", "too_many_responses"),
}
"""Where what is used is counted."""

_COUNTED: Final = frozenset({"request_exceeds_quota", "rate_limit_exceeded", "quota_exceeded"})
"""What says what is left, as answers do that are begun."""

FAILURES: Final[Codes] = {
    400: (
        "bad_script",
        "context_length_exceeded",
        "unsupported_content",
        "unsupported_format",
        "upstream_rejected",
    ),
    429: ("agent_busy", "upstream_rate_limited"),
    500: (
        "agent_crashed",
        "agent_error",
        "agent_stalled",
        "answer_unchecked",
        "too_many_tool_rounds",
        "turn_timeout",
        "upstream_auth",
        "upstream_cut",
        "upstream_error",
        "upstream_malformed",
        "upstream_stalled",
    ),
    503: ("agent_not_ready", "interrupted", "upstream_unavailable"),
}
"""Where an answer that fails is told of by a status."""

_DESCRIPTIONS: Final[Mapping[int, str]] = {
    400: "The request can't be taken as it is. `message` says what to change.",
    401: "No key, or not a valid one.",
    403: "It isn't for whoever asks, or not from there.",
    404: "What is named isn't there, or is somebody else's.",
    405: "The path takes other methods, those that `Allow` names.",
    408: "The body came too slowly.",
    409: "It doesn't fit what is there.",
    410: "It was deleted, and is begun by that name no more.",
    413: "It is larger than may be.",
    415: "It is none of the types that are taken, or is packed (`Content-Encoding`).",
    426: "It is no upgrade to a WebSocket: maybe a proxy on the way has left out `Upgrade`.",
    429: "More than may be: try again after `Retry-After` seconds.",
    500: "The answer failed, or the server did.",
    503: "Not now: try again after `Retry-After` seconds.",
}

_RETRY_AFTER: Final[Schema] = {
    "description": "Seconds.",
    "required": True,
    "schema": {"type": "integer", "minimum": 0},
}


HEADERS: Final[Mapping[str, Schema]] = {"request-id": REQUEST_ID, "retry-after": _RETRY_AFTER}
"""By their names in the document."""


def refusals(*groups: Codes) -> dict[int, Answer]:
    """Return the answers that say why a request isn't served: all that *groups* have."""
    joined: dict[int, set[str]] = {}
    for group in groups:
        for status, codes in group.items():
            joined.setdefault(status, set()).update(codes)
    return {status: _refusal(status, sorted(codes)) for status, codes in joined.items()}


def codes_of(answer: Answer) -> list[str]:
    """Return the error codes that *answer* may come with; none, where it is no refusal."""
    match answer.content.get(JSON):
        case {"allOf": [_, {"properties": {"error": {"properties": {"code": {"enum": list(codes)}}}}}]}:
            return codes
        case _:
            return []


def _refusal(status: int, codes: list[str]) -> Answer:
    headers: dict[str, Schema] = {"x-request-id": header_ref("request-id")}
    if status in (429, 503):
        headers["retry-after"] = header_ref("retry-after")
    if _COUNTED.intersection(codes):
        headers.update(QUOTA_HEADERS)
    if status == 401:
        headers["www-authenticate"] = {"required": True, "schema": {"const": "Bearer"}}
    if status == 426:
        headers["upgrade"] = {"required": True, "schema": {"const": "websocket"}}
    if status == 405:
        headers["allow"] = {"required": True, "schema": {"type": "string"}}
    which = {"properties": {"error": {"properties": {"code": {"enum": codes}}}}}
    return Answer(
        description=_DESCRIPTIONS[status],
        content={JSON: {"allOf": [ref("Error"), which]}},
        headers=headers,
    )


def error_schema(codes: Iterable[str]) -> Schema:
    """Return what every refusal is, with one of *codes*."""
    meanings = "\n".join(f"- `{code}`: {ERROR_MEANINGS[code]}" for code in sorted(codes))
    kinds = ["invalid_request_error", "rate_limit_error", "server_error"]
    param: dict[str, Any] = {"type": ["string", "null"], "description": "The field at fault."}
    return {
        "description": "Why a request isn't served, in OpenAI's shape.",
        "type": "object",
        "required": ["error"],
        "properties": {
            "error": {
                "type": "object",
                "required": ["message", "type", "code"],
                "properties": {
                    "message": {"type": "string", "description": "What is wrong, and what to do."},
                    "type": {"enum": kinds},
                    "param": param,
                    "code": {"type": "string", "description": meanings},
                },
            }
        },
    }
