"""What a request is told that comes to a WebSocket's door without asking for a WebSocket."""

from __future__ import annotations

import pytest

from tests.server.realtime.serving import serving
from tests.server.transports.wire import ask
from unbroken.server.agents.scripted import ScriptedAgent

PATHS = {
    "/v1/realtime": "GET, HEAD, OPTIONS",
    "/v1/ui/ws": "GET, HEAD, OPTIONS",
    "/v1/agui/ws": "GET, HEAD, OPTIONS",
    "/v1/responses": "POST, GET, HEAD, OPTIONS",
    "/v1/widget/deepchat": "POST, GET, HEAD, OPTIONS",
}


@pytest.mark.parametrize("path", PATHS)
async def test_it_is_told_that_it_has_to(path: str) -> None:
    """As of a proxy that leaves out ``Upgrade``: it isn't that there is nothing."""
    async with serving(ScriptedAgent()) as server:
        answer = await ask(server, "GET", path)
        other = await ask(server, "PUT", path)

    assert (answer.status, answer.code) == (426, "upgrade_required")
    assert answer.headers["upgrade"] == "websocket"
    assert answer.headers["x-request-id"]
    assert (other.status, other.code) == (405, "method_not_allowed")
    assert other.headers["allow"] == PATHS[path]
