"""What sessions are called as conversations: ``conv_`` where they have ``sess_``. Both are taken."""

from __future__ import annotations

from typing import Final

from unbroken.sessions.ids import SessionId

__all__ = ["conversation_id", "session_named"]

_PREFIXES: Final = ("conv_", "sess_")


def conversation_id(session_id: SessionId) -> str:
    """Return the name of a session as a conversation."""
    return session_id.replace("sess_", "conv_", 1)


def session_named(conversation: str) -> SessionId:
    """Return the session that a conversation's name stands for, whether there is one or not."""
    for prefix in _PREFIXES:
        conversation = conversation.removeprefix(prefix)
    return SessionId(f"sess_{conversation}")
