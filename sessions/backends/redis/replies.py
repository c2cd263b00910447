"""What the store's scripts are given, and what they answer, as values."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final, Literal

import msgspec

from unbroken.sessions.backends.base import Fence
from unbroken.sessions.entries import Body, Deltas, Entry, InputKey
from unbroken.sessions.errors import Fenced, LostTail, SessionDeleted, SessionGone, StoreError, Unseen
from unbroken.sessions.ids import Incarnation, NodeId, SessionId

__all__ = [
    "are_whole",
    "check",
    "failure_of",
    "fence_in",
    "name_of",
    "proof_of",
    "rest_of",
    "size_of",
    "text_of",
]


def fence_in(found: Sequence[Any]) -> Fence:
    """Return whose a session is, by what a script has answered."""
    incarnation, owner, token = found[:3]
    return Fence(NodeId(text_of(owner)), int(token), Incarnation(text_of(incarnation)))


_ERRORS: Final[dict[bytes, type[StoreError]]] = {
    b"DELETED": SessionDeleted,
    b"GONE": SessionGone,
    b"FENCED": Fenced,
    b"LOST": LostTail,
    b"UNSEEN": Unseen,
}


def failure_of(said: bytes, session_id: SessionId) -> StoreError:
    """Return what a script said instead of an answer."""
    return _ERRORS[said](session_id)


def check(found: Any, session_id: SessionId) -> None:
    """Raise what a script said instead of an answer, if it did."""
    if isinstance(found, bytes):
        raise failure_of(found, session_id)


def proof_of(fence: Fence) -> tuple[str, int, str]:
    """Return a fence as the scripts take it."""
    return fence.node, fence.token, fence.incarnation


def name_of(key: InputKey | None) -> tuple[str, str]:
    """Return an input's name and digest as the scripts take them."""
    return ("", "") if key is None else (key.name, key.digest.hex())


def text_of(data: bytes | Literal[""]) -> str:
    """Return what a script says for a text: for none it says nothing."""
    return data.decode() if data else ""


def rest_of(entry: Entry, after: int) -> Entry | None:
    """Return what of *entry* follows *after*."""
    body = entry.body
    known = after + 1 - entry.seq
    if not isinstance(body, Deltas) or known >= len(body.parts):
        return None
    rest = msgspec.structs.replace(body, parts=body.parts[known:], ordinal=body.ordinal + known)
    return Entry(after + 1, entry.nonce, rest)


def are_whole(entries: Sequence[Entry], after: int, head: int) -> bool:
    """Return whether *entries* follow *after* without a gap, and are none only where that is the head."""
    last = after
    for entry in entries:
        if entry.seq != last + 1:
            return False
        last = entry.last
    return last > after or after == head


def size_of(body: Body) -> int:
    """Return how many bytes a body takes, roughly."""
    return 64 + sum(map(len, body.parts)) if isinstance(body, Deltas) else 1024
