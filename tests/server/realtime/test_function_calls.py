"""Functions that the client runs, from the wire's side."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.fakes.upstream import FakeUpstream
from tests.server.realtime.agent import ManualAgent
from tests.server.realtime.client import Client, Frame
from tests.server.realtime.official import speaking
from tests.server.realtime.serving import Served, serving
from unbroken.server.agents.base import FunctionCall, FunctionCallPiece, FunctionTool, NamedTool
from unbroken.server.agents.openai import OpenAIAgent
from unbroken.server.agents.responses import ResponsesAgent
from unbroken.server.agents.scripted import ScriptedAgent
from unbroken.server.agents.upstream import Upstream

WEATHER: dict[str, Any] = {
    "type": "function",
    "name": "get_weather",
    "description": "The weather of a city.",
    "parameters": {"type": "object", "properties": {"city": {"type": "string"}}},
}
TIME: dict[str, Any] = {"type": "function", "name": "get_time"}


def output(call_id: str, text: str, **fields: Any) -> Frame:
    item = {"type": "function_call_output", "call_id": call_id, "output": text, **fields}
    return {"type": "conversation.item.create", "item": item}


def update(**session: Any) -> Frame:
    return {"type": "session.update", "session": {"type": "realtime", **session}}


async def called(client: Client, *calls: str) -> list[str]:
    """Have functions called, one to a line of script, and return the calls' ids."""
    await client.ask("\n".join(f"/call {call}" for call in calls))
    return [item["call_id"] for item in (await client.done())["output"]]


async def test_text_and_two_calls_and_what_they_return(server: Served[ScriptedAgent]) -> None:
    client = await server.client()
    await client.ask('/say Let me see.\n/call get_weather {"city": "Ulm"}\n/call get_time {}')
    response = await client.done()
    said, weather, time = response["output"]
    first = client.types()[3:]
    await client.send(output(weather["call_id"], "rain"), output(time["call_id"], "noon"))
    await client.send({"type": "response.create"})
    answer = await client.done()

    begun = ["response.output_item.added", "conversation.item.added"]
    delta = "response.function_call_arguments.delta"
    done = ["response.output_item.done", "conversation.item.done"]
    assert [kind for kind in first if "output_text" not in kind] == [
        *begun,
        "response.content_part.added",
        "response.content_part.done",
        *done,
        *begun,
        *2 * [delta],
        *begun,
        delta,
        "response.function_call_arguments.done",
        *done,
        "response.function_call_arguments.done",
        *done,
        "response.done",
    ]
    assert said["content"][0]["text"] == "Let me see."
    assert (weather["name"], weather["arguments"]) == ("get_weather", '{"city": "Ulm"}')
    assert (time["name"], time["arguments"], time["status"]) == ("get_time", "{}", "completed")
    assert [frame["output_index"] for frame in client.of("response.output_item.done")] == [0, 1, 2, 0]
    assert answer["output"][0]["content"][0]["text"] == "Returned: rain, noon"
    assert [status for status, _ in client.answers()] == ["completed", "completed"]


async def test_tools_hold_until_a_response_has_its_own(manual: Served[ManualAgent]) -> None:
    client = await manual.client()
    choice = {"type": "function", "name": "get_weather"}
    await client.send(update(tools=[WEATHER, TIME], tool_choice=choice))
    updated = (await client.until("session.updated"))["session"]
    again = await (await manual.tab(client)).until("session.updated")
    await client.ask("one")
    (first := await manual.agent.turn()).end()
    await client.done()
    await client.ask("two", tools=[TIME], tool_choice="required")
    (second := await manual.agent.turn(1)).end()
    await client.done()

    assert (updated["tools"], updated["tool_choice"]) == ([WEATHER, TIME], choice)
    assert again["session"]["tools"] == [WEATHER, TIME]
    tool = FunctionTool("get_weather", WEATHER["description"], WEATHER["parameters"])
    assert first.given.tools == (tool, FunctionTool("get_time"))
    assert first.given.tool_choice == NamedTool("get_weather")
    assert (second.given.tools, second.given.tool_choice) == ((FunctionTool("get_time"),), "required")


TOO_MANY = [{"type": "function", "name": f"f{n}"} for n in range(129)]
TOO_LARGE = {**TIME, "parameters": {"maximum": 10**40}}
CALL = {"type": "function_call", "call_id": "k", "name": "f", "arguments": "{}"}
GONE = {"type": "function", "name": "gone"}


@pytest.mark.parametrize(
    ("event", "code", "param"),
    [
        (update(tools=[{"type": "mcp", "server_label": "x"}]), "unsupported_tool", "session.tools[0].type"),
        (update(tools=[WEATHER, WEATHER]), "invalid_event", "session.tools[1].name"),
        (update(tools=[{"type": "function", "name": "a b"}]), "invalid_event", "session.tools[0].name"),
        (update(tools=TOO_MANY), "invalid_event", "session.tools"),
        (update(tools=[{**TIME, "description": "x" * 50_000}]), "invalid_event", "session.tools"),
        (update(tools=[TOO_LARGE]), "invalid_event", "session.tools[0].parameters"),
        (update(tool_choice="any"), "invalid_event", "session.tool_choice"),
        (update(tool_choice={"type": "mcp"}), "unsupported_tool", "session.tool_choice.type"),
        (update(tool_choice=GONE), "invalid_event", "session.tool_choice"),
        (
            {"type": "response.create", "response": {"tool_choice": GONE}},
            "invalid_event",
            "response.tool_choice",
        ),
        (output("call_gone", "x"), "item_not_found", "item.call_id"),
        (
            {"type": "response.create", "response": {"input": [output("call_gone", "x")["item"]]}},
            "item_not_found",
            "response.input[0].call_id",
        ),
        (
            {
                "type": "response.create",
                "response": {"input": [{**CALL, "id": "i"}, output("k", "x")["item"], CALL]},
            },
            "item_id_taken",
            "response.input[2].call_id",
        ),
        (
            {"type": "conversation.item.create", "item": {"type": "function_call_output", "output": "x"}},
            "invalid_event",
            "item.call_id",
        ),
    ],
)
async def test_what_can_not_be_is_refused(
    server: Served[ScriptedAgent], event: Frame, code: str, param: str
) -> None:
    client = await server.client()
    await client.send(event)
    error = await client.error()

    assert (error["code"], error["param"]) == (code, param)


async def test_a_call_has_one_output_and_takes_it_along(server: Served[ScriptedAgent]) -> None:
    client = await server.client()
    (call_id,) = await called(client, "f {}")
    call = client.of("response.done")[-1]["response"]["output"][0]
    await client.send(output(call_id, "one", id="out"), output(call_id, "two"))
    error = await client.error()
    await client.send({"type": "conversation.item.delete", "item_id": call["id"]})
    gone = [(await client.until("conversation.item.deleted"))["item_id"] for _ in range(2)]
    await client.send(output(call_id, "three"))

    assert (error["code"], error["param"]) == ("function_call_answered", "item.call_id")
    assert gone == ["out", call["id"]]
    assert (await client.error())["code"] == "item_not_found"


async def test_a_history_of_calls_can_be_brought_along(manual: Served[ManualAgent]) -> None:
    client = await manual.client()
    call = {"type": "function_call", "id": "c", "call_id": "k", "name": "f", "arguments": "{}"}
    create = {"type": "conversation.item.create", "item": call}
    await client.send(create, create, output("k", "one"))
    await client.send({**create, "item": {**call, "id": "d"}})
    error = await client.error()
    await client.send({"type": "conversation.item.retrieve", "item_id": "c"})
    shown = (await client.until("conversation.item.retrieved"))["item"]
    await client.ask("and?", input=[call, {"type": "function_call_output", "call_id": "k", "output": "x"}])
    (turn := await manual.agent.turn()).say(FunctionCallPiece(0, "{}", "k", "f"))
    turn.end()
    (again,) = (await client.done())["output"]

    assert error["code"] == "item_id_taken"
    assert shown == {**call, "object": "realtime.item", "status": "completed"}
    assert len(client.of("conversation.item.done")) == 4
    assert [item.text for item in turn.given.items] == ["{}", "x"]
    assert turn.given.messages == ()
    assert again["call_id"].startswith("call_"), "the name that the agent gave is taken"


async def test_a_call_that_is_cut_short_is_incomplete(manual: Served[ManualAgent]) -> None:
    client = await manual.client()
    await client.ask("go")
    turn = await manual.agent.turn()
    turn.say(FunctionCallPiece(0, '{"ci', "k", "f"))
    await client.until("response.function_call_arguments.delta")
    await client.send(output("k", "too early"))
    early = await client.error()
    await client.cancel()
    (call,) = (await client.done())["output"]
    await client.ask("again")
    (later := await manual.agent.turn(1)).end()
    await client.done()

    assert early["code"] == "item_in_progress"
    assert (call["status"], call["arguments"]) == ("incomplete", '{"ci')
    assert [type(item) for item in later.given.items][1] is FunctionCall
    assert [message.text for message in later.given.messages] == ["go", "again"]
    client.answers()


async def test_resuming_from_any_frame_and_from_none(manual: Served[ManualAgent]) -> None:
    client = await manual.client()
    await client.ask("go")
    turn = await manual.agent.turn()
    first, second = FunctionCallPiece(0, '{"a":', "k", "f"), FunctionCallPiece(1, "", "l", "g")
    turn.say("Well", first, second, FunctionCallPiece(0, " 1}"))
    deltas = client.of("response.function_call_arguments.delta")
    while "".join(frame["delta"] for frame in deltas) != '{"a": 1}':
        await client.next()
        deltas = client.of("response.function_call_arguments.delta")
    seen = list(client.frames)
    late = manual.stranger(token=client.token)
    await late.resume(after="event_00000000")
    turn.say(FunctionCallPiece(1, "{}"), " then")
    turn.end()
    await client.done()
    await late.done()
    for place in range(1, len(seen)):
        other = manual.stranger(token=client.token)
        await other.resume(after=seen[place]["event_id"])
        await other.done()
        assert other.frames[1:] == client.frames[place + 1 :]
        await other.close()

    assert client.answers() == [("completed", "Well then")]
    assert late.resumed is False
    assert late.answers() == client.answers()
    assert late.of("response.done") == client.of("response.done")


@pytest.mark.parametrize("kind", [OpenAIAgent, ResponsesAgent])
@pytest.mark.client("openai-python", "tools")
async def test_the_official_client_and_an_upstream(kind: type[OpenAIAgent | ResponsesAgent]) -> None:
    async with FakeUpstream() as upstream:
        upstream.call(("get_weather", '{"city": "Ulm"}'), ("get_time", ""), text="One moment.")
        upstream.answer("It ", "rains.")
        agent = kind(Upstream(base_url=upstream.base_url, api_key="k", max_retries=0), model="m")
        async with serving(agent) as served, speaking(await served.openai()) as official:
            session: Any = {"type": "realtime", "tools": [WEATHER, TIME], "tool_choice": "required"}
            await official.connection.session.update(session=session)
            await official.ask("How is it?")
            calls = (await official.done())["output"][1:]
            await official.say("Hurry!")
            for call in reversed(calls):
                await official.connection.conversation.item.create(
                    item={"type": "function_call_output", "call_id": call["call_id"], "output": "rain"}
                )
            await official.connection.response.create(response={"tool_choice": "none"})
            await official.done()

    first, second = (request.json for request in upstream.requests)
    assert [call["arguments"] for call in calls] == ['{"city": "Ulm"}', "{}"]
    assert official.answers() == [("completed", "One moment."), ("completed", "It rains.")]
    assert (first["tool_choice"], second["tool_choice"]) == ("required", "none")
    assert "get_time" in json.dumps(first["tools"])
    if kind is OpenAIAgent:
        _, answer, rain, other, hurry = second["messages"]
        assert answer["content"] == "One moment."
        assert [call["function"]["arguments"] for call in answer["tool_calls"]] == ['{"city": "Ulm"}', "{}"]
        assert (rain["tool_call_id"], other["tool_call_id"]) == ("call_0", "call_1")
        assert hurry["content"] == "Hurry!"
    else:
        kinds = [item.get("type") for item in second["input"]]
        assert kinds[2:6] == [*2 * ["function_call"], *2 * ["function_call_output"]]
        assert second["input"][6]["content"] == "Hurry!"
