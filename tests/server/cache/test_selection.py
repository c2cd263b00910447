from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest
from pydantic import ValidationError

from tests.fakes.clock import FakeClock
from unbroken.server.auth.directory import MemoryDirectory
from unbroken.server.cache.selection import build_cache
from unbroken.server.cache.stage import CacheStage
from unbroken.server.config import Settings, StartupError
from unbroken.server.metrics import Metrics
from unbroken.server.plan_tables import modes_of


def build(**settings: Any) -> CacheStage | None:
    clock = FakeClock()
    return build_cache(Settings(**settings), clock, Metrics(), MemoryDirectory(clock))


@pytest.mark.parametrize(
    ("value", "modes"),
    [
        ("on", {"default": "on"}),
        ("default=on, free=off", {"default": "on", "free": "off"}),
        ("free=shadow", {"default": "off", "free": "shadow"}),
    ],
)
def test_a_mode_is_for_all_or_by_plan(value: str, modes: dict[str, str]) -> None:
    assert modes_of(Settings(cache=tuple(value.split(", "))).cache) == modes


@pytest.mark.parametrize("value", ["", "yes", "free=", "=on", "a b=on", "on,"])
def test_what_is_no_mode_is_refused(value: str) -> None:
    with pytest.raises(ValidationError, match="should be off, shadow or on"):
        Settings(cache=(value,))


def test_a_threshold_has_a_floor() -> None:
    with pytest.raises(ValidationError):
        Settings(cache_threshold=0.8)


def test_it_is_off_by_itself() -> None:
    assert build() is None
    assert build(cache_semantic="on") is None


def test_a_plan_alone_may_have_one() -> None:
    stage = build(cache="pro=on", cache_semantic="pro=on")
    assert stage is not None
    assert [stage.rules.mode_of(plan) for plan in ("pro", "free")] == ["on", "off"]
    assert [stage.rules.semantic_mode_of(plan) for plan in ("pro", "free")] == ["on", "off"]


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (
            {"agent": "python", "python_agent": "shop:answer"},
            {"agent": "python", "python_agent": "shop:refuse"},
        ),
        ({"model_path": "/models/a.gguf"}, {"model_path": "/models/b.gguf"}),
        ({}, {"model_path": "/models/a.gguf"}),
        ({"agent": "openai"}, {"agent": "openai", "openai_base_url": "http://localhost:1/v1"}),
        ({}, {"cache_version": "2"}),
    ],
)
def test_what_answers_is_part_of_the_version_whatever_the_model_is_called(
    one: dict[str, str], other: dict[str, str]
) -> None:
    stages = [build(cache="on", model="m", **settings) for settings in (one, other, one)]
    first, second, again = [stage.rules.version for stage in stages if stage is not None]
    assert first != second
    assert first == again


def test_what_is_given_to_other_words_is_never_more_than_what_is_to_the_same() -> None:
    stage = build(cache="shadow", cache_semantic="on")
    assert stage is not None
    assert stage.rules.semantic_mode_of("any") == "shadow"


@pytest.mark.parametrize("missing", ["onnxruntime", "tokenizers"])
def test_what_is_missing_for_other_words_is_one_line(monkeypatch: pytest.MonkeyPatch, missing: str) -> None:
    monkeypatch.setitem(sys.modules, missing, None)
    with pytest.raises(StartupError, match=r"pip install 'unbroken\[cache\]'"):
        build(cache="on", cache_semantic="on")
    assert build(cache="on") is not None


@pytest.mark.long
def test_without_other_words_nothing_of_the_model_is_imported() -> None:
    code = (
        "import sys, unbroken.server.app\n"
        "assert not {'numpy', 'onnxruntime', 'tokenizers'} & set(sys.modules), 'imported in vain'"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
