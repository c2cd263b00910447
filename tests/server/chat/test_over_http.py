"""``/v1/chat/completions`` as the official client sees it."""

from __future__ import annotations

import asyncio
from base64 import b64encode
from typing import Any

import orjson
import pytest
from openai import (
    BadRequestError,
)

from tests.fakes.upstream import FakeUpstream
from tests.server.agents.upstream_contract import KEY, made
from tests.server.chat.asking import ADD, ATTACK, create, is_at_rest, said, stream, user
from tests.server.conftest import Serve
from tests.server.files.contents import PNG
from tests.server.realtime.agent import ManualAgent
from tests.server.realtime.serving import Served, eventually
from unbroken.server.agents.openai import OpenAIAgent
from unbroken.server.agents.scripted import ScriptedAgent
from unbroken.server.transports import sse

# An answer.


async def test_an_answer_comes_as_a_whole(server: Served[ScriptedAgent]) -> None:
    client: Any = await server.openai()

    answer = await create(client, "hello there")

    (choice,) = answer.choices
    assert (choice.message.role, choice.message.content) == ("assistant", "You said: hello there")
    assert (choice.finish_reason, choice.message.tool_calls) == ("stop", None)
    assert (answer.object, answer.model) == ("chat.completion", "scripted")
    assert answer.id.startswith("chatcmpl-")
    assert answer.created > 1_700_000_000
    assert (answer.usage.prompt_tokens, answer.usage.completion_tokens) == (2, 4)
    assert "unbroken" not in answer.to_dict()


@pytest.mark.client("openai-python", "chat")
async def test_an_answer_is_streamed(server: Served[ScriptedAgent]) -> None:
    client: Any = await server.openai()

    chunks = await stream(client, "/tokens 3")

    first, *pieces, last = chunks
    assert first["choices"][0]["delta"] == {"role": "assistant", "content": "", "refusal": None}
    assert said(pieces) == "word1 word2 word3"
    assert (last["choices"][0]["delta"], last["choices"][0]["finish_reason"]) == ({}, "stop")
    assert [each["choices"][0]["finish_reason"] for each in (first, *pieces)] == [None] * (len(chunks) - 1)
    assert len({(each["id"], each["created"], each["model"]) for each in chunks}) == 1
    assert not any("usage" in each for each in chunks)


async def test_the_cost_is_the_last_chunk_where_it_is_asked_for(server: Served[ScriptedAgent]) -> None:
    client: Any = await server.openai()

    *chunks, cost = await stream(client, "/tokens 3", stream_options={"include_usage": True})

    assert cost["choices"] == []
    assert cost["usage"]["completion_tokens"] == 3
    assert cost["usage"]["total_tokens"] == cost["usage"]["prompt_tokens"] + 3
    assert [each["usage"] for each in chunks] == [None] * len(chunks)
    assert chunks[-1]["choices"][0]["finish_reason"] == "stop"


@pytest.mark.parametrize("is_padded", [True, False])
async def test_pieces_are_padded_unless_that_isnt_wanted(
    server: Served[ScriptedAgent], is_padded: bool
) -> None:
    client: Any = await server.openai()

    _, *pieces, _ = await stream(client, "/tokens 3", stream_options={"include_obfuscation": is_padded})

    assert [("obfuscation" in each) for each in pieces] == [is_padded] * len(pieces)
    for each in pieces if is_padded else ():
        padded = orjson.dumps(each["choices"][0]["delta"]["content"]).decode() + each["obfuscation"]
        assert len(padded) % 16 == 0


async def test_the_clients_own_accumulation_agrees(server: Served[ScriptedAgent]) -> None:
    client: Any = await server.openai()

    async with client.chat.completions.stream(model="default", messages=[user("/tokens 20")]) as events:
        async for _ in events:
            pass
        final = await events.get_final_completion()

    assert final.choices[0].message.content.split() == [f"word{number}" for number in range(1, 21)]


@pytest.mark.parametrize(
    ("script", "wanted", "reason", "text"),
    [
        ("/tokens 9", {"max_completion_tokens": 2}, "length", "word1 word2"),
        ("/tokens 9", {"max_tokens": 2}, "length", "word1 word2"),
        ("/tokens 9", {"stop": "word3"}, "stop", "word1 word2 "),
        ("/tokens 9", {"stop": ["never", " word2"]}, "stop", "word1"),
        ("/length 2", {}, "length", "word1 word2"),
        ("/filter after 2", {}, "content_filter", "word1 word2"),
        ("/empty", {}, "stop", ""),
    ],
)
async def test_why_an_answer_ends_is_said_either_way(
    server: Served[ScriptedAgent], script: str, wanted: Any, reason: str, text: str
) -> None:
    client: Any = await server.openai()

    answer = await create(client, script, **wanted)
    chunks = await stream(client, script, **wanted)

    assert (answer.choices[0].finish_reason, answer.choices[0].message.content) == (reason, text)
    assert (chunks[-1]["choices"][0]["finish_reason"], said(chunks)) == (reason, text)


# What is passed on.


async def test_all_that_is_asked_for_reaches_the_upstream(serve: Serve) -> None:
    schema = {"type": "object", "properties": {"a": {"type": "string"}}}
    form = {"type": "json_schema", "json_schema": {"name": "n", "schema": schema, "strict": True}}
    async with FakeUpstream() as upstream:
        agent = made(OpenAIAgent, model="m-1", base_url=upstream.base_url, api_key=KEY, max_retries=0)
        client: Any = await (await serve(agent, models=("m-2",))).openai()
        for response_format in ({"type": "json_object"}, form):
            await create(
                client,
                {"role": "developer", "content": "Be kind."},
                user("one"),
                {"role": "assistant", "content": [{"type": "text", "text": "two"}]},
                {"role": "user", "content": [{"type": "text", "text": "three"}]},
                model="m-2",
                response_format=response_format,
                temperature=0,
                top_p=0.5,
                stop=["x", "y"],
                max_tokens=7,
                parallel_tool_calls=False,
                tools=[ADD],
                tool_choice={"type": "function", "function": {"name": "add"}},
            )
        sent, again = [request.json for request in upstream.requests]

    assert sent["messages"] == [
        {"role": "system", "content": "Be kind."},
        {"role": "user", "content": "one"},
        {"role": "assistant", "content": "two"},
        {"role": "user", "content": "three"},
    ]
    assert (sent["model"], sent["temperature"], sent["top_p"], sent["stop"]) == ("m-2", 0, 0.5, ["x", "y"])
    assert (sent["response_format"], again["response_format"]) == ({"type": "json_object"}, form)
    assert (sent["max_tokens"], sent["parallel_tool_calls"]) == (7, False)
    assert (sent["tools"], sent["tool_choice"]) == (
        [ADD],
        {"type": "function", "function": {"name": "add"}},
    )


async def test_an_image_that_is_sent_along_is_shown_and_not_kept(serve: Serve) -> None:
    url = "data:image/png;base64," + b64encode(PNG).decode()
    picture = {"type": "image_url", "image_url": {"url": url, "detail": "low"}}
    look = {"role": "user", "content": [{"type": "text", "text": "look"}, picture]}
    async with FakeUpstream() as upstream:
        agent = made(OpenAIAgent, model="m-1", base_url=upstream.base_url, api_key=KEY, max_retries=0)
        served = await serve(agent)
        client: Any = await served.openai()
        for _ in range(2):
            await create(client, look)
        sent = upstream.requests[1].json["messages"][0]["content"]
        with pytest.raises(BadRequestError):
            await create(client, look, "hi", tools=[ADD], tool_choice="required", stop="")
        with pytest.raises(BadRequestError):
            await create(client, look, ATTACK)

    assert sent == look["content"]
    await eventually(lambda: is_at_rest(served))
    assert served.app.files is not None
    assert served.app.files.count == 0


async def test_what_a_schema_says_is_looked_at(server: Served[ScriptedAgent]) -> None:
    client: Any = await server.openai()
    schema = {"type": "object", "description": ATTACK}
    form = {"type": "json_schema", "json_schema": {"name": "n", "schema": schema}}

    with pytest.raises(BadRequestError) as caught:
        await create(client, "hi", response_format=form)

    assert (caught.value.code, caught.value.param) == ("content_filter", "response_format")


async def test_signs_of_life_are_nothing_to_a_client(
    manual: Served[ManualAgent], monkeypatch: pytest.MonkeyPatch
) -> None:
    beats, beat = 0, sse.EventStream._beat

    def counted(self: sse.EventStream) -> None:
        nonlocal beats
        beats += 1
        beat(self)

    monkeypatch.setattr(sse, "_HEARTBEAT", 0.01)
    monkeypatch.setattr(sse.EventStream, "_beat", counted)
    client: Any = await manual.openai()
    asking = asyncio.create_task(stream(client, "hi"))
    turn = await manual.agent.turn()
    turn.say("one ")
    await eventually(lambda: beats >= 4)
    turn.say("two")
    turn.end()

    assert said(await asking) == "one two"


async def test_reasoning_is_shown_in_sessions_that_show_it(serve: Serve) -> None:
    served = await serve(ScriptedAgent())
    realtime = await served.client()
    await realtime.send(
        {"type": "session.update", "session": {"type": "realtime", "unbroken": {"reasoning": True}}}
    )
    await realtime.until("session.updated")
    client: Any = await served.openai()
    script, session = "/think Hm, so\n/say Yes.", {"Unbroken-Session": realtime.session_id}

    answer = await create(client, script, extra_headers=session)
    chunks = await stream(client, script, extra_headers=session)
    plain = await create(client, script)

    assert answer.choices[0].message.to_dict()["reasoning_content"] == "Hm, so"
    thoughts = [chunk["choices"][0]["delta"].get("reasoning_content", "") for chunk in chunks]
    assert ("".join(thoughts), said(chunks)) == ("Hm, so", "Yes.")
    assert "reasoning_content" not in plain.choices[0].message.to_dict()


async def test_the_cache_tells_models_and_parameters_apart(serve: Serve) -> None:
    served = await serve(ScriptedAgent(), cache="on", cache_sample=0, models=("other",))
    client: Any = await served.openai()
    asked = "How high is the Zugspitze?"

    hits = []
    for wanted in ({}, {}, {"temperature": 0.5}, {"model": "other"}, {"model": "other"}):
        answer = await create(client, asked, **wanted)
        hits.append("cache" in answer.to_dict().get("unbroken", {}))

    assert hits == [False, True, False, False, True]
    assert served.agent.calls == 3
