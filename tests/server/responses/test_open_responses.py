"""What Open Responses asks of a server, where no other test shows it: what is read, and what objects have."""

from __future__ import annotations

import asyncio
from base64 import b64encode
from typing import Any

import pytest

from tests.server.files.contents import PNG
from tests.server.realtime.agent import HeldTurn, ManualAgent
from tests.server.realtime.serving import Served
from tests.server.responses.test_local_chains import answered, refused
from tests.server.responses.test_over_websocket import opened, said
from unbroken.server.agents.base import FunctionCallPiece, Message
from unbroken.server.agents.scripted import ScriptedAgent

NULLABLE = {
    *("completed_at", "error", "incomplete_details", "instructions", "max_output_tokens", "max_tool_calls"),
    *("previous_response_id", "prompt_cache_key", "reasoning", "safety_identifier", "usage"),
}
"""Fields of a response that may say nothing, and are there all the same."""


async def answer(served: Served[ManualAgent], **wanted: Any) -> tuple[HeldTurn, dict[str, Any]]:
    """Ask over HTTP, and return the turn that was answered by two words, and the response."""
    client: Any = await served.openai()
    asking = asyncio.create_task(client.responses.create(**{"model": "default", **wanted}))
    turn = await served.agent.turn()
    if "tools" in wanted:
        turn.say(FunctionCallPiece(0, arguments='{"place": "Bern"}', name="weather"))
    else:
        turn.say("All right.")
    turn.end()
    return turn, (await asking).to_dict(mode="json")


def read(turn: HeldTurn) -> list[tuple[str, str]]:
    return [(item.role, item.text) for item in turn.given.items if isinstance(item, Message)]


async def test_what_an_assistant_said_in_phases_is_read(manual: Served[ManualAgent]) -> None:
    said_before = [
        {"type": "message", "role": "assistant", "phase": "commentary", "content": "Let me look it up."},
        {"type": "message", "role": "assistant", "phase": "final_answer", "content": "It is seven."},
        {"type": "message", "role": "user", "content": "Once more, please."},
    ]
    turn, response = await answer(manual, input=said_before)

    assert read(turn) == [
        ("assistant", "Let me look it up."),
        ("assistant", "It is seven."),
        ("user", "Once more, please."),
    ]
    assert response["status"] == "completed"


async def test_a_system_message_and_a_history_are_read_in_their_order(manual: Served[ManualAgent]) -> None:
    turn, response = await answer(
        manual,
        input=[
            {"type": "message", "role": "system", "content": "Speak like a sailor."},
            {"type": "message", "role": "user", "content": "I am Ada."},
            {"type": "message", "role": "assistant", "content": "Ahoy, Ada!"},
            {"type": "message", "role": "user", "content": "Who am I?"},
        ],
    )

    assert [role for role, _ in read(turn)] == ["system", "user", "assistant", "user"]
    assert response["output"][0]["content"][0]["text"] == "All right."


async def test_a_picture_that_is_sent_along_is_read(manual: Served[ManualAgent]) -> None:
    url = f"data:image/png;base64,{b64encode(PNG).decode()}"
    content = [{"type": "input_text", "text": "What is it?"}, {"type": "input_image", "image_url": url}]
    turn, response = await answer(manual, input=[{"type": "message", "role": "user", "content": content}])

    (message,) = turn.given.items
    assert isinstance(message, Message)
    assert len(message.references) == 1
    assert response["status"] == "completed"


async def test_a_function_that_is_offered_is_called(manual: Served[ManualAgent]) -> None:
    schema = {"type": "object", "properties": {"place": {"type": "string"}}, "required": ["place"]}
    tool = {"type": "function", "name": "weather", "description": "Tells it.", "parameters": schema}
    turn, response = await answer(manual, input="How is the weather in Bern?", tools=[tool])

    assert [each.name for each in turn.given.tools] == ["weather"]
    (call,) = response["output"]
    assert (call["type"], call["status"]) == ("function_call", "completed")
    assert (call["name"], call["arguments"]) == ("weather", '{"place": "Bern"}')
    assert response["tools"][0]["parameters"] == schema


@pytest.mark.parametrize("store", [True, False])
async def test_a_response_has_every_field(server: Served[ScriptedAgent], *, store: bool) -> None:
    client: Any = await server.openai()
    response = (await client.responses.create(input="x", store=store, model="default")).to_dict()

    for name in NULLABLE:
        assert name in response
    for name, kind in (
        *(("id", str), ("object", str), ("created_at", int | float), ("status", str), ("model", str)),
        *(("output", list), ("tools", list), ("tool_choice", str), ("truncation", str), ("metadata", dict)),
        *(("parallel_tool_calls", bool), ("text", dict), ("top_p", int | float), ("store", bool)),
        *(("presence_penalty", int | float), ("frequency_penalty", int | float), ("top_logprobs", int)),
        *(("temperature", int | float), ("background", bool), ("service_tier", str)),
    ):
        assert isinstance(response[name], kind), name


async def test_answers_on_one_connection_are_whole_each(server: Served[ScriptedAgent]) -> None:
    raw = await opened(server)
    for text in ("first", "second"):
        start = len(raw.events)
        response = await answered(raw, text)
        events = raw.events[start:]

        assert events[0]["type"] == "response.created"
        assert [event["sequence_number"] for event in events] == list(range(len(events)))
        assert said(events) == response["output"][0]["content"][0]["text"] == f"You said: {text}"


async def test_what_there_never_was_is_not_found(server: Served[ScriptedAgent]) -> None:
    raw = await opened(server)
    for store in (True, False):
        code = await refused(raw, previous_response_id="resp_that_nobody_made", store=store)
        assert code == "previous_response_not_found"
    assert (await answered(raw))["status"] == "completed"
