"""What is set in vain: said to whoever starts the server, which works all the same."""

from __future__ import annotations

from pathlib import Path

import pytest

from unbroken.server.setting_hints import hints
from unbroken.server.setting_sources import load_settings

FREE = {"UNBROKEN_TENANT_PLANS": "default=free"}
"""Somebody is on the plan free."""

TOKENS = {"UNBROKEN_JWT_JWKS": "k.json", "UNBROKEN_JWT_ISSUER": "i", "UNBROKEN_JWT_AUDIENCE": "a"}


def hinted(folder: Path, environ: dict[str, str]) -> list[str]:
    return list(hints(load_settings({}, environ, folder)))


def test_a_file_of_keys_that_nobody_reads_is_hinted_at(tmp_path: Path) -> None:
    (hint,) = hinted(tmp_path, {"UNBROKEN_KEY_FILE": "keys.json"})
    assert hint.startswith("UNBROKEN_KEY_FILE does nothing")


def test_limits_of_graphql_that_nobody_speaks_are_hinted_at(tmp_path: Path) -> None:
    value = {"UNBROKEN_GRAPHQL_MAX_DEPTH": "5"}
    (hint,) = hinted(tmp_path, value)
    assert hint.startswith("UNBROKEN_GRAPHQL_MAX_DEPTH does nothing")
    assert hinted(tmp_path, {**value, "UNBROKEN_GRAPHQL": "true"}) == []


@pytest.mark.parametrize(
    "value", [{"UNBROKEN_CANARIES": "true"}, {"UNBROKEN_LEAK_CANARIES": "Zebra-4711-Kiwi"}]
)
def test_canaries_that_nobody_looks_for_are_hinted_at(tmp_path: Path, value: dict[str, str]) -> None:
    (hint,) = hinted(tmp_path, {**value, **FREE, "UNBROKEN_LEAKS": "default=off, free=off"})
    (name,) = value
    assert hint.startswith(f"{name} does nothing, as the leak filter")
    assert "Zebra" not in hint


@pytest.mark.parametrize(
    "environ",
    [
        {"UNBROKEN_FIREWALL_FLAG": "0.8"},
        {**FREE, "UNBROKEN_FIREWALL_BLOCK": "0.6, free=1", "UNBROKEN_FIREWALL_FLAG": "0.4, free=0.9"},
        {"UNBROKEN_CANARIES": "true", "UNBROKEN_LEAKS": "shadow"},
        {**FREE, "UNBROKEN_CANARIES": "true", "UNBROKEN_LEAKS": "default=off, free=on"},
        {"UNBROKEN_FIREWALL_TRUSTED_TOOLS": "wiki", "UNBROKEN_MCP_SERVERS": "wiki=http://127.0.0.1:9/mcp"},
        {"UNBROKEN_FIREWALL_TRUSTED_TOOLS": "tools"},
    ],
)
def test_guards_that_do_what_is_set_are_no_problem(tmp_path: Path, environ: dict[str, str]) -> None:
    assert hinted(tmp_path, environ) == []


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("quotas", '{"default": {"turns": 2}, "fre": {"turns": 1}}'),
        ("quota_mode", "on, fre=off"),
        ("firewall", "on, fre=off"),
        ("firewall_flag", "0.5, fre=0.6"),
        ("firewall_block", "0.8, fre=0.9"),
        ("leaks", "on, fre=off"),
        ("leak_actions", "email=redact, fre.email=flag"),
        ("cache", "on, fre=off"),
        ("cache_semantic", "on, fre=off"),
    ],
)
def test_rows_of_a_plan_that_nobody_can_be_on_are_hinted_at(tmp_path: Path, name: str, value: str) -> None:
    environ = {**FREE, "UNBROKEN_CACHE": "on", "UNBROKEN_FIREWALL_FLAG": "0.5, free=0.4"}
    setting = f"UNBROKEN_{name.upper()}"

    (hint,) = [each for each in hinted(tmp_path, environ | {setting: value}) if "fre," in each]

    assert hint.startswith(
        f"{setting} has a row for the plan fre, which nobody can be on. Did you mean free?"
    )


def test_what_is_like_no_plan_is_told_where_plans_come_from(tmp_path: Path) -> None:
    (hint,) = hinted(tmp_path, {"UNBROKEN_LEAKS": "on, gold=off"})

    assert "nobody can be on. Plans come from UNBROKEN_KEY_STORE, UNBROKEN_JWT_PLAN_CLAIM, " in hint


@pytest.mark.parametrize(
    "environ",
    [
        {"UNBROKEN_KEY_STORE": "memory"},
        {**TOKENS, "UNBROKEN_JWT_PLAN_CLAIM": "plan"},
        {"UNBROKEN_TENANT_PLANS": "strangers=gold"},
        {"UNBROKEN_TENANT_PLANS": "acme=gold", **TOKENS, "UNBROKEN_JWT_TENANT_CLAIM": "tenant"},
        {"UNBROKEN_ANONYMOUS_PLAN": "gold"},
    ],
)
def test_a_plan_that_somebody_can_be_on_is_none_of_these(tmp_path: Path, environ: dict[str, str]) -> None:
    assert hinted(tmp_path, {**environ, "UNBROKEN_LEAKS": "on, gold=off"}) == []


def test_where_keys_name_plans_those_that_differ_in_case_alone_are_hinted_at(tmp_path: Path) -> None:
    environ = {"UNBROKEN_KEY_STORE": "memory", "UNBROKEN_FIREWALL": "on, Gold=off"}

    (hint,) = hinted(tmp_path, {**environ, "UNBROKEN_LEAKS": "on, gold=off"})

    assert (
        hint == "UNBROKEN_LEAKS has a row for the plan gold, and UNBROKEN_FIREWALL for Gold: these are two."
    )


def test_names_that_are_alike_are_hinted_at_once(tmp_path: Path) -> None:
    environ = {
        "UNBROKEN_KEY_STORE": "memory",
        "UNBROKEN_FIREWALL": "on, gold=off",
        "UNBROKEN_CACHE": "gold=on",
    }

    (hint,) = hinted(tmp_path, {**environ, "UNBROKEN_LEAKS": "on, Gold=off"})

    assert (
        hint == "UNBROKEN_LEAKS has a row for the plan Gold, and UNBROKEN_FIREWALL for gold: these are two."
    )


def test_a_tenant_on_a_plan_without_any_row_is_hinted_at(tmp_path: Path) -> None:
    environ = {"UNBROKEN_KEY_STORE": "memory", "UNBROKEN_LEAKS": "on, gold=off"}

    (hint,) = hinted(tmp_path, {**environ, "UNBROKEN_TENANT_PLANS": "acme=glod, globex=gold"})

    assert hint.startswith("UNBROKEN_TENANT_PLANS names the plan glod, for which no table has a row: ")
    assert hint.endswith("Did you mean gold?")


def test_strangers_on_a_plan_without_any_row_are_hinted_at_where_one_was_named(tmp_path: Path) -> None:
    strangers = {"UNBROKEN_ANONYMOUS": "true", "UNBROKEN_QUOTAS": '{"default": {"turns": 2}}'}
    assert hinted(tmp_path, strangers) == []

    (hint,) = hinted(tmp_path, {**strangers, "UNBROKEN_ANONYMOUS_PLAN": "guests"})

    assert hint.startswith("UNBROKEN_ANONYMOUS_PLAN names the plan guests, for which no table has a row: ")


def test_a_tenant_that_nobody_can_be_of_is_hinted_at(tmp_path: Path) -> None:
    environ = {"UNBROKEN_TENANT_PLANS": "acme=gold, default=gold", "UNBROKEN_LEAKS": "on, gold=off"}

    (hint,) = hinted(tmp_path, environ)

    assert hint.startswith("UNBROKEN_TENANT_PLANS has an entry for the tenant acme, which nobody can be of. ")


def test_plans_of_short_lived_keys_are_plans_that_somebody_is_on(tmp_path: Path) -> None:
    environ = {
        "UNBROKEN_TENANT_PLANS": "default=backend",
        "UNBROKEN_CLIENT_SECRET_PLANS": "backend=default|free",
    }

    assert hinted(tmp_path, environ | {"UNBROKEN_FIREWALL": "on, free=shadow"}) == []
    (hint,) = hinted(tmp_path, environ | {"UNBROKEN_FIREWALL": "on"})
    assert hint.startswith("UNBROKEN_CLIENT_SECRET_PLANS names the plan free, for which no table has a row")


def test_makers_of_short_lived_keys_whom_nobody_can_be_are_hinted_at(tmp_path: Path) -> None:
    environ = {"UNBROKEN_TENANT_PLANS": "default=backend", "UNBROKEN_CLIENT_SECRET_PLANS": "backnd=default"}
    hint, _ = hinted(tmp_path, environ)

    assert hint.startswith(
        "UNBROKEN_CLIENT_SECRET_PLANS has a row for the plan backnd, which nobody can be on."
    )
    assert "Did you mean backend?" in hint
