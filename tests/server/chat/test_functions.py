"""Functions over Chat Completions: the client's, the server's, and those that want approval."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from openai import (
    InternalServerError,
)

from tests.server.chat.asking import ADD, create, said, stream
from tests.server.realtime.agent import ManualAgent
from tests.server.realtime.desk import at_desk
from tests.server.realtime.serving import Served
from unbroken.server.agents.base import FunctionCallPiece, UpstreamUnavailable
from unbroken.server.agents.scripted import ScriptedAgent


@pytest.mark.client("openai-python", "chat", "tools")
async def test_functions_are_called_and_answered(server: Served[ScriptedAgent]) -> None:
    client: Any = await server.openai()
    asked = '/say Let me see.\n/call add {"a": 1}\n/call add {"a": 2}'
    first = await create(client, asked, tools=[ADD])
    message = first.choices[0].message
    outputs = [
        {"role": "tool", "tool_call_id": call.id, "content": str(number)}
        for number, call in enumerate(message.tool_calls)
    ]

    second = await create(client, asked, message.to_dict(), *outputs, tools=[ADD])

    assert first.choices[0].finish_reason == "tool_calls"
    assert message.content == "Let me see."
    assert [call.function.arguments for call in message.tool_calls] == ['{"a": 1}', '{"a": 2}']
    assert second.choices[0].message.content == "Returned: 0, 1"


async def test_calls_are_streamed_by_their_index(server: Served[ScriptedAgent]) -> None:
    client: Any = await server.openai()
    asked = '/call add {"some": "arguments"}\n/call add {"b": 2}'

    chunks = await stream(client, asked, tools=[ADD])

    calls: dict[int, dict[str, Any]] = {}
    for chunk in chunks:
        for call in chunk["choices"][0]["delta"].get("tool_calls", ()):
            known = calls.setdefault(call["index"], {"arguments": "", **call})
            known["arguments"] += call["function"]["arguments"]
    assert [calls[index]["function"]["name"] for index in (0, 1)] == ["add", "add"]
    assert [calls[index]["arguments"] for index in (0, 1)] == ['{"some": "arguments"}', '{"b": 2}']
    assert chunks[-1]["choices"][0]["finish_reason"] == "tool_calls"


async def test_a_call_that_is_cut_short_is_nobodys_to_act_on(manual: Served[ManualAgent]) -> None:
    client: Any = await manual.openai()
    asking = asyncio.create_task(create(client, "hi", tools=[ADD]))
    turn = await manual.agent.turn()
    turn.say("so", FunctionCallPiece(0, '{"a', name="add"))
    turn.fail(UpstreamUnavailable())

    with pytest.raises(InternalServerError) as caught:
        await asking

    assert (caught.value.status_code, caught.value.code) == (503, "upstream_unavailable")


async def test_the_servers_own_tools_run_inside() -> None:
    async with at_desk() as (desk, served):
        client: Any = await served.openai()
        script = '/say Let me see.\n/call weather {"city": "Ulm"}'

        answer = await create(client, script)
        chunks = await stream(client, script)

    assert answer.choices[0].message.content == said(chunks) == "Let me see.\n\nReturned: Rain in Ulm."
    assert answer.choices[0].message.tool_calls is None
    assert (answer.choices[0].finish_reason, len(desk.runs)) == ("stop", 2)


async def test_a_call_that_needs_approval_ends_the_answer_and_says_so() -> None:
    async with at_desk() as (_, served):
        client: Any = await served.openai()
        session: Any = {"extra_headers": {"Unbroken-Session": "new"}}

        answer = await create(client, '/call mail {"to": "Ada"}', **session)
        chunks = await stream(client, '/call mail {"to": "Ada"}', **session)
        told = answer.to_dict()["unbroken"]
        (asked,) = told["approvals"]
        approval = {"type": "mcp_approval_response", "approval_request_id": asked["id"], "approve": True}
        rest = await client.responses.create(
            model="default", conversation=told["session"].replace("sess_", "conv_"), input=[approval]
        )

    assert (asked["name"], asked["arguments"]) == ("mail", '{"to": "Ada"}')
    assert [each["name"] for each in chunks[-1]["unbroken"]["approvals"]] == ["mail"]
    assert (answer.choices[0].finish_reason, chunks[-1]["choices"][0]["finish_reason"]) == ("stop", "stop")
    assert (answer.choices[0].message.content, rest.output_text) == ("", "Returned: Sent to Ada.")


async def test_where_nobody_can_approve_there_is_nothing_to_approve_of() -> None:
    async with at_desk(agent := ManualAgent()) as (_, served):
        client: Any = await served.openai()
        asking = asyncio.create_task(create(client, "hi"))
        turn = await agent.turn()
        turn.end()
        await asking

    names = {each.name for each in turn.given.tools}
    assert "weather" in names
    assert "mail" not in names
