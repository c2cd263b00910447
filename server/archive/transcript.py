"""What is archived, as JSON: for clients, operators and webhooks. Pure."""

from __future__ import annotations

from typing import Any

import orjson

from unbroken.server.archive.base import ArchivedSession
from unbroken.server.protocols.responses.items import item_fields
from unbroken.sessions.finished import FinishedTurn
from unbroken.sessions.ids import ResponseId

__all__ = ["content_fields", "session_fields", "turn_fields", "unsaid"]


def session_fields(session: ArchivedSession) -> dict[str, Any]:
    """Return a session, without what was said in it."""
    return {
        "id": session.id,
        "object": "archive.session",
        "model": session.model,
        "began_at": int(session.began_at),
        "active_at": int(session.active_at),
        "ended_at": None if session.ended_at is None else int(session.ended_at),
        "turns": session.turns,
    }


def turn_fields(turn: FinishedTurn) -> dict[str, Any]:
    """Return what a turn was, without what was said in it."""
    usage, failure = turn.usage, turn.failure
    return {
        "id": turn.response_id,
        "object": "archive.turn",
        "session_id": turn.session_id,
        "status": turn.status,
        "reason": turn.reason,
        "error": None if failure is None else {"code": failure.code, "message": failure.message},
        "model": turn.model,
        "asked_at": turn.asked_at,
        "ended_at": turn.ended_at,
        "in_conversation": turn.in_conversation,
        "usage": None
        if usage is None
        else {
            "input_tokens": usage.input_tokens,
            "output_tokens": usage.output_tokens,
            "cached_tokens": usage.cached_tokens,
            "total_tokens": usage.total_tokens,
        },
    }


def content_fields(turn: FinishedTurn) -> dict[str, Any]:
    """Return what was said in a turn, and what its client called it."""
    return {
        "metadata": turn.metadata,
        "input": [item_fields(item) for item in turn.input],
        "output": [item_fields(item) for item in turn.output],
    }


def unsaid(body: str, response_id: ResponseId) -> str:
    """Return a webhook without what a response said: see :meth:`Archive.erase_answer`.

    One that tells of something else stays as it is, also if it names the response.
    """
    said = orjson.loads(body)
    data = said.get("data", {})
    if data.get("id") != response_id:
        return body
    if "output" in data:
        data["output"], data["metadata"] = [], None
        if not data.get("in_conversation", True):
            data["input"] = []
    return orjson.dumps(said).decode()
