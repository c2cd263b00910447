"""Tools as the settings name them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from unbroken.server.app import build
from unbroken.server.config import ConfigError, Settings, shown
from unbroken.server.setting_sources import load_settings


def settings(**variables: str) -> Settings:
    environ = {f"UNBROKEN_{name.upper()}": value for name, value in variables.items()}
    return load_settings({}, environ, Path("/nonexistent")).settings


@pytest.mark.parametrize(
    ("name", "value", "problem"),
    [
        ("tools", "no_colon", "should be module:object each"),
        ("mcp_servers", "https://host/mcp", "entry 1 should be label=address or label=command"),
        ("mcp_servers", "a=x,tools=y", "entry 2 should be"),
        ("mcp_servers", "a=x,a=y", "another label for each server"),
        ("mcp_servers", "a=run 'x", "entry 1 has a quote that isn't closed"),
        ("mcp_keys", "secret-token", "entry 1 should be label:token"),
    ],
)
def test_what_is_wrong_is_said_and_no_secret(name: str, value: str, problem: str) -> None:
    with pytest.raises(ConfigError) as caught:
        settings(**{name: value})

    assert problem in str(caught.value)
    assert "secret-token" not in str(caught.value)


@pytest.mark.parametrize(
    ("variables", "problem"),
    [
        (
            {"mcp_servers": "docs=run", "mcp_keys": "dosc:secret-token"},
            "UNBROKEN_MCP_KEYS has the label 'dosc', and UNBROKEN_MCP_SERVERS has docs.",
        ),
        (
            {"mcp_servers": "docs=run,files=run", "mcp_trusted": "docs,file"},
            "UNBROKEN_MCP_TRUSTED has the label 'file', and UNBROKEN_MCP_SERVERS has docs, files.",
        ),
        ({"mcp_trusted": "docs"}, "UNBROKEN_MCP_TRUSTED has the label 'docs'"),
    ],
)
def test_a_label_that_names_no_server_is_no_silent_matter(variables: dict[str, str], problem: str) -> None:
    with pytest.raises(ConfigError) as caught:
        settings(**variables)

    (line,) = caught.value.problems
    assert line.startswith(problem)
    assert line.endswith("Correct the label, or take it out.")
    assert "secret-token" not in line


def test_signs_of_life_come_well_before_a_turn_counts_as_stalled() -> None:
    loop = build(settings(agent="scripted", tools="my_tools:get", stall_timeout="3"))._tool_loop()

    assert loop is not None
    assert loop._limits.sign_interval == 1


def test_servers_have_their_keys_and_ask_unless_they_are_trusted() -> None:
    chosen = settings(
        agent="scripted",
        mcp_servers="docs=https://host/mcp,files=run --all",
        mcp_keys="docs:secret-token",
        mcp_trusted="files",
    )
    docs, files = build(chosen).catalogue.toolsets
    told: Any = [(each._target, each._needs_approval) for each in (docs, files)]  # type: ignore[attr-defined]

    assert [(target.label, target.place, target.key) for target, _ in told] == [
        ("docs", "https://host/mcp", "secret-token"),
        ("files", "run --all", None),
    ]
    assert [asks for _, asks in told] == [True, False]
    assert "secret-token" not in shown("mcp_keys", chosen) + repr(chosen) + repr(docs)
