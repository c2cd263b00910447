"""A turn that has ended, as one record: for whoever keeps what was said beyond the life of a session.

It is made by the session's owner with the entry that ends the turn, and goes into the store's outbox in
the same step (:mod:`unbroken.sessions.backends.outbox`). It holds what was shown: behind the guards, as the
log does.

Format rules are those of :mod:`unbroken.sessions.entries`, with a number of its own: a record may be
met by a node of another release, which leaves alone what it can't read.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

import msgspec
from msgspec import UNSET, UnsetType

from unbroken.sessions.entries import Body, Failure, Formatted, ResponseDone, Status
from unbroken.sessions.errors import UnknownFormat
from unbroken.sessions.ids import PrincipalId, ResponseId, SessionId, minted_at
from unbroken.sessions.items import Item, Note, Produced, Reasoning, Usage
from unbroken.sessions.response import Response
from unbroken.sessions.session import Session

__all__ = ["FinishedTurn", "decode_turn", "encode_turn", "turns_in"]

_FORMAT: Final = 1


class FinishedTurn(Formatted, frozen=True, kw_only=True, omit_defaults=True):
    """What was asked, what was answered, and how that ended. One for each attempt."""

    session_id: SessionId
    response_id: ResponseId
    place: int
    """Where in the session it ended: later turns have higher ones."""
    principal: PrincipalId | None
    status: Status
    model: str
    asked_at: int
    """Seconds since 1970, as all times here."""
    ended_at: float
    """By the clock of the node that ended it."""
    input: tuple[Item, ...] = ()
    """What was said since the turn before."""
    output: tuple[Produced, ...] = ()
    plan: str | None = None
    """By which whoever asked had come. None: nobody has said."""
    reason: str | None = None
    failure: Failure | None = None
    usage: Usage | None = None
    metadata: dict[str, str] | None = None
    notes: dict[str, Note] | UnsetType = UNSET
    in_conversation: bool = True
    is_attended: bool = False
    """Whether the node that ended it had a connection of the session. Others' are the store's to tell."""


_DECODER: Final = msgspec.json.Decoder(FinishedTurn)


def encode_turn(turn: FinishedTurn) -> bytes:
    """Return *turn* as JSON."""
    return msgspec.json.encode(turn)


def decode_turn(data: bytes) -> FinishedTurn:
    """Return the turn that :func:`encode_turn` made *data* of.

    Raises:
        UnknownFormat: It was written by a later version, or isn't a turn at all.

    """
    try:
        turn = _DECODER.decode(data)
    except msgspec.DecodeError as exc:
        raise UnknownFormat(f"the finished turn can't be read: {exc}") from exc
    if turn.v != _FORMAT:
        raise UnknownFormat(f"the finished turn has format {turn.v}; this version reads format {_FORMAT}")
    return turn


def turns_in(
    session: Session, bodies: Iterable[Body], at: float, *, is_attended: bool
) -> tuple[FinishedTurn, ...]:
    """Return the turns that *bodies* end, which are to be written to *session* and aren't applied yet."""
    return tuple(
        _turn(session, session.responses[body.response_id], body, at, is_attended=is_attended)
        for body in bodies
        if type(body) is ResponseDone
    )


def _turn(
    session: Session, response: Response, done: ResponseDone, at: float, *, is_attended: bool
) -> FinishedTurn:
    request, config = response.request, session.config
    shows_thought = config.reasoning is True
    return FinishedTurn(
        v=_FORMAT,
        session_id=session.id,
        response_id=done.response_id,
        place=session.applied,
        principal=session.principal,
        status=done.status,
        model=request.model_with(config),
        asked_at=minted_at(done.response_id),
        ended_at=at,
        input=_said(session, response),
        output=tuple(each for each in done.output if shows_thought or not isinstance(each, Reasoning)),
        plan=request.plan,
        reason=done.reason,
        failure=done.failure,
        usage=done.usage,
        metadata=done.metadata,
        notes=done.notes,
        in_conversation=request.in_conversation,
        is_attended=is_attended,
    )


def _said(session: Session, response: Response) -> tuple[Item, ...]:
    """Return what has been said between the turn before and *response*: what it answers beside that is there
    already.
    """
    given = response.request.input
    if given is not None:
        return given
    if not response.request.in_conversation or response.anchor is None:
        return ()
    items = session.items()
    places = {item.id: place for place, item in enumerate(items)}
    # A turn that is attempted again answers the same once more: it isn't the one before.
    before = [each for each in session.endings if each.turn != response.turn]
    begin = 0
    for ended in reversed(before):
        own = (ended.anchor, ended.end, *ended.output)
        known = [places[each] for each in own if each is not None and each in places]
        if known:  # else all of it has been deleted
            begin = max(known) + 1
            break
    return tuple(items[begin : places.get(response.anchor, len(items) - 1) + 1])
