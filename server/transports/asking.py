"""How a request for a response is refused over HTTP, whatever protocol it is asked in."""

from __future__ import annotations

from typing import Final

from unbroken.server.protocols.items import DecodeError
from unbroken.server.quota.refusal import QuotaRefusal
from unbroken.server.transports.http_way import HttpRefusal
from unbroken.server.transports.refusal import TOO_NEW, spread_wait
from unbroken.sessions.errors import (
    CursorLost,
    NodeDraining,
    NodeFull,
    NodeOverloaded,
    Refusal,
    SessionDeleted,
    SessionError,
    SessionNotFound,
    StoreUnavailable,
    TooManyConnections,
    TooManySessions,
    UnknownFormat,
)

__all__ = ["ANSWERED_BEFORE", "EVENTS_GONE", "not_there", "refusal_of"]

EVENTS_GONE: Final = (
    "The events of this response aren't kept any more. Get the response itself: leave out `stream`."
)

ANSWERED_BEFORE: Final = "The request was answered before, and its answer isn't kept any more."
"""What is said to who sends again what only its name is known of."""

_STATUS: Final = {
    "model_not_found": 404,
    "item_not_found": 404,
    "session_not_found": 404,
    "session_pinned": 403,
    "too_many_stored_sessions": 403,
    "message_id_reused": 409,
    "conversation_already_has_active_response": 409,
    "conversation_moved_on": 409,
    "response_queue_full": 429,
    "too_many_responses": 429,
    "guard_unavailable": 503,
    "server_draining": 503,
    "server_overloaded": 503,
    "store_unavailable": 503,
    "files_unavailable": 503,
}
"""Of the codes that aren't about what was sent."""


def not_there(conversation: str | None) -> DecodeError:
    """Return why a request can't go on from what it names: a *conversation*, or else a response."""
    if conversation is not None:
        message = "There is no such conversation: it has gone, or isn't yours."
        return DecodeError("conversation_not_found", message, param="conversation")
    message = "There is no such response to go on from: it has gone, or isn't yours."
    return DecodeError("previous_response_not_found", message, param="previous_response_id")


def refusal_of(exc: Exception) -> HttpRefusal | None:
    """Return how a request is refused because of *exc*; None: it is none of what may happen."""
    match exc:
        case DecodeError():
            return HttpRefusal(_STATUS.get(exc.code, 400), exc.code, exc.message, exc.param)
        case QuotaRefusal(retry_after=None):  # never: to come back won't help
            return HttpRefusal(400, exc.code, exc.message, exc.param, headers=exc.headers)
        case QuotaRefusal(retry_after=int(wait)):
            return HttpRefusal(429, exc.code, exc.message, exc.param, retry_after=wait, headers=exc.headers)
        case Refusal():
            return HttpRefusal(
                _STATUS.get(exc.code, 400), exc.code, exc.message, exc.param, retry_after=spread_wait()
            )
        case SessionNotFound():
            message = "There is no such response: it has gone, or isn't yours."
            return HttpRefusal(404, "response_not_found", message)
        case SessionDeleted():
            return HttpRefusal(410, "session_deleted", str(exc))
        case TooManySessions():
            return HttpRefusal(429, "too_many_sessions_of_key", str(exc))
        case TooManyConnections():
            return HttpRefusal(429, "too_many_connections", str(exc))
        case NodeFull():
            return HttpRefusal(503, "server_full", str(exc))
        case NodeDraining():
            return HttpRefusal(503, "server_draining", str(exc), retry_after=spread_wait())
        case NodeOverloaded():
            return HttpRefusal(503, "server_overloaded", str(exc), retry_after=spread_wait())
        case UnknownFormat():
            return HttpRefusal(503, "session_too_new", TOO_NEW)
        case StoreUnavailable() | CursorLost():
            return HttpRefusal(503, "store_unavailable", str(StoreUnavailable()))
        case SessionError():
            return HttpRefusal(500, "internal_error", "The session failed. Ask again.")
        case _:
            return None
