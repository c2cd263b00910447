"""Uploads that are none, that don't end, or that come slowly."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable

import pytest

from tests.server.files.contents import TEXT
from tests.server.realtime.serving import Served, eventually, serving
from tests.server.transports.wire import (
    END,
    PURPOSE,
    Wire,
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
from unbroken.server.files.transfers import TransferLimits

pytestmark = pytest.mark.parametrize("files", ["disk", "memory"])


@pytest.fixture
async def server(files: str) -> AsyncIterator[Served[ScriptedAgent]]:
    async with file_server(files) as server:
        yield server


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
