from __future__ import annotations

from dataclasses import replace
from decimal import Decimal
from pathlib import Path

import pytest
from pydantic import SecretStr

from unbroken.server.app import build
from unbroken.server.config import ConfigError, Settings, StartupError
from unbroken.server.limits import ConnectionBounds
from unbroken.server.plan_tables import Mode, modes_of
from unbroken.server.quota.plans import Plans
from unbroken.server.quota_settings import PlanQuota
from unbroken.server.setting_sources import load_settings
from unbroken.server.setting_transfer import packed, unpacked

FILE = """
[quotas.default]
requests_per_minute = 20
cost_per_day = 1.10
tenant_tokens_per_day = 1000
[quotas.pro]
connections = 3
tenant_connections = 20
address_connections = 5
[prices.manual]
input = "0.5"
output = 1
"""


def test_plans_are_tables(tmp_path: Path) -> None:
    (tmp_path / "unbroken.toml").write_text(FILE)
    settings = load_settings({}, {}, tmp_path).settings
    plans = Plans(settings.quotas)

    assert plans.limits("anything") == {"u": {"rm": 20, "cd": 1_100_000}, "t": {"td": 1000}}
    assert plans.limits("pro") == {}
    counted = ConnectionBounds(counts_tenant=True)
    assert plans.connections("pro") == replace(counted, user=3, tenant=20, address=5)
    assert plans.connections("free") == counted, "it says nothing of connections, and another does"
    assert settings.prices["manual"].input == Decimal("0.5")
    assert unpacked(packed(settings)) == settings


def test_a_millionth_is_the_least_that_something_may_cost() -> None:
    assert Plans({"default": PlanQuota(cost_per_day=Decimal("0.000001"))}).limits("x") == {"u": {"cd": 1}}


def test_plans_are_json_in_the_environment(tmp_path: Path) -> None:
    environ = {"UNBROKEN_QUOTAS": '{"default": {"cost_per_day": 0.1}}'}
    settings = load_settings({}, environ, tmp_path).settings

    assert Plans(settings.quotas).limits("x") == {"u": {"cd": 100_000}}


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ("nonsense", "should be a table"),
        ("[1]", "should be a table"),
        ('{"free": {"turns": 0}}', "can't be used: free.turns should be greater than or equal to 1"),
        ('{"free": {"turns": true}}', "free.turns should be a number"),
        ('{"free": {"cost_per_day": true}}', "free.cost_per_day should be a number"),
        ('{"free": {"turns": "x"}}', "free.turns should be a valid integer"),
        ('{"free": {"cost_per_day": "0"}}', "free.cost_per_day should be greater than or equal to 0.000001"),
        ('{"free": {"tenant_cost_per_day": 0}}', "free.tenant_cost_per_day should be greater than or equal"),
        ('{"free": {"address_cost_per_day": "0.0000001"}}', "should be greater than or equal to 0.000001"),
        ('{"free": {"sessions": 10001}}', "free.sessions should be at most 10000, as no more"),
        ('{"free": {"sessions": 0}}', "free.sessions should be greater than or equal to 1"),
        ('{"turns": 2}', "turns should be a table of its own, as of plans, such as [quotas.default]"),
        ('{"free": {"request_per_minute": 1}}', "free.request_per_minute: did you mean requests_per_minute?"),
        ('{"free": {"tenant_turn": 1}}', "free.tenant_turn: did you mean tenant_turns?"),
        ('{"free": {"budget": 1}}', "free.budget: there are requests_per_minute, requests_per_day, "),
        ('{"free": {"budget": 1}}', "turns and connections, also with tenant_ or address_ before them"),
        ('{"a b": {"turns": 1}}', "a b should be a plan's name: up to 64 letters"),
        ('{"free": {"turns": 1}, "free": {"turns": 2}}', "should have one entry for free"),
        ('{"free": {"turns": 1, "turns": 2}}', "should have one entry for turns"),
    ],
)
def test_what_is_no_plan_is_one_line(tmp_path: Path, value: str, said: str) -> None:
    with pytest.raises(ConfigError) as raised:
        load_settings({}, {"UNBROKEN_QUOTAS": value}, tmp_path)

    (problem,) = raised.value.problems
    assert problem.startswith("UNBROKEN_QUOTAS")
    assert said in problem


def test_all_that_is_wrong_with_plans_is_said_at_once(tmp_path: Path) -> None:
    (tmp_path / "unbroken.toml").write_text("[quotas.free]\nturn = 1\n[quotas.pro]\nturns = 0\n")
    with pytest.raises(ConfigError) as raised:
        load_settings({}, {}, tmp_path)

    (problem,) = raised.value.problems
    assert problem.startswith(
        "quotas in unbroken.toml can't be used: free.turn: did you mean turns?; pro.turns "
    )


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ("input = 1", "m.output is missing"),
        ("input = 1\noutput = 1\noutptu = 2", "m.outptu: did you mean output?"),
        ("input = 1\noutput = 1\nwritten = 2", "m.written: there are input, output and cached"),
        ("input = 1\noutput = -1", "m.output should be greater than or equal to 0"),
    ],
)
def test_what_is_no_price_is_one_line(tmp_path: Path, row: str, said: str) -> None:
    (tmp_path / "unbroken.toml").write_text(f"[prices.m]\n{row}\n")
    with pytest.raises(ConfigError) as raised:
        load_settings({}, {}, tmp_path)

    (problem,) = raised.value.problems
    assert problem.startswith(f"prices in unbroken.toml can't be used: {said}")


def test_a_bound_on_cost_needs_a_price() -> None:
    quotas = {"default": PlanQuota(cost_per_day=Decimal(1))}
    with pytest.raises(StartupError, match=r"\[prices\."):
        build(Settings(agent="scripted", quotas=quotas))

    with pytest.raises(StartupError, match="other"):
        build(
            Settings(
                agent="openai", openai_api_key=SecretStr("k"), model="gpt-5", models=("other",), quotas=quotas
            )
        )


@pytest.mark.parametrize(
    ("value", "modes"),
    [
        ("off", {"default": "off"}),
        ("shadow, pro=on", {"default": "shadow", "pro": "on"}),
        ("default=on,free=off", {"default": "on", "free": "off"}),
    ],
)
def test_quotas_hold_or_not_by_plan(tmp_path: Path, value: str, modes: dict[str, Mode]) -> None:
    settings = load_settings({}, {"UNBROKEN_QUOTA_MODE": value}, tmp_path).settings
    assert modes_of(settings.quota_mode) == modes
    assert unpacked(packed(settings)) == settings
    quota = PlanQuota(turns=1, connections=2, tenant_connections=3)
    plans = Plans({"default": quota}, modes)
    for plan in ("pro", "free", "other"):
        mode = modes.get(plan, modes["default"])
        assert plans.mode(plan) == mode
        assert plans.limits(plan) == ({} if mode == "off" else {"u": {"turns": 1}})
        bounds = plans.connections(plan)
        assert (bounds.user, bounds.is_shadow) == (None if mode == "off" else 2, mode == "shadow")
        assert bounds.counts_tenant == (set(modes.values()) != {"off"})


def test_quotas_hold_unless_it_is_said(tmp_path: Path) -> None:
    assert modes_of(load_settings({}, {}, tmp_path).settings.quota_mode) == {"default": "on"}


@pytest.mark.parametrize("value", ["maybe", "free=on", "default=on,free=maybe", "on,default=off"])
def test_what_is_no_mode_is_one_line(tmp_path: Path, value: str) -> None:
    with pytest.raises(ConfigError) as raised:
        load_settings({}, {"UNBROKEN_QUOTA_MODE": value}, tmp_path)

    (problem,) = raised.value.problems
    assert problem.startswith("UNBROKEN_QUOTA_MODE")
