"""Everything of one user's, erased: by themselves, and by an operator."""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections.abc import AsyncIterator
from typing import Any

import pytest
from openai import APIStatusError, NotFoundError

from tests.fakes.clock import FakeClock
from tests.server.conftest import Serve
from tests.server.realtime.agent import ManualAgent
from tests.server.realtime.serving import Served, eventually
from tests.server.test_admin import KEY, Operator
from unbroken.server.agents.scripted import ScriptedAgent
from unbroken.server.auth.principal import Principal
from unbroken.server.erasing.base import Erasure, Progress, Report, Unerased
from unbroken.server.erasing.erasers import AnswerEraser
from unbroken.sessions.backends.memory_index import MemoryIndex
from unbroken.sessions.errors import StoreUnavailable
from unbroken.sessions.ids import SessionId

PATH = "/users/me/data"
ALICE = Principal("dev:" + hashlib.sha256(b"alice").hexdigest())


async def erase(client: Any) -> Any:
    return await client.delete(PATH, cast_to=object)


async def listed(client: Any) -> list[str]:
    return [each["id"] for each in (await client.get("/conversations", cast_to=object))["data"]]


async def test_all_of_one_s_own_goes_and_nobody_else_s(server: Served[ScriptedAgent]) -> None:
    alice: Any = await server.openai("alice")
    bob: Any = await server.openai("bob")
    stored = await alice.responses.create(model="default", input="hi")
    lone = await alice.responses.create(model="default", input="hi", store=False)
    made = await alice.conversations.create(metadata={"a": "b"})
    file = await alice.files.create(file=("a.txt", b"hello"), purpose="user_data")
    theirs = await bob.conversations.create()
    their_file = await bob.files.create(file=("b.txt", b"hello"), purpose="user_data")
    realtime = await server.client("alice")

    report = await erase(alice)

    assert report["deleted"] is True
    assert report["left"] == []
    assert report["erased"] == {"conversations": 4, "files": 1}
    for gone in (
        alice.responses.retrieve(stored.id),
        alice.responses.retrieve(lone.id),
        alice.conversations.retrieve(made.id),
        alice.files.retrieve(file.id),
    ):
        with pytest.raises(NotFoundError):
            await gone
    assert (await realtime.error())["code"] == "session_deleted"
    assert await listed(alice) == []
    assert await listed(bob) == [theirs.id]
    assert (await bob.files.retrieve(their_file.id)).id == their_file.id

    again = await erase(alice)
    assert again["erased"] == {"conversations": 0, "files": 0}


async def test_what_begins_later_stays(server: Served[ScriptedAgent]) -> None:
    client: Any = await server.openai()
    await client.conversations.create()
    await erase(client)
    later = await client.conversations.create()
    await client.responses.create(model="default", input="hi", conversation=later.id)
    assert await listed(client) == [later.id]


async def test_what_begins_after_it_was_asked_for_stays_when_it_is_asked_again(
    server: Served[ScriptedAgent], monkeypatch: pytest.MonkeyPatch
) -> None:
    client: Any = await server.openai()
    await client.conversations.create()

    async def unavailable(_: SessionId) -> None:
        raise StoreUnavailable

    with monkeypatch.context() as patched:
        patched.setattr(server.app._stored.store, "erase", unavailable)
        assert (await erase(client))["left"] == ["conversations"]
    began = int(1000 * time.time())
    await eventually(lambda: int(1000 * time.time()) > began)  # moments are told apart by the millisecond
    later = await client.conversations.create()
    file = await client.files.create(file=("a.txt", b"hello"), purpose="user_data")

    again = await erase(client)
    assert (again["deleted"], again["erased"]["conversations"]) == (True, 1)
    assert await listed(client) == [later.id]
    assert (await client.files.retrieve(file.id)).id == file.id

    anew = await erase(client)
    assert anew["erased"] == {"conversations": 1, "files": 1}, "that was over: this is asked for by itself"


async def test_while_nobody_knows_which_moment_is_meant_nothing_is_touched(
    server: Served[ScriptedAgent], monkeypatch: pytest.MonkeyPatch
) -> None:
    client: Any = await server.openai()
    file = await client.files.create(file=("a.txt", b"hello"), purpose="user_data")

    async def unavailable(*_: object, **__: object) -> None:
        raise StoreUnavailable

    monkeypatch.setattr(server.app._stored.index, "asked", unavailable)
    assert await erase(client) == {
        "object": "user.data.deleted",
        "deleted": False,
        "erased": {},
        "left": ["files", "conversations"],
    }
    assert (await client.files.retrieve(file.id)).id == file.id


async def test_what_runs_is_stopped_and_paid_for(serve: Serve) -> None:
    server = await serve(ManualAgent(), quotas={"default": {"tokens_per_day": 100_000}})
    client: Any = await server.openai()
    response = await client.responses.create(model="default", input="hi", background=True)
    turn = await server.agent.turn()
    turn.say("half of it")
    await eventually(lambda: turn.taken > 0)

    await erase(client)

    await turn.closed.wait()
    assert turn.was_stopped
    with pytest.raises(NotFoundError):
        await client.responses.retrieve(response.id)
    usage = await client.get("/usage", cast_to=object)
    (record,) = usage["data"]
    assert record["status"] == "cancelled"
    assert record["output_tokens"] > 0


async def test_a_short_lived_key_erases_nothing(server: Served[ScriptedAgent]) -> None:
    client: Any = await server.openai()
    made = await client.realtime.client_secrets.create(
        session={"type": "realtime", "instructions": "Sell shoes."}
    )
    page: Any = await server.openai(made.value)
    with pytest.raises(APIStatusError) as refused:
        await erase(page)
    assert refused.value.status_code in (401, 403)


async def test_where_something_is_out_of_reach_it_says_so(
    server: Served[ScriptedAgent], monkeypatch: pytest.MonkeyPatch
) -> None:
    client: Any = await server.openai()
    await client.conversations.create()

    async def unavailable(_: SessionId) -> None:
        raise StoreUnavailable

    monkeypatch.setattr(server.app._stored.store, "erase", unavailable)
    answer = await erase(client)
    assert (answer["deleted"], answer["left"]) == (False, ["conversations"])
    monkeypatch.undo()

    assert (await erase(client))["deleted"] is True
    assert await listed(client) == []


async def test_an_operator_erases_what_the_index_has_lost(serve: Serve) -> None:
    server = await serve(ScriptedAgent(), admin_key=KEY)
    client: Any = await server.openai("alice")
    made = await client.conversations.create()
    stored, session_id = server.app._stored, SessionId(made.id.replace("conv_", "sess_"))
    await eventually(lambda: len(stored.index) == 1)
    await stored.index.drop(ALICE.id, [session_id])
    server.app.node.hub.clear(session_id)  # as where another node has it

    assert (await erase(client))["erased"]["conversations"] == 0
    answer = await Operator(server).ask("DELETE", f"/admin/data?user={ALICE.user}")

    assert (answer.status, answer.body["erased"]["conversations"]) == (200, 1)
    with pytest.raises(NotFoundError):
        await client.conversations.retrieve(made.id)


@pytest.mark.parametrize("query", ["", "?tenant=acme", "?user=", "?user=alice&tenant="])
async def test_an_operator_has_to_say_whose(serve: Serve, query: str) -> None:
    server = await serve(ScriptedAgent(), admin_key=KEY)
    answer = await Operator(server).ask("DELETE", f"/admin/data{query}")
    assert (answer.status, answer.body["error"]["code"]) == (400, "invalid_request")
    stranger = await Operator(server, b"Bearer wrong").ask("DELETE", "/admin/data?user=alice")
    assert stranger.status == 401


async def test_answers_that_were_kept_are_forgotten_and_not_at_anybody_s_pleasure() -> None:
    forgotten: list[str] = []

    class Cache:
        async def forget(self, tenant: str) -> None:
            forgotten.append(tenant)

    clock = FakeClock()
    eraser = AnswerEraser(Cache(), clock)  # type: ignore[arg-type]

    async def erased(whose: Principal, *, is_thorough: bool = False) -> int:
        progress = Progress()
        await eraser.erase(whose, 0, progress, is_thorough=is_thorough)
        return progress.erased

    whose = Principal("alice", "acme")
    assert await erased(whose) == 1
    with pytest.raises(Unerased):
        await erased(Principal("bob", "acme"))
    assert await erased(Principal("bob", "other")) == 1
    assert await erased(whose, is_thorough=True) == 1
    clock.advance(61)
    assert await erased(whose) == 1
    assert forgotten == ["acme", "other", "acme", "acme"]


class _Fixed:
    """Erases so many, and then ends, fails or hangs."""

    def __init__(
        self, what: str, count: int, outcome: Exception | None = None, *, hangs: bool = False
    ) -> None:
        self.what = what
        self.count = count
        self.outcome = outcome
        self.hangs = hangs

    async def erase(self, whose: Principal, at: int, progress: Progress, *, is_thorough: bool) -> None:
        progress.erased = self.count
        if self.hangs:
            await asyncio.Event().wait()
        if self.outcome is not None:
            raise self.outcome


@pytest.fixture
async def impatient(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[None]:
    monkeypatch.setattr("unbroken.server.erasing.base._PATIENCE", 0.01)
    yield


@pytest.mark.usefixtures("impatient")
async def test_one_that_fails_or_takes_long_keeps_no_other_from_erasing() -> None:
    erasers = [_Fixed("a", 0, Unerased()), _Fixed("b", 2, hangs=True), _Fixed("c", 3), _Fixed("d", 0)]
    report = await Erasure(erasers, MemoryIndex(), FakeClock()).erase(Principal("alice"))
    assert report == Report({"b": 2, "c": 3, "d": 0}, ("a", "b"))
