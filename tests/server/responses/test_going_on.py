"""What goes on from what, once, and what is refused leaves nothing behind."""

from __future__ import annotations

import asyncio
from typing import Any

import httpx2
import pytest
from openai import APIStatusError, BadRequestError, ConflictError, NotFoundError, RateLimitError

from tests.server.conftest import Serve
from tests.server.realtime.agent import ManualAgent
from tests.server.realtime.client import WAIT
from tests.server.realtime.serving import Served, eventually
from tests.server.responses.test_over_websocket import opened
from unbroken.server.agents.scripted import ScriptedAgent


async def said_to(client: Any, response: Any) -> list[str]:
    items = await client.responses.input_items.list(response.id, order="asc")
    return [item.content[0].text for item in items.data]


async def get(served: Served[Any], path: str, *, method: str = "GET", **query: str) -> httpx2.Response:
    async with httpx2.AsyncClient(base_url=f"http://127.0.0.1:{served.port}") as client:
        return await client.request(
            method, path, params=query, headers={"authorization": "Bearer alice"}, timeout=WAIT
        )


async def test_a_request_by_name_that_goes_on_from_another_runs_once(server: Served[ScriptedAgent]) -> None:
    client: Any = await server.openai()
    first = await client.responses.create(input="one", model="default")
    header = {"Idempotency-Key": "two"}

    answers = [
        await client.responses.create(
            input="two", previous_response_id=first.id, model="default", extra_headers=header
        )
        for _ in range(3)
    ]

    assert len({answer.id for answer in answers}) == 1
    assert server.agent.calls == 2


async def test_a_named_request_is_answered_when_the_log_is_gone(serve: Serve) -> None:
    served = await serve(ScriptedAgent(), log_retain_bytes=16384)
    client: Any = await served.openai()
    header = {"Idempotency-Key": "one"}
    first = await client.responses.create(input="one", model="default", extra_headers=header)
    await client.responses.create(input="/tokens 900", conversation=first.conversation.id, model="default")

    again = await client.responses.create(input="one", model="default", extra_headers=header)

    assert (again.id, again.output_text) == (first.id, "You said: one")
    raw = await opened(served)
    await raw.send(input="one", unbroken={"message_id": "one"})
    assert (await raw.next())["error"]["code"] in ("response_events_gone", "message_id_reused")


async def test_what_is_refused_for_one_that_runs_leaves_nothing(manual: Served[ManualAgent]) -> None:
    client: Any = await manual.openai()
    first = await client.responses.create(input="one", background=True, model="default")
    turn = await manual.agent.turn()

    for _ in range(3):
        with pytest.raises(ConflictError):
            await client.responses.create(input="again", conversation=first.conversation.id, model="default")
    turn.say("1")
    turn.end()
    await manual.idle()
    second = await client.responses.create(
        input="two", previous_response_id=first.id, background=True, model="default"
    )

    assert second.conversation == first.conversation
    assert await said_to(client, second) == ["one", "1", "two"]
    await client.responses.cancel(second.id)


async def test_what_is_refused_for_its_budget_leaves_nothing(serve: Serve) -> None:
    served = await serve(ScriptedAgent(), quotas={"default": {"tokens_per_day": 500}})
    client: Any = await served.openai()
    first = await client.responses.create(input="one", model="default", max_output_tokens=50)

    for _ in range(2):
        with pytest.raises((RateLimitError, BadRequestError)):
            await client.responses.create(
                input="two " * 3_000, previous_response_id=first.id, model="default", max_output_tokens=50
            )
    third = await client.responses.create(
        input="three", previous_response_id=first.id, model="default", max_output_tokens=50
    )

    assert third.conversation == first.conversation
    assert await said_to(client, third) == ["one", "You said: one", "three"]


async def test_a_mistake_in_one_item_leaves_none(server: Served[ScriptedAgent]) -> None:
    client: Any = await server.openai()
    first = await client.responses.create(input="one", model="default")
    wrong = [
        {"role": "user", "content": "good"},
        {"type": "function_call_output", "call_id": "nobodys", "output": "x"},
    ]

    with pytest.raises(APIStatusError):
        await client.responses.create(input=wrong, previous_response_id=first.id, model="default")
    second = await client.responses.create(input="two", previous_response_id=first.id, model="default")

    assert await said_to(client, second) == ["one", "You said: one", "two"]


async def test_a_deleted_response_is_gone_by_every_way(server: Served[ScriptedAgent]) -> None:
    client: Any = await server.openai()
    first = await client.responses.create(input="one", model="default")
    await client.responses.delete(first.id)

    with pytest.raises(NotFoundError):
        await client.responses.retrieve(first.id)
    with pytest.raises(NotFoundError):
        await client.responses.retrieve(first.id, stream=True)
    with pytest.raises(BadRequestError) as caught:
        await client.responses.create(input="two", previous_response_id=first.id, model="default")
    assert caught.value.code == "previous_response_not_found"


async def test_history_isnt_lost_in_silence(server: Served[ScriptedAgent]) -> None:
    """What a response is behind may have been deleted: nobody goes on from nothing then."""
    client: Any = await server.openai()
    first = await client.responses.create(input="/fail", model="default")
    realtime = server.stranger(token=first.to_dict()["unbroken"]["resume"])
    await realtime.resume()
    await realtime.done()
    asked = next(frame for frame in realtime.frames if frame["type"] == "conversation.item.done")
    await realtime.send({"type": "conversation.item.delete", "item_id": asked["item"]["id"]})
    await realtime.until("conversation.item.deleted")

    with pytest.raises(BadRequestError) as caught:
        await client.responses.create(input="two", previous_response_id=first.id, model="default")

    assert caught.value.code == "previous_response_not_found"


async def test_a_conversation_is_stored_wholly_or_not(server: Served[ScriptedAgent]) -> None:
    client: Any = await server.openai()
    first = await client.responses.create(input="one", model="default")

    with pytest.raises(BadRequestError) as caught:
        await client.responses.create(
            input="secret", conversation=first.conversation.id, store=False, model="default"
        )

    assert caught.value.param == "store"


async def test_a_mistaken_question_holds_no_place(server: Served[ScriptedAgent]) -> None:
    client: Any = await server.openai()
    first = await client.responses.create(input="one", model="default")

    for _ in range(10):
        answer = await get(server, f"/v1/responses/{first.id}", stream="true", starting_after="abc")
        assert answer.status_code == 400

    assert (await client.responses.retrieve(first.id)).id == first.id
    assert server.app.node.hub.connections == 0


async def test_one_who_wants_no_body_gets_none(manual: Served[ManualAgent]) -> None:
    client: Any = await manual.openai()
    first = await client.responses.create(input="one", background=True, model="default")
    await manual.agent.turn()

    answer = await get(manual, f"/v1/responses/{first.id}", method="HEAD", stream="true")

    assert (answer.status_code, answer.content) == (200, b"")
    assert answer.headers["content-type"].startswith("text/event-stream")
    assert manual.app.node.hub.connections == 0
    await client.responses.cancel(first.id)


async def test_one_who_waits_and_leaves_holds_no_place(manual: Served[ManualAgent]) -> None:
    client = await manual.client()
    await client.ask("hi")
    await manual.agent.turn()
    path = f"/v1/sessions/{client.session_id}/events"
    seen = (await get(manual, path, wait="0")).json()

    for _ in range(10):
        waiting = asyncio.create_task(get(manual, path, wait="50", after=seen["after"]))
        await eventually(lambda: manual.app.node.hub.connections == 2)
        waiting.cancel()
        await asyncio.wait((waiting,))
        await eventually(lambda: manual.app.node.hub.connections == 1)

    assert (await get(manual, path, wait="0")).status_code == 200


async def test_a_session_that_waits_in_vain_isnt_a_place_for_bob(manual: Served[ManualAgent]) -> None:
    """He learns nothing, not even by how long it takes: alice's request holds the place meanwhile."""
    alice: Any = await manual.openai("alice")
    bob: Any = await manual.openai("bob")
    first = await alice.responses.create(input="one", background=True, model="default")
    session = first.conversation.id.replace("conv_", "sess_")
    exchanges = manual.app._doors._exchanges

    async with exchanges._gates.through(session):
        with pytest.raises(BadRequestError) as caught:
            await bob.responses.create(input="x", previous_response_id=first.id, model="default")

    assert caught.value.code == "previous_response_not_found"
    await alice.responses.cancel(first.id)


async def test_what_is_unsaid_of_the_model_is_as_the_session_has_it(serve: Serve) -> None:
    served = await serve(ScriptedAgent(), models=("other-model",))
    client: Any = await served.openai()
    realtime = served.stranger()
    await realtime.connect(model="other-model")
    await realtime.ask("one")
    done = await realtime.done()

    second = await client.responses.create(input="two", previous_response_id=done["id"])
    third = await client.responses.create(input="three", previous_response_id=second.id, model="default")

    assert (second.model, third.model) == ("other-model", "scripted")


async def test_strict_readers_find_all_there_is(server: Served[ScriptedAgent]) -> None:
    client: Any = await server.openai()
    response = (await client.responses.create(input="one", model="default")).to_dict()

    for name in ("temperature", "top_p", "presence_penalty", "frequency_penalty"):
        assert isinstance(response[name], int | float)
    for name in ("completed_at", "reasoning", "max_tool_calls", "safety_identifier", "prompt_cache_key"):
        assert response[name] is None
    assert response["truncation"] == "disabled"


async def test_numbers_that_nobody_can_write_break_nothing(server: Served[ScriptedAgent]) -> None:
    raw = await opened(server)
    huge = b'{"type": "response.steer", "previous_response_id": "r", "input": ' + 30 * b"9" + b"}"
    await raw.ws.send(huge.decode())
    assert (await raw.next())["type"] == "response.steer.failed"

    await raw.send(input="hello", stream=True)
    assert (await raw.until("response.completed"))["response"]["status"] == "completed"


async def test_a_body_of_brackets_is_refused_at_once(server: Served[ScriptedAgent]) -> None:
    body = b'{"input": [' + b"[]," * 30_000 + b"1]}"
    async with httpx2.AsyncClient(base_url=f"http://127.0.0.1:{server.port}") as client:
        answer = await client.post("/v1/responses", content=body, headers={"authorization": "Bearer alice"})

    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "invalid_json")


async def test_an_early_end_takes_no_number(manual: Served[ManualAgent]) -> None:
    raw = await opened(manual)
    await raw.send(input="one")
    turn = await manual.agent.turn()
    turn.say("a")
    seen = await raw.until("response.output_text.delta")
    (actor,) = manual.app.node.hub
    actor.feed.restart(type(actor.log)(actor.log.incarnation))

    error = await raw.until("error")

    assert error["error"]["code"] == "response_events_gone"
    assert error.get("sequence_number", seen["sequence_number"]) == seen["sequence_number"]
