"""A turn that is attempted again: how its next attempt is told from all other responses."""

from __future__ import annotations

from typing import TypeGuard

from unbroken.sessions.entries import Body, ResponseStarted

__all__ = ["is_next_attempt"]


def is_next_attempt(body: Body, turn: int) -> TypeGuard[ResponseStarted]:
    """Return whether *body*, written with the end of an attempt at *turn*, begins a further one."""
    return isinstance(body, ResponseStarted) and body.turn == turn and body.attempt > 1
