"""Clients that leave before their handshake is answered: nothing of them is left, whatever they wait for."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from tests.server.conftest import Serve
from tests.server.realtime.raw import RawClient
from tests.server.realtime.serving import Served, eventually
from tests.server.realtime.test_client_secrets import KEY, KEYS, issued, refusal
from tests.server.realtime.test_limits import PROXY, through
from unbroken.server.agents.scripted import ScriptedAgent
from unbroken.server.auth.entrance import Entrance
from unbroken.server.auth.presence import Presence
from unbroken.server.auth.secret_store import MemorySecretStore
from unbroken.sessions.caps import Caps
from unbroken.sessions.node import Node

STEPS = [
    pytest.param(Entrance, "authenticate", id="identification"),
    pytest.param(Caps, "admit", id="caps"),
    pytest.param(Presence, "note", id="directory"),
    pytest.param(Node, "create", id="session"),
    pytest.param(MemorySecretStore, "spend", id="key"),
]


class Held:
    """Has the first call of a method go no further than its beginning."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, owner: type[Any], name: str) -> None:
        self.is_reached = self.is_cut = False
        self._method = getattr(owner, name)

        async def held(*args: Any, **kwargs: Any) -> Any:
            if not self.is_reached:
                self.is_reached = True
                try:
                    await asyncio.get_running_loop().create_future()
                finally:
                    self.is_cut = True
            return await self._method(*args, **kwargs)

        monkeypatch.setattr(owner, name, held)


@pytest.mark.parametrize(("owner", "name"), STEPS)
async def test_who_leaves_takes_nobody_s_place_and_keeps_the_key(
    serve: Serve, monkeypatch: pytest.MonkeyPatch, owner: type[Any], name: str
) -> None:
    """Neither of the node, nor of the address, nor of a principal: the next one is let in."""
    server: Served[ScriptedAgent] = await serve(
        ScriptedAgent(),
        api_keys=KEYS,
        max_connections=1,
        connections_per_principal=1,
        connections_per_address=1,
        **PROXY,
    )
    backend = through("203.0.113.1")
    key = await issued(server)
    held = Held(monkeypatch, owner, name)
    async with RawClient(server.port, key, headers=backend):
        await eventually(lambda: held.is_reached)
        assert server.app.admission.connections == 1
    await eventually(lambda: server.app.admission.is_empty)

    assert held.is_cut
    assert server.app.turnstile._free == 16
    assert server.app.node.hub.connections == 0
    assert await refusal(server, key) is None, "the key is as good as before"
    await eventually(lambda: server.app.admission.is_empty)
    async with RawClient(server.port, KEY, headers=backend) as raw:
        assert (await raw.response()).status_code == 101


async def test_who_is_cut_off_by_the_handshake_s_time_counts_no_more(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    server: Served[ScriptedAgent] = await serve(ScriptedAgent(), handshake_timeout=1)
    held = Held(monkeypatch, Node, "create")
    async with RawClient(server.port) as raw:
        assert await raw.rest() == []
        await eventually(lambda: server.app.admission.is_empty)

    assert held.is_cut
