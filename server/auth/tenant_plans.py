"""The plan that a tenant has, whatever its users' keys and tokens say."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from unbroken.server.auth.base import Authenticator, Credentials, Grant

__all__ = ["TenantPlans"]


class TenantPlans:
    """An :class:`Authenticator` that has another one say who somebody is, and itself on which plan.

    So each policy that differs by plan can differ by tenant: a tenant with rules of its own has a
    plan of its own. Of short-lived keys it is their makers who are on it: where the settings have others for
    these, they have others.

    Args:
        authenticator: The other one.
        plans: By tenant. Those of other tenants keep theirs.

    """

    def __init__(self, authenticator: Authenticator, plans: Mapping[str, str]) -> None:
        self._authenticator = authenticator
        self._plans = dict(plans)

    async def authenticate(self, credentials: Credentials) -> Grant:
        """See :meth:`Authenticator.authenticate`."""
        grant = await self._authenticator.authenticate(credentials)
        plan = self._plans.get(grant.principal.tenant)
        if plan is None or grant.is_plan_given:
            return grant
        return replace(grant, principal=grant.principal.by(plan))
