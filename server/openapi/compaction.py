"""``/v1/responses/compact``, described."""

from __future__ import annotations

from typing import Final

from unbroken.server.openapi.answer_schemas import QUOTA_HEADERS, shape
from unbroken.server.openapi.operation import JSON, Described, Operation, answered, ref
from unbroken.server.openapi.refusals import (
    ASKING,
    BODY,
    CONNECTION,
    ENTRY,
    FAILURES,
    KEY,
    QUOTAS,
    SESSION,
    Codes,
    refusals,
)
from unbroken.server.openapi.request_schemas import WHOLE, Bounds, request_schemas
from unbroken.server.openapi.terms import Terms
from unbroken.server.protocols.responses.compaction import CompactParam

__all__ = ["compaction"]

_BOUNDS: Final[Bounds] = {
    "CompactParam": {
        WHOLE: {"required": ["model"]},
        "model": {"type": "string"},
        "input": {"maxItems": 2048},
    },
}

_BEGUN: Final[Codes] = {
    400: ("previous_response_not_found", "conversation_not_found"),
    404: ("response_events_gone",),
}


def compaction(terms: Terms) -> Described:
    """Return what is said of it."""
    counted = (QUOTAS,) if terms.has_quotas else ()
    operation = Operation(
        method="post",
        path="/v1/responses/compact",
        name="compactResponse",
        tag="Responses",
        summary="Have a conversation be summed up, to go on from",
        access="key",
        description="What comes back is the next request's `input`, and what is new behind it.",
        body=terms.body("ResponsesCompact"),
        answers={
            200: answered(
                "The window.", {JSON: ref("Compaction")}, QUOTA_HEADERS if terms.has_quotas else {}
            ),
            **refusals(ENTRY, KEY, CONNECTION, SESSION, BODY, ASKING, FAILURES, _BEGUN, *counted),
        },
    )
    window = shape(
        {
            "id": {"type": "string"},
            "object": {"const": "response.compaction"},
            "created_at": {"type": "integer"},
            "output": {"type": "array", "items": shape({"type": {"type": "string"}})},
            "usage": {"type": ["object", "null"]},
        },
        says="A window: messages as they were, and one item that only this server can read.",
    )
    schemas = request_schemas("Responses", CompactParam, _BOUNDS)
    return Described(
        operations=(operation,),
        schemas={"ResponsesCompact": schemas["ResponsesCompact"], "Compaction": window},
    )
