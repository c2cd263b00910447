"""The leak filter that the settings ask for."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from unbroken.server.computing_threads import Way
from unbroken.server.config import Settings, StartupError
from unbroken.server.fair_names import FairName
from unbroken.server.guards.canary import Canaries
from unbroken.server.guards.leaks.entities import ACTIONS, DEFAULT_ACTIONS, ENTITIES, Action, Actions, Entity
from unbroken.server.guards.leaks.name_reading import NameReading, looks_for_names
from unbroken.server.guards.leaks.policy import LeakPolicy, LeakRules
from unbroken.server.guards.leaks.recogniser import ModelRecogniser, load_model, missing_packages
from unbroken.server.guards.plan import DEFAULT_PLAN, PlanOf
from unbroken.server.metrics import Metrics
from unbroken.server.plan_tables import are_off, modes_of
from unbroken.sessions.ids import SessionId

__all__ = ["actions_of", "build_leak_policy", "build_name_reading"]


def build_leak_policy(
    settings: Settings,
    secret: bytes,
    plan_of: PlanOf,
    count: Callable[[str, str, int], None],
    canaries: Canaries | None = None,
) -> LeakPolicy:
    """Return the policy that *settings* describe. *count* is told of what is found.

    *canaries* are those that sessions' instructions are marked with. None: they aren't marked.
    """
    modes = modes_of(settings.leaks)
    rules = LeakRules(
        mode=modes.pop(DEFAULT_PLAN),
        modes=modes,
        actions=actions_of(settings.leak_actions),
        tool_outputs=settings.leak_tool_outputs,
        hold=settings.leak_hold,
    )

    def canaries_of(session_id: SessionId) -> tuple[str, ...]:
        marks = () if canaries is None else (canaries.of(session_id),)
        return (*settings.leak_canaries, *marks)

    return LeakPolicy(rules, secret, plan_of=plan_of, canaries_of=canaries_of, count=count)


def build_name_reading(
    settings: Settings, metrics: Metrics, way: Way | None = None, fair_name: FairName = str
) -> NameReading | None:
    """Return what reads names and addresses, to be started; None: no plan's rules look for them.

    *way* makes way for its thread; *fair_name* says under which name somebody's texts wait for their turn.

    Raises:
        StartupError: What it needs isn't installed.

    """
    if are_off(settings.leaks):
        return None
    if not any(map(looks_for_names, actions_of(settings.leak_actions).values())):
        return None
    if missing_packages():
        message = "UNBROKEN_LEAK_ACTIONS names name or address, which need a local model. Install it: "
        raise StartupError(f"{message}pip install 'unbroken[names]'")
    return NameReading(
        recogniser=ModelRecogniser(
            load_model,
            timeout=settings.leak_names_timeout,
            observe=metrics.names_seconds.observe,
            way=way,
            fair_name=fair_name,
        ),
        hold=settings.leak_names_hold,
        fails_closed=settings.leak_names_failure == "closed",
        unread=lambda reason: metrics.names_unread.labels(reason).inc(),
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
