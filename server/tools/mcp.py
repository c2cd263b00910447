"""Tools of servers that speak the Model Context Protocol, over streamable HTTP or a child's standard streams.

One connection, in a task of its own, which connects again when it is lost: at once
the first time, then after delays that double up to a minute. While there is none,
there are no tools. A call that was under way is not made again.

The protocol is read and written by the `mcp` package (extra ``mcp``).
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import shlex
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, cast

import structlog
from structlog.typing import FilteringBoundLogger

from unbroken.server.tools.base import Tool, ToolContext, ToolFailed, ToolsUnusable

if TYPE_CHECKING:
    import mcp
    from mcp.client.session import IncomingMessage
    from mcp.types import CallToolResult, RequestParamsMeta

__all__ = ["KEY", "McpTarget", "McpTools"]

_log: FilteringBoundLogger = structlog.get_logger(__name__)

KEY: Final = "unbroken/idempotency-key"
"""Where in a request's ``_meta`` the call's key is."""

_MOST_TOOLS: Final = 128
_MOST_SCHEMA_BYTES: Final = 256 * 1024
"""Of all tools of one server."""
_CONNECT_SECONDS: Final = 10.0
_PING_SECONDS: Final = 30.0
"""Between signs of life, by which a connection that died in silence is noticed."""
_FIRST_DELAY: Final = 0.5
_LONGEST_DELAY: Final = 60.0
_LOST: Final = "The connection to the tool's server was lost. It may have done its work."


@dataclass(frozen=True, slots=True)
class McpTarget:
    """Where a server is: an address, or a command line that starts it."""

    label: str
    place: str
    key: str | None = field(default=None, repr=False)
    """Sent as a bearer token to an address."""

    @property
    def is_address(self) -> bool:
        """Whether it is spoken to over HTTP."""
        return self.place.startswith(("http://", "https://"))


class McpTools:
    """The tools of one MCP server.

    Args:
        target: Where it is.
        needs_approval: Whether users have to approve of each call.

    """

    def __init__(self, target: McpTarget, *, needs_approval: bool = True) -> None:
        self._target = target
        self._needs_approval = needs_approval
        self._tools: tuple[Tool, ...] = ()
        self._session: mcp.ClientSession | None = None
        self._stirred = asyncio.Event()  # the list has changed, or the connection is lost
        self._is_lost = False
        self._tried = asyncio.Event()  # it has been tried to connect
        self._task: asyncio.Task[None] | None = None

    @property
    def label(self) -> str:
        """As the settings say."""
        return self._target.label

    @property
    def tools(self) -> Sequence[Tool]:
        """What the server lists now. Empty while there is no connection."""
        return self._tools

    async def start(self) -> None:
        """Connect, or begin to try again and again. Returns after one try.

        Raises:
            ToolsUnusable: The package isn't installed.

        """
        try:
            import mcp  # noqa: F401 - imported here rather than in the first turn
        except ImportError:
            raise ToolsUnusable("MCP servers need a package more: pip install 'unbroken[mcp]'.") from None
        self._task = asyncio.create_task(self._stay_connected())
        try:
            await self._tried.wait()
        except BaseException:
            await self.stop()
            raise

    async def stop(self) -> None:
        """Close the connection, and end the child if there is one."""
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task

    async def run(self, tool: Tool, arguments: Mapping[str, Any], context: ToolContext) -> str:
        """See :meth:`Toolset.run`. The call's key is in the request's ``_meta``, as :data:`KEY`."""
        from mcp import MCPError

        session = self._session
        if session is None:
            raise ToolFailed("The tool's server can't be reached. Nothing was done.")
        try:
            meta = cast("RequestParamsMeta", {KEY: context.key})
            result = await session.call_tool(tool.name, dict(arguments), meta=meta)
        except MCPError as exc:
            if session is not self._session or await self._is_gone(session):
                raise ToolFailed(_LOST) from None
            raise ToolFailed(exc.message, exc.code) from None
        except RuntimeError:  # the package's own: the result isn't what the tool's schema says
            raise ToolFailed("The tool returned something else than it says it does.") from None
        except OSError:
            self._lose()
            raise ToolFailed(_LOST) from None
        text = _text_of(result)
        if result.is_error:
            raise ToolFailed(text or "The tool failed.")
        return text

    async def _is_gone(self, session: mcp.ClientSession) -> bool:
        """Return whether the connection is lost, and have another one made if it is."""
        try:
            async with asyncio.timeout(_CONNECT_SECONDS):
                await session.send_ping()
        except Exception:  # noqa: BLE001 - whatever it is, nothing comes through
            self._lose()
            return True
        return False

    def _lose(self) -> None:
        self._is_lost, self._session, self._tools = True, None, ()
        self._stirred.set()

    async def _stay_connected(self) -> None:
        delay, loop = 0.0, asyncio.get_running_loop()
        while True:
            began = loop.time()
            try:
                await self._connected()
                if loop.time() - began > _PING_SECONDS:
                    delay = 0.0  # it is none that dies as soon as it lives
            except asyncio.CancelledError:
                raise
            except BaseException as exc:
                if (task := asyncio.current_task()) is not None and task.cancelling():
                    raise asyncio.CancelledError from exc  # it broke because it was told to end
                # No message: it may hold an address with a password.
                _log.warning("mcp server unreachable", server=self.label, error=_name_of(exc))
            finally:
                self._session, self._tools = None, ()
                self._tried.set()
            await asyncio.sleep(delay * random.uniform(0.5, 1.0))  # noqa: S311 - spreads load, no secret
            delay = min(max(delay * 2, _FIRST_DELAY), _LONGEST_DELAY)

    async def _connected(self) -> None:
        """Connect, keep the list up to date, and return when the connection is lost."""
        from mcp import Client

        async with AsyncExitStack() as stack:
            async with asyncio.timeout(_CONNECT_SECONDS):
                transport = self._transport(stack)
                client = Client(transport, mode="legacy", message_handler=self._hear)
                await stack.enter_async_context(client)
                self._is_lost = False
                self._stirred.clear()
                tools = await self._listed(client.session)
            self._session, self._tools = client.session, tools
            self._tried.set()
            _log.info("mcp server connected", server=self.label, tools=len(tools))
            while not self._is_lost:
                try:
                    async with asyncio.timeout(_PING_SECONDS):
                        await self._stirred.wait()
                except TimeoutError:
                    await self._is_gone(client.session)
                    continue
                self._stirred.clear()
                if not self._is_lost:
                    async with asyncio.timeout(_CONNECT_SECONDS):
                        tools = await self._listed(client.session)
                    if not self._is_lost:
                        self._tools = tools
            _log.warning("mcp server lost", server=self.label)

    def _transport(self, stack: AsyncExitStack) -> Any:
        if self._target.is_address:
            from mcp.client.streamable_http import streamable_http_client

            from unbroken.server.tools.mcp_http import McpHttp

            client = McpHttp(self._target.key)
            stack.push_async_callback(client.aclose)
            return streamable_http_client(self._target.place, http_client=client)
        from mcp.client.stdio import StdioServerParameters, stdio_client

        command, *arguments = shlex.split(self._target.place)
        # What a child complains of may quote conversations.
        nowhere = stack.enter_context(Path(os.devnull).open("w"))  # noqa: SIM115 - the stack closes it
        return stdio_client(StdioServerParameters(command=command, args=arguments), errlog=nowhere)

    async def _hear(self, message: IncomingMessage) -> None:
        from mcp.types import ToolListChangedNotification

        if isinstance(message, ToolListChangedNotification):
            self._stirred.set()
        elif isinstance(message, Exception):
            self._lose()

    async def _listed(self, session: mcp.ClientSession) -> tuple[Tool, ...]:
        """Return the server's tools, as many as there may be."""
        from mcp.types import PaginatedRequestParams

        tools: list[Tool] = []
        size = 0
        cursor: str | None = None
        while True:
            page = await session.list_tools(params=PaginatedRequestParams(cursor=cursor))
            # An upstream refuses a request that has another one, and so all of them.
            usable = [each for each in page.tools if each.name and each.input_schema.get("type") == "object"]
            if len(usable) < len(page.tools):
                _log.warning("mcp server has unusable tools", server=self.label)
            for each in usable:
                size += len(each.name) + len(json.dumps(each.input_schema)) + len(each.description or "")
                if len(tools) == _MOST_TOOLS or size > _MOST_SCHEMA_BYTES:
                    _log.warning("mcp server has too many tools", server=self.label, taken=len(tools))
                    return tuple(tools)
                tools.append(
                    Tool(
                        name=each.name,
                        description=each.description,
                        parameters=each.input_schema,
                        needs_approval=self._needs_approval,
                    )
                )
            cursor = page.next_cursor
            if not (cursor and page.tools):
                return tuple(tools)


def _text_of(result: CallToolResult) -> str:
    """Return what a model can read of a result."""
    from mcp.types import TextContent

    parts = [
        part.text if isinstance(part, TextContent) else f"[{part.type}, not shown]" for part in result.content
    ]
    if not parts and result.structured_content is not None:
        return json.dumps(result.structured_content, ensure_ascii=False)
    return "\n".join(parts)


def _name_of(exc: BaseException) -> str:
    while isinstance(exc, BaseExceptionGroup) and exc.exceptions:
        exc = exc.exceptions[0]
    return type(exc).__name__
