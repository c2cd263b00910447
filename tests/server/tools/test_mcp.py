"""MCP servers, real ones in child processes, over both transports."""

from __future__ import annotations

import asyncio
import json
import re
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any, cast

import pytest
from mcp import ClientSession
from mcp.types import ListToolsResult
from mcp.types import Tool as ListedTool

from tests.fakes.surroundings import free_port
from tests.server.realtime.serving import serving
from unbroken.server.agents.scripted import ScriptedAgent
from unbroken.server.tools.base import ToolContext, ToolFailed
from unbroken.server.tools.mcp import KEY, McpTarget, McpTools

WAIT = 45
PROGRAM = [sys.executable, "-m", "tests.fakes.mcp_server"]
CALL = ToolContext(key="item_1", session_id="sess_1", principal="ada")
NAMES = ["add", "meta", "broken", "die", "hang", "grow"]


async def until(holds: Callable[[], bool]) -> None:
    """Return when *holds* does. Processes tell nobody that they have started or ended."""
    async with asyncio.timeout(WAIT):
        while not holds():  # noqa: ASYNC110 - as said
            await asyncio.sleep(0.01)


def names(tools: McpTools) -> list[str]:
    return [tool.name for tool in tools.tools]


async def run(tools: McpTools, name: str, **arguments: Any) -> str:
    (tool,) = [each for each in tools.tools if each.name == name]
    return await tools.run(tool, arguments, CALL)


class Server:
    """A server's process at an address, that can be killed and started again."""

    def __init__(self) -> None:
        self.port = free_port()
        self.process: asyncio.subprocess.Process | None = None

    async def start(self) -> None:
        nowhere = asyncio.subprocess.DEVNULL
        self.process = await asyncio.create_subprocess_exec(
            *PROGRAM, str(self.port), stdout=nowhere, stderr=nowhere
        )

    async def stop(self) -> None:
        if self.process is not None:
            if self.process.returncode is None:
                self.process.kill()
            await self.process.wait()


@asynccontextmanager
async def started(target: McpTarget) -> AsyncIterator[McpTools]:
    tools = McpTools(target, needs_approval=False)
    await tools.start()
    try:
        yield tools
    finally:
        await tools.stop()


@pytest.fixture(params=["stdio", "http"])
async def target(request: pytest.FixtureRequest) -> AsyncIterator[McpTarget]:
    if request.param == "stdio":
        yield McpTarget("fake", " ".join(PROGRAM))
        return
    server = Server()
    await server.start()
    yield McpTarget("fake", f"http://127.0.0.1:{server.port}/mcp")
    await server.stop()


@pytest.fixture
async def tools(target: McpTarget) -> AsyncIterator[McpTools]:
    async with started(target) as running:
        await until(lambda: bool(running.tools))
        yield running


@pytest.mark.slow
async def test_tools_are_listed_and_run(tools: McpTools) -> None:
    add = tools.tools[0]

    assert names(tools) == NAMES
    assert (add.description, add.parameters["required"]) == ("Add two numbers.", ["a", "b"])
    assert await run(tools, "add", a=1, b=2) == "3"
    assert json.loads(await run(tools, "meta"))[KEY] == "item_1"


@pytest.mark.slow
async def test_what_a_tool_says_of_its_failure_is_passed_on(tools: McpTools) -> None:
    with pytest.raises(ToolFailed, match="Error executing tool broken"):
        await run(tools, "broken")
    with pytest.raises(ToolFailed, match="valid integer"):
        await run(tools, "add", a="x", b=2)


@pytest.mark.slow
async def test_a_call_can_be_stopped_and_others_go_on(tools: McpTools) -> None:
    hanging = asyncio.create_task(run(tools, "hang"))
    assert await run(tools, "add", a=1, b=2) == "3"
    hanging.cancel()
    with pytest.raises(asyncio.CancelledError):
        await hanging
    assert await run(tools, "add", a=2, b=2) == "4"


@pytest.mark.slow
async def test_all_calls_end_when_the_connection_is_lost() -> None:
    async with started(McpTarget("fake", " ".join(PROGRAM))) as tools:
        hanging = asyncio.create_task(run(tools, "hang"))
        await run(tools, "add", a=1, b=2)
        with pytest.raises(ToolFailed, match="It may have done its work"):
            await run(tools, "die")
        async with asyncio.timeout(WAIT):
            with pytest.raises(ToolFailed, match="It may have done its work"):
                await hanging


@pytest.mark.slow
async def test_a_list_that_changes_is_taken_anew(tools: McpTools) -> None:
    assert await run(tools, "grow") == "grown"
    await until(lambda: "late.comer" in names(tools))

    assert await run(tools, "late.comer") == "here"


@pytest.mark.slow
async def test_a_child_that_dies_in_mid_call_is_started_again() -> None:
    async with started(McpTarget("fake", " ".join(PROGRAM))) as tools:
        with pytest.raises(ToolFailed, match="It may have done its work"):
            await run(tools, "die")
        await until(lambda: names(tools) == NAMES)
        assert await run(tools, "add", a=1, b=2) == "3"


@pytest.mark.slow
async def test_a_server_that_is_killed_in_mid_call_is_found_again() -> None:
    server = Server()
    await server.start()
    async with started(McpTarget("fake", f"http://127.0.0.1:{server.port}/mcp")) as tools:
        await until(lambda: names(tools) == NAMES)
        with pytest.raises(ToolFailed, match="It may have done its work"):
            await run(tools, "die")
        await until(lambda: not tools.tools)
        await server.stop()
        await server.start()
        await until(lambda: names(tools) == NAMES)
        assert await run(tools, "add", a=1, b=2) == "3"
    await server.stop()


@pytest.mark.slow
async def test_a_server_that_isnt_there_keeps_nobody_from_starting() -> None:
    server = Server()
    async with started(McpTarget("fake", f"http://127.0.0.1:{server.port}/mcp")) as tools:
        assert tools.tools == ()
        await server.start()
        await until(lambda: names(tools) == NAMES)
    await server.stop()


class Restless(McpTools):
    """Its connection, when it is told to end, breaks instead, as the package's task groups may."""

    async def _connected(self) -> None:
        self._tried.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            raise RuntimeError("while closing") from None


async def test_stopping_ends_it_also_if_the_connection_breaks_on_the_way() -> None:
    tools = Restless(McpTarget("fake", "nothing"))
    await tools.start()
    async with asyncio.timeout(WAIT):
        await tools.stop()


@pytest.mark.slow
async def test_who_stops_waiting_for_the_start_leaves_nothing_behind() -> None:
    before = asyncio.all_tasks()
    tools = McpTools(McpTarget("fake", " ".join(PROGRAM)))
    starting = asyncio.create_task(tools.start())
    await asyncio.sleep(0.05)
    starting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await starting

    assert asyncio.all_tasks() == before


class Dripping:
    """A server over HTTP whose answer to the last request, by which a session ends, drips in for ever."""

    def __init__(self) -> None:
        self.was_asked_to_end, self.was_left = asyncio.Event(), asyncio.Event()

    async def answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(asyncio.IncompleteReadError, OSError):
            while not self.was_asked_to_end.is_set():
                head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
                length = re.search(r"content-length: (\d+)", head)
                body = await reader.readexactly(int(length[1]) if length else 0)
                if head.startswith("delete"):
                    await self._drip(reader, writer)
                else:
                    writer.write(self._answered(body) if head.startswith("post") else _NOT_THAT)
        writer.close()

    async def _drip(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.was_asked_to_end.set()
        left = asyncio.create_task(reader.read())
        writer.write(b"HTTP/1.1 200 OK\r\nX: ")
        while not left.done():
            writer.write(b"a")
            await asyncio.wait({left}, timeout=0.01)
        self.was_left.set()
        await left

    @staticmethod
    def _answered(body: bytes) -> bytes:
        said = json.loads(body)
        if "id" not in said:
            return b"HTTP/1.1 202 Accepted\r\nContent-Length: 0\r\n\r\n"
        result: dict[str, Any] = {"tools": []}
        if said["method"] == "initialize":
            result = {
                "protocolVersion": said["params"]["protocolVersion"],
                "capabilities": {"tools": {}},
                "serverInfo": {"name": "dripping", "version": "1"},
            }
        text = json.dumps({"jsonrpc": "2.0", "id": said["id"], "result": result}).encode()
        head = f"Content-Type: application/json\r\nMcp-Session-Id: s1\r\nContent-Length: {len(text)}\r\n\r\n"
        return b"HTTP/1.1 200 OK\r\n" + head.encode() + text


_NOT_THAT = b"HTTP/1.1 405 Method Not Allowed\r\nContent-Length: 0\r\n\r\n"


async def test_the_end_waits_for_no_server_that_never_confirms_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("unbroken.server.tools.mcp_http._END_SECONDS", 0.2)
    dripping = Dripping()
    async with await asyncio.start_server(dripping.answer, "127.0.0.1", 0) as server:
        tools = McpTools(McpTarget("fake", f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/mcp"))
        await tools.start()
        assert tools._session is not None
        stopping = asyncio.create_task(tools.stop())
        done, _ = await asyncio.wait({stopping}, timeout=WAIT)
        stopping.cancel()
        assert done
        assert dripping.was_asked_to_end.is_set()
        await dripping.was_left.wait()


class Lister:
    """A session with a server that lists what no model could be told of."""

    async def list_tools(self, *, params: object) -> ListToolsResult:
        del params
        schema = {"type": "object"}
        tools = [
            ListedTool(name="", input_schema=schema),
            ListedTool(name="list", input_schema={"type": "array"}),
            ListedTool(name="none", input_schema={}),
            ListedTool(name="good", input_schema=schema),
            ListedTool(name="x" * 300_000, input_schema=schema),
        ]
        return ListToolsResult(tools=tools, next_cursor="more")


async def test_tools_that_no_upstream_takes_are_left_out() -> None:
    """One of them would have every request of every session refused."""
    tools = McpTools(McpTarget("fake", "nothing"))
    listed = await tools._listed(cast("ClientSession", Lister()))

    assert [tool.name for tool in listed] == ["good"]


@pytest.mark.slow
async def test_the_door_runs_them_with_the_users_approval() -> None:
    tools = McpTools(McpTarget("fake", " ".join(PROGRAM)))
    async with serving(ScriptedAgent(), toolsets=[tools]) as served:
        await until(lambda: bool(tools.tools))
        client = await served.client()
        await client.ask('/call add {"a": 1, "b": 2}')
        (request,) = (await client.done())["output"]
        item = {"type": "mcp_approval_response", "approval_request_id": request["id"], "approve": True}
        await client.send({"type": "conversation.item.create", "item": item}, {"type": "response.create"})
        call, answer = (await client.done())["output"]

    assert (request["type"], request["server_label"]) == ("mcp_approval_request", "fake")
    assert (call["server_label"], call["output"]) == ("fake", "3")
    assert answer["content"][0]["text"] == "Returned: 3"
