"""Whose plan it is that decides what is looked for, and what is done about it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TypeAlias

from unbroken.server.auth.directory import Directory
from unbroken.server.auth.principal import DEFAULT_PLAN
from unbroken.sessions.ids import PrincipalId

__all__ = ["DEFAULT_PLAN", "PlanOf", "plans_in"]

PlanOf: TypeAlias = Callable[[PrincipalId], Awaitable[str]]
"""Says which plan somebody has. Never fails."""


def plans_in(directory: Directory) -> PlanOf:
    """Return what looks plans up in *directory*. Whoever can't be found there has that of all others."""

    async def plan_of(principal_id: PrincipalId) -> str:
        principal = await directory.known(principal_id)
        return DEFAULT_PLAN if principal is None else principal.plan

    return plan_of
