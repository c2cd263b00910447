"""Sessions that are gone on with over ``/v1/chat/completions``."""

from __future__ import annotations

from typing import Any

import pytest
from openai import (
    BadRequestError,
    ConflictError,
    NotFoundError,
)

from tests.server.chat.asking import ADD, create, said, stream, user
from tests.server.realtime.agent import ManualAgent
from tests.server.realtime.serving import Served
from unbroken.server.agents.scripted import ScriptedAgent


async def test_a_session_begins_and_is_gone_on_with(server: Served[ScriptedAgent]) -> None:
    client: Any = await server.openai()
    first = await create(client, "one", extra_body={"unbroken": {"session": "new"}})
    told = first.to_dict()["unbroken"]
    answer = first.choices[0].message.to_dict()

    second = await create(client, "one", answer, "two", extra_headers={"Unbroken-Session": told["session"]})
    chunks = await stream(
        client,
        *("one", answer, "two", {"role": "assistant", "content": "whatever"}, "three"),
        extra_body={"unbroken": {"session": told["session"].replace("sess_", "conv_")}},
    )

    assert second.to_dict()["unbroken"]["session"] == chunks[0]["unbroken"]["session"] == told["session"]
    assert said(chunks) == "You said: three"
    items = await client.responses.input_items.list(chunks[0]["unbroken"]["response"], order="asc")
    texts = [item.content[0].text for item in items.data]
    assert texts == ["one", "You said: one", "two", "You said: two", "three"]


async def test_a_session_that_begins_has_all_that_was_said(server: Served[ScriptedAgent]) -> None:
    client: Any = await server.openai()
    answer = await create(
        client,
        "one",
        {"role": "assistant", "content": "two"},
        "three",
        extra_headers={"Unbroken-Session": "new"},
    )

    items = await client.responses.input_items.list(answer.to_dict()["unbroken"]["response"], order="asc")

    assert [item.content[0].text for item in items.data] == ["one", "two", "three"]


async def test_outputs_of_functions_go_on_in_a_session(server: Served[ScriptedAgent]) -> None:
    client: Any = await server.openai()
    first = await create(client, "/call add", tools=[ADD], extra_body={"unbroken": {"session": "new"}})
    message = first.choices[0].message
    output = {"role": "tool", "tool_call_id": message.tool_calls[0].id, "content": "2"}

    second = await create(
        client,
        *("/call add", message.to_dict(), output),
        tools=[ADD],
        extra_body={"unbroken": {"session": first.to_dict()["unbroken"]["session"]}},
    )

    assert second.choices[0].message.content == "Returned: 2"


async def test_what_is_in_a_session_already_is_not_said_again(server: Served[ScriptedAgent]) -> None:
    client: Any = await server.openai()
    first = await create(client, "one", extra_body={"unbroken": {"session": "new"}})

    with pytest.raises(BadRequestError) as caught:
        await create(
            client,
            *("one", first.choices[0].message.to_dict()),
            extra_body={"unbroken": {"session": first.to_dict()["unbroken"]["session"]}},
        )

    assert (caught.value.code, caught.value.param) == ("invalid_request", "messages")


async def test_anothers_session_is_none(server: Served[ScriptedAgent]) -> None:
    alice: Any = await server.openai("alice")
    bob: Any = await server.openai("bob")
    hers = (await create(alice, "mine", extra_body={"unbroken": {"session": "new"}})).to_dict()["unbroken"]

    refusals = []
    for name in (hers["session"], "sess_" + 32 * "0", "conv_unknown"):
        with pytest.raises(NotFoundError) as caught:
            await create(bob, "hi", extra_body={"unbroken": {"session": name}})
        refusals.append(caught.value.body)

    assert refusals == [refusals[0]] * 3


async def test_who_leaves_a_session_stops_nothing_and_finds_it_again(manual: Served[ManualAgent]) -> None:
    client: Any = await manual.openai()
    answer = await client.chat.completions.create(
        model="default",
        messages=[user("hi")],
        stream=True,
        extra_body={"unbroken": {"session": "new"}},
    )
    told = (await anext(answer)).to_dict()["unbroken"]
    turn = await manual.agent.turn()
    await answer.close()
    await manual.no_connections()
    turn.say("one ", "two")
    turn.end()

    found = await client.responses.retrieve(told["response"], stream=True)
    events = [event async for event in found]

    assert events[-1].type == "response.completed"
    assert events[-1].response.output_text == "one two"


async def test_an_answer_in_a_session_is_watched_and_cancelled_elsewhere(
    manual: Served[ManualAgent],
) -> None:
    openai: Any = await manual.openai()
    answer = await openai.chat.completions.create(
        model="default",
        messages=[user("hi")],
        stream=True,
        extra_body={"unbroken": {"session": "new"}},
    )
    told = (await anext(answer)).to_dict()["unbroken"]
    turn = await manual.agent.turn()
    turn.say("one ")
    watching = manual.stranger(token=told["resume"])
    await watching.resume()
    await watching.until("response.output_text.delta")

    await openai.responses.cancel(told["response"])
    chunks = [chunk.to_dict() async for chunk in answer]

    assert (await watching.done())["status"] == "cancelled"
    assert said(chunks) == "one "
    assert chunks[-1]["choices"][0]["finish_reason"] == "stop"
    assert chunks[-1]["unbroken"]["status"] == "cancelled"
    assert turn.was_stopped


async def test_a_request_sent_twice_in_a_session_runs_once(server: Served[ScriptedAgent]) -> None:
    client: Any = await server.openai()
    headers = {"Idempotency-Key": "message-1", "Unbroken-Session": "new"}

    both = [await create(client, "once", extra_headers=headers) for _ in range(2)]

    assert both[0].id == both[1].id
    assert server.agent.calls == 1
    with pytest.raises(ConflictError) as caught:
        await create(client, "other", extra_headers=headers)
    assert caught.value.code == "message_id_reused"


async def test_a_request_that_only_its_name_is_known_of_is_told_so(server: Served[ScriptedAgent]) -> None:
    client: Any = await server.openai()
    headers = {"Idempotency-Key": "message-1", "Unbroken-Session": "new"}
    await create(client, "once", extra_headers=headers)
    (actor,) = server.app.node.hub
    actor.log.forget(actor.log.head)

    with pytest.raises(NotFoundError) as caught:
        await create(client, "once", extra_headers=headers)

    assert caught.value.code == "response_events_gone"
    assert server.agent.calls == 1


async def test_a_second_answer_in_a_session_at_once_is_refused(manual: Served[ManualAgent]) -> None:
    client: Any = await manual.openai()
    answer = await client.chat.completions.create(
        model="default", messages=[user("hi")], stream=True, extra_headers={"Unbroken-Session": "new"}
    )
    session = (await anext(answer)).to_dict()["unbroken"]["session"]
    turn = await manual.agent.turn()

    with pytest.raises(ConflictError) as caught:
        await create(client, "and", extra_headers={"Unbroken-Session": session})

    assert caught.value.code == "conversation_already_has_active_response"
    turn.end()
    await answer.close()
    await manual.idle()
