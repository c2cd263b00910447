"""Tables by plan are read alike, whichever setting they are of."""

from __future__ import annotations

from pathlib import Path

import pytest

from unbroken.server.auth.key_request import KeyRequest
from unbroken.server.config import ConfigError
from unbroken.server.guards.leaks.selection import actions_of
from unbroken.server.plan_tables import modes_of
from unbroken.server.setting_sources import load_settings
from unbroken.server.setting_transfer import packed, unpacked
from unbroken.server.setting_values import plans_given

MODES = ("leaks", "cache", "cache_semantic", "firewall", "quota_mode")
NAMES = ("pro", "pro.v2", "a_b-c", "a:b", "who@a.example", "größe", "x" * 64)


def problem(folder: Path, name: str, value: str) -> str:
    with pytest.raises(ConfigError) as caught:
        load_settings({}, {f"UNBROKEN_{name.upper()}": value}, folder)
    (line,) = caught.value.problems
    assert line.startswith(f"UNBROKEN_{name.upper()}")
    return line


@pytest.mark.parametrize("name", MODES)
@pytest.mark.parametrize("value", ["on, off", "default=on, off", "on, free=off, free=on"])
def test_of_two_entries_none_is_taken_silently(tmp_path: Path, name: str, value: str) -> None:
    assert "one entry for each plan" in problem(tmp_path, name, value)


@pytest.mark.parametrize("name", MODES)
@pytest.mark.parametrize("value", ["yes", "on, free=", "on, =off", "on, a b=off", f"on, {'x' * 65}=off"])
def test_what_is_no_table_is_refused(tmp_path: Path, name: str, value: str) -> None:
    assert "should be off, shadow or on" in problem(tmp_path, name, value)


@pytest.mark.parametrize("name", MODES)
@pytest.mark.parametrize("plan", NAMES)
def test_a_plan_that_a_tenant_or_a_key_can_have_can_have_rows(tmp_path: Path, name: str, plan: str) -> None:
    environ = {
        "UNBROKEN_TENANT_PLANS": f"acme={plan}",
        "UNBROKEN_ANONYMOUS_PLAN": plan,
        "UNBROKEN_CLIENT_SECRET_PLANS": f"{plan} = free | {plan}",
        "UNBROKEN_FIREWALL_FLAG": f"0.5, {plan}=0.6",
        "UNBROKEN_LEAK_ACTIONS": f"{plan}.email=redact",
        f"UNBROKEN_{name.upper()}": f"on, {plan}=shadow",
    }
    settings = load_settings({}, environ, tmp_path).settings
    assert modes_of(getattr(settings, name)) == {"default": "on", plan: "shadow"}
    assert settings.tenant_plans == (f"acme={plan}",)
    assert plans_given(settings.client_secret_plans) == {plan: ("free", plan)}
    assert actions_of(settings.leak_actions)[plan]["email"] == "redact"
    assert unpacked(packed(settings)) == settings
    assert KeyRequest("ci", plan=plan).made(1.0)[1].plan == plan


@pytest.mark.parametrize("name", MODES)
def test_each_is_a_table_in_toml_too(tmp_path: Path, name: str) -> None:
    (tmp_path / "unbroken.toml").write_text(f'[{name}]\ndefault = "on"\n"a:b" = "off"\n')
    settings = load_settings({}, {}, tmp_path).settings
    assert modes_of(getattr(settings, name)) == {"default": "on", "a:b": "off"}


@pytest.mark.parametrize(
    ("name", "default"), [("leaks", "shadow"), ("cache", "off"), ("cache_semantic", "off")]
)
def test_what_is_not_said_of_default_is_as_ever(tmp_path: Path, name: str, default: str) -> None:
    environ = {f"UNBROKEN_{name.upper()}": "free=on"}
    settings = load_settings({}, environ, tmp_path).settings
    assert modes_of(getattr(settings, name)) == {"default": default, "free": "on"}


def test_of_two_leak_actions_none_is_taken_silently(tmp_path: Path) -> None:
    assert "once for each plan" in problem(tmp_path, "leak_actions", "email=redact, default.email=flag")
    assert "a plan ahead" in problem(tmp_path, "leak_actions", "a b.email=redact")
