"""The leak filter that the settings ask for."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from unbroken.server.auth.directory import Directory
from unbroken.server.guards.leaks.entities import ACTIONS, DEFAULT_ACTIONS, ENTITIES, Action, Actions, Entity
from unbroken.server.guards.leaks.policy import DEFAULT_PLAN, LeakPolicy, LeakRules
from unbroken.sessions.errors import StoreUnavailable
from unbroken.sessions.ids import PrincipalId

if TYPE_CHECKING:
    from unbroken.server.config import Settings

__all__ = ["actions_of", "build_leak_policy"]


def build_leak_policy(
    settings: Settings, secret: bytes, directory: Directory, count: Callable[[str, str, int], None]
) -> LeakPolicy:
    """Return the policy that *settings* describe. *count* is told of what is found."""
    rules = LeakRules(
        mode=settings.leaks,
        actions=actions_of(settings.leak_actions),
        tool_outputs=settings.leak_tool_outputs,
        hold=settings.leak_hold,
    )

    async def plan_of(principal_id: PrincipalId) -> str:
        try:
            principal = await directory.find(principal_id)
        except StoreUnavailable:
            principal = None  # whoever it is: answered by the row that holds for all
        return DEFAULT_PLAN if principal is None else principal.plan

    return LeakPolicy(
        rules, secret, plan_of=plan_of, canaries_of=lambda _: settings.leak_canaries, count=count
    )


def actions_of(entries: tuple[str, ...]) -> Mapping[str, Actions]:
    """Return what is done about what, by plan. What a plan doesn't say is as by default."""
    rows: dict[str, dict[Entity, Action]] = {}
    for entry in entries:
        what, _, done = (part.strip() for part in entry.partition("="))
        plan, _, named = what.rpartition(".")
        entity = next(each for each in ENTITIES if each == named.strip())
        action = next(each for each in ACTIONS if each == done)
        rows.setdefault(plan.strip() or DEFAULT_PLAN, {})[entity] = action
    default = {**DEFAULT_ACTIONS, **rows.pop(DEFAULT_PLAN, {})}
    return {DEFAULT_PLAN: default} | {plan: {**default, **row} for plan, row in rows.items()}
