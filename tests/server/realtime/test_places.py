"""Places that can't be resumed from, and backlogs of every size. Letters as in ``test_resume``."""

from __future__ import annotations

import asyncio

import pytest

from tests.server.conftest import Serve
from tests.server.realtime.agent import ManualAgent
from tests.server.realtime.client import Client, Frame
from tests.server.realtime.serving import Served
from tests.server.realtime.test_resume import ANSWER, FRAMES, SCRIPT
from unbroken.server.agents.scripted import ScriptedAgent, answer_to


async def test_a10_a_client_that_never_got_a_frame(server: Served[ScriptedAgent]) -> None:
    """It has no token either: it begins anew, and what it left behind is an empty session."""
    client = server.stranger()
    await client.open()
    await client.send({"type": "response.create"})
    await client.drop()
    await client.connect()
    await client.ask(SCRIPT)
    await client.done()

    assert client.resumed is None
    assert client.answers() == ANSWER


async def test_a10_a_token_without_a_cursor_replays_all(server: Served[ScriptedAgent]) -> None:
    client = await server.client()
    await client.ask(SCRIPT)
    await client.done()
    again = await server.tab(client)
    await again.done()

    assert again.resumed is True
    assert again.types() == FRAMES
    assert again.answers() == ANSWER
    assert server.agent.calls == 1


async def test_a11_the_session_has_expired(serve: Serve) -> None:
    """What can't be resumed is said to be so, and nothing is begun in its place."""
    server: Served[ScriptedAgent] = await serve(ScriptedAgent(), session_idle_timeout=0.001)
    client = await server.client()
    await client.ask(SCRIPT)
    await client.done()
    await client.close()
    await server.idle()
    while len(server.app.node.hub):
        await asyncio.sleep(0)
        await server.app.node.sweep()
    assert client.token is not None
    await client.open(resume=client.token, after=client.last_id or "")

    assert (await client.error())["code"] == "session_not_found"
    assert await client.closed() == 1008
    assert server.agent.calls == 1


async def compare(refused: list[Client], *, code: str = "session_not_found") -> None:
    """Whatever the reason: the same frame but for its random id, and 1008."""
    frames: list[Frame] = []
    for client in refused:
        frames.append(await client.next())
        assert await client.closed() == 1008
    ids = [frame.pop("event_id") for frame in frames]
    assert len(set(ids)) == len(ids)
    assert len({len(each) for each in ids}) == 1
    assert all(frame == frames[0] for frame in frames)
    assert frames[0]["error"]["code"] == code


async def test_the_name_of_a_session_opens_nothing(server: Served[ScriptedAgent]) -> None:
    """It is in every `session.created`, and may be shown: only the token that goes with it resumes."""
    client = await server.client()
    await client.ask("secret")
    await client.done()
    assert client.session_id is not None
    refused: list[Client] = []
    for token in (client.session_id, f"rt_{client.session_id}", client.session_id.replace("sess_", "rt_")):
        again = server.stranger(client.key)
        await again.open(resume=token)
        refused.append(again)

    await compare(refused)


async def test_a12_another_users_token_is_as_unknown_as_any(server: Served[ScriptedAgent]) -> None:
    """Nothing tells whether a session exists: not the frame, not the close code, not the headers."""
    alice = await server.client("alice")
    await alice.ask("secret")
    await alice.done()
    assert alice.token is not None
    unknown = alice.token[:-1] + ("A" if alice.token[-1] != "A" else "B")
    refused: list[Client] = []
    for token in (alice.token, unknown, "rt_garbage", "rt_" + "0" * 44 + "_" + "A" * 22):
        mallory = server.stranger("mallory")
        await mallory.open(resume=token, after=alice.last_id or "")
        refused.append(mallory)
    heads = [
        [name for name, _ in each.ws.response.headers.raw_items()] for each in refused if each.ws.response
    ]

    await compare(refused)
    assert all(head == heads[0] for head in heads)
    assert server.agent.calls == 1


@pytest.mark.parametrize(
    "cursor",
    [
        "garbage",
        "event_0123456789abcdef01234567",
        "event_{incarnation}.99999999.0.0",
        "event_{incarnation}.{seq}.{other}.0",
        "event_00000000.{seq}.{nonce}.0",
        "event_{incarnation}.999999999999999999999.0.0",
        "event_{incarnation}.-1.0.0",
        "{event_id}\x00",
        "x" * 3000,
    ],
    ids=["garbage", "no cursor", "future", "branch", "incarnation", "overflow", "negative", "tail", "long"],
)
async def test_a12_a_cursor_that_cannot_be_used(server: Served[ScriptedAgent], cursor: str) -> None:
    """The same session, begun over from a snapshot, said to be so. Never a second one."""
    client = await server.client()
    await client.ask(SCRIPT)
    await client.done()
    assert client.last_id is not None
    incarnation, seq, nonce, _ = client.last_id.removeprefix("event_").split(".")
    given = {"incarnation": incarnation, "seq": seq, "nonce": nonce, "event_id": client.last_id}
    session_id = client.session_id
    await client.drop()
    await client.resume(after=cursor.format(other=f"{int(nonce, 16) ^ 1:x}", **given))

    assert client.resumed is False
    assert client.session_id == session_id
    await client.sync()
    assert client.types() == [*2 * ["conversation.item.added", "conversation.item.done"], "error"]
    texts = [frame["item"]["content"][0]["text"] for frame in client.of("conversation.item.done")]
    assert texts == [SCRIPT, answer_to(SCRIPT)]
    assert server.agent.calls == 1


async def test_a12_a_cursor_of_another_session(server: Served[ScriptedAgent]) -> None:
    client, other = await server.client(), await server.client()
    for each in (client, other):
        await each.ask(SCRIPT)
        await each.done()
    await client.drop()
    await client.resume(after=other.last_id or "")
    await client.sync()

    assert client.resumed is False
    assert [frame["item"]["role"] for frame in client.of("conversation.item.done")] == ["user", "assistant"]


async def test_a12_a_reset_in_mid_answer(manual: Served[ManualAgent]) -> None:
    """The snapshot shows what is being said as far as it was said; the rest follows live, once."""
    client = await manual.client()
    await client.ask("go")
    turn = await manual.agent.turn()
    turn.say("one ", "two ")
    await client.said("two ")
    await client.drop()
    await client.resume(after="garbage")
    await client.said("two ")
    turn.say("three")
    turn.end()
    await client.done()

    assert client.resumed is False
    assert client.answers() == [("completed", "one two three")]
    assert len(manual.agent.turns) == 1


@pytest.mark.parametrize("seen", [1, 2, 3, 4, 5, 6, 7, 8])
async def test_a_cut_in_a_snapshot(manual: Served[ManualAgent], seen: int) -> None:
    """Only a snapshot's last frame can be resumed from: from any other, it is sent again."""
    client = await manual.client()
    await client.ask("go")
    turn = await manual.agent.turn()
    turn.say("one ")
    await client.said("one ")
    await client.drop()
    await client.resume(after="garbage")
    await client.see(seen - 1)
    await client.drop()
    await client.resume()
    turn.say("two")
    turn.end()
    await client.done()

    assert client.resumed is (seen == 8)
    assert client.answers() == [("completed", "one two")]
    items = [frame["item"]["role"] for frame in client.of("conversation.item.added")]
    assert items == ["user", "assistant"]


async def test_a11_resume_after_the_log_was_trimmed(serve: Serve) -> None:
    """The client's place is forgotten: it is told, gets a snapshot, and nothing is generated again."""
    server: Served[ScriptedAgent] = await serve(
        ScriptedAgent(), log_retain_bytes=0, log_max_bytes=4096, max_output_bytes=1024
    )
    client = await server.client()
    await client.ask("/tokens 3")
    await client.done()
    place = client.last_id
    assert place is not None
    for _ in range(20):
        await client.ask("/tokens 30")
        await client.done()
    await client.drop()
    await client.resume(after=place)
    await client.sync()

    assert client.resumed is False
    shown = [
        (frame["item"]["role"], frame["item"]["status"]) for frame in client.of("conversation.item.done")
    ]
    assert shown == 21 * [("user", "completed"), ("assistant", "completed")]
    assert client.of("response.created") == []
    assert server.agent.calls == 21
    await client.ask("/tokens 2")
    assert (await client.done())["status"] == "completed"


async def test_a16_a_huge_backlog_comes_merged_and_in_many_frames(serve: Serve) -> None:
    """Neither a frame for each of 8,000 pieces nor all of them in one."""
    room = 8 << 20
    server: Served[ScriptedAgent] = await serve(ScriptedAgent(), log_retain_bytes=room, log_max_bytes=room)
    script = "/tokens 8000"
    first = await server.client()
    await first.ask(script)
    late = server.stranger(token=first.token)
    await first.done()
    await late.resume()
    await late.done()

    sizes = [len(frame["delta"]) for frame in late.of("response.output_text.delta")]
    assert late.answers() == first.answers() == [("completed", answer_to(script))]
    assert 10 < len(sizes) < 400
    assert max(sizes) < 10_000
    assert server.agent.calls == 1
