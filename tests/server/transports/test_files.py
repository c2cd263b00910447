"""The door ``/v1/files``: what the official client can do there, and what hostile ones can't."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from hashlib import sha256
from io import BytesIO
from typing import Any

import openai
import pytest
from websockets.exceptions import InvalidStatus

from tests.fakes.clock import FakeClock
from tests.server.files.contents import HTML, PDF, PNG, TEXT
from tests.server.realtime.serving import Served, eventually, serving
from tests.server.transports.wire import (
    END,
    FILE,
    PURPOSE,
    ask,
    begun,
    file_server,
    part,
    post,
    store_of,
    uploads,
    wire_to,
)
from unbroken.server.agents.scripted import ScriptedAgent
from unbroken.server.transports.http_protocol import HttpProtocol

pytestmark = pytest.mark.parametrize("files", ["disk", "memory"])


@pytest.fixture
async def server(files: str) -> AsyncIterator[Served[ScriptedAgent]]:
    async with file_server(files) as server:
        yield server


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
