"""What is deleted goes from the archive, too."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import httpx2
import pytest
from openai import APIStatusError

from tests.server.archive.test_over_http import get, said, texts, url_of
from tests.server.realtime.serving import Served, eventually, serving
from unbroken.server.agents.scripted import ScriptedAgent
from unbroken.server.archive.base import ArchiveUnavailable
from unbroken.server.protocols.conversation_names import session_named
from unbroken.sessions.errors import StoreUnavailable


async def delete(served: Served[Any], path: str, key: str = "alice") -> httpx2.Response:
    async with httpx2.AsyncClient(trust_env=False) as client:
        return await client.delete(
            f"http://127.0.0.1:{served.port}{path}", headers={"authorization": f"Bearer {key}"}
        )


def expire(served: Served[Any], conversation: str) -> None:
    """Have a conversation be no more, as when nothing was said in it for long."""
    session_id = session_named(conversation)
    assert session_id is not None
    store: Any = served.app._stored.store
    del store._sessions[session_id]
    served.app.node.hub.clear(session_id)


async def archived(served: Served[Any]) -> list[str]:
    return [each["id"] for each in (await get(served, "sessions")).json()["data"]]


async def test_a_deleted_conversation_is_in_no_archive(tmp_path: Path) -> None:
    async with serving(ScriptedAgent(), archive_url=url_of(tmp_path)) as served:
        client: Any = await served.openai()
        kept, gone = [
            (await client.responses.create(input="one", model="default")).conversation.id for _ in range(2)
        ]
        await said(served, 2)
        assert len(await archived(served)) == 2

        assert (await delete(served, f"/v1/conversations/{gone}")).status_code == 200
        assert await archived(served) == [f"sess_{kept.removeprefix('conv_')}"]


async def test_one_that_has_expired_is_deleted_where_it_is_still_had(tmp_path: Path) -> None:
    async with serving(ScriptedAgent(), archive_url=url_of(tmp_path)) as served:
        client: Any = await served.openai()
        said_in = [
            (await client.responses.create(input="one", model="default")).conversation.id for _ in range(2)
        ]
        await said(served, 2)
        for each in said_in:
            expire(served, each)
        gone, kept = said_in

        unknown = await delete(served, f"/v1/conversations/conv_{'0' * 32}", key="bob")
        others = await delete(served, f"/v1/conversations/{gone}", key="bob")
        assert (others.status_code, others.json()) == (unknown.status_code, unknown.json())
        assert (others.status_code, others.json()["error"]["code"]) == (404, "conversation_not_found")
        assert len(await archived(served)) == 2

        answer = await delete(served, f"/v1/conversations/{gone}")
        assert (answer.status_code, answer.json()["deleted"]) == (200, True)
        assert await archived(served) == [f"sess_{kept.removeprefix('conv_')}"]
        again = await delete(served, f"/v1/conversations/{gone}")
        assert (again.status_code, again.json()) == (unknown.status_code, unknown.json())


async def test_one_that_has_expired_is_not_deleted_while_the_archive_is_away(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with serving(ScriptedAgent(), archive_url=url_of(tmp_path)) as served:
        client: Any = await served.openai()
        named = (await client.responses.create(input="one", model="default")).conversation.id
        await said(served, 1)
        expire(served, named)

        async def away(*_: object) -> Any:
            raise ArchiveUnavailable

        assert served.app.archiving is not None
        with monkeypatch.context() as patched:
            patched.setattr(type(served.app.archiving.archive), "session", away)
            refused = await delete(served, f"/v1/conversations/{named}")
            assert (refused.status_code, refused.json()["error"]["code"]) == (503, "store_unavailable")
            another = await delete(served, f"/v1/conversations/{named}", key="bob")
            assert another.status_code == 404, "whose it is can't be told by it"
        assert (await delete(served, f"/v1/conversations/{named}")).status_code == 200


async def test_a_page_s_key_deletes_nothing_that_has_expired(tmp_path: Path) -> None:
    """What it may, the session would say."""
    async with serving(ScriptedAgent(), archive_url=url_of(tmp_path)) as served:
        client: Any = await served.openai()
        named = (await client.responses.create(input="one", model="default")).conversation.id
        await said(served, 1)
        made = await client.realtime.client_secrets.create(session={"type": "realtime"})
        expire(served, named)
        refused = await delete(served, f"/v1/conversations/{named}", key=made.value)
        assert refused.status_code in (401, 403, 404)
        assert len(await archived(served)) == 1


async def transcript(served: Served[Any]) -> list[tuple[list[str], list[str]]]:
    """What is archived of the only session: of each turn, what was said, and answered."""
    (session,) = await archived(served)
    turns = (await get(served, f"sessions/{session}")).json()["data"]
    return [(texts(each, "input"), texts(each, "output")) for each in turns]


async def test_a_deleted_response_says_nothing_in_the_archive(tmp_path: Path) -> None:
    async with serving(ScriptedAgent(), archive_url=url_of(tmp_path)) as served:
        client: Any = await served.openai()
        first = await client.responses.create(input="one", model="default")
        second = await client.responses.create(
            input="two", model="default", conversation=first.conversation.id
        )
        await said(served, 2)

        assert (await delete(served, f"/v1/responses/{first.id}", key="bob")).status_code == 404
        assert (await delete(served, f"/v1/responses/{first.id}")).status_code == 200
        left = [(["one"], []), (["two"], ["You said: two"])]
        assert await transcript(served) == left
        usage = (await get(served, f"sessions/{(await archived(served))[0]}")).json()["data"][0]["usage"]
        assert usage["total_tokens"] > 0
        assert (await delete(served, f"/v1/responses/{first.id}")).status_code == 404

        expire(served, first.conversation.id)
        for again in (first.id, f"resp_{first.id[5:37]}{'0' * 16}"):
            assert (await delete(served, f"/v1/responses/{again}")).status_code == 404
        assert (await delete(served, f"/v1/responses/{second.id}", key="bob")).status_code == 404
        assert await transcript(served) == left
        answer = await delete(served, f"/v1/responses/{second.id}")
        assert (answer.status_code, answer.json()["deleted"]) == (200, True)
        assert await transcript(served) == [(["one"], []), (["two"], [])]


async def test_a_response_that_its_session_has_forgotten_is_deleted_by_what_is_archived(
    tmp_path: Path,
) -> None:
    """It remembers how the latest ended."""
    async with serving(ScriptedAgent(), archive_url=url_of(tmp_path)) as served:
        client: Any = await served.openai()
        first = await client.responses.create(input="one", model="default")
        for _ in range(33):
            await client.responses.create(input="more", model="default", conversation=first.conversation.id)
        await said(served, 34)
        actor = served.app.node.hub.get(session_named(first.conversation.id))
        assert actor is not None
        assert actor.session.endings.get(first.id) is None

        assert (await delete(served, f"/v1/responses/{first.id}", key="bob")).status_code == 404
        assert (await delete(served, f"/v1/responses/{first.id}")).status_code == 200
        assert (await transcript(served))[:2] == [(["one"], []), (["more"], ["You said: more"])]
        items = await client.conversations.items.list(first.conversation.id, order="asc", limit=2)
        assert [each.role for each in items.data] == ["user", "user"]
        assert (await delete(served, f"/v1/responses/{first.id}")).status_code == 404


async def test_a_deleted_response_that_waits_in_the_outbox_says_nothing_when_it_comes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with serving(ScriptedAgent(), archive_url=url_of(tmp_path)) as served:
        client: Any = await served.openai()
        assert served.app.archiving is not None
        archive = served.app.archiving.archive

        async def away(*_: object) -> Any:
            raise ArchiveUnavailable

        with monkeypatch.context() as patched:
            patched.setattr(type(archive), "write", away)
            response = await client.responses.create(input="one", model="default")
            assert (await delete(served, f"/v1/responses/{response.id}")).status_code == 200
        await said(served, 1)
        assert await transcript(served) == [(["one"], [])]


async def test_while_the_archive_is_away_no_response_is_deleted_by_halves(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with serving(ScriptedAgent(), archive_url=url_of(tmp_path)) as served:
        client: Any = await served.openai()
        response = await client.responses.create(input="one", model="default")
        await said(served, 1)

        async def away(*_: object, **__: object) -> Any:
            raise ArchiveUnavailable

        assert served.app.archiving is not None
        with monkeypatch.context() as patched:
            patched.setattr(type(served.app.archiving.archive), "erase_answer", away)
            refused = await delete(served, f"/v1/responses/{response.id}")
            assert (refused.status_code, refused.json()["error"]["code"]) == (503, "store_unavailable")
        assert (await client.responses.retrieve(response.id)).output_text == "You said: one"


async def test_everything_of_a_users_is_in_no_archive(tmp_path: Path) -> None:
    async with serving(ScriptedAgent(), archive_url=url_of(tmp_path)) as served:
        client: Any = await served.openai()
        for _ in range(2):
            await client.responses.create(input="one", model="default")
        await said(served, 2)

        answer = await delete(served, "/v1/users/me/data")
        assert (answer.status_code, answer.json()["deleted"]) == (200, True)
        assert await archived(served) == []


async def test_while_the_archive_is_away_nothing_is_deleted_by_halves(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with serving(ScriptedAgent(), archive_url=url_of(tmp_path)) as served:
        client: Any = await served.openai()
        answer = await client.responses.create(input="one", model="default")
        path = f"/v1/conversations/{answer.conversation.id}"
        await said(served, 1)

        async def away(*_: object) -> int:
            raise ArchiveUnavailable

        assert served.app.archiving is not None
        with monkeypatch.context() as patched:
            patched.setattr(type(served.app.archiving.archive), "erase_session", away)
            refused = await delete(served, path)
            assert (refused.status_code, refused.json()["error"]["code"]) == (503, "store_unavailable")
            left = await delete(served, "/v1/users/me/data")
            assert (left.status_code, left.json()["left"]) == (202, ["conversations"])
        assert (await client.responses.retrieve(answer.id)).output_text == "You said: one"
        assert (await delete(served, path)).status_code == 200
        assert await archived(served) == []


async def test_what_is_erased_late_is_in_no_archive(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It wasn't listed when everything of its user's was erased: its node was cut off."""
    async with serving(ScriptedAgent(), archive_url=url_of(tmp_path)) as served:
        index, node = served.app._stored.index, served.app.node

        async def away(*_: object) -> int:
            raise StoreUnavailable

        client: Any = await served.openai()
        with monkeypatch.context() as patched:
            patched.setattr(index, "note", away)
            answer = await client.responses.create(input="one", model="default")
            await said(served, 1)
            (actor,) = node.hub
            await index.note_erased(actor.principal, int(1000 * time.time()) + 1)
        await eventually(lambda: len(node.hub) == 0)

        assert await archived(served) == []
        with pytest.raises(APIStatusError):
            await client.responses.retrieve(answer.id)
