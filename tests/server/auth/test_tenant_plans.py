"""Tenants with a plan of their own."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from unbroken.server.auth.base import Credentials, Grant, Unauthenticated
from unbroken.server.auth.principal import Principal
from unbroken.server.auth.tenant_plans import TenantPlans
from unbroken.server.auth_selection import build_auth
from unbroken.server.metrics import Metrics
from unbroken.server.resume import ResumeTokens
from unbroken.server.setting_sources import load_settings
from unbroken.sessions.clock import SystemClock


class Known:
    """Knows people by keys of the form ``tenant/user``."""

    async def authenticate(self, credentials: Credentials) -> Grant:
        if credentials.key is None:
            raise Unauthenticated
        tenant, _, user = credentials.key.partition("/")
        return Grant(Principal(user, tenant, "from-key"), key_id="k")


@pytest.mark.parametrize(("key", "plan"), [("acme/ann", "enterprise"), ("other/ann", "from-key")])
async def test_the_tenants_plan_holds_whatever_the_key_says(key: str, plan: str) -> None:
    plans = TenantPlans(Known(), {"acme": "enterprise"})

    grant = await plans.authenticate(Credentials(key, is_browser=False))

    assert grant.principal.plan == plan
    assert (grant.principal.user, grant.key_id) == ("ann", "k")
    assert grant.principal.id == Principal("ann", key.partition("/")[0]).id, "who somebody is stays the same"


async def test_a_plan_that_a_key_was_given_is_not_replaced() -> None:
    class Given(Known):
        async def authenticate(self, credentials: Credentials) -> Grant:
            return replace(await super().authenticate(credentials), is_plan_given=True)

    grant = await TenantPlans(Given(), {"acme": "enterprise"}).authenticate(
        Credentials("acme/ann", is_browser=False)
    )
    assert grant.principal.plan == "from-key"


async def test_nobody_is_let_in_for_a_plan() -> None:
    with pytest.raises(Unauthenticated):
        await TenantPlans(Known(), {"": "enterprise"}).authenticate(Credentials(None, is_browser=False))


async def test_the_settings_say_which_plans_tenants_have(tmp_path: Path) -> None:
    (tmp_path / "unbroken.toml").write_text('[tenant_plans]\ndefault = "enterprise"\n')
    settings = load_settings({}, {}, tmp_path).settings
    auth = build_auth(settings, None, ResumeTokens(b"s" * 32), SystemClock(), Metrics())

    grant = await auth.authenticator.authenticate(Credentials("key", is_browser=False))

    assert grant.principal.plan == "enterprise"
