"""``unbroken erase``, over the admin listener of a node."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator
from typing import Any

import pytest
import uvicorn
from pydantic import SecretStr

from tests.server.erasing.test_erasing import ALICE, listed
from tests.server.realtime.serving import Served, eventually, serving
from tests.server.test_admin import KEY
from unbroken.server.agents.scripted import ScriptedAgent
from unbroken.server.config import Settings
from unbroken.server.erase_command import EraseFailed, ask_to_erase
from unbroken.sessions.errors import StoreUnavailable


@contextlib.asynccontextmanager
async def listening(served: Served[Any]) -> AsyncIterator[str]:
    """Serve a server's admin listener, and yield its address."""
    with contextlib.closing(socket.create_server(("127.0.0.1", 0))) as listener:
        config = uvicorn.Config(served.app.admin_asgi, log_config=None, lifespan="off")
        server = uvicorn.Server(config)
        task = asyncio.create_task(server.serve([listener]))
        await eventually(lambda: server.started)
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        server.should_exit = True
        await task


async def erased(url: str, *, user: str = ALICE.user, key: str = KEY) -> list[str]:
    settings = Settings(admin_key=SecretStr(key))
    return await asyncio.to_thread(lambda: list(ask_to_erase(settings, url=url, tenant="default", user=user)))


async def test_everything_of_a_user_s_goes(monkeypatch: pytest.MonkeyPatch) -> None:
    async with serving(ScriptedAgent(), admin_key=KEY) as served:
        client: Any = await served.openai()
        for _ in range(3):
            await client.conversations.create()
        async with listening(served) as url:
            assert await erased(url, user="bob") == ["files                0", "conversations        0"]
            assert len(await listed(client)) == 3
            assert await erased(url) == ["files                0", "conversations        3"]
            assert await listed(client) == []

            async def unavailable(*_: Any) -> Any:
                raise StoreUnavailable

            monkeypatch.setattr(served.app._stored.index, "count", unavailable)
            with pytest.raises(EraseFailed, match="Something may be left of: conversations"):
                await erased(url)
            with pytest.raises(EraseFailed, match="refuses the key"):
                await erased(url, key="z" * 32)


def reported(
    monkeypatch: pytest.MonkeyPatch, *reports: tuple[dict[str, int], list[str], int | None]
) -> list[int]:
    """Have a node answer so, the last of it for ever; return how often it is asked."""
    asked: list[int] = []

    def ask(*_: str) -> dict[str, Any]:
        erased, left, looked_at = reports[min(len(asked), len(reports) - 1)]
        asked.append(1)
        return {"erased": erased, "left": left, "looked_at": looked_at}

    monkeypatch.setattr("unbroken.server.erase_command._ask", ask)
    return asked


def test_it_asks_for_as_long_as_the_node_gets_further(monkeypatch: pytest.MonkeyPatch) -> None:
    left = ["conversations"]
    many: list[tuple[dict[str, int], list[str], int | None]]
    many = [({"conversations": 7}, left, None)] * 50 + [({}, left, 1000 * each) for each in range(1, 51)]
    asked = reported(monkeypatch, *many, ({"conversations": 1}, [], None))
    settings = Settings(admin_key=SecretStr(KEY))
    lines = list(ask_to_erase(settings, url=None, tenant="default", user="alice"))
    assert (lines, len(asked)) == (["conversations        351"], 101)


def test_it_gives_up_where_the_node_gets_no_further(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = reported(monkeypatch, ({}, ["conversations"], 5), ({"kept_answers": 1}, ["conversations"], 4))
    with pytest.raises(EraseFailed, match="Something may be left of: conversations"):
        list(ask_to_erase(Settings(admin_key=SecretStr(KEY)), url=None, tenant="default", user="alice"))
    assert len(asked) == 21


def test_what_it_needs_is_said() -> None:
    def asked(url: str | None = None, **settings: Any) -> None:
        list(ask_to_erase(Settings(**settings), url=url, tenant="default", user="alice"))

    key = SecretStr(KEY)
    with pytest.raises(EraseFailed, match="UNBROKEN_ADMIN_KEY"):
        asked()
    with pytest.raises(EraseFailed, match="UNBROKEN_ADMIN_PORT"):
        asked(admin_key=key, admin_port=0)
    with pytest.raises(EraseFailed, match="no address"):
        asked("ftp://there", admin_key=key)
    with pytest.raises(EraseFailed, match="No server answers"):
        asked("http://127.0.0.1:1", admin_key=key)
