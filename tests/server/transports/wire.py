"""The door ``/v1/files`` byte by byte, as no official client speaks."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from tests.server.files.contents import TEXT
from tests.server.realtime.client import WAIT
from tests.server.realtime.serving import Served, eventually, serving
from unbroken.server.agents.scripted import ScriptedAgent
from unbroken.server.files.base import FileStore
from unbroken.server.transports.refusal import error_type

__all__ = [
    "END",
    "FILE",
    "KIND",
    "PURPOSE",
    "Answer",
    "Wire",
    "ask",
    "begun",
    "file_server",
    "part",
    "post",
    "store_of",
    "uploads",
    "wire_to",
]


KIND = "multipart/form-data; boundary=b"


@asynccontextmanager
async def file_server(files: str) -> AsyncIterator[Served[ScriptedAgent]]:
    """Serve files, and see to it that nothing of an upload is left behind."""
    async with serving(ScriptedAgent(), files=files, max_file_bytes=1 << 20) as server:
        yield server
        await nothing_on_its_way(server)


def store_of(server: Served[Any]) -> FileStore:
    assert server.app.files is not None
    return server.app.files


async def nothing_on_its_way(server: Served[Any]) -> None:
    """Return when no upload is left, nor anything of one: what there is are files."""
    store = store_of(server)
    await eventually(lambda: server.app.transfers.count == 0)
    for key in ("alice", "bob"):
        api = await server.openai(key)
        for file in (await api.files.list()).data:
            await api.files.delete(file.id)
    await eventually(lambda: (store.count, store.size) == (0, 0))


def uploads(server: Served[Any]) -> dict[str, float]:
    """Return how many uploads ended in which way, as the metric has it."""
    return {
        sample.labels["outcome"]: sample.value
        for family in server.app.metrics.registry.collect()
        for sample in family.samples
        if sample.name == "unbroken_uploads_total"
    }


@dataclass(frozen=True)
class Answer:
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def code(self) -> str:
        error = self.json["error"]
        assert error["message"]
        assert error["type"] == error_type(self.status)
        code: str = error["code"]
        return code


class Wire:
    """One HTTP request, sent by hand."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    def head(
        self,
        method: str = "POST",
        path: str = "/v1/files",
        given: Mapping[str, str] | Mapping[str, str | None] | None = None,
        **headers: str | None,
    ) -> None:
        fields: dict[str, str | None] = {
            "host": "127.0.0.1",
            "authorization": "Bearer alice",
            "content-type": KIND if method == "POST" else None,
            **(given or {}),
            **headers,
        }
        lines = [f"{name.replace('_', '-')}: {value}" for name, value in fields.items() if value is not None]
        self.writer.write("\r\n".join([f"{method} {path} HTTP/1.1", *lines, "", ""]).encode())

    def chunk(self, data: bytes) -> None:
        self.writer.write(b"%x\r\n%b\r\n" % (len(data), data))

    async def answer(self) -> Answer:
        async with asyncio.timeout(WAIT):
            head = (await self.reader.readuntil(b"\r\n\r\n")).decode()
            status, *lines = head.strip().split("\r\n")
            headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}
            body = await self.reader.readexactly(int(headers.get("content-length", "0")))
        return Answer(int(status.split()[1]), headers, body)


@asynccontextmanager
async def wire_to(server: Served[Any]) -> AsyncIterator[Wire]:
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    try:
        yield Wire(reader, writer)
    finally:
        writer.transport.abort()


async def ask(server: Served[Any], method: str, path: str = "/v1/files", **headers: str | None) -> Answer:
    async with wire_to(server) as wire:
        wire.head(method, path, headers)
        return await wire.answer()


def part(name: str, content: bytes, filename: str | None = None, more: str = "") -> bytes:
    named = "" if filename is None else f'; filename="{filename}"'
    head = f'Content-Disposition: form-data; name="{name}"{named}\r\n{more}'
    return b"--b\r\n" + head.encode() + b"\r\n" + content + b"\r\n"


PURPOSE = part("purpose", b"user_data")
END = b"--b--\r\n"


async def post(server: Served[Any], body: bytes, key: str = "alice") -> Answer:
    async with wire_to(server) as wire:
        wire.head(content_length=str(len(body)), authorization=f"Bearer {key}")
        wire.writer.write(body)
        return await wire.answer()


FILE = PURPOSE + part("file", TEXT, "a") + END


async def begun(server: Served[Any], wire: Wire, size: int, headers: Mapping[str, str] | None = None) -> None:
    """Have an upload of unknown length begin, and be here as far as it was sent."""
    wire.head(given=headers, transfer_encoding="chunked")
    wire.chunk(PURPOSE + b'--b\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\n')
    wire.chunk(b"x" * size)
    await eventually(lambda: store_of(server).size > size)
