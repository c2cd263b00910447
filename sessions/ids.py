"""Names for the things a session is made of, and how they are minted.

Every id is random (never a counter, a time or an address), so that one id says
nothing about another. Clients may choose item ids and message ids themselves;
they may not choose session ids.
"""

from __future__ import annotations

import secrets
from typing import NewType

__all__ = [
    "ChainId",
    "Incarnation",
    "ItemId",
    "NodeId",
    "Nonce",
    "PrincipalId",
    "ResponseId",
    "SessionId",
    "new_call_id",
    "new_chain_id",
    "new_incarnation",
    "new_item_id",
    "new_node_id",
    "new_response_id",
    "new_session_id",
]

SessionId = NewType("SessionId", str)
"""One conversation. 128 random bits: it can't be guessed, yet it is no credential."""

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


def new_session_id() -> SessionId:
    """Return a fresh session id."""
    return SessionId("sess_" + secrets.token_hex(16))


def new_response_id() -> ResponseId:
    """Return a fresh response id."""
    return ResponseId("resp_" + secrets.token_hex(12))


def new_item_id() -> ItemId:
    """Return a fresh item id, for items the client left unnamed and for answers."""
    return ItemId("item_" + secrets.token_hex(12))


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
