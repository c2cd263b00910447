"""``/v1/realtime/client_secrets`` and ``/v1/realtime/tickets``, described."""

from __future__ import annotations

from typing import Final

from unbroken.server.openapi.answer_schemas import shape
from unbroken.server.openapi.operation import JSON, Body, Described, Operation, answered, ref
from unbroken.server.openapi.refusals import BODY, ENTRY, KEY, Codes, refusals
from unbroken.server.openapi.request_schemas import (
    TOKENS,
    TOOL_CHOICE,
    TOOL_CHOICE_PARAM,
    TOOL_PARAM,
    TOOLS,
    WHOLE,
    Bounds,
    request_schemas,
)
from unbroken.server.openapi.terms import Terms
from unbroken.server.protocols.realtime.pinning import SecretRequest

__all__ = ["client_secrets"]

_BOUNDS: Final[Bounds] = {
    "_ExpiresAfter": {"anchor": {"const": "created_at"}, "seconds": {"minimum": 10, "maximum": 7200}},
    "_Extension": {
        WHOLE: {"additionalProperties": False},
        "user": {"minLength": 1, "maxLength": 256},
        "origin": {
            "maxLength": 256,
            "description": "As browsers send it: scheme, host, and port if it is unusual.",
        },
        "max_uses": {"minimum": 1, "maximum": 100},
    },
    "SessionParam": {
        "type": {"const": "realtime"},
        "max_output_tokens": TOKENS,
        "tools": TOOLS,
        "tool_choice": TOOL_CHOICE,
        "prompt": {"const": None},
    },
    "ToolParam": TOOL_PARAM,
    "ToolChoiceParam": TOOL_CHOICE_PARAM,
}

_MADE: Final[Codes] = {
    400: (
        "content_filter",
        "invalid_event",
        "unsupported_prompt",
        "unsupported_session_type",
        "unsupported_tool",
    ),
    403: ("foreign_user", "foreign_plan"),
    404: ("model_not_found",),
    429: ("too_many_short_lived_keys",),
    503: ("guard_unavailable", "server_draining"),
}


_STRANGERS: Final = (
    " Pages of allowed origins may ask without a key: for a stranger, with everything settled by the server."
)


def client_secrets(terms: Terms) -> Described:
    """Return what is said of both."""
    strangers = _STRANGERS if terms.settings.anonymous else ""
    body = Body(
        content={JSON: ref("SecretRequest")},
        is_required=False,
        description="What is settled of sessions: whoever has the key can't change it. Up to 256 KiB.",
    )
    operations = tuple(
        Operation(
            method="post",
            path=f"/v1/realtime/{path}",
            name=name,
            tag="Short-lived keys",
            summary=summary,
            description=f"{description}{strangers}",
            access="stranger" if strangers else "key",
            body=body,
            answers={
                200: answered("It, until it expires.", {JSON: ref("Secret")}),
                **refusals(ENTRY, KEY, BODY, _MADE),
            },
        )
        for path, name, summary, description in (
            ("client_secrets", "createClientSecret", "Make a short-lived key for a page", "For one session."),
            (
                "tickets",
                "createTicket",
                "Make a ticket, for clients that can set nothing but an address",
                "For one connection: it is the field `ticket` of the query.",
            ),
        )
    )
    secret = shape(
        {"value": {"type": "string"}, "expires_at": {"type": "integer"}, "session": ref("Session")},
        optional={"unbroken": shape({"plan": {"type": "string"}})},
        says="A secret, and what its sessions are.",
    )
    requests = request_schemas("Secret", SecretRequest, _BOUNDS)
    requests["SecretRequest"] = requests.pop("SecretSecretRequest")
    return Described(operations=operations, schemas={**requests, "Secret": secret})
