"""``GET /v1/sessions/{id}/events``: watched as a stream, and by asking again."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx2
import orjson
import pytest

from tests.server.realtime.agent import ManualAgent
from tests.server.realtime.client import WAIT, Frame, whole
from tests.server.realtime.serving import Served, eventually
from unbroken.server.agents.scripted import ScriptedAgent

ALICE = {"authorization": "Bearer alice"}


class Browser:
    """Reads server-sent events as the HTML standard has it (9.2.6), as far as it goes for these."""

    def __init__(self, lines: AsyncIterator[str]) -> None:
        self._lines = lines
        self.last_id = ""
        self.frames: list[Frame] = []

    async def next(self) -> Frame:
        data: list[str] = []
        async with asyncio.timeout(WAIT):
            async for line in self._lines:
                field, _, value = line.partition(": ")
                if field == "data":
                    data.append(value)
                elif field == "id":
                    self.last_id = value
                elif not line and data:
                    frame: Frame = orjson.loads("\n".join(data))
                    self.frames.append(frame)
                    return frame
        raise EOFError

    async def until(self, kind: str) -> Frame:
        while (frame := await self.next())["type"] != kind:
            pass
        return frame


@asynccontextmanager
async def browsing(
    server: Served[Any], session: str, *, last: str | None = None, key: str = "alice"
) -> AsyncIterator[Browser]:
    headers = {"authorization": f"Bearer {key}", **({} if last is None else {"last-event-id": last})}
    async with (
        httpx2.AsyncClient(base_url=f"http://127.0.0.1:{server.port}", headers=headers) as client,
        client.stream("GET", f"/v1/sessions/{session}/events", timeout=WAIT) as response,
    ):
        assert response.status_code == 200, await response.aread()
        assert response.headers["content-type"].startswith("text/event-stream")
        assert response.headers["x-accel-buffering"] == "no"
        yield Browser(response.aiter_lines())


async def get(server: Served[Any], session: str, *, key: str = "alice", **query: str) -> httpx2.Response:
    async with httpx2.AsyncClient(base_url=f"http://127.0.0.1:{server.port}") as client:
        return await client.get(
            f"/v1/sessions/{session}/events",
            params=query,
            headers={"authorization": f"Bearer {key}"},
            timeout=WAIT,
        )


async def test_a_session_is_watched_from_its_beginning(manual: Served[ManualAgent]) -> None:
    client = await manual.client()
    await client.ask("hi")
    turn = await manual.agent.turn()
    turn.say("one ", "two")
    await client.said("one two")

    async with browsing(manual, client.session_id or "") as browser:
        turn.end()
        await browser.until("response.done")

    assert whole(browser.frames) == [("completed", "one two")]


async def test_who_was_cut_off_goes_on_behind_what_they_saw(manual: Served[ManualAgent]) -> None:
    client = await manual.client()
    await client.ask("hi")
    turn = await manual.agent.turn()
    turn.say("one ")
    async with browsing(manual, client.session_id or "") as first:
        await first.until("response.output_text.delta")
    turn.say("two")
    turn.end()

    async with browsing(manual, client.session_id or "", last=first.last_id) as second:
        created = await second.next()
        await second.until("response.done")

    assert created["session"]["unbroken"]["resumed"] is True
    assert whole(first.frames + second.frames[1:]) == [("completed", "one two")]


async def test_what_is_watched_goes_on_over_a_websocket(server: Served[ScriptedAgent]) -> None:
    client = await server.client()
    await client.ask("one")
    await client.done()
    async with browsing(server, client.session_id or "") as browser:
        token = (await browser.next())["session"]["unbroken"]["resume"]
        await browser.until("response.done")

    other = server.stranger(token=token)
    created = await other.resume(after=browser.last_id)
    await other.ask("two")
    await other.done()

    assert created["session"]["unbroken"]["resumed"] is True
    assert other.answers() == [("completed", "You said: two")]


async def test_asking_again_gets_what_came_meanwhile_once(manual: Served[ManualAgent]) -> None:
    client = await manual.client()
    await client.ask("hi")
    turn = await manual.agent.turn()
    turn.say("one ")
    await client.said("one ")
    session, frames = client.session_id or "", []
    page = (await get(manual, session, wait="0")).json()
    frames += page["data"]
    waiting = asyncio.create_task(get(manual, session, wait="50", after=page["after"]))
    turn.say("two")
    turn.end()

    while frames[-1]["type"] != "response.done":
        page = (await waiting).json()
        frames += page["data"][1:]
        waiting = asyncio.create_task(get(manual, session, wait="1", after=page["after"]))
    await waiting

    assert whole(frames) == [("completed", "one two")]


async def test_who_waits_in_vain_is_told_nothing_new(server: Served[ScriptedAgent]) -> None:
    client = await server.client()
    await client.ask("one")
    await client.done()
    first = (await get(server, client.session_id or "", wait="0")).json()

    again = (await get(server, client.session_id or "", wait="0", after=first["after"])).json()

    assert [frame["type"] for frame in again["data"]] == ["session.created"]
    third = (await get(server, client.session_id or "", wait="0", after=again["after"])).json()
    assert third["data"][0]["session"]["unbroken"]["resumed"] is True


async def test_anothers_session_is_none(server: Served[ScriptedAgent]) -> None:
    client = await server.client("alice")
    await client.ask("mine")
    await client.done()

    refusals = [
        (await get(server, name, key="bob")).json()
        for name in (client.session_id or "", "sess_" + 32 * "0", "anything")
    ]

    assert refusals[0]["error"]["code"] == "session_not_found"
    assert refusals == [refusals[0]] * 3


@pytest.mark.parametrize("query", [{"wait": "-1"}, {"wait": "99"}, {"wait": "x"}, {"unknown": "1"}])
async def test_what_cant_be_asked_is_told(server: Served[ScriptedAgent], query: dict[str, str]) -> None:
    client = await server.client()
    await client.ask("one")
    await client.done()

    assert (await get(server, client.session_id or "", **query)).status_code == 400


async def test_an_unusable_place_starts_over(server: Served[ScriptedAgent]) -> None:
    client = await server.client()
    await client.ask("one")
    await client.done()

    page = (await get(server, client.session_id or "", wait="0", after="event_nonsense")).json()

    assert page["data"][0]["session"]["unbroken"]["resumed"] is False
    assert [frame["type"] for frame in page["data"]].count("conversation.item.added") == 2


async def test_who_watches_is_told_that_the_session_was_deleted(server: Served[ScriptedAgent]) -> None:
    realtime = await server.client()
    await realtime.ask("hello")
    await realtime.done()
    session = realtime.session_id or ""
    client: Any = await server.openai()
    async with browsing(server, session) as browser:
        await browser.until("response.done")
        last = browser.last_id
        waiting = asyncio.create_task(get(server, session, after=last, wait="30"))
        await eventually(lambda: server.app.node.hub.connections == 3)

        await client.conversations.delete(session)

        assert (await browser.until("error"))["error"]["code"] == "session_deleted"
        with pytest.raises(EOFError):
            await browser.next()
    answer = await waiting
    assert (answer.status_code, answer.json()["error"]["code"]) == (410, "session_deleted")
    assert (await get(server, session)).status_code == 404
