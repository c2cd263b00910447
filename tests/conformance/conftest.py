"""What the tests with real clients share."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from tests.conformance.served import Place, placed
from tests.fakes.tls import Certificate, make_certificate
from unbroken.server.agents.scripted import ScriptedAgent


@pytest.fixture(scope="session")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Certificate:
    return make_certificate(tmp_path_factory.mktemp("tls"))


@pytest.fixture
async def place(certificate: Certificate) -> AsyncIterator[Place]:
    """A server with the scripted agent, in the clear and behind TLS. What it sent is checked at the end."""
    async with placed(ScriptedAgent(), certificate) as place:
        yield place
