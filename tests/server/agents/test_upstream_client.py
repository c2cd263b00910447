"""Requests that are made of the first one's pattern are those that the package would make."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any, cast

import httpx2
import openai
import pytest
from hypothesis import given
from hypothesis import strategies as st

from unbroken.server.agents.upstream_client import UpstreamClient

_BASE = "http://user:word@127.0.0.1:9/v1"
_HEADERS = {"Accept": "text/event-stream", "Accept-Encoding": "identity"}

_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=5,
)


class Sent(httpx2.AsyncBaseTransport):
    """Keeps what it is handed, and answers with *statuses* in turn, the last for ever."""

    def __init__(self, *statuses: int) -> None:
        self.requests: list[httpx2.Request] = []
        self._statuses = list(statuses or (200,))

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        self.requests.append(request)
        status = self._statuses.pop(0) if len(self._statuses) > 1 else self._statuses[0]
        return httpx2.Response(status, headers={"retry-after-ms": "1"})


def client(kind: type[openai.AsyncOpenAI], transport: Sent, **options: Any) -> openai.AsyncOpenAI:
    return kind(
        api_key="key",
        organization="o",
        project="p",
        base_url=_BASE,
        http_client=openai.DefaultAsyncHttpxClient(transport=transport),
        **{"timeout": httpx2.Timeout(7, connect=3), "default_headers": {"X-Own": "1"}, **options},
    )


async def post(
    asked: openai.AsyncOpenAI,
    body: dict[str, object] | None,
    path: str = "/chat/completions",
    **options: Any,
) -> None:
    headers = {**_HEADERS, "Idempotency-Key": "resp_1", **options.pop("headers", {})}
    await asked.post(
        path,
        cast_to=httpx2.Response,
        body=body,
        options=cast("Any", {"headers": headers, **options}),
        stream=True,
        stream_cls=openai.AsyncStream[object],
    )


def headers_of(request: httpx2.Request) -> dict[str, str]:
    """Return all but the length, which depends on how a body is encoded."""
    headers = dict(request.headers.multi_items())
    assert len(headers) == len(request.headers.multi_items()), "nothing is said twice"
    headers.pop("content-length", None)
    return headers


@pytest.fixture
async def sides() -> AsyncIterator[tuple[tuple[openai.AsyncOpenAI, Sent], tuple[openai.AsyncOpenAI, Sent]]]:
    ours, theirs = Sent(), Sent()
    yield (client(UpstreamClient, ours), ours), (client(openai.AsyncOpenAI, theirs), theirs)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"headers": {"traceparent": "00-1-2-3"}},
        {"headers": {"Idempotency-Key": "resp_2", "x-own": "2"}},
        {"headers": {"X-Stainless-Retry-Count": "7"}},
        {"path": "/responses"},
        {"timeout": 3.0},
        {"max_retries": 4},
        {"params": {"stream": True}},
        {"headers": {"X-Own": openai.Omit()}},
        {"path": "/responses/resp_1/cancel", "body": None},
        {"body": {"whole": 2**80}},
    ],
    ids=[
        "plain",
        "traced",
        "own",
        "count",
        "path",
        "timeout",
        "retries",
        "query",
        "omitted",
        "empty",
        "whole",
    ],
)
async def test_requests_are_as_the_package_makes_them(sides: Any, options: dict[str, Any]) -> None:
    body = {"model": "m", "messages": [{"role": "user", "content": "Grüße \u2028 \U0001f600"}], "n": 1.5}
    for asked, _ in sides:
        for given_ in ({}, options, {}, options):
            await post(asked, **{"body": body, **given_})

    ours, theirs = (sent.requests for _, sent in sides)
    assert len(ours) == len(theirs) == 4
    for made, expected in zip(ours, theirs, strict=True):
        assert (made.method, made.url) == (expected.method, expected.url)
        assert headers_of(made) == headers_of(expected)
        assert made.extensions == expected.extensions
        assert int(made.headers.get("content-length", 0)) == len(made.content)


async def test_attempts_are_numbered() -> None:
    transport = Sent(500, 200, 500, 500, 200)
    asked = client(UpstreamClient, transport, max_retries=2)
    await post(asked, {"a": 1})
    await post(asked, {"a": 2})

    counts = [request.headers["x-stainless-retry-count"] for request in transport.requests]
    assert counts == ["0", "1", "0", "1", "2"]
    assert [request.content for request in transport.requests][2:] == [b'{"a":2}'] * 3


@given(body=st.dictionaries(st.text(max_size=3), _VALUES, min_size=1, max_size=4))
async def test_bodies_say_the_same(body: dict[str, Any]) -> None:
    transport = Sent()
    asked = client(UpstreamClient, transport)
    await post(asked, {"first": 1})
    await post(asked, body)

    assert json.loads(transport.requests[-1].content) == body


async def test_so_many_kinds_are_kept() -> None:
    transport = Sent()
    asked = client(UpstreamClient, transport)
    for number in range(40):
        await post(asked, {"a": number}, path=f"/{number}")
        await post(asked, {"a": number}, path=f"/{number}")

    assert len(asked.__dict__["_patterns"]) == 16
    assert [str(request.url.path) for request in transport.requests[-2:]] == ["/v1/39"] * 2
