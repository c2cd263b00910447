"""Conversations of the official client, as its users write them."""

from __future__ import annotations

from typing import Any

import pytest
from websockets.exceptions import ConnectionClosedError

from tests.server.conftest import Serve
from tests.server.realtime.agent import ManualAgent
from tests.server.realtime.client import user_item
from tests.server.realtime.official import Official, speaking
from tests.server.realtime.serving import Served
from unbroken.server.agents.scripted import ScriptedAgent


def text_of(item: dict[str, Any]) -> str:
    return "".join(part["text"] for part in item["content"])


@pytest.mark.client("openai-python", "conversation")
async def test_a_conversation_of_several_turns(server: Served[ScriptedAgent]) -> None:
    """Frames in the order that every client was seen to take."""
    async with speaking(await server.openai()) as official:
        for text in ("hi", "how are you?"):
            await official.ask(text)
            await official.done()

    frames = [
        "conversation.item.added",
        "conversation.item.done",
        "response.created",
        "response.output_item.added",
        "conversation.item.added",
        "response.content_part.added",
        "response.output_text.delta",
        "response.output_text.delta",
        "response.output_text.delta",
        "response.output_text.done",
        "response.content_part.done",
        "response.output_item.done",
        "conversation.item.done",
        "response.done",
    ]
    assert official.types() == [*frames, *frames[:6], *5 * ["response.output_text.delta"], *frames[-5:]]
    assert official.answers() == [("completed", "You said: hi"), ("completed", "You said: how are you?")]
    places = [frame.get("previous_item_id") for frame in official.frames if "item.added" in frame["type"]]
    names = [frame["item"]["id"] for frame in official.frames if frame["type"] == "conversation.item.done"]
    assert [place for place in places if place] == [names[0], names[1], names[2]]


async def test_what_an_answer_is_asked_to_be(manual: Served[ManualAgent]) -> None:
    """The session's instructions and limits hold until a response has its own."""
    async with speaking(await manual.openai()) as official:
        session: Any = {"type": "realtime", "instructions": "Be brief.", "max_output_tokens": 100}
        await official.connection.session.update(session=session)
        updated = (await official.until("session.updated"))["session"]
        await official.ask("one")
        (first := await manual.agent.turn()).end()
        await official.done()
        await official.ask("two", instructions="Rhyme.", max_output_tokens=7, metadata={"topic": "x"})
        (second := await manual.agent.turn(1)).end()
        response = await official.done()

    assert (updated["instructions"], updated["max_output_tokens"]) == ("Be brief.", 100)
    assert (first.given.instructions, first.given.max_output_tokens) == ("Be brief.", 100)
    assert (second.given.instructions, second.given.max_output_tokens) == ("Rhyme.", 7)
    assert second.given.metadata == response["metadata"] == {"topic": "x"}
    assert second.given.model == "manual"


async def test_usage_and_an_answer_cut_at_its_limit(server: Served[ScriptedAgent]) -> None:
    async with speaking(await server.openai()) as official:
        await official.ask("/tokens 9", max_output_tokens=3)
        cut = await official.done()
        await official.ask("/filter after 2")
        filtered = await official.done()

    assert cut["status_details"] == {"type": "incomplete", "reason": "max_output_tokens"}
    assert cut["output"][0]["status"] == "incomplete"
    assert (cut["usage"]["input_tokens"], cut["usage"]["output_tokens"]) == (2, 3)
    assert cut["usage"]["total_tokens"] == 5
    assert filtered["status_details"] == {"type": "incomplete", "reason": "content_filter"}
    assert official.answers() == [("incomplete", "word1 word2 word3"), ("incomplete", "word1 word2")]


@pytest.mark.client("openai-python", "cancel", "failure")
async def test_every_status(manual: Served[ManualAgent]) -> None:
    async with speaking(await manual.openai()) as official:
        await official.ask("one")
        (await manual.agent.turn()).end()
        await official.done()
        await official.ask("two")
        (await manual.agent.turn(1)).fail(RuntimeError("secret"))
        failed = await official.done()
        await official.ask("three")
        await manual.agent.turn(2)
        await official.connection.response.cancel()
        await official.done()

    assert [status for status, _ in official.answers()] == ["completed", "failed", "cancelled"]
    assert failed["status_details"]["error"] == {"type": "server_error", "code": "agent_crashed"}
    assert "secret" not in str(official.frames)


@pytest.mark.client("openai-python", "beside")
async def test_responses_beside_the_conversation(manual: Served[ManualAgent]) -> None:
    """They run at once, read what they are given, and leave nothing behind. Four at most."""
    async with speaking(await manual.openai()) as official:
        await official.ask("main")
        main = await manual.agent.turn()
        inputs = [[user_item("aside")], [], None, None, None]
        for number, given in enumerate(inputs):
            response: Any = {"conversation": "none", "metadata": {"n": str(number)}}
            if given is not None:
                response["input"] = given
            await official.connection.response.create(response=response)
        error = await official.error()
        asides = [await manual.agent.turn(number) for number in (1, 2, 3, 4)]
        for number, turn in enumerate(asides):
            turn.say(f"aside {number}")
        main.say("answer")
        for turn in [*asides, main]:
            turn.end()
        responses = [await official.done() for _ in range(5)]
        await official.ask("next")
        after = await manual.agent.turn(5)
        after.end()
        await official.done()

    assert error["code"] == "too_many_responses"
    seen = [[message.text for message in turn.given.messages] for turn in asides]
    assert seen == [["aside"], [], ["main"], ["main"]]
    beside = [each for each in responses if "metadata" in each]
    assert {each["metadata"]["n"]: text_of(each["output"][0]) for each in beside} == {
        str(number): f"aside {number}" for number in range(4)
    }
    assert all("conversation_id" not in each for each in beside)
    assert [message.text for message in after.given.messages] == ["main", "answer", "next"]
    official.answers()


@pytest.mark.client("openai-python", "items")
async def test_items_have_a_place(server: Served[ScriptedAgent]) -> None:
    async with speaking(await server.openai()) as official:
        items = official.connection.conversation.item
        for name, previous in (("b", None), ("d", None), ("a", "root"), ("c", "b")):
            item: Any = user_item(name.upper(), name)
            await items.create(item=item, **({"previous_item_id": previous} if previous else {}))
        for _ in range(4):
            await official.until("conversation.item.done")
        await items.delete(item_id="d")
        await official.until("conversation.item.deleted")
        await items.retrieve(item_id="c")
        found = await official.until("conversation.item.retrieved")
        for missing in (items.retrieve(item_id="d"), items.delete(item_id="d")):
            await missing
            assert (await official.error())["code"] == "item_not_found"
        assistant: Any = {
            "type": "message",
            "role": "assistant",
            "content": [{"type": "output_text", "text": "earlier"}],
        }
        await items.create(item=assistant, previous_item_id="nowhere", event_id="lost")
        error = await official.error()
        await items.create(item=assistant, previous_item_id="a")
        await official.until("conversation.item.done")

    places = {
        frame["item"]["id"]: frame.get("previous_item_id")
        for frame in official.frames
        if frame["type"] == "conversation.item.added"
    }
    assert list(places.items())[:4] == [("b", None), ("d", "b"), ("a", None), ("c", "b")]
    assert list(places.values())[4:] == ["a"]
    assert text_of(found["item"]) == "C"
    assert (error["code"], error["param"], error["event_id"]) == (
        "item_not_found",
        "previous_item_id",
        "lost",
    )


async def test_the_conversations_order_is_what_the_agent_is_given(manual: Served[ManualAgent]) -> None:
    async with speaking(await manual.openai()) as official:
        for name, previous in (("b", None), ("c", None), ("a", "root")):
            item: Any = {**user_item(name, name), "role": "system" if name == "a" else "user"}
            where: Any = {"previous_item_id": previous} if previous else {}
            await official.connection.conversation.item.create(item=item, **where)
        await official.connection.response.create()
        turn = await manual.agent.turn()
        turn.end()
        await official.done()

    assert [(each.role, each.text) for each in turn.given.messages] == [
        ("system", "a"),
        ("user", "b"),
        ("user", "c"),
    ]


async def test_an_item_can_be_retrieved_in_the_same_breath(server: Served[ScriptedAgent]) -> None:
    """Events take effect in the order in which they were sent."""
    async with speaking(await server.openai()) as official:
        item: Any = user_item("hi", "a")
        await official.connection.conversation.item.create(item=item)
        await official.connection.conversation.item.retrieve(item_id="a")
        while (frame := await official.next())["type"] not in ("error", "conversation.item.retrieved"):
            pass

    assert frame["type"] == "conversation.item.retrieved"


async def test_a_session_for_voice_is_answered_as_text(server: Served[ScriptedAgent]) -> None:
    """What doesn't apply to text is taken and left aside; ``session.updated`` says what really holds."""
    async with speaking(await server.openai()) as official:
        session: Any = {
            "type": "realtime",
            "model": "default",
            "output_modalities": ["audio"],
            "audio": {
                "input": {
                    "format": {"type": "audio/pcm", "rate": 24000},
                    "turn_detection": {"type": "semantic_vad"},
                    "transcription": {"model": "whisper-1"},
                    "noise_reduction": {"type": "near_field"},
                },
                "output": {"voice": "alloy", "speed": 1.5},
            },
            "tools": [{"type": "function", "name": "f", "parameters": {"type": "object"}}],
            "tool_choice": "auto",
            "tracing": "auto",
            "truncation": "auto",
            "prompt": None,
            "include": ["item.input_audio_transcription.logprobs"],
        }
        await official.connection.session.update(session=session)
        updated = (await official.until("session.updated"))["session"]
        await official.ask("hi", output_modalities=["audio"])
        response = await official.done()

    assert updated["output_modalities"] == response["output_modalities"] == ["text"]
    assert updated["tools"] == session["tools"]
    assert official.answers() == [("completed", "You said: hi")]


async def test_a_session_shows_no_more_tokens_than_the_operator_allows(serve: Serve) -> None:
    """Whatever is asked for, when it begins and later; also of a session that is resumed."""
    server: Served[ScriptedAgent] = await serve(ScriptedAgent(), max_output_tokens=1000)
    client = await server.client()
    shown = [client.frames[0]["session"]["max_output_tokens"]]
    for wanted in (5000, 7, "inf"):
        await client.send({"type": "session.update", "session": {"max_output_tokens": wanted}})
        shown.append((await client.until("session.updated"))["session"]["max_output_tokens"])
        await client.drop()
        shown.append((await client.resume())["session"]["max_output_tokens"])

    assert shown == [1000, 1000, 1000, 7, 7, 1000, 1000]


@pytest.mark.client("openai-python", "errors")
async def test_an_answer_in_text_is_not_truncated(manual: Served[ManualAgent]) -> None:
    """As the API does it: only audio is heard up to some moment. The model goes on knowing all of it."""
    async with speaking(await manual.openai()) as official:
        await official.ask("one")
        (turn := await manual.agent.turn()).say("all of it")
        begun = await official.until("response.output_item.added")
        place: Any = {"item_id": begun["item"]["id"], "content_index": 0, "audio_end_ms": 0}
        await official.connection.conversation.item.truncate(**place, event_id="t1")
        during = await official.error()
        turn.end()
        await official.done()
        await official.connection.conversation.item.truncate(**{**place, "audio_end_ms": 9}, event_id="t2")
        after = await official.error()
        await official.ask("two")
        (second := await manual.agent.turn(1)).end()
        await official.done()

    for error, event_id in ((during, "t1"), (after, "t2")):
        assert (error["code"], error["event_id"]) == ("unsupported_content_type", event_id)
    assert [each.text for each in second.given.messages] == ["one", "all of it", "two"]


@pytest.mark.client("openai-python", "errors")
async def test_audio_is_refused_with_words_that_help(server: Served[ScriptedAgent]) -> None:
    async with speaking(await server.openai()) as official:
        await official.connection.input_audio_buffer.append(audio="AAAA", event_id="a1")
        await official.connection.input_audio_buffer.commit()
        await official.connection.input_audio_buffer.clear()
        item: Any = {"type": "message", "role": "user", "content": [{"type": "input_audio", "audio": "AA"}]}
        await official.connection.conversation.item.create(item=item)
        errors = [await official.error() for _ in range(4)]

    assert {error["code"] for error in errors} == {"audio_input_unsupported"}
    assert errors[0]["event_id"] == "a1"
    assert "Send text" in errors[0]["message"]


@pytest.mark.parametrize(
    ("session", "code"),
    [
        ({"type": "transcription"}, "unsupported_session_type"),
    ],
)
async def test_what_a_session_cannot_become(
    server: Served[ScriptedAgent], session: dict[str, Any], code: str
) -> None:
    async with speaking(await server.openai()) as official:
        wanted: Any = session
        await official.connection.session.update(session=wanted, event_id="u1")
        error = await official.error()
        await official.ask("hi")
        await official.done()

    assert (error["code"], error["event_id"]) == (code, "u1")
    assert official.answers() == [("completed", "You said: hi")]


@pytest.mark.parametrize("policy", ["reject", "queue", "interrupt", "merge"])
async def test_the_operators_policy_for_a_second_response(serve: Serve, policy: str) -> None:
    manual: Served[ManualAgent] = await serve(ManualAgent(), concurrency=policy)
    async with speaking(await manual.openai()) as official:
        await official.ask("one")
        first = await manual.agent.turn()
        await official.connection.response.create(event_id="second")
        if policy == "reject":
            error = await official.error()
            assert (error["code"], error["event_id"]) == (
                "conversation_already_has_active_response",
                "second",
            )
        elif policy == "interrupt":
            await official.done()
            assert first.was_stopped
        first.end()
        if policy in ("queue", "merge"):
            await official.done()
        if policy != "reject":
            (await manual.agent.turn(1)).end()
        await official.done()

    statuses = {
        "reject": ["completed"],
        "queue": 2 * ["completed"],
        "merge": 2 * ["completed"],
        "interrupt": ["cancelled", "completed"],
    }
    assert [status for status, _ in official.answers()] == statuses[policy]


async def test_events_sent_before_the_connection_is_open(server: Served[ScriptedAgent]) -> None:
    """A7: the official client queues them and sends them with its first breath."""
    client = await server.openai()
    manager = client.realtime.connect(model="default")
    item: Any = user_item("early")
    manager.send({"type": "conversation.item.create", "item": item})
    manager.send({"type": "response.create"})
    official = Official()
    async with manager as official.connection:
        official.events = official.connection.__aiter__()
        await official.done()

    assert official.answers() == [("completed", "You said: early")]


async def test_a_wrong_token_ends_the_official_clients_attempts(server: Served[ScriptedAgent]) -> None:
    """B8: it is told why, then 1008, which it doesn't retry."""
    client = await server.openai()
    manager = client.realtime.connect(model="default", extra_query={"resume": "rt_nonsense"})
    official = Official()
    async with manager as official.connection:
        official.events = official.connection.__aiter__()
        error = await official.error()
        with pytest.raises(ConnectionClosedError):
            await official.next()

    assert error["code"] == "session_not_found"
