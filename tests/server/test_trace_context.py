from __future__ import annotations

import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.fakes.upstream import FakeUpstream
from tests.server.conftest import Serve
from tests.server.realtime.serving import Served
from unbroken.server.agents.openai import OpenAIAgent
from unbroken.server.agents.responses import ResponsesAgent
from unbroken.server.agents.upstream import Upstream
from unbroken.server.trace_context import child_of, taken, trace_id_of

GIVEN = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"


@pytest.mark.parametrize(
    ("header", "kept"),
    [
        (GIVEN, GIVEN),
        (f" {GIVEN}\t", GIVEN),
        (GIVEN[:-2] + "fe", GIVEN[:-2] + "00"),  # no flag but one means anything
        ("cc" + GIVEN[2:] + "-what-the-future-brings", GIVEN),
        (GIVEN + "-more", None),
        ("ff" + GIVEN[2:], None),
        ("cc" + GIVEN[2:] + "more", None),
        (GIVEN.upper(), None),
        (GIVEN.replace("4bf92f3577b34da6a3ce929d0e0e4736", 32 * "0"), None),
        (GIVEN.replace("00f067aa0ba902b7", 16 * "0"), None),
        (GIVEN + "\n", None),
        ("cc" + GIVEN[2:] + "-" + 1000 * "x", None),
        ("", None),
        (None, None),
    ],
)
def test_a_header_is_taken_by_the_recommendation(header: str | None, kept: str | None) -> None:
    assert taken(header) == kept


@given(st.one_of(st.text(), st.from_regex(r"[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}(-.*)?")))
def test_what_is_taken_is_always_fit_to_be_passed_on(header: str) -> None:
    kept = taken(header)
    if kept is not None:
        child = child_of(kept)
        assert re.fullmatch(r"00-[0-9a-f]{32}-[0-9a-f]{16}-0[01]", child)
        assert taken(child) == child
        assert trace_id_of(child) == trace_id_of(kept)
        assert child != kept


def made(kind: type[OpenAIAgent | ResponsesAgent], upstream: FakeUpstream) -> OpenAIAgent | ResponsesAgent:
    return kind(Upstream(base_url=upstream.base_url, api_key="k", max_retries=0), model="m")


async def converse(served: Served[OpenAIAgent | ResponsesAgent], door: str, headers: dict[str, str]) -> None:
    """Ask something by *door*, and have it answered."""
    if door == "realtime":
        client = served.stranger()
        await client.connect(headers={"Authorization": "Bearer alice", **headers})
        await client.ask("hi")
        await client.done()
        return
    sdk = await served.openai()
    if door == "chat":
        said: Any = [{"role": "user", "content": "hi"}]
        await sdk.chat.completions.create(model="default", messages=said, extra_headers=headers)
    else:
        await sdk.responses.create(model="default", input="hi", extra_headers=headers)


@pytest.mark.parametrize("kind", [OpenAIAgent, ResponsesAgent])
@pytest.mark.parametrize("door", ["realtime", "chat", "responses"])
async def test_an_upstream_s_request_is_of_the_client_s_trace(
    serve: Serve, kind: type[OpenAIAgent | ResponsesAgent], door: str
) -> None:
    async with FakeUpstream() as upstream:
        served = await serve(made(kind, upstream))
        await converse(served, door, {"traceparent": GIVEN})
        await converse(served, door, {"traceparent": "nonsense"})
        first, second = [request.headers for request in upstream.requests]

    assert trace_id_of(first["traceparent"]) == trace_id_of(GIVEN)
    assert first["traceparent"] != GIVEN
    assert taken(first["traceparent"]) == first["traceparent"]
    assert "traceparent" not in second
