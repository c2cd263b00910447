"""The official Python client, and what it is shown."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

from openai import AsyncOpenAI
from openai.resources.realtime.realtime import AsyncRealtimeConnection
from openai.types.realtime import RealtimeServerEvent
from openai.types.websocket_reconnection import ReconnectingEvent, ReconnectingOverrides

from tests.server.realtime.client import WAIT, Frame, whole

__all__ = ["Official", "speaking"]


class Official:
    """A connection of the official client. Its frames are kept over reconnections."""

    def __init__(self) -> None:
        self.frames: list[Frame] = []
        self.reconnections: list[int] = []
        """The close codes before them."""
        self.token = ""
        self.connection: AsyncRealtimeConnection
        self.events: AsyncIterator[RealtimeServerEvent]

    def on_reconnecting(self, event: ReconnectingEvent) -> ReconnectingOverrides:
        """Resume where the last frame was: all that an application has to do."""
        self.reconnections.append(event.close_code)
        place = {"resume": self.token, "after": self.frames[-1]["event_id"]}
        return {"extra_query": {**event.extra_query, **place}}

    async def next(self) -> Frame:
        async with asyncio.timeout(WAIT):
            event = await anext(self.events)
        frame: Frame = event.to_dict(mode="json")
        if frame["type"] == "session.created":
            self.token = frame["session"]["unbroken"]["resume"]
        self.frames.append(frame)
        return frame

    async def until(self, kind: str) -> Frame:
        while (frame := await self.next())["type"] != kind:
            pass
        return frame

    async def done(self) -> Frame:
        response: Frame = (await self.until("response.done"))["response"]
        return response

    async def error(self) -> Frame:
        error: Frame = (await self.until("error"))["error"]
        return error

    async def say(self, text: str) -> None:
        part: Any = {"type": "input_text", "text": text}
        await self.connection.conversation.item.create(
            item={"type": "message", "role": "user", "content": [part]}
        )

    async def ask(self, text: str, **response: Any) -> None:
        await self.say(text)
        await self.connection.response.create(response=response)  # type: ignore[arg-type]  # any of its fields

    def answers(self) -> list[tuple[str, str]]:
        return whole(self.frames)

    def types(self) -> list[str]:
        return [frame["type"] for frame in self.frames if frame["type"] != "session.created"]


@contextlib.asynccontextmanager
async def speaking(
    client: AsyncOpenAI, *, model: str = "default", delay: float = 0.01, **options: Any
) -> AsyncIterator[Official]:
    """Connect, read ``session.created``, and resume by the client's own hook when the connection is lost."""
    official = Official()
    manager = client.realtime.connect(
        model=model,
        on_reconnecting=official.on_reconnecting,
        initial_delay=delay,
        max_delay=10 * delay,
        **options,
    )
    async with (
        manager as official.connection,
        contextlib.aclosing(official.connection.__aiter__()) as events,  # type: ignore[type-var]
    ):
        official.events = events
        assert (await official.next())["type"] == "session.created"
        yield official
