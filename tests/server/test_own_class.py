"""The choice between the server's own WebSocket class and uvicorn's, and which tests need the first."""

from __future__ import annotations

import asyncio
import contextlib
import re
from pathlib import Path

import pytest
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol

from tests.server.own_class import NEEDS_OWN_CLASS
from tests.server.realtime.client import WAIT
from tests.server.realtime.serving import eventually, serving
from tests.server.transports.quick import CLOSE_FRAME, UPGRADE, WebSocketApplication, deaf_peer
from unbroken.server.agents.scripted import ScriptedAgent
from unbroken.server.config import Settings
from unbroken.server.process import Server, bind
from unbroken.server.transports.protocol import WebSocketProtocol


def test_every_test_that_is_listed_exists() -> None:
    folder = Path(__file__).parent
    tests = {
        name
        for path in folder.rglob("test_*.py")
        for name in re.findall(r"async def (test_\w+)\(", path.read_text())
    }

    assert set(NEEDS_OWN_CLASS) <= tests


def test_the_setting_decides_which_class_it_is() -> None:
    async def app(*_: object) -> None:
        raise AssertionError("not called")

    own = Server(app, [], Settings()).config.ws
    stock = Server(app, [], Settings(websocket_class="stock")).config.ws

    assert isinstance(own, type)
    assert issubclass(own, WebSocketProtocol)
    assert stock is WebSocketsSansIOProtocol


async def test_stock_connections_that_are_closing_do_not_break_the_end_of_the_process() -> None:
    """uvicorn's class raises when it is told to close one that its peer has closed and that still flushes."""
    app = WebSocketApplication()
    settings = Settings(port=0, admin_port=0, websocket_class="stock")
    with contextlib.closing(bind(settings)) as listeners:
        server = Server(app, listeners.public, settings)
        task = asyncio.create_task(server.run_until_stopped())
        await server.listening.wait()
        with deaf_peer(listeners.public[0].getsockname()[1]) as peer:
            await asyncio.wait_for(app.stuck.wait(), WAIT)
            (connection,) = server.server_state.connections
            assert type(connection) is WebSocketsSansIOProtocol
            peer.sendall(CLOSE_FRAME)
            await eventually(connection.transport.is_closing)
            server.stop()
            await asyncio.wait_for(task, WAIT)

    assert server.server_state.connections == set()


@pytest.mark.parametrize("header", ["Content-Length: 5", "Transfer-Encoding: chunked", "X: " + 9000 * "x"])
async def test_a_handshake_that_the_stock_class_cannot_read_is_refused(header: str) -> None:
    """It was never answered, and its socket, which no address counted any more, was kept for ever."""
    async with serving(ScriptedAgent(), websocket_class="stock") as server:
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
        try:
            lines = UPGRADE.replace(b"Host: x", b"Host: x\r\n" + header.encode())
            writer.write(lines.replace(b"GET / ", b"GET /v1/realtime "))
            async with asyncio.timeout(WAIT):
                answer = await reader.read()
        finally:
            writer.close()
        await server.no_connections()

    assert answer.startswith(b"HTTP/1.1 400 ")
