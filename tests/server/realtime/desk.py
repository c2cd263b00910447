"""A desk whose tools the server runs."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from tests.server.realtime.client import Client, Frame
from tests.server.realtime.serving import Served, serving
from unbroken.server.agents.base import (
    Agent,
)
from unbroken.server.agents.scripted import ScriptedAgent
from unbroken.server.tools.base import ToolContext, ToolFailed
from unbroken.server.tools.python import PythonTools, tool

__all__ = ["LOCAL", "Desk", "approval", "asked", "at_desk", "outputs_of"]


LOCAL = {"type": "function", "name": "get_time"}


class Desk:
    """Tools that note what they are asked for."""

    def __init__(self) -> None:
        self.runs: list[tuple[str, str]] = []
        """Names and keys, each time that one ran."""
        self.begun = asyncio.Event()
        self.stopped = asyncio.Event()

    def tools(self) -> PythonTools:
        async def weather(city: str, call: ToolContext) -> str:
            """Say how the weather is."""
            self.runs.append(("weather", call.key))
            return f"Rain in {city}."

        async def broken(call: ToolContext) -> str:
            self.runs.append(("broken", call.key))
            raise ValueError("the password is 42")

        async def failing(call: ToolContext) -> str:
            self.runs.append(("failing", call.key))
            raise ToolFailed("No such city.")

        async def careless() -> None:
            raise ToolFailed(ValueError("No city."), "E1")  # type: ignore[arg-type]

        async def large(call: ToolContext) -> dict[str, str]:
            self.runs.append(("large", call.key))
            return {"text": "é" * 1000}

        @tool(timeout=0.01)
        async def slow() -> None:
            await asyncio.get_running_loop().create_future()

        async def hanging(call: ToolContext) -> None:
            self.runs.append(("hanging", call.key))
            self.begun.set()
            try:
                await asyncio.get_running_loop().create_future()
            finally:
                self.stopped.set()

        @tool(needs_approval=True, name="mail")
        async def send_mail(to: str, call: ToolContext) -> str:
            self.runs.append(("mail", call.key))
            return f"Sent to {to}."

        return PythonTools([weather, broken, failing, careless, large, slow, hanging, send_mail])


@asynccontextmanager
async def at_desk(agent: Agent | None = None, **settings: Any) -> AsyncIterator[tuple[Desk, Served[Any]]]:
    desk = Desk()
    settings = {"tool_result_bytes": 256, **settings}
    async with serving(agent or ScriptedAgent(), toolsets=[desk.tools()], **settings) as served:
        yield desk, served


def approval(request: Frame, *, approve: bool = True, **fields: Any) -> Frame:
    item = {"type": "mcp_approval_response", "approval_request_id": request["id"], "approve": approve}
    return {"type": "conversation.item.create", "item": {**item, **fields}}


def outputs_of(response: Frame, kind: str) -> list[Frame]:
    return [item for item in response["output"] if item["type"] == kind]


async def asked(client: Client) -> Frame:
    """Have a call wait for its approval, and return the request."""
    await client.ask('/call mail {"to": "Ada"}')
    output: list[Frame] = (await client.done())["output"]
    assert [item["type"] for item in output] == ["mcp_approval_request"]
    return output[0]
