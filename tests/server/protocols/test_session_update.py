"""What each field of a session's configuration does here, by the official SDK's own list of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final, TypeAlias

import pytest
from openai.types.realtime.realtime_response_create_params_param import RealtimeResponseCreateParamsParam
from openai.types.realtime.realtime_session_create_request_param import RealtimeSessionCreateRequestParam

from tests.sessions.conversation import Client, open_world
from unbroken.sessions.items import FunctionTool, NamedTool

TOOL: Final = {"type": "function", "name": "f", "parameters": {"type": "object"}}
MCP: Final = {"type": "mcp", "server_label": "x", "server_url": "https://example.com/mcp"}
CHOICE: Final = {"type": "function", "name": "f"}


@dataclass(frozen=True)
class Holds:
    """What is asked for holds, and `session.updated` shows it."""

    value: Any


@dataclass(frozen=True)
class Shown:
    """It makes no difference, and `session.updated` shows what holds instead. None: the field isn't shown."""

    value: Any
    instead: Any = None


@dataclass(frozen=True)
class Refused:
    """The event is refused, and nothing of it holds."""

    value: Any
    code: str


Case: TypeAlias = Holds | Shown | Refused

FIELDS: Final[dict[str, list[Case]]] = {
    "type": [Holds("realtime"), Refused("transcription", "unsupported_session_type")],
    "audio": [
        Shown({"output": {"voice": "marin", "format": {"type": "audio/pcm", "rate": 24000}}}),
        Shown(
            {"input": {"turn_detection": {"type": "semantic_vad"}, "transcription": {"model": "whisper-1"}}}
        ),
    ],
    "include": [Shown(["item.input_audio_transcription.logprobs"])],
    "instructions": [Holds("Be brief."), Refused(7, "invalid_event")],
    "max_output_tokens": [Holds(99), Shown(1001, 1000), Shown("inf", 1000), Refused(0, "invalid_event")],
    "model": [Shown("gpt-realtime", "m")],
    "output_modalities": [Holds(["text"]), Shown(["audio"], ["text"])],
    "parallel_tool_calls": [Holds(True), Holds(False), Refused("yes", "invalid_event")],
    "prompt": [Shown(None), Refused({"id": "pmpt_1"}, "unsupported_prompt")],
    "reasoning": [Shown({"effort": "high"})],
    "tool_choice": [
        Refused("", "invalid_event"),
        Holds("auto"),
        Holds("required"),
        Refused(CHOICE, "invalid_event"),  # there is no such tool
        Refused({"type": "mcp", "server_label": "x"}, "unsupported_tool"),
    ],
    "tools": [Holds([TOOL]), Holds([]), Refused([TOOL, MCP], "unsupported_tool")],
    "tracing": [Shown("auto"), Shown({"workflow_name": "w"}), Shown(None)],
    "truncation": [Shown("disabled"), Shown({"type": "retention_ratio", "retention_ratio": 0.5})],
}

RESPONSE_FIELDS: Final[dict[str, list[tuple[Any, str | None]]]] = {
    "audio": [({"output": {"voice": "marin"}}, None)],
    "conversation": [("auto", None), ("none", None), ("other", "invalid_event")],
    "input": [([], None), ([{"type": "mcp_approval_response"}], "unsupported_item")],
    "instructions": [("Be brief.", None)],
    "max_output_tokens": [(1001, None), ("inf", None), (0, "invalid_event")],
    "metadata": [({"k": "v"}, None), ({"k": "v" * 513}, "invalid_event")],
    "output_modalities": [(["audio"], None)],
    "parallel_tool_calls": [(False, None)],
    "prompt": [(None, None), ({"id": "pmpt_1"}, "unsupported_prompt")],
    "reasoning": [({"effort": "high"}, None)],
    "tool_choice": [("none", None), (CHOICE, "invalid_event")],
    "tools": [([TOOL], None), ([MCP], "unsupported_tool")],
}


def test_each_field_of_the_sdk_is_decided() -> None:
    """A new version's fields fail here until somebody has said what they do."""
    assert set(FIELDS) == set(RealtimeSessionCreateRequestParam.__annotations__)
    assert set(RESPONSE_FIELDS) == set(RealtimeResponseCreateParamsParam.__annotations__)


async def updated(client: Client, **session: Any) -> list[dict[str, Any]]:
    """Return what came of it."""
    await client.send({"type": "session.update", "session": {"type": "realtime", **session}})
    return client.read()


@pytest.mark.parametrize(("field", "case"), [(field, case) for field in FIELDS for case in FIELDS[field]])
async def test_what_a_field_does_is_told(field: str, case: Case) -> None:
    async with open_world(most_tokens=1000) as world:
        client = await world.client()
        before = (await updated(client))[0]["session"]
        (frame,) = await updated(client, **{field: case.value})
        after = (await updated(client))[0]["session"]

    match case:
        case Holds():
            assert frame["session"] == after == {**before, field: case.value}
        case Shown():
            assert frame["session"] == after
            assert after.get(field) == case.instead
            assert {**after, field: None} == {**before, field: None}
        case Refused():
            assert frame["error"]["code"] == case.code
            assert str(frame["error"]["param"]).startswith(f"session.{field}")
            assert after == before, "nothing of it holds"


@pytest.mark.parametrize(
    ("field", "value", "code"),
    [(field, *case) for field in RESPONSE_FIELDS for case in RESPONSE_FIELDS[field]],
)
async def test_what_a_response_may_ask_for(field: str, value: Any, code: str | None) -> None:
    async with open_world() as world:
        client = await world.client()
        await client.send({"type": "response.create", "response": {field: value}})
        client.read()

        if code is None:
            assert client.types()[-1] == "response.created"
            assert client.errors() == []
        else:
            (error,) = client.of_type("error")
            assert error["error"]["code"] == code
            assert error["error"]["param"].startswith(f"response.{field}")


async def test_several_fields_are_taken_or_refused_together() -> None:
    async with open_world() as world:
        client = await world.client()
        (refused,) = await updated(client, instructions="x", tools=[TOOL, MCP])
        (taken,) = await updated(client, tools=[TOOL], tool_choice=CHOICE, parallel_tool_calls=False)
        await client.send({"type": "response.create"})

        assert refused["error"]["param"] == "session.tools[1].type"
        assert (taken["session"]["instructions"], taken["session"]["tool_choice"]) == ("", CHOICE)
        turn = world.responder.last.turn
        assert turn.request.tools_with(turn.config) == (FunctionTool("f", None, {"type": "object"}),)
        assert turn.request.tool_choice_with(turn.config) == NamedTool("f")
        assert turn.request.parallel_tool_calls_with(turn.config) is False
