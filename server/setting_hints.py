"""What is set in vain: the server works all the same, and whoever has set it should know."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping
from itertools import chain
from typing import Final

from unbroken.server.config import Loaded, Settings
from unbroken.server.plan_tables import DEFAULT_PLAN, are_off, rows_of
from unbroken.server.setting_origins import PREFIX, label
from unbroken.server.setting_values import plans_given

__all__ = ["hints", "plans_with_rows"]

_OWN_TENANTS: Final = ("default", "strangers")
"""That of whoever has none of their own, and that of all strangers."""

_TABLES: Final = (
    "quota_mode",
    "firewall",
    "firewall_flag",
    "firewall_block",
    "leaks",
    "cache",
    "cache_semantic",
    "archive_retention",
)
"""Settings that are tables of ``plan=value``."""


def hints(loaded: Loaded) -> Iterator[str]:
    """Find what does nothing: a line each, with what to do."""
    settings, origins = loaded.settings, loaded.origins
    if settings.python_agent is not None and settings.agent != "python":
        yield (
            f"{label('python_agent', origins)} does nothing, as the agent is {settings.agent}. "
            f"Set {PREFIX}AGENT to python, or unset it."
        )
    if settings.admin_key is not None and not settings.admin_port:
        yield (
            f"{label('admin_key', origins)} does nothing, as there is no admin listener. "
            f"Set {PREFIX}ADMIN_PORT to a port, or unset it."
        )
    if are_off(settings.cache) and not are_off(settings.cache_semantic):
        yield (
            f"{label('cache_semantic', origins)} does nothing, as the cache is off. "
            f"Set {PREFIX}CACHE to shadow or on, or unset it."
        )
    for name in ("canaries", "leak_canaries"):
        if getattr(settings, name) and are_off(settings.leaks):
            yield (
                f"{label(name, origins)} does nothing, as the leak filter, which looks for them, "
                f"is off. Set {PREFIX}LEAKS to shadow or on, or unset it."
            )
    if settings.key_file is not None and settings.key_store != "file":
        yield (
            f"{label('key_file', origins)} does nothing, as keys are kept in: {settings.key_store}. "
            f"Set {PREFIX}KEY_STORE to file, or unset it."
        )
    of_graphql = [
        name for name, origin in origins.items() if name.startswith("graphql_") and origin != "default"
    ]
    if of_graphql and not settings.graphql:
        yield (
            f"{label(of_graphql[0], origins)} does nothing, as GraphQL isn't spoken. "
            f"Set {PREFIX}GRAPHQL to true, or unset it."
        )
    if settings.files_dir is not None and settings.files != "disk":
        yield (
            f"{label('files_dir', origins)} does nothing, as files are {settings.files}. "
            f"Set {PREFIX}FILES to disk, or unset it."
        )
    for name in ("archive_retention", "archive_outbox_bytes", "archive_connections"):
        if settings.archive_url is None and origins.get(name) != "default":
            yield (
                f"{label(name, origins)} does nothing, as there is no archive. "
                f"Set {PREFIX}ARCHIVE_URL, or unset it."
            )
    yield from _of_tenants(settings, origins)
    yield from _of_rows(settings, origins)
    yield from _of_plans_without_rows(settings, origins)


def plans_with_rows(settings: Settings) -> dict[str, tuple[str, ...]]:
    """Return which plans have rows of their own, each with the settings that have them."""
    rows = {name: [*rows_of(getattr(settings, name))] for name in _TABLES}
    rows["quotas"] = [*settings.quotas]
    rows["leak_actions"] = [
        entry.partition("=")[0].rpartition(".")[0].strip() for entry in settings.leak_actions
    ]
    rows["client_secret_plans"] = [*rows_of(settings.client_secret_plans)]
    found: dict[str, tuple[str, ...]] = {}
    for name, plans in rows.items():
        for plan in dict.fromkeys(plans):
            if plan not in ("", DEFAULT_PLAN):
                found[plan] = (*found.get(plan, ()), name)
    return found


def _of_tenants(settings: Settings, origins: Mapping[str, str]) -> Iterator[str]:
    """Find tenants that nobody can be of, where the settings alone say which there are."""
    if settings.key_store != "none" or (settings.jwt_jwks is not None and settings.jwt_tenant_claim):
        return
    for tenant in rows_of(settings.tenant_plans):
        if tenant not in _OWN_TENANTS:
            yield (
                f"{label('tenant_plans', origins)} has an entry for the tenant {tenant}, which nobody can be "
                f"of. Tenants come from {PREFIX}KEY_STORE and {PREFIX}JWT_TENANT_CLAIM. "
                "Set either, or take the entry out."
            )


def _of_rows(settings: Settings, origins: Mapping[str, str]) -> Iterator[str]:
    """Find rows of plans that nobody can be on; where keys or tokens name them, one spelt in two ways."""
    rows = plans_with_rows(settings)
    if settings.key_store != "none" or (settings.jwt_jwks is not None and settings.jwt_plan_claim):
        alike: dict[str, str] = {}
        for plan, (name, *_) in rows.items():
            other = alike.setdefault(plan.casefold(), plan)
            if other != plan:
                yield (
                    f"{label(name, origins)} has a row for the plan {plan}, and "
                    f"{label(rows[other][0], origins)} for {other}: these are two."
                )
        return
    given = chain.from_iterable(plans_given(settings.client_secret_plans).values())
    known = dict.fromkeys(
        (DEFAULT_PLAN, *rows_of(settings.tenant_plans).values(), *given, settings.anonymous_plan)
    )
    sources = ", ".join(
        PREFIX + name for name in ("KEY_STORE", "JWT_PLAN_CLAIM", "TENANT_PLANS", "CLIENT_SECRET_PLANS")
    )
    for plan, names in rows.items():
        if plan not in known:
            otherwise = (
                f"Plans come from {sources} and {PREFIX}ANONYMOUS_PLAN. Name it there, or take it out."
            )
            for name in names:
                yield (
                    f"{label(name, origins)} has a row for the plan {plan}, which nobody can be on. "
                    f"{_suggestion(plan, known) or otherwise}"
                )


def _of_plans_without_rows(settings: Settings, origins: Mapping[str, str]) -> Iterator[str]:
    """Find plans that somebody is put on, and that are as the plan of all others."""
    rows = plans_with_rows(settings)
    named = [("tenant_plans", plan) for plan in dict.fromkeys(rows_of(settings.tenant_plans).values())]
    given = chain.from_iterable(plans_given(settings.client_secret_plans).values())
    named += [("client_secret_plans", plan) for plan in dict.fromkeys(given)]
    if settings.anonymous and origins.get("anonymous_plan") != "default":
        named.append(("anonymous_plan", settings.anonymous_plan))
    for name, plan in named:
        if plan not in rows and plan != DEFAULT_PLAN:
            otherwise = "Give it one, such as [quotas.NAME], or unset it."
            yield (
                f"{label(name, origins)} names the plan {plan}, for which no table has a row: it is as "
                f"{DEFAULT_PLAN}. {_suggestion(plan, rows) or otherwise}"
            )


def _suggestion(plan: str, known: Mapping[str, object]) -> str:
    close = difflib.get_close_matches(plan, known, n=1, cutoff=0.6)
    return f"Did you mean {close[0]}?" if close else ""
