"""``/v1/archive/sessions``, described."""

from __future__ import annotations

from typing import Any, Final

from unbroken.server.openapi.answer_schemas import list_of, shape
from unbroken.server.openapi.operation import JSON, Described, Operation, answered, field_of, path_field, ref
from unbroken.server.openapi.refusals import ENTRY, FOUND, KEY, PATH, Codes, refusals
from unbroken.server.openapi.terms import Terms

__all__ = ["archive"]

_TAG: Final = "Archive"
_PAGE: Final = (
    field_of("limit", {"type": "integer", "minimum": 1, "maximum": 100, "default": 20}, "How many."),
    field_of("after", {"type": "string"}, "The id of what the page begins behind."),
)
_AWAY: Final[Codes] = {503: ("archive_unavailable",)}
_THERE: Final[Codes] = {404: ("session_not_found",)}

_NUMBER: Final = {"type": "integer", "minimum": 0}
_TIME: Final = {"type": "number", "description": "Seconds since 1970."}
_ITEMS: Final = {"type": "array", "items": ref("Item")}


def archive(terms: Terms) -> Described:
    """Return what is said of the archive; nothing, where there is none."""
    if terms.settings.archive_url is None:
        return Described(operations=())
    listed = Operation(
        method="get",
        path="/v1/archive/sessions",
        name="listArchivedSessions",
        tag=_TAG,
        summary="List your sessions that were archived, the latest first",
        parameters=_PAGE,
        # Whoever comes back for one session that isn't there is told so.
        answers={
            200: answered("A page of them.", {JSON: ref("ArchivedSessionPage")}),
            **refusals(ENTRY, KEY, FOUND, _AWAY, _THERE),
        },
    )
    one = Operation(
        method="get",
        path="/v1/archive/sessions/{session_id}",
        name="getArchivedSession",
        tag=_TAG,
        summary="Read what was said in one, turn by turn",
        parameters=(
            path_field("session_id", {"type": "string", "minLength": 1}, "As `id` says."),
            *_PAGE,
        ),
        answers={
            200: answered("It, and a page of its turns.", {JSON: ref("Transcript")}),
            **refusals(ENTRY, KEY, PATH, FOUND, _AWAY, _THERE),
        },
    )
    more: dict[str, Any] = {
        "has_more": {"type": "boolean"},
        "first_id": {"type": ["string", "null"]},
        "last_id": {"type": ["string", "null"]},
    }
    session = shape(
        {
            "id": {"type": "string"},
            "object": {"const": "archive.session"},
            "model": {"type": "string"},
            "began_at": _NUMBER,
            "active_at": _NUMBER,
            "ended_at": {"type": ["integer", "null"]},
            "turns": _NUMBER,
        },
        says="A session, as the archive knows it. Times are in seconds since 1970.",
    )
    turn = shape(
        {
            "id": {"type": "string", "description": "The response's."},
            "object": {"const": "archive.turn"},
            "session_id": {"type": "string"},
            "status": {"enum": ["completed", "incomplete", "cancelled", "failed", "interrupted"]},
            "reason": {"type": ["string", "null"]},
            "error": {"type": ["object", "null"]},
            "model": {"type": "string"},
            "asked_at": _TIME,
            "ended_at": _TIME,
            "in_conversation": {"type": "boolean"},
            "usage": {"type": ["object", "null"]},
            "metadata": {"type": ["object", "null"]},
            "input": _ITEMS,
            "output": _ITEMS,
        },
        says="A turn that has ended, as it was shown.",
    )
    transcript = list_of(ref("ArchivedTurn"), optional={**more, "session": ref("ArchivedSession")})
    return Described(
        operations=(listed, one),
        schemas={
            "ArchivedSession": session,
            "ArchivedTurn": turn,
            "ArchivedSessionPage": list_of(ref("ArchivedSession"), optional=more),
            "Transcript": transcript,
        },
    )
