"""What each plan may use, as a ledger takes it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from decimal import Decimal
from typing import Final

from unbroken.server.auth.principal import DEFAULT_PLAN
from unbroken.server.limits import ConnectionBounds
from unbroken.server.plan_tables import Mode
from unbroken.server.quota.base import TURNS, Limits
from unbroken.server.quota_settings import PlanQuota

__all__ = ["Plans"]

_FIELDS: Final = {
    "requests_per_minute": "rm",
    "requests_per_day": "rd",
    "tokens_per_minute": "tm",
    "tokens_per_day": "td",
    "cost_per_day": "cd",
    "turns": TURNS,
}
_PREFIXES: Final = {"u": "", "t": "tenant_", "a": "address_"}


class Plans:
    """Limits by plan. Whose plan isn't there has those of ``default``; where that isn't either, none.

    Args:
        quotas: By plan.
        modes: Whether they hold, likewise by plan. None: they do.

    """

    def __init__(self, quotas: Mapping[str, PlanQuota], modes: Mapping[str, Mode] | None = None) -> None:
        self._modes: Mapping[str, Mode] = {DEFAULT_PLAN: "on", **(modes or {})}
        self._limits = {name: _limits(quota) for name, quota in quotas.items()}
        self._sessions = {name: quota.sessions for name, quota in quotas.items()}
        is_bound = any(quota.tenant_connections is not None for quota in quotas.values())
        counts_tenants = is_bound and set(self._modes.values()) != {"off"}
        self._unbounded = ConnectionBounds(counts_tenant=counts_tenants)
        self._connections = {
            name: ConnectionBounds(
                user=quota.connections,
                tenant=quota.tenant_connections,
                address=quota.address_connections,
                counts_tenant=counts_tenants,
            )
            for name, quota in quotas.items()
        }

    def mode(self, plan: str) -> Mode:
        """Return whether what a plan may use is counted, and whether anybody is refused for it."""
        return self._modes.get(plan, self._modes[DEFAULT_PLAN])

    def refuses(self, plan: str | None) -> bool:
        """Whether anybody of a plan is; None: of any, as nobody knows of which."""
        return "on" in self._modes.values() if plan is None else self.mode(plan) == "on"

    def limits(self, plan: str) -> Limits:
        """Return what a plan may use."""
        if self.mode(plan) == "off":
            return {}
        return self._limits.get(plan, self._limits.get(DEFAULT_PLAN, {}))

    def holding(self, plan: str) -> Limits:
        """Return what of that holds: nothing in shadow, whoever would be refused there."""
        return self.limits(plan) if self.mode(plan) == "on" else {}

    def connections(self, plan: str) -> ConnectionBounds:
        """Return how many connections a plan allows."""
        mode = self.mode(plan)
        if mode == "off":
            return self._unbounded
        bounds = self._connections.get(plan, self._connections.get(DEFAULT_PLAN, self._unbounded))
        return bounds if mode == "on" else replace(bounds, is_shadow=True)

    def sessions(self, plan: str) -> int | None:
        """Return how many sessions somebody of a plan may have stored; None: it doesn't say."""
        if self.mode(plan) != "on":
            return None
        return self._sessions.get(plan, self._sessions.get(DEFAULT_PLAN))

    @property
    def count_money(self) -> bool:
        """Whether any of them is bound by what things cost."""
        return any("cd" in row for limits in self._limits.values() for row in limits.values())


def _limits(quota: PlanQuota) -> Limits:
    found: dict[str, dict[str, int]] = {}
    for kind, prefix in _PREFIXES.items():
        for name, code in _FIELDS.items():
            value = getattr(quota, prefix + name)
            if value is not None:
                millionths = int(value * 1_000_000) if isinstance(value, Decimal) else value
                found.setdefault(kind, {})[code] = millionths
    return found
