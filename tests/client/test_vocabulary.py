"""What the client's small parts promise: addresses, frames, refusals, functions, and the tree of errors."""

from __future__ import annotations

import asyncio
import json
import re
from typing import Any

import pytest

import unbroken.client as package
from unbroken.client import errors
from unbroken.client.conversation import Conversation
from unbroken.client.door import address
from unbroken.client.errors import BadState, ClientError, ProtocolError, is_passing, refusal
from unbroken.client.limits import Limits
from unbroken.client.tool import Tool, ToolFailed, call
from unbroken.client.wire import decode
from unbroken.server.errors import ERROR_MEANINGS


def tree(text: str) -> dict[str, str]:
    """Return each exception that a docstring draws, and the one above it."""
    above: dict[int, str] = {}
    parents: dict[str, str] = {}
    for bars, arm, name in re.findall(r"^    ((?:[| ]   )*)(\+-- )?([A-Z]\w+)(?:  .*)?$", text, re.M):
        depth = len(bars) // 4 + bool(arm)
        above[depth] = name
        if depth:
            parents[name] = above[depth - 1]
    return parents


def test_the_tree_of_errors_is_as_it_is_drawn() -> None:
    kinds = [each for each in vars(errors).values() if isinstance(each, type) and issubclass(each, Exception)]
    parents = {kind.__name__: kind.__base__.__name__ for kind in kinds if kind.__base__ is not None}
    del parents["ClientError"]

    assert tree(package.__doc__ or "") == parents
    assert {kind.__name__ for kind in kinds} <= set(package.__all__)


def test_what_is_offered_is_there() -> None:
    assert [name for name in package.__all__ if not hasattr(package, name)] == []


def test_refusals_that_pass_are_codes_of_the_server() -> None:
    assert errors._PASSING | set(errors._KINDS) <= set(ERROR_MEANINGS)
    assert is_passing("too_many_responses")
    assert not is_passing("content_filter")


@pytest.mark.parametrize(
    ("error", "status", "kind"),
    [
        ({"code": "invalid_api_key"}, 401, errors.Unauthenticated),
        ({"code": "insufficient_scope"}, 403, errors.Forbidden),
        ({"code": "too_many_handshakes"}, 429, errors.RateLimited),
        ({"code": "too_many_connections"}, None, errors.RateLimited),
        ({"code": "rate_limit_exceeded"}, None, errors.RateLimited),
        ({"code": "quota_exceeded", "type": "rate_limit_error"}, None, errors.QuotaExceeded),
        ({"code": "content_filter"}, None, errors.ContentFiltered),
        ({"code": "store_unavailable"}, 503, errors.Unavailable),
        ({}, 502, errors.Unavailable),
        ({}, 401, errors.Unauthenticated),
        ({"code": 7, "message": None, "param": []}, 404, errors.Refused),
        ({"code": "conversation_full", "param": "item"}, None, errors.Refused),
    ],
)
def test_a_refusal_is_of_its_kind(error: dict[str, Any], status: int | None, kind: type[ClientError]) -> None:
    assert type(refusal(error, status=status)) is kind


@pytest.mark.parametrize(
    ("url", "query", "expected"),
    [
        ("http://host:8000", {}, "ws://host:8000/v1/realtime"),
        ("https://host/", {"model": "m"}, "wss://host/v1/realtime?model=m"),
        ("http://host/v1", {}, "ws://host/v1/realtime"),
        (
            "wss://host/ai/realtime?affinity=x",
            {"after": "a b"},
            "wss://host/ai/realtime?affinity=x&after=a+b",
        ),
        ("http://[::1]:80", {"resume": "&"}, "ws://[::1]:80/v1/realtime?resume=%26"),
    ],
)
def test_addresses(url: str, query: dict[str, str], expected: str) -> None:
    assert address(url, query) == expected


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"[]",
        b"null",
        b'"text"',
        b"{}",
        b'{"type": "session.created", "event_id": "e"}',
        b'{"type": "session.created", "event_id": "e", "session": {"id": "s"}}',
        b'{"type": "response.output_text.delta", "event_id": "e", "response_id": 1, "item_id": "i"}',
        b'{"type": "response.output_text.done", "event_id": "e", "response_id": "r", "item_id": "i"}',
        b'{"type": "conversation.item.added", "event_id": "e", "item": {"id": null, "type": "message"}}',
        b'{"type": "anything", "event_id": 1}',
        b'{"type": "error", "event_id": "e", "error": "text"}',
        b'{"type": "response.done", "event_id": "e", "response": {"id": "r"}}',
        b"\xff",
    ],
)
def test_what_is_no_frame_is_said_to_be_none(data: bytes) -> None:
    with pytest.raises(ProtocolError):
        decode(data)


def test_what_is_of_no_interest_has_a_place_all_the_same() -> None:
    assert decode(b'{"type": "rate_limits.updated", "event_id": "e", "rate_limits": []}') == ("e", None)


def conversation() -> Conversation:
    return Conversation(limits=Limits(), draw=lambda: 0.0, new_id=lambda: "n", patience=1.0)


@pytest.mark.parametrize("state", [{}, {"version": 2}, {"version": 1}, {"version": 1, "token": "t"}])
def test_what_is_no_state_is_said_to_be_none(state: dict[str, Any]) -> None:
    with pytest.raises(BadState):
        conversation().restore(state)


def test_of_a_state_any_field_may_be_missing() -> None:
    state = conversation().state()
    for name in state:
        with pytest.raises(BadState):
            conversation().restore({key: value for key, value in state.items() if key != name})
    conversation().restore(state)


async def echo(arguments: dict[str, Any]) -> object:
    return arguments.get("value")


async def fails(_: dict[str, Any]) -> object:
    raise ToolFailed("Ask for a city.")


async def breaks(_: dict[str, Any]) -> object:
    raise KeyError("secret")


async def hangs(_: dict[str, Any]) -> object:
    return await asyncio.get_running_loop().create_future()


@pytest.mark.parametrize(
    ("handler", "arguments", "output"),
    [
        (echo, '{"value": "text"}', "text"),
        (echo, '{"value": {"a": [1]}}', '{"a":[1]}'),
        (echo, "{}", "null"),
        (echo, "[]", {"error": "The arguments must be a JSON object."}),
        (echo, "{", {"error": "The arguments must be a JSON object."}),
        (echo, json.dumps({"value": "x" * 101}), {"error": "What the function returned is too long."}),
        (fails, "{}", {"error": "Ask for a city."}),
        (breaks, "{}", {"error": "The function failed: KeyError."}),
        (hangs, "{}", {"error": "The function took too long."}),
        (None, "{}", {"error": "There is no such function."}),
    ],
)
async def test_what_a_model_is_told_of_a_function(handler: Any, arguments: str, output: Any) -> None:
    tool = None if handler is None else Tool("f", handler)
    told = await call(tool, arguments, seconds=0.01, most=100)

    assert (told if isinstance(output, str) else json.loads(told)) == output


async def test_a_function_whose_turn_is_stopped_is_cancelled() -> None:
    task = asyncio.create_task(call(Tool("f", hangs), "{}", seconds=60, most=100))
    await asyncio.sleep(0)
    task.cancel()
    await asyncio.wait((task,))

    assert task.cancelled()


def test_a_function_as_the_protocol_writes_it() -> None:
    parameters = {"type": "object", "properties": {"city": {"type": "string"}}}
    assert Tool("f", echo, "Says it.", parameters).fields == {
        "type": "function",
        "name": "f",
        "description": "Says it.",
        "parameters": parameters,
    }
    assert "description" not in Tool("f", echo).fields
