"""Names for the things a session is made of, and how they are minted.

Ids are random (never a counter or an address), so that one says nothing about
another. Two say more on purpose. A session's names its principal, to whoever knows
that one: whether a session is somebody's is told without asking any store, and takes
as long for an unknown one as for another's. A response's names its session, so that
any node finds it, and when it was asked for. Clients may choose item ids and
message ids themselves; they may not choose these.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
from typing import Final, NewType

__all__ = [
    "ChainId",
    "Incarnation",
    "ItemId",
    "NodeId",
    "Nonce",
    "PrincipalId",
    "ResponseId",
    "SessionId",
    "belongs_to",
    "is_transient",
    "minted_at",
    "new_call_id",
    "new_chain_id",
    "new_incarnation",
    "new_item_id",
    "new_node_id",
    "new_response_id",
    "new_session_id",
    "session_of",
]

SessionId = NewType("SessionId", str)
"""One conversation. 96 random bits: it can't be guessed, yet it is no credential."""

ResponseId = NewType("ResponseId", str)
"""One attempt at answering."""

ItemId = NewType("ItemId", str)
"""One item of the conversation; unique within its session. A client may choose it."""

NodeId = NewType("NodeId", str)
"""One start of one server process. A restarted process has another."""

PrincipalId = NewType("PrincipalId", str)
"""Who is speaking. Sessions only ever compare it; what it is made of is the server's matter."""

ChainId = NewType("ChainId", str)
"""One connection and those that resumed it, seen as one speaker."""

Incarnation = NewType("Incarnation", str)
"""One life of a session's log. A log that was lost and begun anew has another."""

Nonce = NewType("Nonce", int)
"""32 random bits given to each committed batch. Two branches of a log that lost its tail differ in them."""


_TRANSIENT: Final = "t"
"""What the id of a session ends with that is in no store."""

_SESSION: Final = re.compile(r"sess_[0-9a-f]{32}t?")
_RESPONSE: Final = re.compile(r"resp_(?P<session>[0-9a-f]{32}t?)(?P<at>[0-9a-f]{8})[0-9a-f]{8}")


def new_session_id(principal: str = "", *, transient: bool = False, seed: str | None = None) -> SessionId:
    """Return a fresh session id, for *principal*. *transient*: of one that its node alone ever knows.

    With *seed*, a name of theirs, always the same for both: who asks again comes to what they asked for.
    """
    if seed is None:
        own = secrets.token_hex(12)
    else:
        named = f"{principal}\0{seed}".encode("utf-8", "surrogatepass")
        own = hashlib.blake2b(named, digest_size=12).hexdigest()
    return SessionId(f"sess_{own}{_mark_of(own, principal)}{_TRANSIENT if transient else ''}")


def belongs_to(session_id: SessionId, principal: PrincipalId) -> bool:
    """Return whether a session id was made for *principal*: another's passes once in 2**32."""
    if _SESSION.fullmatch(session_id) is None:
        return False
    own = session_id.removeprefix("sess_")
    return hmac.compare_digest(own[24:32], _mark_of(own[:24], principal))


def is_transient(session_id: SessionId) -> bool:
    """Return whether a session is in no store: one node has it, while it lasts."""
    return session_id.endswith(_TRANSIENT)


def _mark_of(own: str, principal: str) -> str:
    return hashlib.blake2b(f"{own}{principal}".encode(), digest_size=4).hexdigest()


def new_response_id(session_id: SessionId, at: float) -> ResponseId:
    """Return a fresh response id, for a response of that session which is asked for at that time.

    *at* is in seconds since 1970. It is shown, and nothing else is done with it.
    """
    when = int(at) & 0xFFFFFFFF
    return ResponseId(f"resp_{session_id.removeprefix('sess_')}{when:08x}{secrets.token_hex(4)}")


def session_of(response_id: str) -> SessionId | None:
    """Return the session of a response; None: it is no id of a response that says so."""
    match = _RESPONSE.fullmatch(response_id)
    return None if match is None else SessionId(f"sess_{match['session']}")


def minted_at(response_id: str) -> int:
    """Return when a response was asked for, in seconds since 1970; 0: its id doesn't say."""
    match = _RESPONSE.fullmatch(response_id)
    return 0 if match is None else int(match["at"], 16)


def new_item_id(seed: str | None = None) -> ItemId:
    """Return a fresh item id, for items the client left unnamed and for answers.

    With *seed*, what an item is told by, always the same.
    """
    if seed is None:
        return ItemId("item_" + secrets.token_hex(12))
    named = seed.encode("utf-8", "surrogatepass")
    return ItemId("item_" + hashlib.blake2b(named, digest_size=12).hexdigest())


def new_call_id() -> str:
    """Return a fresh name for a function call, for those that were left unnamed."""
    return "call_" + secrets.token_hex(12)


def new_node_id() -> NodeId:
    """Return a fresh node id."""
    return NodeId("node_" + secrets.token_hex(8))


def new_chain_id() -> ChainId:
    """Return a fresh chain id."""
    return ChainId(secrets.token_hex(6))


def new_incarnation() -> Incarnation:
    """Return a fresh incarnation."""
    return Incarnation(secrets.token_hex(4))
