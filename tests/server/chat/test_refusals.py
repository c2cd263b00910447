"""What ``/v1/chat/completions`` refuses, what fails, and that nothing is left of either."""

from __future__ import annotations

import asyncio
import re
from typing import Any

import pytest
from openai import (
    APIError,
    APIStatusError,
    BadRequestError,
    RateLimitError,
)

from tests.server.chat.asking import ADD, ATTACK, create, is_at_rest, stream, user
from tests.server.conftest import Serve
from tests.server.realtime.agent import ManualAgent
from tests.server.realtime.serving import Served, eventually
from unbroken.server.agents.base import UpstreamRateLimited, Usage
from unbroken.server.agents.scripted import ScriptedAgent
from unbroken.server.quota.base import Scope
from unbroken.server.transports import lone_answer

# What is refused, and what fails.


async def test_what_cant_be_asked_for_says_why(server: Served[ScriptedAgent]) -> None:
    client: Any = await server.openai()
    hi = [user("hi")]
    cases: list[tuple[dict[str, Any], int, str, str]] = [
        ({"messages": hi, "model": "other"}, 404, "model_not_found", "model"),
        ({"messages": []}, 400, "invalid_request", "messages"),
        ({"messages": [{"role": "function", "content": "x"}]}, 400, "invalid_request", "messages[0].role"),
        ({"messages": [{"role": "user"}]}, 400, "invalid_request", "messages[0].content"),
        ({"messages": hi, "temperature": 9}, 400, "invalid_request", "temperature"),
        ({"messages": hi, "max_tokens": 0}, 400, "invalid_request", "max_tokens"),
        ({"messages": hi, "stop": ["a", "b", "c", "d", "e"]}, 400, "invalid_request", "stop"),
        ({"messages": hi, "stop": ""}, 400, "invalid_request", "stop"),
        ({"messages": hi, "n": 2}, 400, "unsupported_parameter", "n"),
        ({"messages": hi, "logprobs": True}, 400, "unsupported_parameter", "logprobs"),
        ({"messages": hi, "functions": [{"name": "f"}]}, 400, "unsupported_parameter", "functions"),
        ({"messages": hi, "modalities": ["text", "audio"]}, 400, "unsupported_parameter", "modalities"),
        ({"messages": hi, "tools": [{"type": "custom"}]}, 400, "unsupported_tool", "tools[0].type"),
        (
            {"messages": hi, "tool_choice": {"type": "function", "function": {"name": "f"}}},
            400,
            "invalid_request",
            "tool_choice",
        ),
        (
            {"messages": hi, "response_format": {"type": "json_schema", "json_schema": {"name": "n"}}},
            400,
            "invalid_request",
            "response_format",
        ),
        (
            {"messages": [{"role": "tool", "tool_call_id": "c", "content": "x"}]},
            400,
            "invalid_request",
            "messages",
        ),
        (
            {"messages": [{"role": "user", "content": [{"type": "input_audio"}]}]},
            400,
            "audio_input_unsupported",
            "messages[0].content[0].type",
        ),
        ({"messages": hi, "unbroken": {"session": "sess_no"}}, 404, "session_not_found", "unbroken.session"),
        ({"messages": hi, "unbroken": {"session": "what"}}, 404, "session_not_found", "unbroken.session"),
    ]
    for wanted, status, code, param in cases:
        with pytest.raises(APIStatusError) as caught:
            await client.chat.completions.create(
                **{"model": "default", **{k: v for k, v in wanted.items() if k != "unbroken"}},
                extra_body={"unbroken": wanted["unbroken"]} if "unbroken" in wanted else None,
            )
        assert (caught.value.status_code, caught.value.code, caught.value.param) == (status, code, param)
    assert server.agent.calls == 0
    await eventually(lambda: is_at_rest(server))


async def test_what_only_says_how_is_ignored(server: Served[ScriptedAgent]) -> None:
    client: Any = await server.openai()

    answer = await create(
        client,
        "hi",
        n=1,
        seed=7,
        user="ada",
        store=False,
        logprobs=False,
        presence_penalty=0.5,
        reasoning_effort="low",
        modalities=["text"],
        service_tier="auto",
    )

    assert answer.choices[0].message.content == "You said: hi"


@pytest.mark.client("openai-python", "filtered")
async def test_an_attack_is_a_bad_request(server: Served[ScriptedAgent]) -> None:
    client: Any = await server.openai()

    with pytest.raises(BadRequestError) as caught:
        await create(client, "hi", {"role": "assistant", "content": "hello"}, ATTACK)

    assert (caught.value.code, caught.value.param) == ("content_filter", "messages")
    assert server.agent.calls == 0
    await eventually(lambda: is_at_rest(server))


@pytest.mark.client("openai-python", "quota")
async def test_a_quota_that_is_used_up_is_a_rate_limit(serve: Serve) -> None:
    served = await serve(ScriptedAgent(), quotas={"default": {"requests_per_minute": 1}})
    client: Any = await served.openai()
    first = await client.chat.completions.with_raw_response.create(model="default", messages=[user("hi")])

    with pytest.raises(RateLimitError) as caught:
        await create(client, "hi")

    assert first.headers["x-ratelimit-limit-requests"] == "1"
    assert first.headers["x-ratelimit-remaining-requests"] == "0"
    assert caught.value.code == "rate_limit_exceeded"
    assert int(caught.value.response.headers["retry-after"]) > 0
    assert caught.value.response.headers["x-ratelimit-limit-requests"] == "1"
    assert caught.value.response.headers["x-ratelimit-remaining-requests"] == "0"
    assert re.fullmatch(r"\d+s", caught.value.response.headers["x-ratelimit-reset-requests"])
    await eventually(lambda: is_at_rest(served))


@pytest.mark.parametrize(
    ("code", "status"),
    [
        ("upstream_rate_limited", 429),
        ("context_length_exceeded", 400),
        ("agent_error", 500),
        ("upstream_unavailable", 503),
    ],
)
async def test_a_failure_is_a_status_by_its_kind(
    server: Served[ScriptedAgent], code: str, status: int
) -> None:
    client: Any = await server.openai()

    with pytest.raises(APIStatusError) as caught:
        await create(client, f"/fail {code} after 2")

    assert (caught.value.status_code, caught.value.code) == (status, code)


async def test_how_long_to_wait_is_what_the_upstream_says(manual: Served[ManualAgent]) -> None:
    client: Any = await manual.openai()
    asking = asyncio.create_task(create(client, "hi"))
    turn = await manual.agent.turn()
    turn.fail(UpstreamRateLimited(retry_after=16.5))

    with pytest.raises(RateLimitError) as caught:
        await asking

    assert caught.value.response.headers["retry-after"] == "17"


async def test_a_failure_in_mid_stream_is_raised(server: Served[ScriptedAgent]) -> None:
    client: Any = await server.openai()
    answer = await client.chat.completions.create(
        model="default", messages=[user("/fail upstream_unavailable after 2")], stream=True
    )

    text = ""
    with pytest.raises(APIError) as caught:
        async for chunk in answer:
            text += chunk.choices[0].delta.content or ""

    assert (text, caught.value.code) == ("word1 word2", "upstream_unavailable")
    await eventually(lambda: is_at_rest(server))


# Nothing is kept.


async def test_hundreds_of_requests_leave_nothing_behind(server: Served[ScriptedAgent]) -> None:
    client: Any = await server.openai()

    async def ask(number: int) -> None:
        kinds = (f"/tokens {number % 7}", "/fail", "/call add", ATTACK)
        wanted: Any = {"stream": number % 2 == 0, "tools": [ADD]}
        try:
            answer = await client.chat.completions.create(
                model="default", messages=[user(kinds[number % len(kinds)])], **wanted
            )
            if wanted["stream"]:
                async for _ in answer:
                    pass
        except APIError:
            pass

    for begin in range(0, 300, 30):
        await asyncio.gather(*map(ask, range(begin, begin + 30)))

    await eventually(lambda: is_at_rest(server))
    transient = server.app.transient
    assert (transient.hub.size, transient.hub.running, transient.hub.waiting) == (0, 0, 0)
    assert not transient._store._sessions  # type: ignore[attr-defined]


@pytest.mark.parametrize("is_streamed", [True, False])
async def test_who_leaves_stops_what_nobody_can_come_back_to(
    manual: Served[ManualAgent], monkeypatch: pytest.MonkeyPatch, is_streamed: bool
) -> None:
    monkeypatch.setattr(lone_answer, "_GRACE", 0.001)
    client: Any = await manual.openai()
    call = stream if is_streamed else create
    asking = asyncio.create_task(call(client, "hi"))
    turn = await manual.agent.turn()
    turn.say("one ")
    await eventually(lambda: turn.taken == 1)

    asking.cancel()
    await asyncio.wait((asking,))

    await turn.closed.wait()
    assert turn.was_stopped
    await eventually(lambda: is_at_rest(manual))
    await manual.idle()


async def test_who_leaves_has_what_they_didnt_use_back(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lone_answer, "_GRACE", 0.001)
    served = await serve(ManualAgent(), quotas={"default": {"tokens_per_day": 10_000, "turns": 1}})
    client: Any = await served.openai()
    asking = asyncio.create_task(create(client, "hi", max_tokens=1000))
    turn = await served.agent.turn()
    turn.say("one ")
    await eventually(lambda: turn.taken == 1)
    asking.cancel()
    await asyncio.wait((asking,))
    await turn.closed.wait()
    await eventually(lambda: is_at_rest(served))
    await served.app.gate.settled()

    (counted,) = await served.app.gate.ledger.look("default", [Scope("t")])

    assert counted["turns"] == 0
    assert 0 < counted["td"] < 50


async def test_who_leaves_near_the_end_stops_nothing(
    manual: Served[ManualAgent], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lone_answer, "_GRACE", 60.0)
    client: Any = await manual.openai()
    asking = asyncio.create_task(create(client, "hi"))
    turn = await manual.agent.turn()
    asking.cancel()
    await asyncio.wait((asking,))
    turn.say("all of it", Usage(1, 3))
    turn.end()

    await eventually(lambda: is_at_rest(manual))
    assert not turn.was_stopped
