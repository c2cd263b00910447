"""Quotas over real doors, named after what has gone wrong with them elsewhere (F1 to F10)."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import json
import math
import socket
from collections.abc import AsyncIterator
from typing import Any

import httpx2
import pytest
import pytest_asyncio
import uvicorn
from pydantic import SecretStr
from websockets.exceptions import InvalidStatus

from tests.fakes.store import DistantStore
from tests.server.realtime.agent import HeldTurn, ManualAgent
from tests.server.realtime.client import Client
from tests.server.realtime.official import speaking
from tests.server.realtime.serving import Served, eventually, serving
from unbroken.server import door_selection, store_selection
from unbroken.server.agents.base import Usage
from unbroken.server.agents.scripted import ScriptedAgent
from unbroken.server.config import Settings
from unbroken.server.limits import ConnectionLimits
from unbroken.server.quota.base import Scope
from unbroken.server.quota.gate import Gate
from unbroken.server.usage_command import ask_for_usage
from unbroken.sessions.backends.memory import MemoryStore
from unbroken.sessions.ids import SessionId

PLAN = {"requests_per_minute": 3, "tokens_per_day": 4000, "turns": 2}


@pytest_asyncio.fixture
async def door() -> AsyncIterator[Served[ManualAgent]]:
    async with serving(ManualAgent(), quotas={"default": PLAN}, concurrency="queue") as door:
        yield door
        await stopped(door)


async def stopped(door: Served[ManualAgent]) -> None:
    await door.hang_up()
    while door.app.node.hub.running:
        for turn in door.agent.turns:
            turn.end()
        await asyncio.sleep(0)
    await door.idle()


def gate(door: Served[ManualAgent]) -> Gate:
    assert door.app.gate is not None
    return door.app.gate


async def used(door: Served[ManualAgent]) -> dict[str, int]:
    """Return what the tenant has used, once everything has been settled."""
    await gate(door).settled()
    return dict((await gate(door).ledger.look("default", [Scope("t")]))[0])


async def turn(door: Served[ManualAgent], number: int) -> HeldTurn:
    await eventually(lambda: len(door.agent.turns) > number)
    return door.agent.turns[number]


async def answered(door: Served[ManualAgent], client: Client, number: int, usage: Usage | None) -> Any:
    held = await turn(door, number)
    held.say("four", *([] if usage is None else [usage]))
    held.end()
    return await client.done()


async def test_each_message_counts_and_not_the_handshake_alone(door: Served[ManualAgent]) -> None:
    """F5: on one connection. The refusal is an ordinary error, and the connection goes on."""
    client = await door.client()
    for number in range(3):
        await client.ask("hello")
        await answered(door, client, number, Usage(10, 5))
    await client.send({"type": "response.create", "event_id": "mine"})
    error = await client.error()

    assert (error["type"], error["code"], error["event_id"]) == (
        "rate_limit_error",
        "rate_limit_exceeded",
        "mine",
    )
    assert 0 < error["unbroken"]["retry_after"] <= 65
    assert (await used(door))["rm"] == 3
    assert client.of("rate_limits.updated")[-1]["rate_limits"][0]["remaining"] == 0


async def test_a_stream_counts_what_its_provider_says(door: Served[ManualAgent]) -> None:
    """F2, and the records sum to the counters, and to the log."""
    client = await door.client()
    for number, usage in enumerate((Usage(100, 50), Usage(7, 3), None)):
        await client.ask("hello")
        await answered(door, client, number, usage)
    counted = await used(door)
    records = await gate(door).ledger.records("default", 10)
    dones = client.of("response.done")
    assert counted["td"] == sum(record.tokens for record in records)
    assert counted["rd"] == len(records) == len(dones) == 3
    assert [d["response"]["id"] for d in dones] == [r.response_id for r in reversed(records)]
    assert counted["turns"] == 0
    told = [d["response"]["usage"]["total_tokens"] for d in dones if "usage" in d["response"]]
    assert told == [150, 10]
    assert sorted(r.tokens for r in records if not r.is_estimate) == sorted(told)


async def test_one_oversized_request_is_refused_up_front(door: Served[ManualAgent]) -> None:
    """F3."""
    client = await door.client()
    await client.ask("x" * 20_000)
    assert (await client.error())["code"] == "request_exceeds_quota"

    assert not door.agent.turns
    assert (await used(door))["rd"] == 0


async def test_a_budget_that_runs_out_in_mid_answer_ends_it_gracefully(door: Served[ManualAgent]) -> None:
    """F4: what was said is kept."""
    client = await door.client()
    await client.ask("hello")
    held = await turn(door, 0)
    for _ in range(20):
        held.say("word " * 200)
    done = await client.done()

    assert done["status"] == "incomplete"
    assert done["status_details"]["reason"] == "max_output_tokens"
    assert done["unbroken"]["reason"] == "quota_exceeded"
    text = done["output"][0]["content"][0]["text"]
    assert "word word" in text
    await held.closed.wait()
    counted = await used(door)
    assert len(text) // 4 <= counted["td"] <= 4000


async def test_cancelled_failed_and_refused_turns_give_back(door: Served[ManualAgent]) -> None:
    """F6, F10."""
    client = await door.client()
    await client.ask("hello")
    held = await turn(door, 0)
    await client.until("response.created")
    await client.cancel()
    await client.done()
    sent = (await used(door))["td"]
    assert 0 < sent < 20, "nothing was said, but the agent had been asked"

    await client.send({"type": "response.create", "event_id": "again"})
    (await turn(door, 1)).fail(RuntimeError("broken"))
    await client.done()
    assert held.was_stopped
    counted = await used(door)
    assert (counted["td"], counted["turns"], counted["rd"]) == (sent, 0, 2)

    await client.send({"type": "response.create", "event_id": "again"})  # it was taken already
    await client.sync()
    await gate(door).settled()
    assert (await used(door))["rd"] == 2


async def test_a_cancelled_answer_is_counted_as_far_as_it_was_said(door: Served[ManualAgent]) -> None:
    client = await door.client()
    await client.ask("hello")
    (await turn(door, 0)).say("eight ch" * 10)
    await client.until("response.output_text.delta")
    await client.cancel()
    await client.done()
    records = await gate(door).ledger.records("default", 10) if await used(door) else []

    assert records[0].output_tokens == 20
    assert records[0].is_estimate
    assert (await used(door))["td"] == records[0].tokens


async def test_whoever_is_left_with_a_call_that_fails_is_told_no_bill() -> None:
    """Its end said that it was billed nothing, and its record what was estimated."""
    async with serving(ManualAgent(), quotas={"default": PLAN}, cache="on") as door:
        one, two = await door.client(), await door.client()
        await one.ask("hello")
        held = await turn(door, 0)
        await two.ask("hello")
        held.say("eight ch")
        await one.said("eight ch")
        await two.said("eight ch")
        await one.cancel()
        await one.done()
        held.fail(RuntimeError("broken"))
        done = await two.done()
        await gate(door).settled()
        record = (await gate(door).ledger.records("default", 10))[0]

    assert (done["status"], record.status) == ("failed", "failed")
    assert record.is_estimate
    assert record.tokens > 0
    assert not record.reused
    assert "usage" not in done
    assert "cache" not in done["unbroken"]


async def test_turns_at_once_are_bounded_on_all_connections(door: Served[ManualAgent]) -> None:
    """F8."""
    one, two = await door.client(), await door.client()
    await one.ask("hello")
    await one.ask("hello")
    await one.sync()
    await two.ask("hello")
    assert (await two.error())["code"] == "too_many_responses"


async def test_the_gate_knows_what_waits_behind_the_turn_that_runs(door: Served[ManualAgent]) -> None:
    """It holds that too, for as long as it waits."""
    client = await door.client()
    await client.ask("hello")
    await client.until("response.created")
    await client.ask("hello")
    await client.sync()
    waiting = gate(door)._renewals._waiting(SessionId(client.session_id or ""))
    assert len(waiting) == 1

    for number in range(2):
        await answered(door, client, number, Usage(1, 1))
    assert gate(door)._renewals._waiting(SessionId(client.session_id or "")) == []


async def test_what_is_sent_twice_is_not_refused_at_the_limit(door: Served[ManualAgent]) -> None:
    """F10: its budget was reserved before."""
    client = await door.client()
    await client.say("hello")
    for number in range(3):
        await client.send({"type": "response.create", "event_id": f"ask{number}"})
        await answered(door, client, number, Usage(1, 1))
    await client.send({"type": "response.create", "event_id": "ask2"})
    await client.sync()

    assert client.errors() == ["item_not_found"], "which is what sync asks for"
    assert (await used(door))["rd"] == 3


async def test_what_the_log_refuses_gives_its_request_back() -> None:
    async with serving(ManualAgent(), quotas={"default": PLAN}) as door:
        client = await door.client()
        await client.ask("hello")
        await client.until("response.created")
        await client.send({"type": "response.create"})
        assert (await client.error())["code"] == "conversation_already_has_active_response"
        counted = await used(door)
        assert (counted["rd"], counted["turns"]) == (1, 1)
        await stopped(door)


@pytest.fixture
def store(monkeypatch: pytest.MonkeyPatch) -> DistantStore:
    distant = DistantStore(MemoryStore(), 3)
    monkeypatch.setattr(store_selection, "MemoryStore", lambda **_: distant)
    return distant


async def test_a_request_that_was_written_though_nobody_heard_of_it_counts_once(store: DistantStore) -> None:
    """It may run: giving its budget back would be for nothing, and twice. Nor does it lock out the next."""
    async with serving(ManualAgent(), quotas={"default": PLAN}, store_strict=True) as door:
        client = await door.client()
        await client.say("hello")
        await client.sync()
        store.loses_answers = True
        await client.send({"type": "response.create", "event_id": "mine"})
        assert (await client.error())["code"] == "store_unavailable"
        store.loses_answers = False
        await client.send({"type": "response.create", "event_id": "mine"})
        await answered(door, client, 0, Usage(10, 5))

        counted = await used(door)
        assert (counted["rd"], counted["td"], counted["turns"]) == (1, 15, 0)


async def test_a_request_that_was_not_written_for_sure_is_none() -> None:
    plan = {"requests_per_minute": 3, "turns": 2}
    async with serving(ManualAgent(), quotas={"default": plan}, responses_per_principal=1) as door:
        client, other = await door.client(), await door.client()
        await client.ask("hello")
        await client.until("response.created")
        for _ in range(5):
            await other.send({"type": "response.create"})
            error = await other.error()
            assert error["code"] == "too_many_responses"
            assert "UNBROKEN" not in error["message"]
            counted = await used(door)
            assert (counted["rm"], counted["turns"]) == (1, 1)
        await stopped(door)


async def test_who_is_cut_off_in_the_middle_of_a_request_pays_for_it(
    store: DistantStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Again and again: it would be a way around every limit if hanging up gave budgets back."""
    monkeypatch.setattr(
        door_selection, "ConnectionLimits", functools.partial(ConnectionLimits, close_timeout=0.0)
    )
    async with serving(ManualAgent(), quotas={"default": {"requests_per_day": 5}}) as door:
        client = await door.client()
        await client.ask("hello")
        await answered(door, client, 0, Usage(1, 1))
        for number in range(1, 5):
            await client.say("hello")
            await client.sync()
            written = asyncio.Event()
            submit, hold = store.submit, asyncio.Event()

            async def late(*args: Any, submit: Any = submit, hold: Any = hold, written: Any = written) -> Any:
                receipt = await submit(*args)
                written.set()
                await hold.wait()
                return receipt

            store.submit = late  # type: ignore[assignment,method-assign]
            await client.send({"type": "response.create"})
            await written.wait()
            store.submit = submit  # type: ignore[method-assign]
            await client.drop()
            await door.no_connections()
            hold.set()
            held = await turn(door, number)
            held.say("four", Usage(1, 1))
            held.end()
            await client.resume()
        await client.ask("hello")
        assert (await client.error())["code"] == "quota_exceeded"
        counted = await used(door)
        assert (counted["rd"], counted["td"]) == (5, 10)


async def test_who_is_connected_or_has_a_response_that_runs_is_known(door: Served[ManualAgent]) -> None:
    """However many others come meanwhile: policies ask whose turn it is, at any time."""
    presence = door.app.auth.directory
    client = await door.client()
    assert presence.present == 1
    await client.ask("hello")
    held = await turn(door, 0)
    await client.drop()
    await door.no_connections()
    assert presence.present == 1, "their response runs"
    held.end()
    await door.idle()
    assert presence.present == 0


async def test_in_the_shadow_nobody_is_refused() -> None:
    plan = {"requests_per_minute": 1}
    async with serving(ManualAgent(), quotas={"default": plan}, quota_mode="shadow") as door:
        client = await door.client()
        for number in range(2):
            await client.ask("hello")
            await answered(door, client, number, Usage(1, 1))
        labels = {"outcome": "would_deny"}
        value = door.app.metrics.registry.get_sample_value("unbroken_quota_decisions_total", labels)
        assert value == 1
        assert client.errors() == []
        assert client.of("rate_limits.updated") == [], "none holds"


@pytest.mark.client("openai-python", "quota")
async def test_an_official_client_sees_an_ordinary_error_and_its_usage(door: Served[ManualAgent]) -> None:
    openai = await door.openai()
    async with openai.realtime.connect(model="manual") as connection:
        item: Any = {
            "type": "message",
            "role": "user",
            "content": [{"type": "input_text", "text": "y" * 20_000}],
        }
        await connection.conversation.item.create(item=item)
        await connection.response.create()
        async with asyncio.timeout(10):
            async for event in connection:
                if event.type == "error":
                    assert (event.error.type, event.error.code) == (
                        "rate_limit_error",
                        "request_exceeds_quota",
                    )
                    break
    response = await openai.get("/usage", cast_to=object, options={})
    assert isinstance(response, dict)
    assert response["usage"]["requests_per_minute"] == {"used": 0, "limit": 3}


async def test_headers_of_usage_say_when_it_is_free_again(door: Served[ManualAgent]) -> None:
    """As ``rate_limits.updated`` says it, of the same limits."""
    client = await door.client()
    await client.ask("hello")
    (limits,) = [(await client.until("rate_limits.updated"))["rate_limits"]]
    async with httpx2.AsyncClient(trust_env=False) as http:
        url = f"http://127.0.0.1:{door.port}/v1/usage"
        headers = (await http.get(url, headers={"Authorization": "Bearer alice"})).headers
    for limit in limits:
        name = limit["name"]
        assert headers[f"x-ratelimit-limit-{name}"] == str(limit["limit"])
        assert headers[f"x-ratelimit-remaining-{name}"] == str(limit["remaining"])
        told = headers[f"x-ratelimit-reset-{name}"]
        assert told.endswith("s")
        assert 0 < int(told.removesuffix("s")) <= math.ceil(limit["reset_seconds"])


async def test_headers_of_usage_tell_of_the_address_that_asks() -> None:
    plan = {"requests_per_minute": 100, "address_requests_per_minute": 5}
    async with (
        serving(ManualAgent(), quotas={"default": plan}, trusted_proxies=("127.0.0.1",)) as door,
        httpx2.AsyncClient(trust_env=False) as http,
    ):
        given = {"Authorization": "Bearer alice", "X-Forwarded-For": "203.0.113.1"}
        answer = await http.get(f"http://127.0.0.1:{door.port}/v1/usage", headers=given)

    assert answer.headers["x-ratelimit-limit-requests"] == "5"
    assert [each["limit"] for each in answer.json()["rate_limits"]] == [5]


async def test_an_official_client_that_is_too_fast_sees_an_ordinary_error_and_goes_on() -> None:
    async with (
        serving(ScriptedAgent(), quotas={"default": {"requests_per_minute": 1}}) as door,
        speaking(await door.openai()) as official,
    ):
        for text in ("one", "two"):
            await official.say(text)
            await official.connection.response.create()
            if text == "one":
                assert (await official.done())["status"] == "completed"
        error = await official.error()
        assert (error["type"], error["code"]) == ("rate_limit_error", "rate_limit_exceeded")
        assert "Send this again in" in error["message"]
        assert 0 < error["unbroken"]["retry_after"] <= 65
        (limits,) = [f["rate_limits"] for f in official.frames if f["type"] == "rate_limits.updated"]
        assert [(each["name"], each["limit"], each["remaining"]) for each in limits] == [("requests", 1, 0)]
        await official.say("and on")
        await official.until("conversation.item.done")


async def test_an_official_client_with_as_many_connections_as_its_plan_has_sees_an_ordinary_429() -> None:
    async with serving(ScriptedAgent(), quotas={"default": {"connections": 1}}) as door:
        openai = await door.openai()
        async with speaking(openai):
            with pytest.raises(InvalidStatus) as refused:
                async with openai.realtime.connect(model="default"):
                    pass
        response = refused.value.response
        assert response.status_code == 429
        assert int(response.headers["Retry-After"]) > 0
        assert json.loads(response.body)["error"]["code"] == "too_many_connections_of_key"


async def test_the_operator_is_told_what_a_tenant_has_used() -> None:
    key = "k" * 32
    async with serving(ManualAgent(), quotas={"default": PLAN}, admin_key=key) as door:
        client = await door.client()
        await client.ask("hello")
        await answered(door, client, 0, Usage(10, 5))
        await gate(door).settled()
        whose = (await gate(door).ledger.records("default", 1))[0].user
        with contextlib.closing(socket.create_server(("127.0.0.1", 0))) as listener:
            config = uvicorn.Config(door.app.admin_asgi, log_config=None, lifespan="off")
            server = uvicorn.Server(config)
            task = asyncio.create_task(server.serve([listener]))
            await eventually(lambda: server.started)
            url = f"http://127.0.0.1:{listener.getsockname()[1]}"
            settings = Settings(admin_key=SecretStr(key))

            def told(user: str | None) -> list[str]:
                return list(ask_for_usage(settings, url=url, tenant="default", user=user, most=5))

            asked = [asyncio.to_thread(told, user) for user in (None, whose, "bob")]
            lines, of_user, of_nobody = await asyncio.gather(*asked)
            server.should_exit = True
            await task
    assert "tokens_per_day       15" in lines
    assert "10+5" in lines[-1]
    assert of_user == lines, "there is but this one"
    assert [line.split()[1:] for line in of_nobody] == [["0"]] * 6, "a key's would be key:bob"
