"""The archive of a whole server: what is said comes there, and who said it reads it."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import httpx2
import pytest
from pydantic import SecretStr

from tests.server.realtime.agent import ManualAgent
from tests.server.realtime.client import WAIT
from tests.server.realtime.serving import Served, eventually, serving
from unbroken.server.agents.scripted import ScriptedAgent
from unbroken.server.archive.base import ArchiveUnavailable
from unbroken.server.archive.sql import SqlArchive
from unbroken.server.config import Settings, StartupError
from unbroken.sessions.ids import new_session_id


def url_of(folder: Path) -> str:
    return f"sqlite:///{folder / 'archive.db'}"


async def get(served: Served[Any], path: str, key: str = "alice", **query: str) -> httpx2.Response:
    async with httpx2.AsyncClient(trust_env=False) as client:
        return await client.get(
            f"http://127.0.0.1:{served.port}/v1/archive/{path}",
            params=query,
            headers={"authorization": f"Bearer {key}"},
        )


def written(served: Served[Any]) -> float:
    value: float = served.app.metrics.archive_turns.labels("written")._value.get()
    return value


async def said(served: Served[Any], turns: int) -> None:
    await eventually(lambda: written(served) >= turns)


def texts(turn: dict[str, Any], where: str) -> list[str]:
    return [part["text"] for item in turn[where] for part in item["content"]]


async def test_what_was_said_is_read_by_who_said_it(tmp_path: Path) -> None:
    async with serving(ScriptedAgent(), archive_url=url_of(tmp_path)) as served:
        client = await served.client()
        for text in ("one", "two", "three"):
            await client.ask(text)
            await client.done()
        await said(served, 3)

        (session,) = (await get(served, "sessions")).json()["data"]
        assert session["turns"] == 3
        assert session["ended_at"] is None
        page = (await get(served, f"sessions/{session['id']}", limit="2")).json()
        assert [texts(turn, "input") for turn in page["data"]] == [["one"], ["two"]]
        assert all(texts(turn, "output") for turn in page["data"])
        assert page["has_more"]
        assert page["session"] == session
        rest = (await get(served, f"sessions/{session['id']}", after=page["last_id"])).json()
        assert [texts(turn, "input") for turn in rest["data"]] == [["three"]]
        assert not rest["has_more"]
        assert (await get(served, f"sessions/conv_{session['id'].removeprefix('sess_')}")).status_code == 200


async def test_it_is_there_when_the_sessions_are_gone(tmp_path: Path) -> None:
    async with serving(ScriptedAgent(), archive_url=url_of(tmp_path)) as served:
        client = await served.client()
        await client.ask("one")
        await client.done()
    # It is brought there before the server ends.
    async with serving(ScriptedAgent(), archive_url=url_of(tmp_path)) as served:
        (session,) = (await get(served, "sessions")).json()["data"]
        (turn,) = (await get(served, f"sessions/{session['id']}")).json()["data"]
        assert texts(turn, "input") == ["one"]


async def test_a_page_of_long_turns_is_cut_and_gone_on_with(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("unbroken.server.transports.archive._MOST_BYTES", 1)
    async with serving(ScriptedAgent(), archive_url=url_of(tmp_path)) as served:
        client = await served.client()
        for number in range(12):
            await client.ask(f"question {number}")
            await client.done()
        await said(served, 12)

        first = (await get(served, f"sessions/{client.session_id}")).json()
        assert (len(first["data"]), first["has_more"]) == (10, True)
        rest = (await get(served, f"sessions/{client.session_id}", after=first["last_id"])).json()
        assert (len(rest["data"]), rest["has_more"]) == (2, False)


async def test_what_is_no_id_is_not_asked_of_the_database(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with serving(ScriptedAgent(), archive_url=url_of(tmp_path)) as served:
        client = await served.client()
        await client.ask("one")
        await client.done()
        await said(served, 1)

        async def unexpected(*args: object, **kwargs: object) -> None:
            raise AssertionError

        monkeypatch.setattr(SqlArchive, "sessions", unexpected)
        for after in ("\x00", "sess_\x00", "nonsense", new_session_id()):
            answer = await get(served, "sessions", after=after)
            assert (answer.status_code, answer.json()["data"]) == (200, [])
        monkeypatch.setattr(SqlArchive, "turns", unexpected)
        for after in ("\x00", "resp_\x00", "nonsense"):
            answer = await get(served, f"sessions/{client.session_id}", after=after)
            assert (answer.status_code, answer.json()["data"]) == (200, [])
            assert not answer.json()["has_more"]
        monkeypatch.setattr(SqlArchive, "session", unexpected)
        assert (await get(served, "sessions/sess_%00")).status_code == 404


async def test_somebody_else_s_and_an_unknown_one_look_alike(tmp_path: Path) -> None:
    async with serving(ScriptedAgent(), archive_url=url_of(tmp_path)) as served:
        client = await served.client()
        await client.ask("one")
        await client.done()
        await said(served, 1)
        (session,) = (await get(served, "sessions")).json()["data"]
        assert (await get(served, "sessions", "bob")).json()["data"] == []

        own_but_unknown = new_session_id(client_principal(served))
        answers = [
            await get(served, f"sessions/{session['id']}", "bob"),
            await get(served, f"sessions/{new_session_id()}", "bob"),
            await get(served, "sessions/nonsense", "bob"),
            await get(served, f"sessions/{own_but_unknown}"),
        ]
        assert {(answer.status_code, answer.text) for answer in answers} == {
            (404, answers[0].text),
        }
        assert answers[0].json()["error"]["code"] == "session_not_found"
        after = await get(served, "sessions", "bob", after=session["id"])
        assert after.json()["data"] == []


def client_principal(served: Served[Any]) -> str:
    (actor,) = served.app.node.hub
    return actor.principal


async def test_what_is_not_stored_is_not_archived(tmp_path: Path) -> None:
    async with serving(ScriptedAgent(), archive_url=url_of(tmp_path)) as served:
        client: Any = await served.openai()
        await client.responses.create(input="hidden", model="default", store=False)
        await client.chat.completions.create(
            model="default", messages=[{"role": "user", "content": "hidden"}]
        )
        stored = await client.responses.create(input="shown", model="default")
        await said(served, 1)

        (session,) = (await get(served, "sessions")).json()["data"]
        (turn,) = (await get(served, f"sessions/{session['id']}")).json()["data"]
        assert turn["id"] == stored.id
        assert texts(turn, "input") == ["shown"]
        assert written(served) == 1


async def test_what_was_kept_back_is_not_archived(tmp_path: Path) -> None:
    async with serving(ManualAgent(), archive_url=url_of(tmp_path), leaks="on") as served:
        client = await served.client()
        await client.ask("one")
        turn = await served.agent.turn()
        turn.say("key: sk-proj-" + "Ab1" * 16 + " end")
        turn.end()
        await client.done()
        await said(served, 1)

        (session,) = (await get(served, "sessions")).json()["data"]
        (kept,) = (await get(served, f"sessions/{session['id']}")).json()["data"]
        assert "Ab1Ab1" not in texts(kept, "output")[0]
        assert texts(kept, "output")[0].endswith("end")


@pytest.mark.parametrize(
    ("path", "query", "status", "code"),
    [
        ("sessions", {"limit": "0"}, 400, "invalid_request"),
        ("sessions", {"limit": "101"}, 400, "invalid_request"),
        ("sessions", {"order": "asc"}, 400, "invalid_query"),
        ("sessions", {"after": "sess_none"}, 200, None),
    ],
)
async def test_what_is_asked_for_wrongly_is_said(
    tmp_path: Path, path: str, query: dict[str, str], status: int, code: str | None
) -> None:
    async with serving(ScriptedAgent(), archive_url=url_of(tmp_path)) as served:
        answer = await get(served, path, **query)
        assert answer.status_code == status
        assert answer.headers["x-request-id"].startswith("req_")
        assert code is None or answer.json()["error"]["code"] == code


async def test_other_methods_and_no_key_are_refused(tmp_path: Path) -> None:
    async with serving(ScriptedAgent(), archive_url=url_of(tmp_path)) as served:
        base = f"http://127.0.0.1:{served.port}/v1/archive/sessions"
        async with httpx2.AsyncClient(trust_env=False) as client:
            assert (await client.delete(base, headers={"authorization": "Bearer a"})).status_code == 405
            assert (await client.get(base)).status_code == 401


async def test_who_may_read_one_session_alone_is_shown_no_other(tmp_path: Path) -> None:
    async with serving(ScriptedAgent(), archive_url=url_of(tmp_path)) as served:
        one, two = await served.client(), await served.client()
        for client in (one, two):
            await client.ask("hi")
            await client.done()
        await said(served, 2)
        assert one.token is not None
        (session,) = (await get(served, "sessions", resume=one.token)).json()["data"]
        assert session["id"] == one.session_id
        assert (await get(served, f"sessions/{two.session_id}", resume=one.token)).status_code == 404
        assert (await get(served, f"sessions/{one.session_id}", resume=one.token)).status_code == 200
        assert (await get(served, "sessions", resume="rt_wrong")).status_code == 404


async def test_while_the_archive_is_out_conversations_go_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with serving(ScriptedAgent(), archive_url=url_of(tmp_path)) as served:
        assert served.app.archiving is not None

        async def fails(*_: Any, **__: Any) -> Any:
            raise ArchiveUnavailable("planted")

        monkeypatch.setattr(served.app.archiving.archive, "write", fails)
        monkeypatch.setattr(served.app.archiving.archive, "sessions", fails)
        client = await served.client()
        await client.ask("one")
        assert (await client.done())["status"] == "completed"
        answer = await get(served, "sessions")
        assert (answer.status_code, answer.json()["error"]["code"]) == (503, "archive_unavailable")
        await eventually(lambda: served.app.metrics.archive_failures._value.get() > 0)


async def test_without_an_archive_there_is_no_door() -> None:
    async with serving(ScriptedAgent()) as served:
        assert (await get(served, "sessions")).status_code == 404
        assert served.app.archiving is None


async def test_an_archive_that_cannot_be_used_is_said_before_anybody_connects(tmp_path: Path) -> None:
    with pytest.raises(StartupError, match="archive's file"):
        async with serving(ScriptedAgent(), archive_url=f"sqlite:///{tmp_path}/none/archive.db"):
            pass
    await asyncio.sleep(0)


def test_an_archive_needs_nothing_else() -> None:
    assert Settings(archive_url=SecretStr("sqlite:///x.db")).archive_retention == ("default=forever",)


async def test_a_session_that_ends_is_seen_to_have_ended(tmp_path: Path) -> None:
    async with serving(ScriptedAgent(), archive_url=url_of(tmp_path), session_idle_timeout=0.1) as served:
        client = await served.client()
        await client.ask("one")
        await client.done()
        await said(served, 1)
        archiving = served.app.archiving
        assert archiving is not None
        await archiving._housekeeping.look()
        (session,) = (await get(served, "sessions")).json()["data"]
        assert session["ended_at"] is None, "somebody is connected to it"

        await client.close()
        await served.no_connections()
        async with asyncio.timeout(WAIT):
            while session["ended_at"] is None:
                await served.app.node.sweep()
                await archiving.archive.still_there([session["id"]], 0.0)  # else it is looked at in a minute
                await archiving._housekeeping.look()
                (session,) = (await get(served, "sessions")).json()["data"]
        assert session["turns"] == 1
