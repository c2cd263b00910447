"""Names and addresses, from the wire's side, read by the real model."""

from __future__ import annotations

import re
from typing import Final

import orjson
import pytest

from tests.server.realtime.agent import ManualAgent
from tests.server.realtime.serving import eventually, serving
from unbroken.server.agents.scripted import ScriptedAgent
from unbroken.server.config import Settings, StartupError
from unbroken.server.guards.leaks import selection
from unbroken.server.guards.leaks.selection import build_name_reading
from unbroken.server.metrics import Metrics

ACTIONS: Final = ("name=redact", "address=redact")
TEXT: Final = (
    "Your appointment with Maria Lopez is on Tuesday. She lives at 48 Maple Avenue, Springfield, IL 62704. "
    "The capital of France is Paris. Ask Maria Lopez"
)


async def test_nobody_is_shown_who_it_was_and_everybody_what_was_said() -> None:
    async with serving(ScriptedAgent(), leaks="on", leak_actions=ACTIONS, leak_names_timeout=30.0) as served:
        client = await served.client()
        await client.ask(f"/say {TEXT}")
        response = await client.done()
        tab = await served.tab(client)
        await tab.done()
        shown = [frame for each in (client, tab) for frame in each.frames if "response" in frame["type"]]
        registry = served.app.metrics.registry
        counted = registry.get_sample_value("unbroken_leaks_total", {"entity": "name", "action": "redact"})
        read = registry.get_sample_value("unbroken_names_seconds_count")

    text = response["output"][0]["content"][0]["text"]
    name = r"\[name [a-z2-7]{5}\]"
    found = re.fullmatch(
        rf"Your appointment with ({name}) is on Tuesday\. She lives at \[address [a-z2-7]{{5}}\]\. "
        rf"The capital of France is Paris\. Ask ({name})",
        text,
    )
    assert found is not None, text
    assert found[1] == found[2], "stable within a session"
    assert response["unbroken"] == {"redacted": {"name": 2, "address": 1}}
    assert b"Lopez" not in orjson.dumps(shown)
    assert counted == 2
    assert read == 4


async def test_in_shadow_nothing_changes_and_everything_is_counted() -> None:
    async with serving(ManualAgent(), leak_actions=ACTIONS, leak_names_timeout=30.0) as served:
        client = await served.client()
        await client.ask("go")
        turn = await served.agent.turn()
        turn.say(f"{TEXT}.\n")
        await client.until("response.output_text.delta")  # whatever the model has to do
        metrics = served.app.metrics.registry
        await eventually(lambda: metrics.get_sample_value("unbroken_names_seconds_count") == 4)
        turn.end()
        response = await client.done()
        labels = {"entity": "name", "action": "redact_shadow"}
        counted = metrics.get_sample_value("unbroken_leaks_total", labels)

    assert response["output"][0]["content"][0]["text"] == f"{TEXT}.\n"
    assert counted == 2


async def test_a_response_that_is_cancelled_says_nothing_of_a_sentence_that_had_not_ended() -> None:
    async with serving(ManualAgent(), leaks="on", leak_actions=ACTIONS, leak_names_hold=60.0) as served:
        client = await served.client()
        await client.ask("go")
        turn = await served.agent.turn()
        turn.say("It was Maria Lopez who ")
        await client.until("response.output_text.delta")
        await client.cancel()
        response = await client.done()

    assert response["status"] == "cancelled"
    assert response["output"][0]["content"][0]["text"] == "It was "


# At the start.


@pytest.mark.parametrize(
    "given",
    [{}, {"leak_actions": "email=redact,name=ignore"}, {"leaks": "off", "leak_actions": "name=redact"}],
)
def test_where_names_are_not_looked_for_nothing_is_loaded(given: dict[str, str]) -> None:
    assert build_name_reading(Settings(**given), Metrics()) is None  # type: ignore[arg-type]  # as strings


def test_what_is_not_installed_is_said_with_the_command_that_installs_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(selection, "missing_packages", lambda: ["spacy"])
    with pytest.raises(StartupError, match=re.escape("pip install 'unbroken[names]'")):
        build_name_reading(Settings(leak_actions=("gold.address=flag",)), Metrics())


async def test_a_model_that_cannot_be_loaded_is_said_before_anybody_connects(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def broken() -> None:
        raise OSError("no such file")

    monkeypatch.setattr(selection, "load_model", broken)
    with pytest.raises(StartupError, match="can't be loaded"):
        async with serving(ScriptedAgent(), leak_actions=ACTIONS):
            pass
