"""The list of tests that need the server's own WebSocket class is about tests that exist."""

from __future__ import annotations

import re
from pathlib import Path

from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol

from tests.server.own_class import NEEDS_OWN_CLASS
from unbroken.server.config import Settings
from unbroken.server.process import Server
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
