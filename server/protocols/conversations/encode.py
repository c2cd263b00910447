"""Conversations in OpenAI's words, and as one document with all that there is of them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import orjson

from unbroken.server.protocols.conversation_names import conversation_id
from unbroken.server.protocols.realtime.encode import session_fields
from unbroken.server.protocols.responses.items import Fields, item_fields
from unbroken.server.protocols.responses.whole import Whole
from unbroken.sessions.ids import SessionId
from unbroken.sessions.session import Session

__all__ = ["conversation_fields", "deleted_fields", "exported", "listed_fields"]


def conversation_fields(session: Session, *, resume: str | None = None) -> Fields:
    """Return a conversation. *resume*: the token with which it is gone on with over a WebSocket."""
    fields = listed_fields(session.id, session.opened_at or 0, session.config.metadata or {})
    return fields if resume is None else {**fields, "unbroken": {"resume": resume}}


def listed_fields(session_id: SessionId, at: int, metadata: Mapping[str, str]) -> Fields:
    """Return a conversation as a list shows it. *at*: when it began, in milliseconds since 1970."""
    return {
        "id": conversation_id(session_id),
        "object": "conversation",
        "created_at": at // 1000,
        "metadata": metadata,
    }


def deleted_fields(session_id: SessionId) -> Fields:
    """Return that a conversation was deleted."""
    return {"id": conversation_id(session_id), "object": "conversation.deleted", "deleted": True}


def exported(session: Session, at: int) -> Iterator[bytes]:
    """Yield, piece by piece, a document with all that there is of a session at that time (Unix seconds).

    It mustn't change meanwhile: take the pieces at once, or of a session that nobody applies anything to.
    """
    head = {
        **conversation_fields(session),
        "object": "conversation.export",
        "exported_at": at,
        "configuration": session_fields(session.id, session.config),
    }
    yield orjson.dumps(head)[:-1] + b',"items":['
    for index, item in enumerate(session.items()):
        yield (b"," if index else b"") + orjson.dumps(item_fields(item))
    yield b'],"responses":['
    for index, fields in enumerate(_responses(session)):
        yield (b"," if index else b"") + orjson.dumps(fields)
    yield b"]}"


def _responses(session: Session) -> Iterator[Fields]:
    """Yield the latest responses, the oldest first. What they said is among the items, too."""
    for ended in session.endings:
        if not ended.is_deleted:
            said = [item for item in map(session.item, ended.output) if item is not None]
            yield Whole(ended.id, session.id, session.config).kept(ended, said)
    for response in session.responses.values():
        whole = Whole(response.id, session.id, session.config)
        whole.asked = response.request
        so_far = [output.done or output.item("in_progress") for output in response.outputs]
        yield whole.fields("in_progress", map(item_fields, so_far))
