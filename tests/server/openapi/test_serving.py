"""How the document is served: to everybody, the same, and only where the operator wants it."""

from __future__ import annotations

import httpx
import pytest

from tests.server.realtime.serving import serving
from unbroken.server.agents.scripted import ScriptedAgent

PATH = "/openapi.json"
KEYS = "alice:" + 64 * "0"


async def test_it_is_for_everybody_and_the_same() -> None:
    """Without a key, also where keys are asked for everywhere else."""
    async with (
        serving(ScriptedAgent(), openapi=True, api_keys=KEYS) as served,
        httpx.AsyncClient(base_url=f"http://127.0.0.1:{served.port}") as client,
    ):
        plain = await client.get(PATH)
        keyed = await client.get(PATH, headers={"authorization": "Bearer nobody's"})

    assert plain.status_code == keyed.status_code == 200
    assert plain.content == keyed.content
    assert plain.headers["content-type"] == "application/json"
    assert plain.json()["info"]["title"] == "Unbroken"


async def test_who_has_it_is_told_so() -> None:
    async with (
        serving(ScriptedAgent(), openapi=True) as served,
        httpx.AsyncClient(base_url=f"http://127.0.0.1:{served.port}") as client,
    ):
        first = await client.get(PATH)
        tag = first.headers["etag"]
        again = await client.get(PATH, headers={"if-none-match": tag})
        weak = await client.get(PATH, headers={"if-none-match": f'"other", W/{tag}'})
        other = await client.get(PATH, headers={"if-none-match": '"other"'})
        head = await client.head(PATH)

    assert first.headers["cache-control"] == "no-cache"
    assert again.status_code == weak.status_code == 304
    assert again.content == b""
    assert again.headers["etag"] == tag
    assert other.status_code == head.status_code == 200
    assert head.content == b""
    assert head.headers["content-length"] == str(len(first.content))


async def test_pages_of_allowed_origins_may_read_it() -> None:
    async with (
        serving(ScriptedAgent(), openapi=True, allowed_origins="https://docs.example") as served,
        httpx.AsyncClient(base_url=f"http://127.0.0.1:{served.port}") as client,
    ):
        ours = await client.get(PATH, headers={"origin": "https://docs.example"})
        theirs = await client.get(PATH, headers={"origin": "https://evil.example"})

    assert ours.headers["access-control-allow-origin"] == "https://docs.example"
    assert theirs.status_code == 403
    assert theirs.json()["error"]["code"] == "origin_not_allowed"


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE"])
async def test_it_is_only_read(method: str) -> None:
    async with (
        serving(ScriptedAgent(), openapi=True) as served,
        httpx.AsyncClient(base_url=f"http://127.0.0.1:{served.port}") as client,
    ):
        told = await client.request(method, PATH)

    assert told.status_code == 405
    assert told.headers["allow"] == "GET, HEAD, OPTIONS"


async def test_fields_that_mean_nothing_are_refused() -> None:
    async with (
        serving(ScriptedAgent(), openapi=True) as served,
        httpx.AsyncClient(base_url=f"http://127.0.0.1:{served.port}") as client,
    ):
        told = await client.get(PATH, params={"version": "2"})

    assert told.status_code == 400
    assert told.json()["error"]["code"] == "invalid_query"


async def test_where_the_operator_turns_it_off_there_is_nothing() -> None:
    async with (
        serving(ScriptedAgent(), openapi=False) as served,
        httpx.AsyncClient(base_url=f"http://127.0.0.1:{served.port}") as client,
    ):
        told = await client.get(PATH)

    assert told.status_code == 404
    assert told.json()["error"]["code"] == "path_not_found"
