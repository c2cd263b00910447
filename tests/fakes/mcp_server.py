"""A real MCP server, to be run as a child process: with a port, or without one over its standard streams."""

from __future__ import annotations

import asyncio
import json
import os
import sys

from mcp.server import MCPServer
from mcp.server.mcpserver import Context

server = MCPServer("fake")


@server.tool()
async def add(a: int, b: int) -> str:
    """Add two numbers."""
    return str(a + b)


@server.tool()
async def meta(ctx: Context) -> str:
    """Say what the request's `_meta` is."""
    return json.dumps(dict(ctx.request_context.meta or {}))


@server.tool()
async def broken() -> str:
    """Fail."""
    raise ValueError("no such thing")


@server.tool()
async def die() -> str:
    """End the whole server in the middle of the call."""
    os._exit(1)


@server.tool()
async def hang() -> str:
    """Never end."""
    await asyncio.Event().wait()
    return ""


@server.tool()
async def grow(ctx: Context) -> str:
    """Have one tool more."""

    @server.tool(name="late.comer")
    async def late() -> str:
        return "here"

    await ctx.session.send_tool_list_changed()
    return "grown"


if __name__ == "__main__":
    if sys.argv[1:]:
        server.run("streamable-http", port=int(sys.argv[1]))
    else:
        server.run("stdio")
