"""How fallbacks are written, and that no key of theirs is shown."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from unbroken.server.chain import ChainEntry, read_entries
from unbroken.server.config import ConfigError, Settings, shown
from unbroken.server.setting_sources import load_settings

URL = "https://api.example.com/v1"


@pytest.mark.parametrize(
    ("text", "entry"),
    [
        ("embedded", ChainEntry(name="embedded")),
        (f"b={URL}|m", ChainEntry(name="b", base_url=URL, model="m")),
        (
            f"b={URL}|org/m:free|KEY",
            ChainEntry(name="b", base_url=URL, model="org/m:free", key_variable="KEY"),
        ),
        (f" b = {URL} | m || responses", ChainEntry(name="b", base_url=URL, model="m", api="responses")),
        (f"b={URL}?a=b|m", ChainEntry(name="b", base_url=f"{URL}?a=b", model="m")),
    ],
)
def test_entry_is_a_string(text: str, entry: ChainEntry) -> None:
    assert read_entries(text) == (entry,)


def test_entry_is_a_table_in_a_file(tmp_path: Path) -> None:
    (tmp_path / "unbroken.toml").write_text(
        f"""
        fallbacks = [
          {{ name = "b", base_url = "{URL}", model = "m", key_variable = "B_KEY", api = "responses" }},
          "embedded",
        ]
        """
    )
    settings = load_settings({"agent": "scripted"}, {"B_KEY": "sk-b"}, tmp_path).settings

    [first, second] = settings.fallbacks
    assert (first.name, first.base_url, first.model, first.api) == ("b", URL, "m", "responses")
    assert first.api_key is not None
    assert first.api_key.get_secret_value() == "sk-b"
    assert second.is_embedded


@pytest.mark.parametrize(
    ("value", "problem"),
    [
        ("sk-secret", "entry 1 should be embedded, or name="),
        ("b=sk-secret", "entry 1 needs an address"),
        (f"b={URL}", "entry 1 needs an address that begins with http:// or https://, and a model"),
        ("b=ftp://sk-secret|m", "entry 1 needs an address"),
        (f"b b={URL}|m", "entry 1 should be"),
        (f"embedded, b={URL}|m|sk-secret", "entry 2 should name the variable that holds its key"),
        (f"b={URL}|m|K|soap", "entry 1 should have chat or responses"),
        (f"b={URL}|m|K|chat|sk-secret", "entry 1 should be"),
        (f"b={URL}|m, b={URL}|n", "entry 2 has the name of another"),
        (f"embedded={URL}|m", "give it a name other than embedded"),
        ([{"name": "b", "api_key": "sk-secret"}], "entry 1 should be"),
        ([7], "entry 1 should be"),
        (7, "should be"),
    ],
)
def test_what_is_wrong_is_told_and_not_repeated(value: Any, problem: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as failure:
        load_settings({"agent": "scripted", "fallbacks": value}, {}, tmp_path)

    [line] = failure.value.problems
    assert problem in line
    assert "secret" not in line


@pytest.mark.parametrize(
    ("environ", "dotenv", "key"),
    [
        ({"B_KEY": "one"}, "", "one"),
        ({}, "B_KEY=two", "two"),
        ({"B_KEY": "one"}, "B_KEY=two", "one"),
        ({"B_KEY": ""}, "B_KEY=two", "two"),
    ],
)
def test_key_is_where_the_entry_says(
    environ: Mapping[str, str], dotenv: str, key: str, tmp_path: Path
) -> None:
    (tmp_path / ".env").write_text(dotenv)
    flags = {"agent": "scripted", "fallbacks": f"b={URL}|m|B_KEY"}

    [entry] = load_settings(flags, environ, tmp_path).settings.fallbacks

    assert entry.api_key is not None
    assert entry.api_key.get_secret_value() == key


def test_key_that_is_not_there_is_a_problem(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="the key of b should be in B_KEY, which is not set"):
        load_settings({"agent": "scripted", "fallbacks": f"b={URL}|m|B_KEY"}, {}, tmp_path)


def test_nothing_secret_is_shown(tmp_path: Path) -> None:
    flags = {
        "agent": "scripted",
        "fallbacks": "b=https://me:hunter2@host/v1?key=hunter2|m|B_KEY, c=http://h|n||responses, embedded",
    }
    settings = load_settings(flags, {"B_KEY": "hunter2"}, tmp_path).settings

    assert shown("fallbacks", settings) == (
        "b=https://********@host/v1?********|m|B_KEY, c=http://h|n||responses, embedded"
    )
    assert "hunter2" not in repr(settings)


@pytest.mark.parametrize(
    ("flags", "problem"),
    [
        ({"agent": "embedded", "fallbacks": "embedded"}, "an entry named embedded, as the agent is"),
        ({"agent": "scripted", "fallbacks": f"scripted={URL}|m"}, "an entry named scripted"),
        (
            {"agent": "scripted", "fallbacks": "embedded", "stall_timeout": 20},
            "--fallback-patience is not below",
        ),
        ({"agent": "scripted", "openai_background": True}, "needs UNBROKEN_OPENAI_API to be responses"),
    ],
)
def test_settings_that_do_not_fit_are_told(flags: dict[str, object], problem: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as failure:
        load_settings(flags, {}, tmp_path)

    [line] = failure.value.problems
    assert problem in line.replace("UNBROKEN_FALLBACK_PATIENCE", "--fallback-patience")


def test_patience_matters_only_where_there_is_somebody_else_to_ask(tmp_path: Path) -> None:
    assert load_settings({"agent": "scripted", "stall_timeout": 5}, {}, tmp_path).settings.fallbacks == ()
    assert Settings().fallbacks == ()
