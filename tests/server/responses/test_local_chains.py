"""What isn't stored is gone on from on the connection where it was begun, and nowhere else."""

from __future__ import annotations

from typing import Any

import pytest

from tests.server.conftest import Serve
from tests.server.realtime.agent import ManualAgent
from tests.server.realtime.serving import Served, eventually
from tests.server.responses.test_over_websocket import Raw, opened, said
from unbroken.server.agents.base import Message, UpstreamReportedError
from unbroken.server.agents.scripted import ScriptedAgent
from unbroken.server.transports import local_chains
from unbroken.sessions.ids import session_of

UNANSWERABLE = [{"type": "function_call_output", "call_id": "nobodys", "output": "x"}]


async def answered(raw: Raw, text: str = "hello", **fields: Any) -> dict[str, Any]:
    """Ask for what isn't stored, and return the response."""
    await raw.send(input=text, store=False, **fields)
    response: dict[str, Any] = (await raw.until("response.completed"))["response"]
    return response


async def refused(raw: Raw, **fields: Any) -> str:
    """Ask for what can't be had, and return why."""
    await raw.send(**{"input": "and", "store": False, **fields})
    event = await raw.next()
    assert event["type"] == "error"
    code: str = event["error"]["code"]
    return code


async def test_a_chain_goes_on_where_it_was_begun(manual: Served[ManualAgent]) -> None:
    raw = await opened(manual)
    previous = None
    for number, text in enumerate(("one", "two", "three")):
        await raw.send(input=text, store=False, previous_response_id=previous)
        turn = await manual.agent.turn(number)
        turn.say(text.upper())
        turn.end()
        previous = (await raw.until("response.completed"))["response"]["id"]

    read = [item.text for item in manual.agent.turns[-1].given.items if isinstance(item, Message)]
    assert read == ["one", "ONE", "two", "TWO", "three"]


async def test_another_connection_doesnt_go_on(server: Served[ScriptedAgent]) -> None:
    first = await answered(await opened(server))
    again = await opened(server)

    assert await refused(again, previous_response_id=first["id"]) == "previous_response_not_found"
    assert await refused(again, previous_response_id=first["id"], store=True) == "previous_response_not_found"
    session = session_of(first["id"])
    assert session is not None
    named = session.replace("sess_", "conv_")
    assert await refused(again, conversation=named) == "conversation_not_found"
    assert (await answered(again, "recovered"))["status"] == "completed"  # it begins anew


async def test_it_is_as_if_there_never_was_such_a_response(server: Served[ScriptedAgent]) -> None:
    first = await answered(await opened(server))
    again = await opened(server)
    texts = []
    for named in (first["id"], first["id"].translate(str.maketrans("0123456789", "1234567890"))):
        await again.send(input="and", store=False, previous_response_id=named)
        event = await again.next()
        texts.append({**event["error"], "status": event["status"]})

    assert texts[0] == texts[1]


async def test_what_was_begun_over_http_stays_there(server: Served[ScriptedAgent]) -> None:
    client: Any = await server.openai()
    first = await client.responses.create(input="one", store=False, model="default")
    raw = await opened(server)

    assert await refused(raw, previous_response_id=first.id) == "previous_response_not_found"
    second = await client.responses.create(
        input="two", store=False, previous_response_id=first.id, model="default"
    )
    assert second.output_text == "You said: two"


async def test_what_is_stored_is_gone_on_from_anywhere(server: Served[ScriptedAgent]) -> None:
    raw = await opened(server)
    await raw.send(input="one")
    first = (await raw.until("response.completed"))["response"]
    again = await opened(server)

    for _ in range(2):  # also behind one that failed
        assert await refused(again, previous_response_id=first["id"], input=UNANSWERABLE)
        second = await answered(again, "two", previous_response_id=first["id"])
        assert second["output"][0]["content"][0]["text"] == "You said: two"


@pytest.mark.parametrize(
    "wrong",
    [
        {"input": UNANSWERABLE},
        {"model": "other"},
        {"background": True},
        {"input": 5},
        {"stream_id": "no spaces"},
    ],
)
async def test_what_was_refused_isnt_gone_on_from(
    server: Served[ScriptedAgent], wrong: dict[str, Any]
) -> None:
    raw = await opened(server)
    zeroth = await answered(raw, "zero")
    first = await answered(raw, "one", previous_response_id=zeroth["id"])

    code = await refused(raw, previous_response_id=first["id"], **wrong)

    assert code != "previous_response_not_found"
    assert await refused(raw, previous_response_id=first["id"]) == "previous_response_not_found"
    fork = await answered(raw, "fork", previous_response_id=zeroth["id"])  # the one before is
    assert fork["status"] == "completed"


async def test_what_failed_isnt_gone_on_from(manual: Served[ManualAgent]) -> None:
    raw = await opened(manual)
    await raw.send(input="one", store=False)
    turn = await manual.agent.turn()
    turn.say("1")
    turn.end()
    first = (await raw.until("response.completed"))["response"]
    await raw.send(input="two", store=False, previous_response_id=first["id"])
    (await manual.agent.turn(1)).fail(UpstreamReportedError())
    failed = (await raw.until("response.failed"))["response"]

    assert failed["previous_response_id"] == first["id"]
    assert await refused(raw, previous_response_id=first["id"]) == "previous_response_not_found"


async def test_what_was_cut_short_is_gone_on_from(server: Served[ScriptedAgent]) -> None:
    raw = await opened(server)
    first = await answered(raw, "one")
    await raw.send(input="/tokens 90", store=False, previous_response_id=first["id"], max_output_tokens=3)
    await raw.until("response.incomplete")

    assert (await answered(raw, "two", previous_response_id=first["id"]))["status"] == "completed"


async def test_each_lane_has_a_chain_of_its_own(server: Served[ScriptedAgent]) -> None:
    raw = await opened(server)
    first, other = await answered(raw, "a", stream_id="a"), await answered(raw, "b", stream_id="b")

    assert await refused(raw, input=UNANSWERABLE, previous_response_id=first["id"], stream_id="a")
    await answered(raw, "more", stream_id="b", previous_response_id=other["id"])
    code = await refused(raw, previous_response_id=first["id"], stream_id="b")
    assert code == "previous_response_not_found"


async def test_what_is_said_on_is_no_chain(manual: Served[ManualAgent]) -> None:
    """Who comes back sees the response to its end; to go on they begin anew."""
    raw = await opened(manual)
    await raw.send(input="one", store=False)
    turn = await manual.agent.turn()
    turn.say("some ")
    seen = await raw.until("response.output_text.delta")
    response_id = raw.events[0]["response"]["id"]
    await raw.ws.close()
    turn.say("more")
    turn.end()

    again = await opened(manual, **{"continue": f"{response_id}:{seen['sequence_number']}"})
    await again.until("response.completed")

    assert said(raw.events + again.events) == "some more"
    assert await refused(again, previous_response_id=response_id) == "previous_response_not_found"


async def test_a_chain_is_there_as_long_as_its_connection(server: Served[ScriptedAgent]) -> None:
    """A tool may take its time: nobody else would keep what was said until then."""
    raw = await opened(server)
    first = await answered(raw)
    transient = server.app.transient
    for actor in transient.hub:
        actor.last_active -= 3600
    await transient.sweep()

    assert (await answered(raw, "and", previous_response_id=first["id"]))["status"] == "completed"
    await raw.ws.close()
    await eventually(lambda: not transient.hub.connections)


async def test_what_a_connection_knows_is_bounded(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(local_chains, "_MOST", 4)
    server: Served[ScriptedAgent] = await serve(ScriptedAgent())
    raw = await opened(server)
    ids = [(await answered(raw, str(number)))["id"] for number in range(6)]

    assert server.app.transient.hub.connections == 2
    assert await refused(raw, previous_response_id=ids[1]) == "previous_response_not_found"
    assert (await answered(raw, "and", previous_response_id=ids[2]))["status"] == "completed"


async def test_a_chain_that_isnt_stored_is_stored_from_somewhere_on(server: Served[ScriptedAgent]) -> None:
    raw = await opened(server)
    first = await answered(raw, "one")
    await raw.send(input="two", previous_response_id=first["id"])
    second = (await raw.until("response.completed"))["response"]

    again = await opened(server)
    third = await answered(again, "three", previous_response_id=second["id"])
    assert third["status"] == "completed"


async def test_a_chain_is_named_as_a_conversation_too(server: Served[ScriptedAgent]) -> None:
    raw = await opened(server)
    session = session_of((await answered(raw, "one"))["id"])
    assert session is not None

    named = session.replace("sess_", "conv_")
    assert (await answered(raw, "two", conversation=named))["status"] == "completed"
