"""A TLS endpoint on loopback, in front of a server that has none: the JavaScript SDKs speak nothing else.

::

    certificate = make_certificate(folder)
    async with TlsProxy(server_port, certificate) as proxy:
        connect(f"wss://127.0.0.1:{proxy.port}")

It passes bytes and knows no protocol.
"""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import ssl
import subprocess
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

__all__ = ["Certificate", "TlsProxy", "make_certificate"]

_CHUNK = 65_536


@dataclass(frozen=True, slots=True)
class Certificate:
    """For 127.0.0.1, signed by itself, good for a day."""

    chain: Path
    key: Path


def make_certificate(folder: Path) -> Certificate:
    """Make a certificate in *folder*."""
    openssl = shutil.which("openssl")
    assert openssl, "These tests need openssl. Install it: apt-get install openssl"
    made = Certificate(folder / "certificate.pem", folder / "key.pem")
    command = [openssl, "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    names = ["-days", "1", "-subj", "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1,DNS:localhost"]
    files = ["-out", str(made.chain), "-keyout", str(made.key)]
    subprocess.run([*command, *names, *files], check=True, capture_output=True)
    return made


class TlsProxy:
    """Use as an asynchronous context manager.

    Args:
        target: The port on loopback that connections are passed on to, in the clear.
        certificate: What it shows.

    """

    def __init__(self, target: int, certificate: Certificate) -> None:
        self._target = target
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._context.load_cert_chain(certificate.chain, certificate.key)
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._is_over = False
        self.port = 0
        """Where it listens."""

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._begin, "127.0.0.1", 0, ssl=self._context)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        assert self._server is not None
        self._server.close()
        self._is_over = True
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)

    def _begin(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._is_over:  # it was on its way
            writer.transport.abort()
            return
        task = asyncio.get_running_loop().create_task(self._connect(reader, writer))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _connect(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writers = [writer]
        try:
            far_reader, far_writer = await asyncio.open_connection("127.0.0.1", self._target)
            writers.append(far_writer)
            # TLS knows no half-closed connections: the end of either direction is the end.
            ways = [_pass_on(reader, far_writer), _pass_on(far_reader, writer)]
            tasks = [asyncio.ensure_future(way) for way in ways]
            try:
                await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for task in tasks:
                    task.cancel()
                await asyncio.wait(tasks)
        except OSError:
            pass  # nobody listens there
        finally:
            for each in writers:
                each.close()
            try:
                for each in writers:
                    with contextlib.suppress(OSError):
                        await each.wait_closed()
            finally:  # also of whoever has said no farewell when this is over
                for each in writers:
                    each.transport.abort()


async def _pass_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        while data := await reader.read(_CHUNK):
            writer.write(data)
            await writer.drain()
