"""``/v1/responses`` as the official client sees it."""

from __future__ import annotations

import asyncio
import hashlib
from typing import Any

import pytest
from openai import APIStatusError, AuthenticationError, BadRequestError, ConflictError, NotFoundError
from openai.types.responses import ResponseStreamEvent
from pydantic import TypeAdapter

from tests.server.conftest import Serve
from tests.server.realtime.agent import ManualAgent
from tests.server.realtime.serving import Served
from unbroken.server.agents.scripted import ScriptedAgent

KEY = "good-key"
EVENT: TypeAdapter[Any] = TypeAdapter(ResponseStreamEvent)


async def collect(stream: Any) -> list[dict[str, Any]]:
    """Return a stream's events, having checked each against the official types, strictly."""
    events = [event.to_dict(mode="json") async for event in stream]
    for event in events:
        EVENT.validate_python(event)
    assert [event["sequence_number"] for event in events] == list(
        range(events[0]["sequence_number"], events[0]["sequence_number"] + len(events))
    )
    return events


def said(events: list[dict[str, Any]]) -> str:
    return "".join(event["delta"] for event in events if event["type"] == "response.output_text.delta")


async def test_an_answer_comes_as_a_whole(server: Served[ScriptedAgent]) -> None:
    client: Any = await server.openai()

    response = await client.responses.create(model="default", input="hello there", metadata={"a": "b"})

    assert response.status == "completed"
    assert response.output_text == "You said: hello there"
    assert response.metadata == {"a": "b"}
    assert response.usage is not None
    assert response.usage.output_tokens == 4
    assert response.created_at > 1_700_000_000


@pytest.mark.client("openai-python", "responses")
async def test_an_answer_is_streamed(server: Served[ScriptedAgent]) -> None:
    client: Any = await server.openai()

    events = await collect(await client.responses.create(input="/tokens 3", stream=True, model="default"))

    assert [event["type"] for event in events] == [
        "response.created",
        "response.in_progress",
        "response.output_item.added",
        "response.content_part.added",
        *["response.output_text.delta"] * 3,
        "response.output_text.done",
        "response.content_part.done",
        "response.output_item.done",
        "response.completed",
    ]
    assert said(events) == events[-1]["response"]["output"][0]["content"][0]["text"] == "word1 word2 word3"


async def test_the_clients_own_accumulation_agrees(server: Served[ScriptedAgent]) -> None:
    client: Any = await server.openai()

    async with client.responses.stream(model="default", input="/tokens 20") as stream:
        async for _ in stream:
            pass
        final = await stream.get_final_response()

    assert final.output_text.split() == [f"word{number}" for number in range(1, 21)]


@pytest.mark.client("openai-python", "responses")
async def test_a_stream_is_gone_on_with_from_any_event(server: Served[ScriptedAgent]) -> None:
    client: Any = await server.openai()
    whole = await collect(await client.responses.create(input="/tokens 6", stream=True, model="default"))
    response_id = whole[0]["response"]["id"]

    for after in range(len(whole)):
        rest = await client.responses.retrieve(response_id, stream=True, starting_after=after)
        seen = [event.to_dict(mode="json") async for event in rest]
        assert [strip(event) for event in seen] == [strip(event) for event in whole[after + 1 :]]


def strip(event: dict[str, Any]) -> dict[str, Any]:
    """Return *event* without what differs from one asker to the next: the token to resume with."""
    if "response" in event:
        response = {key: value for key, value in event["response"].items() if key != "unbroken"}
        return {**event, "response": response}
    return event


async def test_a_response_goes_on_while_nobody_reads(manual: Served[ManualAgent]) -> None:
    client: Any = await manual.openai()
    stream = await client.responses.create(input="hi", stream=True, model="default")
    first = await anext(stream)
    turn = await manual.agent.turn()
    turn.say("one ")
    async for event in stream:
        if event.type == "response.output_text.delta":
            break
    await stream.close()
    turn.say("two")
    turn.end()

    rest = await client.responses.retrieve(first.response.id, stream=True)
    events = [event.to_dict(mode="json") async for event in rest]

    assert said(events) == "one two"
    assert events[-1]["type"] == "response.completed"


@pytest.mark.client("openai-python", "responses")
async def test_a_response_is_gone_on_from(server: Served[ScriptedAgent]) -> None:
    client: Any = await server.openai()
    first = await client.responses.create(input="one", model="default")
    second = await client.responses.create(
        input="two", previous_response_id=first.id, model="default", instructions="Be brief."
    )

    items = await client.responses.input_items.list(second.id, order="asc")

    assert second.previous_response_id == first.id
    assert [item.content[0].text for item in items.data] == ["one", "You said: one", "two"]
    assert (first.conversation, second.conversation) == (first.conversation, first.conversation)


async def test_what_is_gone_on_from_twice_is_two_conversations(server: Served[ScriptedAgent]) -> None:
    client: Any = await server.openai()
    root = await client.responses.create(input="root", model="default")
    left = await client.responses.create(input="left", previous_response_id=root.id, model="default")
    right = await client.responses.create(input="right", previous_response_id=root.id, model="default")

    texts = {}
    for response in (left, right):
        items = await client.responses.input_items.list(response.id, order="asc")
        texts[response.id] = [item.content[0].text for item in items.data]

    assert texts == {
        left.id: ["root", "You said: root", "left"],
        right.id: ["root", "You said: root", "right"],
    }
    assert left.conversation != right.conversation


async def test_what_isnt_stored_is_gone_on_from_too(server: Served[ScriptedAgent]) -> None:
    client: Any = await server.openai()
    first = await client.responses.create(input="one", store=False, model="default")
    second = await client.responses.create(
        input="two", previous_response_id=first.id, store=False, model="default"
    )

    assert (await client.responses.retrieve(second.id)).output_text == "You said: two"
    items = await client.responses.input_items.list(second.id, order="asc")
    assert [item.content[0].text for item in items.data] == ["one", "You said: one", "two"]
    assert not len(server.app.node.hub)  # nothing that a store would ever hear of


async def test_anothers_response_is_none(server: Served[ScriptedAgent]) -> None:
    alice: Any = await server.openai("alice")
    bob: Any = await server.openai("bob")
    hers = await alice.responses.create(input="mine", model="default")

    refusals = []
    for response_id in (hers.id, "resp_" + 48 * "0", "resp_unknown"):
        with pytest.raises(NotFoundError) as caught:
            await bob.responses.retrieve(response_id)
        refusals.append(caught.value.body)

    assert refusals == [refusals[0]] * 3
    with pytest.raises(BadRequestError) as refused:
        await bob.responses.create(input="hi", previous_response_id=hers.id, model="default")
    assert refused.value.code == "previous_response_not_found"


async def test_in_the_background_nobody_waits(manual: Served[ManualAgent]) -> None:
    client: Any = await manual.openai()
    response = await client.responses.create(input="hi", background=True, model="default")
    assert (response.status, response.background) == ("in_progress", True)

    turn = await manual.agent.turn()
    turn.say("half ", "whole")
    turn.end()
    await manual.idle()

    assert (await client.responses.retrieve(response.id)).output_text == "half whole"


@pytest.mark.client("openai-python", "responses")
async def test_a_response_is_cancelled(manual: Served[ManualAgent]) -> None:
    client: Any = await manual.openai()
    response = await client.responses.create(input="hi", background=True, model="default")
    await manual.agent.turn()

    cancelled = await client.responses.cancel(response.id)
    again = await client.responses.cancel(response.id)

    assert (cancelled.status, again.status) == ("cancelled", "cancelled")


async def test_a_deleted_response_says_nothing_any_more(server: Served[ScriptedAgent]) -> None:
    client: Any = await server.openai()
    first = await client.responses.create(input="one", model="default")
    await client.responses.delete(first.id)

    second = await client.responses.create(input="two", conversation=conversation(first), model="default")

    items = await client.responses.input_items.list(second.id, order="asc")
    assert [item.content[0].text for item in items.data] == ["one", "two"]


def conversation(response: Any) -> str:
    name: str = response.conversation.id
    return name


async def test_what_cant_be_asked_for_says_why(server: Served[ScriptedAgent]) -> None:
    client: Any = await server.openai()
    cases: list[tuple[dict[str, Any], str, str]] = [
        ({"input": "x", "model": "other"}, "model_not_found", "model"),
        ({"model": "default"}, "invalid_request", "input"),
        ({"input": "x", "temperature": 9}, "invalid_request", "temperature"),
        ({"input": "x", "max_output_tokens": 0}, "invalid_request", "max_output_tokens"),
        ({"input": [{"role": "nobody", "content": "x"}]}, "invalid_request", "input[0].role"),
        ({"input": "x", "tools": [{"type": "web_search"}]}, "unsupported_tool", "tools[0].type"),
        ({"input": "x", "conversation": "conv_unknown"}, "conversation_not_found", "conversation"),
        ({"input": "x", "prompt": {"id": "p"}}, "unsupported_prompt", "prompt"),
        ({"input": "x", "store": False, "background": True}, "invalid_request", "store"),
    ]
    for wanted, code, param in cases:
        with pytest.raises(APIStatusError) as caught:
            await client.responses.create(**wanted)
        assert (caught.value.code, caught.value.param) == (code, param)


async def test_two_at_once_in_one_conversation_take_turns_or_are_told(manual: Served[ManualAgent]) -> None:
    client: Any = await manual.openai()
    first = await client.responses.create(input="hi", background=True, model="default")
    await manual.agent.turn()

    with pytest.raises(ConflictError) as caught:
        await client.responses.create(input="and", conversation=conversation(first), model="default")

    assert caught.value.code == "conversation_already_has_active_response"


async def test_a_request_sent_twice_runs_once(server: Served[ScriptedAgent]) -> None:
    client: Any = await server.openai()
    header = {"Idempotency-Key": "message-1"}

    both = [
        await client.responses.create(input="once", model="default", extra_headers=header) for _ in range(2)
    ]

    assert both[0].id == both[1].id
    assert server.agent.calls == 1
    with pytest.raises(ConflictError) as caught:
        await client.responses.create(input="other", model="default", extra_headers=header)
    assert caught.value.code == "message_id_reused"


@pytest.mark.client("openai-python", "tools")
async def test_functions_are_called_and_answered(server: Served[ScriptedAgent]) -> None:
    client: Any = await server.openai()
    tools: Any = [{"type": "function", "name": "add", "parameters": {"type": "object"}, "strict": False}]
    first = await client.responses.create(input='/call add {"a": 1}', tools=tools, model="default")
    (call,) = first.output

    second = await client.responses.create(
        input=[{"type": "function_call_output", "call_id": call.call_id, "output": "2"}],
        previous_response_id=first.id,
        tools=tools,
        model="default",
    )

    assert (call.type, call.status) == ("function_call", "completed")
    assert second.output_text == "Returned: 2"


async def test_what_came_is_taken_when_it_is_sent_back(server: Served[ScriptedAgent]) -> None:
    """As agents do that keep the conversation themselves: all of what a response said, in each request."""
    client: Any = await server.openai()
    tools: Any = [{"type": "function", "name": "add", "parameters": {"type": "object"}, "strict": False}]
    said: list[Any] = [{"role": "user", "content": '/call add {"a": 1}'}]
    first = await client.responses.create(input=said, tools=tools, store=False, model="default")
    said += [item.to_dict() for item in first.output]
    said.append({"type": "function_call_output", "call_id": said[-1]["call_id"], "output": "2"})

    second = await client.responses.create(input=said, tools=tools, store=False, model="default")

    assert second.output_text == "Returned: 2"


async def test_what_is_begun_over_http_is_gone_on_with_over_a_websocket(
    server: Served[ScriptedAgent],
) -> None:
    openai: Any = await server.openai()
    first = await openai.responses.create(input="one", model="default")

    client = server.stranger(token=first.to_dict()["unbroken"]["resume"])
    await client.resume()
    await client.done()
    await client.ask("two")
    done = await client.done()

    assert done["status"] == "completed"
    assert (await openai.responses.retrieve(done["id"])).output_text == "You said: two"
    items = await openai.responses.input_items.list(done["id"], order="asc")
    assert [item.content[0].text for item in items.data] == ["one", "You said: one", "two"]


async def test_a_client_that_leaves_stops_nothing_and_counts_no_more(manual: Served[ManualAgent]) -> None:
    client: Any = await manual.openai()
    waiting = asyncio.create_task(client.responses.create(input="hi", model="default"))
    turn = await manual.agent.turn()

    waiting.cancel()
    await asyncio.wait((waiting,))
    await manual.no_connections()

    assert manual.app.node.hub.running == 1
    turn.end()
    await manual.idle()


@pytest.mark.client("openai-python", "key")
async def test_keys_are_asked_for(serve: Serve) -> None:
    served = await serve(ScriptedAgent(), api_keys=(f"a:{hashlib.sha256(KEY.encode()).hexdigest()}",))
    stranger: Any = await served.openai("another")

    with pytest.raises(AuthenticationError) as caught:
        await stranger.responses.create(input="hi", model="default")

    assert caught.value.code == "invalid_api_key"
    friend: Any = await served.openai(KEY)
    assert (await friend.responses.create(input="hi", model="default")).status == "completed"
