"""What the tests with real clients share."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Iterator

import pytest
import pytest_asyncio
from playwright.async_api import Browser

from tests.conformance.chats import CHATS, Bundles
from tests.conformance.node import bundled
from tests.conformance.program import Program
from tests.conformance.served import Place, placed
from tests.conformance.tabs import chromium
from tests.fakes.tls import Certificate, make_certificate
from tests.server.realtime.serving import Served, serving
from unbroken.server.agents.scripted import ScriptedAgent


@pytest.fixture(scope="session")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Certificate:
    return make_certificate(tmp_path_factory.mktemp("tls"))


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def browser() -> AsyncIterator[Browser]:
    """Chromium, for tests that run in their module's loop."""
    async with chromium() as browser:
        yield browser


@pytest.fixture(scope="session")
def bundles(tmp_path_factory: pytest.TempPathFactory) -> Bundles:
    """The scripts of pages with libraries' chats."""
    folder = tmp_path_factory.mktemp("bundles")
    return {name: bundled(name, folder / name) for name in {chat.script for chat in CHATS.values()}}


@pytest.fixture
async def place(certificate: Certificate) -> AsyncIterator[Place]:
    """A server with the scripted agent, in the clear and behind TLS. What it sent is checked at the end."""
    async with placed(ScriptedAgent(), certificate) as place:
        yield place


@pytest.fixture
async def server() -> AsyncIterator[Served[ScriptedAgent]]:
    """A server with the scripted agent, in the clear. What it sent and logged is checked at the end."""
    async with serving(ScriptedAgent()) as server:
        yield server


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Program]:
    """The server as a program. It may log no error, and has to end in order."""
    program = Program(tmp_path_factory.mktemp("program") / "log")
    program.start()
    yield program
    program.terminate()
    assert not re.search(r"\berror\b|\bcritical\b|Traceback", program.log())
