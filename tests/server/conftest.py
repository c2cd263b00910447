"""Servers for the tests of the doors."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import Any

import pytest

from tests.server.own_class import NEEDS_OWN_CLASS
from tests.server.realtime.agent import ManualAgent
from tests.server.realtime.serving import Served, serving
from unbroken.server.agents.scripted import ScriptedAgent

Serve = Callable[..., Awaitable[Any]]


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run each test of a door over our WebSocket class, and over uvicorn's as it comes.

    The few that need ours run over it twice: the second time it has no outlet, so that what is sent
    goes by ASGI's ``send`` as it does on any other server.
    """
    if "serve" in metafunc.fixturenames:
        other = "asgi" if metafunc.function.__name__ in NEEDS_OWN_CLASS else "stock"
        metafunc.parametrize("serve", ["outlet", other], indirect=True)


@pytest.fixture(scope="package", autouse=True)
def trusts_nobody(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Clients of HTTP trust no certificates: reading a system's takes each of them longer than its test."""
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("SSL_CERT_FILE", raising=False)
        patch.setenv("SSL_CERT_DIR", str(tmp_path_factory.mktemp("certificates")))
        yield


@pytest.fixture
async def serve(request: pytest.FixtureRequest) -> AsyncIterator[Serve]:
    """Starts a server with an agent and settings. What it sent is checked at the test's end."""
    has_outlet = request.param == "outlet"
    ws = "stock" if request.param == "stock" else "own"
    async with contextlib.AsyncExitStack() as stack:

        async def start(agent: Any, **settings: Any) -> Any:
            return await stack.enter_async_context(
                serving(agent, has_outlet=has_outlet, websocket_class=ws, **settings)
            )

        yield start


@pytest.fixture
async def server(serve: Serve) -> Served[ScriptedAgent]:
    """A server with the scripted agent."""
    served: Served[ScriptedAgent] = await serve(ScriptedAgent())
    return served


@pytest.fixture
async def manual(serve: Serve) -> Served[ManualAgent]:
    """A server whose answers the test makes."""
    served: Served[ManualAgent] = await serve(ManualAgent())
    return served
