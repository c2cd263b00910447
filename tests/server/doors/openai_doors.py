"""The doors that speak OpenAI's protocols: how an answer begins there, and how its end is told."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from dataclasses import replace
from functools import partial
from typing import Any, Final

from tests.server.doors.door import (
    SAYS,
    Begun,
    Door,
    Frames,
    Node,
    dialled,
    http_to,
    messages,
    send,
    sent_events,
)

__all__ = ["OPENAI_DOORS", "TRANSIENT"]

_ENDS: Final = ("response.completed", "response.incomplete", "response.failed")

# Realtime.


@asynccontextmanager
async def _realtime(node: Node) -> AsyncIterator[Begun]:
    client = await node.client()
    await client.ask(SAYS)
    created = await client.until("response.created")

    async def frames() -> AsyncIterator[Any]:
        while (frame := await client.next())["type"] != "response.done":
            yield frame
        yield frame

    assert client.token is not None
    yield Begun(created["response"]["id"], client.token, frames())


# Responses.


def _said_in_responses(frames: Frames) -> str:
    return "".join(frame["delta"] for frame in frames if frame["type"] == "response.output_text.delta")


def _end_in_responses(frames: Frames) -> tuple[str, str]:
    return frames[-1]["type"], frames[-1]["response"]["status"]


def _said_in_response(frames: Frames) -> str:
    (response,) = frames
    return "".join(part["text"] for item in response["output"] for part in item["content"])


def _resume_in(response: dict[str, Any]) -> str | None:
    resume: str | None = response.get("unbroken", {}).get("resume")
    return resume


@asynccontextmanager
async def _responses_stream(node: Node, **fields: Any) -> AsyncIterator[Begun]:
    body = {"model": "default", "input": SAYS, "stream": True, **fields}
    async with http_to(node) as http, http.stream("POST", "/v1/responses", json=body) as answer:
        frames = sent_events(answer)
        created = (await anext(frames))["response"]
        yield Begun(created["id"], _resume_in(created), frames)


@asynccontextmanager
async def _responses_background(node: Node) -> AsyncIterator[Begun]:
    body = {"model": "default", "input": SAYS, "background": True}
    async with http_to(node) as http:
        created = (await http.post("/v1/responses", json=body)).json()

        async def frames() -> AsyncIterator[Any]:
            yield (await http.get(f"/v1/responses/{created['id']}")).json()

        yield Begun(created["id"], _resume_in(created), frames())


@asynccontextmanager
async def _responses_socket(node: Node, **fields: Any) -> AsyncIterator[Begun]:
    async with dialled(node, "/v1/responses") as ws:
        await send(ws, {"type": "response.create", "model": "default", "input": SAYS, **fields})
        frames = messages(ws, lambda event: event["type"] in _ENDS)
        created = (await anext(frames))["response"]
        yield Begun(created["id"], _resume_in(created), frames)


@asynccontextmanager
async def _asked_as_a_whole(
    node: Node, path: str, body: dict[str, Any], field: Callable[[str], dict[str, Any]]
) -> AsyncIterator[Begun]:
    """Ask for what tells nothing until it is whole. It is in a session that others know already."""
    client = await node.client()
    assert client.session_id is not None
    assert client.token is not None
    async with http_to(node) as http:
        asked = {"model": "default", **body, **field(client.session_id)}
        asking = asyncio.create_task(http.post(path, json=asked))
        created = await client.until("response.created")
        await client.close()

        async def frames() -> AsyncIterator[Any]:
            answer = await asking
            assert answer.status_code == 200, answer.text
            yield answer.json()

        try:
            yield Begun(created["response"]["id"], client.token, frames())
        finally:
            asking.cancel()
            with suppress(asyncio.CancelledError):
                await asking


def _responses_whole(node: Node) -> AbstractAsyncContextManager[Begun]:
    return _asked_as_a_whole(
        node, "/v1/responses", {"input": SAYS}, lambda session: {"conversation": session}
    )


# Chat Completions.

_TOLD: Final = [{"role": "user", "content": SAYS}]


def _said_in_chat(frames: Frames) -> str:
    return "".join(
        choice["delta"].get("content") or "" for frame in frames for choice in frame.get("choices", [])
    )


def _end_in_chat(frames: Frames) -> tuple[str, str]:
    """Return how it ended. That somebody stopped it is told beside what the protocol has for that."""
    return frames[-1]["choices"][0]["finish_reason"], frames[-1].get("unbroken", {}).get("status", "")


@asynccontextmanager
async def _chat_stream(node: Node) -> AsyncIterator[Begun]:
    body = {"model": "default", "messages": _TOLD, "stream": True, "unbroken": {"session": "new"}}
    async with http_to(node) as http, http.stream("POST", "/v1/chat/completions", json=body) as answer:
        frames = sent_events(answer, last="[DONE]")
        told = (await anext(frames))["unbroken"]
        yield Begun(told["response"], told["resume"], frames)


@asynccontextmanager
async def _chat_alone(node: Node) -> AsyncIterator[Begun]:
    body = {"model": "default", "messages": _TOLD, "stream": True}
    async with http_to(node) as http, http.stream("POST", "/v1/chat/completions", json=body) as answer:
        frames = sent_events(answer, last="[DONE]")
        chunk = await anext(frames)
        assert "unbroken" not in chunk
        yield Begun(chunk["id"], None, frames)


def _chat_whole(node: Node) -> AbstractAsyncContextManager[Begun]:
    return _asked_as_a_whole(
        node,
        "/v1/chat/completions",
        {"messages": _TOLD},
        lambda session: {"unbroken": {"session": session}},
    )


OPENAI_DOORS: Final = {
    "WS /v1/realtime": Door(
        _realtime,
        _said_in_responses,
        _end_in_responses,
        ("response.done", "completed"),
        ("response.done", "cancelled"),
    ),
    "POST /v1/responses, as a stream": Door(
        _responses_stream,
        _said_in_responses,
        _end_in_responses,
        ("response.completed", "completed"),
        ("response.incomplete", "cancelled"),
    ),
    "POST /v1/responses, in the background": Door(
        _responses_background,
        _said_in_response,
        lambda frames: frames[-1]["status"],
        "completed",
        "cancelled",
    ),
    "POST /v1/responses, as a whole": Door(
        _responses_whole,
        _said_in_response,
        lambda frames: frames[-1]["status"],
        "completed",
        "cancelled",
    ),
    "WS /v1/responses": Door(
        _responses_socket,
        _said_in_responses,
        _end_in_responses,
        ("response.completed", "completed"),
        ("response.incomplete", "cancelled"),
    ),
    "POST /v1/chat/completions, as a stream": Door(
        _chat_stream, _said_in_chat, _end_in_chat, ("stop", ""), ("stop", "cancelled")
    ),
    "POST /v1/chat/completions, as a whole": Door(
        _chat_whole,
        lambda frames: frames[0]["choices"][0]["message"]["content"],
        _end_in_chat,
        ("stop", ""),
        ("stop", "cancelled"),
    ),
}

_STORED: Final = OPENAI_DOORS["POST /v1/responses, as a stream"]
_CHAT_STREAM: Final = OPENAI_DOORS["POST /v1/chat/completions, as a stream"]

TRANSIENT: Final = {
    "POST /v1/chat/completions, without a session": (
        replace(_CHAT_STREAM, begin=_chat_alone),
        "the protocol has no name for an answer: it is its connection's own, and forgotten with it",
    ),
    "POST /v1/responses, not to be stored": (
        replace(_STORED, begin=partial(_responses_stream, store=False)),
        "its client wants it in no store: the node that answers is the only one to know of it",
    ),
    "WS /v1/responses, not to be stored": (
        replace(_STORED, begin=partial(_responses_socket, store=False)),
        "likewise; what follows it is its connection's own",
    ),
}
"""What begins like that is nowhere else, and why that is so."""
