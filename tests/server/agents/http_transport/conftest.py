"""Places to ask from, in the clear and over TLS, whose certificate is trusted."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from tests.fakes.tls import Certificate, make_certificate
from tests.server.agents.http_transport.asking import Place, until


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Certificate:
    return make_certificate(tmp_path_factory.mktemp("tls"))


@pytest.fixture(autouse=True)
def trusted(certificate: Certificate, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate.chain))
    return iter([certificate.chain])


@pytest.fixture(params=["clear", "tls"])
async def place(request: pytest.FixtureRequest, certificate: Certificate) -> AsyncIterator[Place]:
    tls = None
    if request.param == "tls":
        tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        tls.load_cert_chain(certificate.chain, certificate.key)
    before = asyncio.all_tasks()
    async with AsyncExitStack() as stack:
        yield Place(stack, tls)
    await until(lambda: asyncio.all_tasks() <= {*before, asyncio.current_task()})
