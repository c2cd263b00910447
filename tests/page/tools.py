"""Tools for the server under test. It is another process, so tests talk to them by sockets."""

from __future__ import annotations

import asyncio

from unbroken.server.tools.base import ToolContext, ToolFailed
from unbroken.server.tools.python import ToolFunction, tool

__all__ = ["TOOLS"]


async def weather(city: str) -> str:
    """Say how the weather is."""
    return f"Rain in {city}."


async def failing(why: str) -> str:
    """Fail."""
    raise ToolFailed(why)


async def long(size: int) -> str:
    """Return much."""
    return "x" * size


async def hold(port: int) -> str:
    """Return what a test says at *port*, when it says it."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        return (await reader.readline()).decode().strip()
    finally:
        writer.close()


@tool(needs_approval=True)
async def mail(to: str, call: ToolContext) -> str:
    """Send a mail."""
    return f"Sent to {to} as {call.key}."


TOOLS: list[ToolFunction] = [weather, failing, long, hold, mail]
