"""How many HTTP requests an address may make: over real sockets."""

from __future__ import annotations

from typing import Any

from tests.fakes.clock import FakeClock
from tests.server.realtime.serving import Served, serving
from tests.server.transports.wire import Answer, ask
from unbroken.server.agents.scripted import ScriptedAgent

PROXY: dict[str, Any] = {"trusted_proxies": ("127.0.0.1",)}
PATHS = ("/healthz", "/", "/v1/files", "/nothing")


async def asked(server: Served[ScriptedAgent], path: str, origin: str | None) -> Answer:
    return await ask(server, "GET", path, authorization=None, x_forwarded_for=origin)


async def test_an_address_that_asks_too_often_is_told_when_to_come_back() -> None:
    """Whatever it asks for, before any key is looked at. Others aren't concerned."""
    clock = FakeClock()
    async with serving(ScriptedAgent(), clock=clock, rate_requests=0.4, **PROXY) as server:
        first = [(await asked(server, PATHS[n], "203.0.113.1")).status for n in range(4)]
        refused = [await asked(server, path, "203.0.113.1") for path in PATHS]
        other = await asked(server, "/healthz", "203.0.113.2")
        clock.advance(2.5)
        later = [(await asked(server, "/healthz", "203.0.113.1")).status for _ in range(2)]
        counted = server.app.metrics.registry.get_sample_value(
            "unbroken_connections_refused_total", {"code": "too_many_requests"}
        )

    assert first == [200, 200, 401, 404]
    for answer in refused:
        assert (answer.status, answer.code) == (429, "too_many_requests")
        assert "UNBROKEN_RATE_REQUESTS" in answer.json["error"]["message"]
        assert answer.headers["retry-after"] == "3"
    assert other.status == 200
    assert later == [200, 429]
    assert counted == 5


async def test_pages_and_logs_can_tell_who_was_refused() -> None:
    """As behind any door: a page of an allowed origin may read it, and it has an id."""
    origin = "https://page.example"
    async with serving(
        ScriptedAgent(), clock=FakeClock(), rate_requests=0.1, allowed_origins=origin, **PROXY
    ) as server:
        await asked(server, "/healthz", "203.0.113.1")
        answer = await ask(
            server, "GET", "/v1/models", x_forwarded_for="203.0.113.1", origin=origin, x_request_id="mine"
        )
        other = await ask(
            server, "GET", "/v1/models", x_forwarded_for="203.0.113.1", origin="https://evil.example"
        )

    assert answer.status == other.status == 429
    assert answer.headers["access-control-allow-origin"] == origin
    assert "retry-after" in answer.headers["access-control-expose-headers"]
    assert answer.headers["x-request-id"] == "mine"
    assert "access-control-allow-origin" not in other.headers
    assert other.headers["x-request-id"].startswith("req_")


async def test_this_machine_may_ask_as_often_as_it_likes() -> None:
    async with serving(ScriptedAgent(), clock=FakeClock(), rate_requests=0.1) as server:
        statuses = [(await asked(server, "/healthz", None)).status for _ in range(5)]
        named = [(await asked(server, "/healthz", "203.0.113.1")).status for _ in range(5)]

    assert statuses == named == 5 * [200], "nor does it matter what it says of others"
