"""By whose plan it is decided what is looked for in an answer, and what is done about it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TypeAlias

from unbroken.server.auth.directory import Directory
from unbroken.server.auth.principal import DEFAULT_PLAN
from unbroken.sessions.responder import Turn

__all__ = ["DEFAULT_PLAN", "PlanOf", "plans_in"]

PlanOf: TypeAlias = Callable[[Turn], Awaitable[str]]
"""Says by which plan a turn was asked for. Never fails."""


def plans_in(directory: Directory) -> PlanOf:
    """Return what knows the plans of turns.

    The log says it. Where it doesn't, having been written by an earlier version, it is the plan by which the
    turn's user was noted last in *directory*; of somebody who can't be found there, that of all others.
    """

    async def plan_of(turn: Turn) -> str:
        if turn.request.plan is not None:
            return turn.request.plan
        principal = await directory.known(turn.principal)
        return DEFAULT_PLAN if principal is None else principal.plan

    return plan_of
