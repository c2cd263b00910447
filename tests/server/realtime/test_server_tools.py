"""The server's own tools, from the wire's side."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from tests.fakes.agent import FakeAgent
from tests.fakes.upstream import FakeUpstream
from tests.server.realtime.agent import ManualAgent
from tests.server.realtime.client import WAIT
from tests.server.realtime.desk import LOCAL, at_desk, outputs_of
from tests.server.realtime.official import speaking
from tests.server.realtime.test_browser_security import ANONYMOUS
from tests.server.realtime.test_client_secrets import KEYS, SHOP, issued
from unbroken.server.agents.base import (
    FunctionCall,
    FunctionCallPiece,
    FunctionOutput,
    Message,
    UpstreamUnavailable,
    Usage,
)
from unbroken.server.agents.fallback import FallbackAgent, Member
from unbroken.server.agents.openai import OpenAIAgent
from unbroken.server.agents.responses import ResponsesAgent
from unbroken.server.agents.upstream import Upstream
from unbroken.server.app import build
from unbroken.server.config import Settings, StartupError
from unbroken.server.quota.base import Scope
from unbroken.sessions.clock import SystemClock


async def test_a_tool_is_run_and_its_result_answered() -> None:
    async with at_desk() as (desk, served):
        client = await served.client()
        await client.ask('/say Let me see.\n/call weather {"city": "Ulm"}')
        response = await client.done()

    said, call, answer = response["output"]
    assert said["content"][0]["text"] == "Let me see."
    assert call == {
        "id": desk.runs[0][1],
        "type": "mcp_call",
        "server_label": "tools",
        "name": "weather",
        "arguments": '{"city": "Ulm"}',
        "output": "Rain in Ulm.",
    }
    assert answer["content"][0]["text"] == "Returned: Rain in Ulm."
    kinds = [kind for kind in client.types() if "mcp_call" in kind]
    assert list(dict.fromkeys(kinds)) == [
        "response.mcp_call_arguments.delta",
        "response.mcp_call_arguments.done",
        "response.mcp_call.in_progress",
        "response.mcp_call.completed",
    ]
    assert client.answers() == [("completed", "Let me see.Returned: Rain in Ulm.")]


async def test_several_rounds_make_one_response_and_one_bill() -> None:
    script = '/call weather {"city": "Ulm"}\n/call weather {"city": "Bern"}\n/then\n/say So.\n'
    script += '/call weather {"city": "Rom"}\n/then\n/say Done.'
    async with at_desk() as (desk, served):
        client = await served.client()
        await client.ask(script)
        response = await client.done()

    assert [item["output"] for item in outputs_of(response, "mcp_call")] == [
        "Rain in Ulm.",
        "Rain in Bern.",
        "Rain in Rom.",
    ]
    assert len({key for _, key in desk.runs}) == 3
    assert client.answers() == [("completed", "So.Done.")]
    assert len(client.of("response.created")) == 1
    pieces = sum(len(client.of(f"response.{kind}.delta")) for kind in ("output_text", "mcp_call_arguments"))
    assert response["usage"]["output_tokens"] == pieces + 3, "each round's bill; a call's beginning counts"
    assert served.agent.calls == 3


ERRORS = {
    "broken": "The tool failed unexpectedly.",
    "failing": "No such city.",
    "careless": "No city.",
    "slow": "The tool didn't end within 0.01 seconds. It may have done its work.",
    'weather {"city": 5}': "The arguments don't fit, nothing was done. city: Input should be a valid string",
    'weather {"town": "x"}': (
        "The arguments don't fit, nothing was done. "
        "city: Field required; town: Extra inputs are not permitted"
    ),
    "weather [": "The arguments aren't JSON. Nothing was done.",
    "weather []": "The arguments aren't a JSON object. Nothing was done.",
}


@pytest.mark.parametrize("call", ERRORS)
async def test_an_error_is_something_to_go_on_with(call: str) -> None:
    async with at_desk() as (_, served):
        client = await served.client()
        await client.ask(f"/call {call}")
        (failed, answer) = (await client.done())["output"]
        await client.ask("And now?")
        await client.done()

    assert failed["error"] == {"type": "tool_execution_error", "message": ERRORS[call]}
    assert failed["output"] is None
    assert answer["content"][0]["text"] == f"Returned: Error: {ERRORS[call]}"
    assert len(client.of("response.mcp_call.failed")) == 1
    assert [status for status, _ in client.answers()] == ["completed", "completed"]


async def test_a_result_has_a_size() -> None:
    async with at_desk() as (_, served):
        client = await served.client()
        await client.ask("/call large")
        (call,) = outputs_of(await client.done(), "mcp_call")

    assert len(call["output"].encode()) <= 256
    assert call["output"].startswith('{"text":"éé')
    assert call["output"].endswith("\n[cut here: the result has 2011 bytes]")


async def test_who_calls_for_ever_is_stopped() -> None:
    async with at_desk(tool_rounds=3) as (desk, served):
        client = await served.client()
        await client.ask('/insist weather {"city": "Ulm"}')
        response = await client.done()

    assert len(desk.runs) == 3
    assert response["status_details"]["error"]["code"] == "too_many_tool_rounds"
    *done, last = outputs_of(response, "mcp_call")
    assert [item["output"] for item in done] == 3 * ["Rain in Ulm."]
    assert last["error"]["message"] == "The tool was not run: the response ended first."
    client.answers()


async def test_the_last_round_is_told_to_answer() -> None:
    agent = ManualAgent()
    async with at_desk(agent, tool_rounds=1, max_output_tokens=10) as (_, served):
        client = await served.client()
        await client.send(
            {"type": "session.update", "session": {"type": "realtime", "tool_choice": "required"}}
        )
        await client.ask("go")
        first = await agent.turn()
        first.say(FunctionCallPiece(0, '{"city": "Ulm"}', "k", "weather"), Usage(3, 4, 1))
        first.end()
        second = await agent.turn(1)
        second.say("Well.", Usage(5, 6))
        second.end()
        response = await client.done()

    assert "weather" in [each.name for each in first.given.tools]
    assert (first.given.tool_choice, second.given.tool_choice) == ("required", "none")
    assert (first.given.max_output_tokens, second.given.max_output_tokens) == (10, 6)
    assert second.given.response_id != first.given.response_id, "another request, under another key"
    usage = response["usage"]
    assert (usage["input_tokens"], usage["output_tokens"]) == (8, 10)
    assert usage["input_token_details"]["cached_tokens"] == 1


async def test_a_round_that_fails_behind_its_bill_is_paid_for() -> None:
    agent = ManualAgent()
    async with at_desk(agent) as (_, served):
        client = await served.client()
        await client.ask("go")
        (first := await agent.turn()).say(
            FunctionCallPiece(0, '{"city": "Ulm"}', "k", "weather"), Usage(3, 4)
        )
        first.end()
        (second := await agent.turn(1)).say("Well.", Usage(5, 6))
        second.fail(UpstreamUnavailable())
        response = await client.done()

    assert response["status"] == "failed"
    assert (response["usage"]["input_tokens"], response["usage"]["output_tokens"]) == (8, 10)


async def test_more_calls_than_may_run_at_once_are_not_run() -> None:
    async with at_desk(tool_calls=2) as (desk, served):
        client = await served.client()
        await client.ask("\n".join(f'/call weather {{"city": "{n}"}}' for n in range(4)))
        calls = outputs_of(await client.done(), "mcp_call")

    assert len(desk.runs) == 2
    assert [call["output"] is not None for call in calls] == [True, True, False, False]
    assert calls[3]["error"]["message"] == "Not run: no more than 2 tools run at once."


async def test_client_and_server_both_have_something_to_do() -> None:
    async with at_desk() as (desk, served):
        client = await served.client()
        await client.send({"type": "session.update", "session": {"type": "realtime", "tools": [LOCAL]}})
        await client.ask('/call get_time\n/call weather {"city": "Ulm"}')
        response = await client.done()
        (own,), (theirs,) = outputs_of(response, "function_call"), outputs_of(response, "mcp_call")
        item = {"type": "function_call_output", "call_id": own["call_id"], "output": "noon"}
        await client.send({"type": "conversation.item.create", "item": item}, {"type": "response.create"})
        (answer,) = (await client.done())["output"]

    assert theirs["output"] == "Rain in Ulm."
    assert len(desk.runs) == 1
    assert answer["content"][0]["text"] == "Returned: Rain in Ulm., noon"
    client.answers()


async def test_a_clients_function_of_the_same_name_is_the_clients() -> None:
    mine = {"type": "function", "name": "weather"}
    async with at_desk() as (desk, served):
        client = await served.client()
        await client.send({"type": "session.update", "session": {"type": "realtime", "tools": [mine]}})
        await client.ask("/call weather")
        (call,) = (await client.done())["output"]
        await client.ask('/call tools__weather {"city": "Ulm"}')
        theirs, _ = (await client.done())["output"]

    assert call["type"] == "function_call"
    assert (theirs["type"], theirs["output"]) == ("mcp_call", "Rain in Ulm.")
    assert len(desk.runs) == 1


async def test_a_clients_call_cant_have_the_id_of_a_tools_call() -> None:
    """Models are shown both as function calls: the client's output would stand for the tool's result."""
    async with at_desk() as (_, served):
        client = await served.client()
        await client.ask('/call weather {"city": "Ulm"}')
        (call, _) = (await client.done())["output"]
        item = {"type": "function_call", "call_id": call["id"], "name": "f", "arguments": "{}"}
        await client.send({"type": "conversation.item.create", "item": item})
        error = await client.error()

    assert (error["code"], error["param"]) == ("item_id_taken", "item.call_id")


async def test_no_tools_are_called_where_none_are_wanted() -> None:
    agent = ManualAgent()
    async with at_desk(agent) as (_, served):
        client = await served.client()
        await client.ask("go", tool_choice="none")
        (turn := await agent.turn()).end()
        await client.done()

    assert turn.given.tool_choice == "none"


async def test_cancelling_stops_the_tool_and_nobody_runs_it_again() -> None:
    async with at_desk() as (desk, served):
        client = await served.client()
        await client.ask("/call hanging\n/call failing")
        await desk.begun.wait()
        await client.until("response.mcp_call.failed")
        await client.cancel()
        response = await client.done()
        async with asyncio.timeout(WAIT):
            await desk.stopped.wait()
        await client.ask("And now?")
        await client.done()

    assert response["status"] == "cancelled"
    hanging, failing = outputs_of(response, "mcp_call")
    assert "It may have done its work" in hanging["error"]["message"]
    assert failing["error"]["message"] == "No such city."
    assert [name for name, _ in desk.runs] == ["hanging", "failing"]
    client.answers()


async def test_models_are_told_that_a_result_is_unknown() -> None:
    agent = ManualAgent()
    async with at_desk(agent) as (desk, served):
        client = await served.client()
        await client.ask("go")
        (turn := await agent.turn()).say(FunctionCallPiece(0, "{}", "k", "hanging"))
        turn.end()
        await desk.begun.wait()
        await client.cancel()
        await client.done()
        await client.ask("And now?")
        (later := await agent.turn(1)).end()
        await client.done()

    question, call, output, again = later.given.items
    assert isinstance(question, Message)
    assert isinstance(call, FunctionCall)
    assert isinstance(output, FunctionOutput)
    assert (call.name, call.call_id) == ("hanging", output.call_id)
    assert output.output.startswith("Error: The result isn't known")
    assert isinstance(again, Message)


async def test_resuming_from_any_frame_and_from_none() -> None:
    async with at_desk() as (desk, served):
        client = await served.client()
        await client.ask('/say One\n/call weather {"city": "Ulm"}\n/call hanging')
        await desk.begun.wait()
        while not client.of("response.mcp_call.completed"):
            await client.next()
        seen = list(client.frames)
        late = served.stranger(token=client.token)
        await late.resume(after="event_00000000")
        await client.cancel()
        await client.done()
        await late.done()
        for place in range(1, len(seen)):
            other = served.stranger(token=client.token)
            await other.resume(after=seen[place]["event_id"])
            await other.done()
            assert other.frames[1:] == client.frames[place + 1 :]
            await other.close()

    assert late.resumed is False
    assert late.answers() == client.answers() == [("cancelled", "One")]
    assert late.of("response.done") == client.of("response.done")
    assert len(late.of("response.mcp_call.in_progress")) == 2


async def test_halves_of_an_emoji_are_joined_for_the_tool_and_the_next_round() -> None:
    """Some upstreams cut them apart; what can't be written as UTF-8 no upstream could be sent."""
    agent = ManualAgent()
    async with at_desk(agent) as (_, served):
        client = await served.client()
        await client.ask("go")
        turn = await agent.turn()
        turn.say("One \ud83d", "\ude00.", FunctionCallPiece(0, '{"city": "\ud83d', "k", "weather"))
        turn.say(FunctionCallPiece(0, '\ude00"}'))
        turn.end()
        (later := await agent.turn(1)).end()
        _, call = (await client.done())["output"]

    assert call["output"] == "Rain in \U0001f600."
    _, said, called, _ = later.given.items
    assert isinstance(said, Message)
    assert isinstance(called, FunctionCall)
    assert (said.text, called.arguments) == ("One \U0001f600.", '{"city": "\U0001f600"}')


async def test_no_arguments_are_shown_as_none() -> None:
    """Clients and upstreams read them as JSON."""
    agent = ManualAgent()
    async with at_desk(agent) as (_, served):
        client = await served.client()
        await client.ask("go")
        turn = await agent.turn()
        turn.say(FunctionCallPiece(0, "", "k", "failing"), FunctionCallPiece(1, "", "l", "mail"))
        turn.end()
        call, request = (await client.done())["output"]

    assert (call["arguments"], request["arguments"]) == ("{}", "{}")
    client.answers()


async def test_models_are_never_shown_half_of_their_arguments() -> None:
    """Some upstreams read those of earlier calls, and would refuse the conversation for ever."""
    agent = ManualAgent()
    async with at_desk(agent) as (_, served):
        client = await served.client()
        await client.ask("go")
        (await agent.turn()).say(FunctionCallPiece(0, '{"ci', "k", "weather"))
        await client.until("response.mcp_call_arguments.delta")
        await client.cancel()
        await client.done()
        await client.ask("And now?")
        (later := await agent.turn(1)).end()
        await client.done()

    _, call, output, _ = later.given.items
    assert isinstance(call, FunctionCall)
    assert isinstance(output, FunctionOutput)
    assert call.arguments == "{}"
    assert "was not run" in output.output


# Upstreams, and the official client.


@pytest.mark.parametrize("kind", [OpenAIAgent, ResponsesAgent])
async def test_the_official_client_and_an_upstream(kind: type[OpenAIAgent | ResponsesAgent]) -> None:
    async with FakeUpstream() as upstream:
        upstream.call(("weather", '{"city": "Ulm"}'), ("weather", "{}"), text="One moment.")
        upstream.call(("mail", '{"to": "Ada"}'))
        upstream.answer("Sent.")
        agent = kind(Upstream(base_url=upstream.base_url, api_key="k", max_retries=0), model="m")
        async with at_desk(agent) as (desk, served), speaking(await served.openai()) as official:
            await official.ask("How is it?")
            first = await official.done()
            (request,) = outputs_of(first, "mcp_approval_request")
            await official.connection.conversation.item.create(
                item={
                    "type": "mcp_approval_response",
                    "id": "yes",
                    "approval_request_id": request["id"],
                    "approve": True,
                }
            )
            await official.connection.response.create()
            await official.done()

    assert [name for name, _ in desk.runs] == ["weather", "mail"]
    assert official.answers() == [("completed", "One moment."), ("completed", "Sent.")]
    last: Any = upstream.requests[2].json
    keys = {request.headers["idempotency-key"] for request in upstream.requests}
    assert len(keys) == 3
    assert "get the weather" not in json.dumps(last)
    if kind is OpenAIAgent:
        roles = [message["role"] for message in last["messages"]]
        assert roles == ["user", "assistant", "tool", "assistant", "tool", "assistant", "tool"]
        assert last["messages"][2]["content"] == "Rain in Ulm."
        assert last["messages"][-1]["content"] == "Sent to Ada."
        assert last["tools"][0]["function"]["name"] == "weather"
    else:
        kinds = [item.get("type", "message") for item in last["input"]]
        assert kinds == [*2 * ["message"], *3 * ["function_call", "function_call_output"]]
        assert last["input"][-1]["output"] == "Sent to Ada."


async def test_rounds_of_one_response_have_one_author() -> None:
    """Once a call has been shown, no other agent goes on, not even before the first piece of a round."""
    first = FakeAgent([FunctionCallPiece(0, '{"city": "Ulm"}', "k", "weather")], [UpstreamUnavailable()])
    second = FakeAgent(["never"])
    members = [Member(name="a", agent=first), Member(name="b", agent=second)]
    async with at_desk(FallbackAgent(members, SystemClock())) as (desk, served):
        client = await served.client()
        await client.ask("go")
        response = await client.done()

    assert response["status_details"]["error"]["code"] == "upstream_unavailable"
    assert len(desk.runs) == 1
    client.answers()


async def test_settings_name_the_tools(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "desk_tools.py").write_text("async def noon() -> str:\n    return '12:00'\n")
    monkeypatch.chdir(tmp_path)
    app = build(Settings(agent="scripted", port=0, admin_port=0, tools=("desk_tools:noon",)))
    async with app:
        names = list(app.catalogue.offers((), may_ask=True))
    bad = build(Settings(agent="scripted", port=0, admin_port=0, tools=("desk_tools:midnight",)))
    with pytest.raises(StartupError, match=r"UNBROKEN_TOOLS \(desk_tools:midnight\): .* has no 'midnight'"):
        async with bad:
            pass

    assert names == ["noon"]


async def test_a_key_that_settles_its_tools_has_no_others() -> None:
    async with at_desk(api_keys=KEYS) as (desk, served):
        key = await issued(served, {"session": {"type": "realtime", "tools": []}})
        client = await served.client(key)
        await client.ask('/call weather {"city": "Ulm"}')
        await client.done()
        assert not desk.runs


async def test_strangers_have_none_of_the_server_s_tools() -> None:
    async with at_desk(**ANONYMOUS) as (desk, served):
        stranger = served.stranger()
        key = await issued(served, key=None, origin=SHOP)
        await stranger.connect(headers={"Authorization": f"Bearer {key}", "Origin": SHOP})
        await stranger.ask('/call weather {"city": "Ulm"}')
        await stranger.done()
        assert not desk.runs


async def test_strangers_have_none_whatever_they_change_that_they_may() -> None:
    """Neither is a tool offered to the agent, nor is one run that it calls all the same."""
    async with at_desk(ManualAgent(), **ANONYMOUS) as (desk, served):
        stranger = served.stranger()
        key = await issued(served, key=None, origin=SHOP)
        headers = {"Authorization": f"Bearer {key}", "Origin": SHOP}
        await stranger.connect(headers=headers)
        changes: list[dict[str, Any]] = [{}, {"max_output_tokens": 20}, {"tools": []}]
        for change in changes:
            await stranger.send({"type": "session.update", "session": {"type": "realtime", **change}})
            await stranger.until("session.updated")
        await stranger.connect(headers=headers, resume=str(stranger.token), after=str(stranger.last_id))
        assert stranger.resumed
        await stranger.ask("How is the weather?")
        turn = await served.agent.turn()
        turn.say(FunctionCallPiece(0, '{"city": "Ulm"}', name="weather"))
        turn.end()
        response = await stranger.done()

        assert turn.given.tools == ()
        assert outputs_of(response, "mcp_call") == []
        assert not desk.runs


async def test_a_round_that_there_is_no_budget_for_ends_the_response() -> None:
    """What a tool returned would be sent to the model: its call and the words before it are kept."""
    plan = {"tokens_per_day": 700}
    async with at_desk(quotas={"default": plan}, tool_result_bytes=100_000) as (_, served):
        client = await served.client()
        await client.ask("/say Let me see.\n/call large {}\n/then\n/say Large.")
        response = await client.done()
        assert served.app.gate is not None
        await served.app.gate.settled()
        counted = (await served.app.gate.ledger.look("default", [Scope("t")]))[0]

    assert (response["status"], response["unbroken"]["reason"]) == ("incomplete", "quota_exceeded")
    assert [item["type"] for item in response["output"]] == ["message", "mcp_call"]
    assert served.agent.calls == 1
    assert 0 < counted["td"] == response["usage"]["total_tokens"] < 700
    assert counted["turns"] == 0
