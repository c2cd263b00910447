"""The door ``/v1/files``: what the official client can do there, and what hostile ones can't."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from hashlib import sha256
from io import BytesIO
from typing import Any

import openai
import pytest
from websockets.exceptions import InvalidStatus

from tests.fakes.clock import FakeClock
from tests.server.files.contents import HTML, PDF, PNG, TEXT
from tests.server.realtime.client import WAIT
from tests.server.realtime.serving import Served, eventually, serving
from unbroken.server.agents.scripted import ScriptedAgent
from unbroken.server.files.base import FileStore
from unbroken.server.files.transfers import TransferLimits
from unbroken.server.transports.http_protocol import HttpProtocol

pytestmark = pytest.mark.parametrize("files", ["disk", "memory"])

KIND = "multipart/form-data; boundary=b"


@pytest.fixture
async def server(files: str) -> AsyncIterator[Served[ScriptedAgent]]:
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
        assert error["type"] == ("server_error" if self.status >= 500 else "invalid_request_error")
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


# The official client.


async def test_the_official_client_works_unchanged(server: Served[ScriptedAgent]) -> None:
    api = await server.openai()
    made = await api.files.create(
        file=("Größe.png", PNG),
        purpose="vision",
        expires_after={"anchor": "created_at", "seconds": 3600},
    )
    assert (made.bytes, made.filename, made.purpose) == (len(PNG), "Größe.png", "vision")
    assert made.expires_at is not None
    assert made.expires_at - made.created_at == 3600
    assert await api.files.retrieve(made.id) == made
    assert (await api.files.content(made.id)).content == PNG
    assert await api.files.wait_for_processing(made.id) == made
    other = await api.files.create(file=BytesIO(TEXT), purpose="user_data")
    assert [file.id async for file in api.files.list(limit=1)] == [other.id, made.id]
    assert [file.id async for file in api.files.list(order="asc", purpose="vision")] == [made.id]
    gone = await api.files.delete(made.id)
    assert (gone.id, gone.deleted) == (made.id, True)
    with pytest.raises(openai.NotFoundError) as error:
        await api.files.retrieve(made.id)

    assert error.value.code == "file_not_found"


async def test_a_large_file_comes_back_as_it_was(server: Served[ScriptedAgent]) -> None:
    api = await server.openai()
    content = PDF + bytes(range(256)) * 4000
    made = await api.files.create(file=("a.pdf", content), purpose="user_data")

    assert (await api.files.content(made.id)).content == content


async def test_another_key_finds_nothing(server: Served[ScriptedAgent]) -> None:
    made = await (await server.openai("alice")).files.create(file=("a.png", PNG), purpose="vision")
    bob = await server.openai("bob")
    said = set()
    for file_id in (made.id, "file-" + "0" * 32, "x"):
        for act in (bob.files.retrieve, bob.files.content, bob.files.delete):
            with pytest.raises(openai.NotFoundError) as error:
                await act(file_id)
            said.add(str(error.value))

    assert len(said) == 1
    assert (await bob.files.list()).data == []


async def test_a_quota_is_its_principals_own(files: str) -> None:
    async with serving(ScriptedAgent(), files=files, max_principal_files=2) as server:
        alice, bob = await server.openai("alice"), await server.openai("bob")
        for _ in range(2):
            await alice.files.create(file=("a", TEXT), purpose="user_data")
        with pytest.raises(openai.PermissionDeniedError) as error:
            await alice.files.create(file=("a", TEXT), purpose="user_data")
        assert error.value.code == "too_many_files"
        await bob.files.create(file=("a", TEXT), purpose="user_data")

        metrics = server.app.metrics.exposition().decode()
        assert 'unbroken_uploads_total{outcome="stored"} 3.0' in metrics
        assert 'unbroken_uploads_total{outcome="too_many_files"} 1.0' in metrics
        assert "unbroken_files 3.0" in metrics


async def test_a_file_expires(files: str) -> None:
    clock = FakeClock()
    async with serving(ScriptedAgent(), clock=clock, files=files, file_lifetime=60) as server:
        api = await server.openai()
        made = await api.files.create(file=("a.png", PNG), purpose="vision")
        clock.advance(59)
        await api.files.retrieve(made.id)
        clock.advance(2)
        with pytest.raises(openai.NotFoundError):
            await api.files.content(made.id)
        store = store_of(server)
        await eventually(lambda: store.size == 0)


# What is served.


@pytest.mark.parametrize("content", [HTML, PNG + HTML, b"%PDF-1.7" + HTML, TEXT])
async def test_content_is_a_download_and_never_a_page(server: Served[ScriptedAgent], content: bytes) -> None:
    api = await server.openai()
    made = await api.files.create(file=("evil.html", content, "text/html"), purpose="user_data")
    answer = await ask(server, "GET", f"/v1/files/{made.id}/content")

    assert answer.body == content
    assert "html" not in answer.headers["content-type"]
    assert answer.headers["content-disposition"].startswith("attachment; ")
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["content-security-policy"] == "default-src 'none'; sandbox"
    assert answer.headers["cache-control"] == "private, no-store"


async def test_a_head_is_the_same_without_the_content(server: Served[ScriptedAgent]) -> None:
    made = await (await server.openai()).files.create(file=("a.png", PNG), purpose="vision")
    async with wire_to(server) as wire:
        wire.head("HEAD", f"/v1/files/{made.id}/content", connection="close")
        head = await wire.reader.read()

    assert f"content-length: {len(PNG)}\r\n".encode() in head
    assert head.endswith(b"\r\n\r\n")


@pytest.mark.parametrize("reads", [False, True])
async def test_who_does_not_read_a_download_is_cut(
    files: str, monkeypatch: pytest.MonkeyPatch, reads: bool
) -> None:
    """Nor may one read now and then: that would keep a place for hours."""
    monkeypatch.setattr(HttpProtocol, "unread_timeout", 0.5 if reads else 0.05)
    monkeypatch.setattr(HttpProtocol, "unread_refill", 0.02)
    async with serving(ScriptedAgent(), files=files, max_file_bytes=32 << 20) as server:
        content = b"x" * (16 << 20)  # more than the kernel's buffers hold
        made = await (await server.openai()).files.create(file=("a", content), purpose="user_data")
        with socket.socket() as sock:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            sock.setblocking(False)
            loop = asyncio.get_running_loop()
            await loop.sock_connect(sock, ("127.0.0.1", server.port))
            head = f"GET /v1/files/{made.id}/content HTTP/1.1\r\nhost: localhost\r\n"
            await loop.sock_sendall(sock, f"{head}authorization: Bearer alice\r\n\r\n".encode())
            await eventually(lambda: server.app.transfers.count == 1)
            reading = asyncio.create_task(read_slowly(sock)) if reads else None
            await eventually(lambda: server.app.transfers.count == 0)
            if reading is not None:
                assert not reading.done(), "it was cut, and has not been sent everything"
                reading.cancel()


async def read_slowly(sock: socket.socket) -> None:
    """Read to the end, with pauses shorter than the limit."""
    while await asyncio.get_running_loop().sock_recv(sock, 1 << 17):  # noqa: ASYNC110 - it waits for nothing
        await asyncio.sleep(0.05)


# Who may come in.


async def test_without_a_key_nothing_is_read(server: Served[ScriptedAgent]) -> None:
    for key in (None, "Bearer ", "Basic YTpi"):
        answer = await ask(server, "POST", authorization=key, content_length="1000")

        assert (answer.status, answer.code) == (401, "invalid_api_key")
        assert answer.headers["www-authenticate"] == "Bearer"


async def test_pages_of_other_origins_may_not(files: str) -> None:
    own = "https://app.example.com"
    async with serving(ScriptedAgent(), files=files, allowed_origins=(own,)) as server:
        foreign = await ask(server, "GET", origin="https://evil.example.com")
        assert (foreign.status, foreign.code) == (403, "origin_not_allowed")
        assert "access-control-allow-origin" not in foreign.headers

        allowed = await ask(server, "GET", origin=own)
        assert (allowed.status, allowed.headers["access-control-allow-origin"]) == (200, own)
        assert allowed.headers["vary"] == "origin"
        refused = await ask(server, "GET", "/v1/files/x", origin=own)
        assert (refused.status, refused.headers["access-control-allow-origin"]) == (404, own)

        wanted = "authorization, content-type, x-stainless-os"
        preflight = await ask(
            server,
            "OPTIONS",
            origin=own,
            authorization=None,
            access_control_request_method="POST",
            access_control_request_headers=wanted,
        )
        assert (preflight.status, preflight.headers["access-control-allow-headers"]) == (204, wanted)
        assert "DELETE" in preflight.headers["access-control-allow-methods"]
        preflight = await ask(server, "OPTIONS", origin="https://evil.example.com", authorization=None)
        assert preflight.status == 403


async def test_without_keys_it_is_for_this_machine(server: Served[ScriptedAgent]) -> None:
    answer = await ask(server, "GET", host="evil.example.com")

    assert (answer.status, answer.code) == (403, "host_not_allowed")


@pytest.mark.parametrize("path", ["/v1/files/", "/v1/files/a/", "/v1/files/a/content/", "/v1/files/a/b/c"])
async def test_a_path_where_there_is_nothing_is_checked_like_the_others(
    server: Served[ScriptedAgent], path: str
) -> None:
    """A slash too many was answered by a redirect, ahead of every check, to whatever name was asked for."""
    for method in ("GET", "POST", "PUT"):
        foreign = await ask(server, method, path, host="evil.example.com")
        unknown = await ask(server, method, path, authorization=None)
        answer = await ask(server, method, path)

        assert (foreign.status, foreign.code) == (403, "host_not_allowed")
        assert (unknown.status, unknown.code) == (401, "invalid_api_key")
        assert (answer.status, answer.code) == (404, "path_not_found")


@pytest.mark.parametrize(
    ("method", "path", "allow"),
    [
        ("PUT", "/v1/files", {"GET", "HEAD", "POST", "OPTIONS"}),
        ("DELETE", "/v1/files", {"GET", "HEAD", "POST", "OPTIONS"}),
        ("POST", "/v1/files/a", {"GET", "HEAD", "DELETE", "OPTIONS"}),
        ("DELETE", "/v1/files/a/content", {"GET", "HEAD", "OPTIONS"}),
    ],
)
async def test_another_method_is_told_which_there_are(
    server: Served[ScriptedAgent], method: str, path: str, allow: set[str]
) -> None:
    unknown = await ask(server, method, path, authorization=None)
    answer = await ask(server, method, path)

    assert (unknown.status, unknown.code) == (401, "invalid_api_key")
    assert (answer.status, answer.code) == (405, "method_not_allowed")
    assert set(answer.headers["allow"].split(", ")) == allow


async def test_a_server_that_drains_takes_no_uploads(server: Served[ScriptedAgent]) -> None:
    server.app.begin_drain()
    answer = await post(server, PURPOSE + part("file", TEXT, "a") + END)

    assert (answer.status, answer.code, answer.headers["retry-after"]) == (503, "server_draining", "2")
    assert uploads(server) == {"server_draining": 1}
    assert (await ask(server, "GET")).status == 200


# Whom there is no time or place for.

FILE = PURPOSE + part("file", TEXT, "a") + END
PROXY: dict[str, Any] = {"trusted_proxies": ("127.0.0.1",)}


def of(address: str) -> dict[str, str]:
    return {"x-forwarded-for": address}


async def test_wrong_keys_are_counted_as_at_the_other_door(files: str) -> None:
    """A hundred guesses here were a hundred guesses more."""
    keys = (f"alice:{sha256(b'right').hexdigest()}",)
    async with serving(ScriptedAgent(), files=files, api_keys=keys, auth_failures=3, **PROXY) as server:
        wrong = [await ask(server, "GET", **of("203.0.113.1")) for _ in range(4)]
        right = await ask(server, "GET", authorization="Bearer right", **of("203.0.113.1"))
        other = await ask(server, "GET", authorization="Bearer right", **of("203.0.113.2"))
        with pytest.raises(InvalidStatus) as refused:
            await server.stranger().open(headers={"Authorization": "Bearer right", **of("203.0.113.1")})

    assert [answer.code for answer in wrong] == 3 * ["invalid_api_key"] + ["too_many_failed_attempts"]
    assert (right.status, right.code) == (429, "too_many_failed_attempts")
    assert 1 <= int(right.headers["retry-after"]) <= 60
    assert other.status == 200
    assert refused.value.response.status_code == 429


async def test_a_request_counts_for_its_address_until_it_is_answered(files: str) -> None:
    """With its connections, whichever came first. Nobody is counted for ever: `serving` looks."""
    async with serving(ScriptedAgent(), files=files, connections_per_address=1, **PROXY) as server:
        async with wire_to(server) as wire:
            await begun(server, wire, 1000, of("203.0.113.1"))
            second = await ask(server, "GET", **of("203.0.113.1"))
            with pytest.raises(InvalidStatus) as refused:
                await server.stranger().open(headers={"Authorization": "Bearer x", **of("203.0.113.1")})
            other = await ask(server, "GET", **of("203.0.113.2"))
        await eventually(lambda: server.app.admission.is_empty)
        third = await ask(server, "GET", **of("203.0.113.1"))
        counted = server.app.metrics.registry.get_sample_value(
            "unbroken_connections_refused_total", {"code": "too_many_connections_from_address"}
        )

    assert (second.status, second.code) == (429, "too_many_connections_from_address")
    assert second.headers["retry-after"] == "2"
    assert refused.value.response.status_code == 429
    assert (other.status, third.status, counted) == (200, 200, 2)


async def test_an_overloaded_server_has_no_time_for_files(files: str) -> None:
    """Told before anything is looked at; a page may still ask what it may send."""
    clock = FakeClock()
    async with serving(ScriptedAgent(), files=files, clock=clock, patience=0, overload_lag=0.2) as server:
        for _ in range(20):
            clock.block(0.5)
        answers = [await ask(server, "GET", authorization="Bearer x"), await post(server, FILE)]
        preflight = await ask(server, "OPTIONS")
        clock.advance(10)
        later = await post(server, FILE)

    for answer in answers:
        assert (answer.status, answer.code) == (503, "server_overloaded")
        assert 2 <= int(answer.headers["retry-after"]) <= 9
    assert (preflight.status, later.status) == (204, 200)


# What is no upload.


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        (b"", 400, "invalid_upload"),
        (PURPOSE + END, 400, "invalid_upload"),
        (PURPOSE + part("file", TEXT, "a") + part("file", TEXT, "b") + END, 400, "invalid_upload"),
        (PURPOSE + part("file", TEXT, "a"), 400, "invalid_upload"),
        (PURPOSE + part("file", TEXT, "a", f"X: {'y' * 8192}\r\n") + END, 400, "invalid_upload"),
        (part("file", TEXT, "a") + END, 400, "invalid_request"),
        (part("purpose", b"batch") + part("file", TEXT, "a") + END, 400, "invalid_request"),
        (PURPOSE + part("file", b"", "empty") + END, 415, "unsupported_file_type"),
        (PURPOSE + part("file", b"MZ\x90\x00" * 9, "a.png") + END, 415, "unsupported_file_type"),
        (PURPOSE + part("file", b"x" * (1 << 20) + b"y", "a") + END, 413, "file_too_large"),
        (PURPOSE + part("file", TEXT, "a") + END + b"z" * 70_000, 400, "invalid_upload"),
    ],
)
async def test_what_cannot_be_taken_is_told_of_and_leaves_nothing(
    server: Served[ScriptedAgent], body: bytes, status: int, code: str
) -> None:
    answer = await post(server, body)

    assert (answer.status, answer.code) == (status, code)
    assert uploads(server) == {code: 1}
    assert store_of(server).count == 0


@pytest.mark.parametrize("path", ["/v1/files?limit=x", "/v1/files?order=up", "/v1/files?after=x"])
async def test_a_list_that_cannot_be_is_told_of(server: Served[ScriptedAgent], path: str) -> None:
    answer = await ask(server, "GET", path)

    assert (answer.status, answer.code) == (400, "invalid_request")
    assert answer.json["error"]["param"] in path


async def test_a_query_without_end_is_refused(server: Served[ScriptedAgent]) -> None:
    assert (await ask(server, "GET", f"/v1/files?after={'x' * 5000}")).code == "invalid_query"


@pytest.mark.parametrize(
    "path", ["/v1/files/../../etc/passwd", "/v1/files/%2e%2e%2f%2e%2e%2fetc%2fpasswd/content"]
)
async def test_a_path_leads_nowhere(server: Served[ScriptedAgent], path: str) -> None:
    assert (await ask(server, "GET", path)).status == 404


async def test_a_name_is_kept_without_its_folders(server: Served[ScriptedAgent]) -> None:
    answer = await post(server, PURPOSE + part("file", TEXT, "../../../etc/cron.d/x") + END)

    assert (answer.status, answer.json["filename"]) == (200, "x")


async def test_what_says_it_is_too_large_is_refused_before_it_comes(server: Served[ScriptedAgent]) -> None:
    answer = await ask(server, "POST", content_length=str(2 << 20))

    assert (answer.status, answer.code) == (413, "file_too_large")


async def test_a_length_with_zeros_in_front_is_a_length(server: Served[ScriptedAgent]) -> None:
    """As many as fit into a header: more digits than Python reads as a number."""
    answer = await ask(server, "POST", content_length="0" * 5000 + str(2 << 20))

    assert (answer.status, answer.code) == (413, "file_too_large")


# While it comes.


async def begun(server: Served[Any], wire: Wire, size: int, headers: Mapping[str, str] | None = None) -> None:
    """Have an upload of unknown length begin, and be here as far as it was sent."""
    wire.head(given=headers, transfer_encoding="chunked")
    wire.chunk(PURPOSE + b'--b\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\n')
    wire.chunk(b"x" * size)
    await eventually(lambda: store_of(server).size > size)


async def test_one_without_end_is_refused_when_it_is_too_large(server: Served[ScriptedAgent]) -> None:
    async with wire_to(server) as wire:
        await begun(server, wire, 1000)
        sending = asyncio.create_task(send_for_ever(wire))
        answer = await wire.answer()
        sending.cancel()

    assert (answer.status, answer.code) == (413, "file_too_large")


async def send_for_ever(wire: Wire) -> None:
    while True:
        wire.chunk(b"x" * 10_000)
        await wire.writer.drain()
        await asyncio.sleep(0)


async def test_the_body_without_a_file_has_a_bound_too(server: Served[ScriptedAgent]) -> None:
    """Ahead of the first boundary the form may be anything, for ever."""
    async with wire_to(server) as wire:
        wire.head(transfer_encoding="chunked")
        for _ in range(8):
            wire.chunk(b"\r\n" * 5000)
        answer = await wire.answer()

    assert (answer.status, answer.code) == (400, "invalid_upload")


@pytest.mark.parametrize("limits", [TransferLimits(stall_timeout=0.05), TransferLimits(patience=0.05)])
async def test_one_that_stalls_or_is_too_slow_is_given_up(
    server: Served[ScriptedAgent], limits: TransferLimits
) -> None:
    server.app.transfers.limits = limits
    async with wire_to(server) as wire:
        wire.head(transfer_encoding="chunked")
        wire.chunk(PURPOSE)
        answer = await wire.answer()

    assert (answer.status, answer.code) == (408, "upload_stalled")
    assert uploads(server) == {"upload_stalled": 1}


async def test_one_shorter_than_it_says_is_given_up(server: Served[ScriptedAgent]) -> None:
    server.app.transfers.limits = TransferLimits(stall_timeout=0.05)
    body = PURPOSE + part("file", TEXT, "a")
    async with wire_to(server) as wire:
        wire.head(content_length=str(len(body) + len(END)))
        wire.writer.write(body)
        answer = await wire.answer()

    assert (answer.status, answer.code) == (408, "upload_stalled")


async def test_one_whose_client_goes_away_leaves_nothing(server: Served[ScriptedAgent]) -> None:
    async with wire_to(server) as wire:
        await begun(server, wire, 100_000)
    store = store_of(server)
    await eventually(lambda: store.size == 0 and server.app.transfers.count == 0)
    await eventually(lambda: uploads(server) == {"failed": 1})


async def test_only_so_many_run_at_once(server: Served[ScriptedAgent]) -> None:
    server.app.transfers.limits = TransferLimits(at_once=2, of_one=1)
    body = PURPOSE + part("file", TEXT, "a") + END
    async with wire_to(server) as wire:
        await begun(server, wire, 1000)
        refused = await post(server, body)
        assert (refused.status, refused.code, refused.headers["retry-after"]) == (
            429,
            "too_many_transfers",
            "2",
        )
        assert (await post(server, body, "bob")).status == 200
    await eventually(lambda: server.app.transfers.count == 0)
    assert (await post(server, body)).status == 200
    assert uploads(server) == {"failed": 1, "too_many_transfers": 1, "stored": 2}


async def test_in_whatever_pieces_it_comes_it_is_the_same_file(server: Served[ScriptedAgent]) -> None:
    content = TEXT + b"\r\n--b\r-\r\n--" + TEXT
    body = PURPOSE + part("file", content, "a") + END
    for pieces in (by(body, 1), by(body, 7), [body]):
        async with wire_to(server) as wire:
            wire.head(transfer_encoding="chunked")
            for piece in pieces:
                wire.chunk(piece)
            wire.writer.write(b"0\r\n\r\n")
            made = (await wire.answer()).json
        answer = await ask(server, "GET", f"/v1/files/{made['id']}/content")

        assert answer.body == content


def by(body: bytes, size: int) -> Iterable[bytes]:
    return (body[start : start + size] for start in range(0, len(body), size))


async def test_where_files_are_off_there_is_no_door(files: str) -> None:
    async with serving(ScriptedAgent(), files="off") as server:
        assert (await ask(server, "GET")).status == 404
    assert files
