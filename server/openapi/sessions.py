"""``/v1/sessions/{id}/events`` and ``/v1/usage``, described."""

from __future__ import annotations

from typing import Any, Final

from unbroken.server.openapi.answer_schemas import QUOTA_HEADERS, STREAM, list_of, shape
from unbroken.server.openapi.operation import (
    JSON,
    SSE,
    Described,
    Operation,
    answered,
    field_of,
    header_of,
    path_field,
    ref,
)
from unbroken.server.openapi.refusals import CONNECTION, ENTRY, FOUND, KEY, PATH, SESSION, refusals
from unbroken.server.openapi.terms import Terms

__all__ = ["session_events", "usage"]


def session_events(_: Terms) -> Described:
    """Return what is said of a session's events."""
    watch = Operation(
        method="get",
        path="/v1/sessions/{session_id}/events",
        name="watchSession",
        tag="Sessions",
        summary="Watch a session, read-only",
        description="In the words of Realtime, as server-sent events; with `wait`, by asking again.",
        parameters=(
            path_field("session_id", {"type": "string", "minLength": 1}, "As `session.id` says."),
            field_of(
                "wait",
                {"type": "integer", "minimum": 0, "maximum": 55},
                "Seconds to wait for what comes next: answers with a list, instead of a stream.",
            ),
            field_of("after", {"type": "string"}, "The id of the last event that is known."),
            header_of("Last-Event-ID", {"type": "string"}, "The same, and counts ahead of it."),
        ),
        answers={
            200: answered("The events behind that.", {SSE: STREAM, JSON: ref("EventList")}),
            **refusals(ENTRY, KEY, CONNECTION, PATH, FOUND, SESSION, {404: ("session_not_found",)}),
        },
    )
    event = shape({"type": {"type": "string"}, "event_id": {"type": "string"}})
    return Described(
        operations=(watch,), schemas={"EventList": list_of(event, optional={"after": {"type": "string"}})}
    )


_MEASURES: Final = (
    "requests_per_minute",
    "requests_per_day",
    "tokens_per_minute",
    "tokens_per_day",
    "cost_per_day",
    "turns",
)


def usage(terms: Terms) -> Described:
    """Return what is said of what somebody has used; nothing, where it isn't counted."""
    if not terms.has_quotas:
        return Described(operations=())
    limit = {"type": "integer", "minimum": 0, "maximum": 1000, "default": 20}
    look = Operation(
        method="get",
        path="/v1/usage",
        name="getUsage",
        tag="Usage",
        summary="Look at what you have used, and what is left",
        parameters=(field_of("limit", limit, "How many of the latest turns are listed."),),
        answers={
            200: answered("It.", {JSON: ref("Usage")}, QUOTA_HEADERS),
            **refusals(ENTRY, KEY, FOUND),
        },
    )
    number: dict[str, Any] = {"type": "integer"}
    row = shape({"used": number}, optional={"limit": number})
    schema = shape(
        {
            "object": {"const": "usage"},
            "plan": {"type": "string"},
            "usage": shape(dict.fromkeys(_MEASURES, row)),
            "rate_limits": {"type": "array", "items": {"type": "object"}},
            "data": {"type": "array", "items": {"type": "object"}},
        },
        says="What somebody has used. Money is in millionths.",
    )
    return Described(operations=(look,), schemas={"Usage": schema})
