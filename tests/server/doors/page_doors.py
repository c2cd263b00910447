"""The doors that speak the protocols of pages: how an answer begins there, and how its end is told."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager
from typing import Any, Final

from tests.server.agui.client import Thread
from tests.server.agui.client import said as said_in_run
from tests.server.agui.client import user as user_of_run
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
from tests.server.graphql.client import EVENTS, SEND, Caller
from tests.server.graphql.client import said as said_in_events
from tests.server.ui.client import Page, types, user
from tests.server.ui.client import said as said_in_chunks

__all__ = ["PAGE_DOORS"]

_CHAT: Final = "chat-1"

# The AI SDK's.


async def _told_in_chunks(chunks: AsyncIterator[Any]) -> dict[str, Any]:
    """Return what the chunks tell of the answer at its beginning."""
    async for chunk in chunks:
        if chunk["type"] == "data-unbroken":
            return dict(chunk["data"])
    raise AssertionError("nothing is told of the answer")


def _end_in_chunks(frames: Frames) -> tuple[str, str]:
    status = [frame["data"]["status"] for frame in frames if frame["type"] == "data-unbroken"][-1]
    return types(frames)[-1], status


@asynccontextmanager
async def _ui_stream(node: Node) -> AsyncIterator[Begun]:
    async with aclosing(Page(node.port)) as page, page.asking(user(SAYS)) as chunks:
        told = await _told_in_chunks(chunks)
        yield Begun(told["response_id"], told["resume"], chunks)


@asynccontextmanager
async def _ui_socket(node: Node) -> AsyncIterator[Begun]:
    async with dialled(node, "/v1/ui/ws") as ws:
        asked = {"id": _CHAT, "trigger": "submit-message", "messages": [user(SAYS)]}
        await send(ws, {"type": "send", "requestId": "r1", **asked})

        async def chunks() -> AsyncIterator[Any]:
            async for frame in messages(ws, lambda frame: frame["type"] == "end"):
                if frame["type"] == "chunk":
                    yield frame["chunk"]

        frames = chunks()
        told = await _told_in_chunks(frames)
        yield Begun(told["response_id"], told["resume"], frames)


# AG-UI.


def _end_in_run(frames: Frames) -> tuple[str, str, str]:
    end = frames[-1]
    return end["type"], end["outcome"]["type"], end["metadata"]["unbroken"]["status"]


@asynccontextmanager
async def _agui_stream(node: Node) -> AsyncIterator[Begun]:
    async with aclosing(Thread(node.port)) as thread, thread.running(user_of_run(SAYS)) as events:
        told = (await anext(events))["metadata"]["unbroken"]
        yield Begun(told["response_id"], told["resume"], events)


@asynccontextmanager
async def _agui_socket(node: Node) -> AsyncIterator[Begun]:
    async with aclosing(Thread(node.port)) as thread, dialled(node, "/v1/agui/ws") as ws:
        await send(ws, thread.body(user_of_run(SAYS)))

        async def events() -> AsyncIterator[Any]:
            ends = ("RUN_FINISHED", "RUN_ERROR")
            async for frame in messages(ws, lambda frame: frame.get("chunk", frame)["type"] in ends):
                if "chunk" in frame:
                    yield frame["chunk"]

        frames = events()
        told = (await anext(frames))["metadata"]["unbroken"]
        yield Begun(told["response_id"], told["resume"], frames)


# deep-chat, whose shapes have no place for ids: who wants them asks for the chat by its name.

_WIDGET: Final = f"/v1/widget/deepchat?chat={_CHAT}"
_WIDGET_SAYS: Final = {"messages": [{"role": "user", "text": SAYS}]}
_WIDGET_END: Final = {"text": "[[END]]"}
_WIDGET_STOPPED: Final = {"error": "The answer was stopped."}


def _said_in_widget(frames: Frames) -> str:
    return "".join(frame["text"] for frame in frames if frame != _WIDGET_END and "text" in frame)


async def _told_of_the_chat(node: Node) -> dict[str, Any]:
    await node.agent.turn()
    async with aclosing(Page(node.port, chat=_CHAT)) as page, page.resuming() as chunks:
        return await _told_in_chunks(chunks)


@asynccontextmanager
async def _widget_socket(node: Node) -> AsyncIterator[Begun]:
    async with dialled(node, _WIDGET) as ws:
        await send(ws, _WIDGET_SAYS)
        told = await _told_of_the_chat(node)
        frames = messages(ws, lambda frame: frame == _WIDGET_END or "error" in frame)
        yield Begun(told["response_id"], told["resume"], frames)


@asynccontextmanager
async def _widget_stream(node: Node) -> AsyncIterator[Begun]:
    async with http_to(node) as http, http.stream("POST", _WIDGET, json=_WIDGET_SAYS) as answer:
        told = await _told_of_the_chat(node)
        yield Begun(told["response_id"], told["resume"], sent_events(answer))


# GraphQL, where who asks is told of the answer by a subscription.


def _end_in_events(frames: Frames) -> tuple[str, str]:
    return frames[-1]["type"], frames[-1]["response"]["status"]


@asynccontextmanager
async def _graphql_http(node: Node) -> AsyncIterator[Begun]:
    async with aclosing(Caller(node.port)) as caller:
        sent = await caller.send(SAYS)
        async with caller.listening(response=sent["responseId"]) as events:
            yield Begun(sent["responseId"], sent["resume"], events)


@asynccontextmanager
async def _graphql_socket(node: Node) -> AsyncIterator[Begun]:
    async with aclosing(Caller(node.port)) as caller:
        socket = await caller.socket()
        await socket.subscribe("1", SEND, **{"in": {"text": SAYS}})
        await socket.until("complete", "1")
        sent = socket.answers["1"][0]["data"]["send"]
        await socket.subscribe("2", EVENTS, response=sent["responseId"])

        async def events() -> AsyncIterator[Any]:
            await socket.until("complete", "2")
            for event in socket.events["2"]:
                yield event

        yield Begun(sent["responseId"], sent["resume"], events())


PAGE_DOORS: Final = {
    "POST /v1/ui/chat": Door(
        _ui_stream, said_in_chunks, _end_in_chunks, ("finish", "completed"), ("abort", "cancelled")
    ),
    "WS /v1/ui/ws": Door(
        _ui_socket, said_in_chunks, _end_in_chunks, ("finish", "completed"), ("abort", "cancelled")
    ),
    "POST /v1/agui": Door(
        _agui_stream,
        said_in_run,
        _end_in_run,
        ("RUN_FINISHED", "success", "completed"),
        ("RUN_FINISHED", "cancelled", "cancelled"),
    ),
    "WS /v1/agui/ws": Door(
        _agui_socket,
        said_in_run,
        _end_in_run,
        ("RUN_FINISHED", "success", "completed"),
        ("RUN_FINISHED", "cancelled", "cancelled"),
    ),
    # The widget knows one end of all messages: that somebody stopped one shows where there is none.
    "WS /v1/widget/deepchat": Door(
        _widget_socket, _said_in_widget, lambda frames: frames[-1], _WIDGET_END, _WIDGET_END, _WIDGET_STOPPED
    ),
    "POST /v1/widget/deepchat": Door(
        _widget_stream,
        _said_in_widget,
        lambda frames: [frame for frame in frames if "error" in frame],
        [],
        [],
        [_WIDGET_STOPPED],
    ),
    "POST /graphql": Door(
        _graphql_http,
        said_in_events,
        _end_in_events,
        ("RESPONSE_DONE", "COMPLETED"),
        ("RESPONSE_DONE", "CANCELLED"),
    ),
    "WS /graphql": Door(
        _graphql_socket,
        said_in_events,
        _end_in_events,
        ("RESPONSE_DONE", "COMPLETED"),
        ("RESPONSE_DONE", "CANCELLED"),
    ),
}
