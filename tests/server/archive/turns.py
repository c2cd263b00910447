"""Turns that have ended, for the archive's tests."""

from __future__ import annotations

from collections.abc import Sequence

from unbroken.server.archive.base import Delivery, NewTurn
from unbroken.server.auth.principal import Principal
from unbroken.sessions.finished import FinishedTurn
from unbroken.sessions.ids import ItemId, PrincipalId, ResponseId, SessionId, new_session_id
from unbroken.sessions.items import Message, Text, Usage

__all__ = ["ALICE", "BOB", "new", "session_of", "turn"]

ALICE = Principal("alice", "acme")
BOB = Principal("bob", "acme")


def session_of(principal: Principal) -> SessionId:
    return new_session_id(principal.id)


def turn(
    session_id: SessionId, number: int, *, at: float | None = None, principal: PrincipalId = ALICE.id
) -> FinishedTurn:
    """Return the turn of that *number*, which ended *at*, or as many seconds after 1000."""
    return FinishedTurn(
        v=1,
        session_id=session_id,
        response_id=ResponseId(f"resp_{number}"),
        place=number,
        principal=principal,
        status="completed",
        model="m",
        asked_at=1000 + number,
        ended_at=1000.5 + number if at is None else at,
        input=(Message(ItemId(f"u{number}"), "user", (Text(f"question {number} \x00"),)),),
        output=(Message(ItemId(f"a{number}"), "assistant", (Text(f"answer {number} ü"),)),),
        usage=Usage(3, 4),
    )


def new(
    turn: FinishedTurn,
    *,
    whose: Principal = ALICE,
    plan: str = "default",
    is_kept: bool = True,
    deliveries: Sequence[Delivery] = (),
) -> NewTurn:
    return NewTurn(
        turn=turn,
        principal=whose.id,
        tenant=whose.tenant,
        user=whose.user,
        plan=plan,
        is_kept=is_kept,
        check_at=turn.ended_at + 100,
        deliveries=deliveries,
    )
