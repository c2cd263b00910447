"""What becomes of a request for a response while another one runs in the conversation.

The policies are those of :class:`~unbroken.sessions.items.Concurrency`. Which
one holds when the request is answered decides; a response that waits keeps to it.
"""

from __future__ import annotations

from typing import Final, assert_never

from msgspec import UNSET

from unbroken.sessions.entries import (
    Body,
    CancelAccepted,
    CreateResponse,
    ResponseMerged,
    ResponseQueued,
)
from unbroken.sessions.errors import Refusal
from unbroken.sessions.items import Concurrency
from unbroken.sessions.response import Response
from unbroken.sessions.turn import AttemptState, Signal

__all__ = ["moved_on", "not_active", "while_active"]

_MOST_MERGED: Final = 64
"""Requests that one response answers: it names them all."""


def while_active(
    policy: Concurrency,
    command: CreateResponse,
    seq: int,
    event_id: str | None,
    *,
    active: list[Response],
    most_waiting: int,
) -> list[Body]:
    """Return what answers the request that is input *seq*.

    Args:
        policy: What holds in the session.
        command: What is asked for.
        seq: The input's place in the log.
        event_id: Its sender's own name for it.
        active: The response that runs in the conversation, and those that wait behind it, in order.
        most_waiting: How many may wait.

    Raises:
        Refusal: It can't be had now.

    """
    match policy:
        case Concurrency.REJECT:
            raise Refusal(
                "conversation_already_has_active_response",
                f"Response {active[0].id} is in progress. Wait until it is done, or cancel it.",
            )
        case Concurrency.QUEUE:
            _check_room(active, most_waiting)
            return [ResponseQueued(command.response_id, command.request, seq)]
        case Concurrency.MERGE:
            return _merge(command, seq, event_id or "", active, most_waiting)
        case Concurrency.INTERRUPT:
            stops: list[Body] = [
                CancelAccepted(each.id, "superseded")
                for each in active
                if each.attempt.accepts(Signal.CANCEL_ACCEPTED)
            ]
            return [*stops, ResponseQueued(command.response_id, command.request, seq)]
        case _:
            assert_never(policy)


def _merge(
    command: CreateResponse, seq: int, event_id: str, active: list[Response], most_waiting: int
) -> list[Body]:
    """Let the response that waits last answer the request too, if that is what it asks for.

    Another wish, also for other metadata, is not lost in somebody else's: it waits for itself. Nor is
    `input`, which says what to answer.
    """
    last = active[-1]
    if (
        last.attempt.state is AttemptState.QUEUED
        and last.requests is not UNSET
        and last.request == command.request
        and command.request.input is None
    ):
        if len(last.requests) >= _MOST_MERGED:
            raise Refusal(
                "response_queue_full",
                f"{len(last.requests)} requests wait for one response already. Wait until it has begun.",
            )
        return [ResponseMerged(last.id, event_id, seq)]
    _check_room(active, most_waiting)
    return [ResponseQueued(command.response_id, command.request, seq, (event_id,))]


def moved_on() -> Refusal:
    """Return the refusal of what was to come behind the last word, and doesn't any more."""
    message = "The conversation has gone on meanwhile. Look at it, and ask again."
    return Refusal("conversation_moved_on", message, param="previous_response_id")


def not_active(response_id: str | None) -> Refusal:
    """Return the refusal of a cancel that finds nothing to stop."""
    if response_id is None:
        return Refusal("response_cancel_not_active", "There is no response in progress to cancel.")
    message = f"Response {response_id[:64]!r} isn't in progress."
    return Refusal("response_cancel_not_active", message, param="response_id")


def _check_room(active: list[Response], most_waiting: int) -> None:
    if len(active) > most_waiting:
        raise Refusal(
            "response_queue_full",
            f"{len(active) - 1} responses wait already. Wait until one is done, or cancel.",
        )
