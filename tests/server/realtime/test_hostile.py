"""Whatever a client sends, it gets an error that says so, and nobody else notices."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from tests.server.realtime.client import user_item
from tests.server.realtime.raw import RawClient
from tests.server.realtime.serving import Served, serving
from unbroken.server.agents.scripted import ScriptedAgent
from unbroken.server.errors import ERROR_MEANINGS
from unbroken.server.protocols.items import DecodeError
from unbroken.server.protocols.realtime.decode import decode_event

ITEM = {"type": "conversation.item.create", "event_id": "e", "item": user_item("hi", "i")}
EVENTS: list[dict[str, Any]] = [
    {**ITEM, "previous_item_id": "root", "unbroken": {"message_id": "m"}},
    {
        "type": "conversation.item.create",
        "event_id": "e",
        "item": {
            "type": "message",
            "role": "user",
            "content": [
                {"type": "input_image", "image_url": "data:image/png;base64,aGk=", "detail": "low"},
                {"type": "input_image", "file_id": "file-" + "0" * 32},
                {"type": "input_file", "file_data": "data:text/plain;base64,aGk=", "filename": "a"},
                {"type": "input_text", "text": "[a]", "unbroken": {"file_id": "file-" + "0" * 32}},
            ],
        },
    },
    {"type": "conversation.item.retrieve", "event_id": "e", "item_id": "i"},
    {"type": "conversation.item.delete", "event_id": "e", "item_id": "i", "unbroken": {"message_id": "d"}},
    {"type": "response.cancel", "event_id": "e", "response_id": "r"},
    {
        "type": "session.update",
        "event_id": "e",
        "session": {
            "type": "realtime",
            "model": "default",
            "instructions": "x",
            "max_output_tokens": 5,
            "unbroken": {"concurrency": "queue"},
        },
    },
    {
        "type": "response.create",
        "event_id": "e",
        "response": {
            "conversation": "none",
            "instructions": "x",
            "max_output_tokens": "inf",
            "metadata": {"k": "v"},
            "input": [user_item("q"), {"type": "item_reference", "id": "i"}],
        },
        "unbroken": {"message_id": "r"},
    },
]

HUGE = [2**63, 2**64, 2**200, -(2**63) - 1, 1e308, -0.0, 5.0]
SCALARS = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.sampled_from(HUGE)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=20)
    | st.sampled_from(
        ["root", "inf", "none", "default", "realtime", "\x00", "\ud800", "\udc00\ud800", "😀" * 9]
    )
)
JSON = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)


@st.composite
def mutated(draw: st.DrawFn) -> Any:
    """Draw a valid event with something in it replaced, removed or added."""
    event = json.loads(json.dumps(draw(st.sampled_from(EVENTS))))
    for _ in range(draw(st.integers(1, 2))):
        spots = list(_spots(event))
        holder, key = draw(st.sampled_from(spots))
        match draw(st.sampled_from(["replace", "remove", "add"])):
            case "replace":
                holder[key] = draw(JSON)
            case "remove":
                del holder[key]
            case _ if isinstance(holder, dict):
                holder[draw(st.text(max_size=8))] = draw(JSON)
            case _:
                holder.append(draw(JSON))
        if not event:
            break
    return event


def _spots(value: Any) -> Any:
    if isinstance(value, (dict, list)):
        for key in value if isinstance(value, dict) else range(len(value)):
            yield value, key
            yield from _spots(value[key])


TEXTS = (mutated() | JSON).map(json.dumps) | st.text(max_size=60)


@given(text=TEXTS)
@example(text="")
@example(text="{")
@example(text="null")
@example(text="[" * 10_000)
@example(text='{"a":' * 5_000)
@example(text='{"type":"response.create","event_id":"\\ud800"}')
@example(text='{"type":"session.update","session":{"max_output_tokens":1e400}}')
@settings(max_examples=4 * settings().max_examples)
def test_the_decoder_takes_it_or_says_what_is_wrong(text: str) -> None:
    try:
        decode_event(text.encode("utf-8", "surrogatepass"), max_depth=32)
    except DecodeError as error:
        assert error.code in ERROR_MEANINGS
        assert len(error.message) < 1000
        assert "Traceback" not in error.message


@settings(max_examples=3 * settings().max_examples // 10, suppress_health_check=list(HealthCheck))
@given(texts=st.lists(TEXTS, min_size=20, max_size=40))
def test_no_frame_ends_a_session(texts: list[str]) -> None:
    """Through a real socket: afterwards the connection, its session and another user's all work."""

    async def scenario() -> None:
        async with serving(ScriptedAgent()) as server:
            victim = await server.client("victim")
            client = await server.client()
            for text in texts:
                await client.send(text.encode("utf-8", "replace").decode())
                await client.send({"type": "response.cancel", "event_id": "stop"})
                await client.sync()
            session = {"type": "realtime", "instructions": "", "max_output_tokens": "inf"}
            await client.send({"type": "session.update", "session": session})
            await client.sync()
            await client.drop()
            await client.resume(after="garbage")
            await client.ask("still there?")
            while (await client.done())["output"][0]["content"][0]["text"] != "You said: still there?":
                pass
            for name in client.errors():
                assert name in ERROR_MEANINGS
            await victim.ask("and you?")
            await victim.done()
            assert victim.answers() == [("completed", "You said: and you?")]
            assert victim.errors() == []

    asyncio.run(scenario())


@pytest.mark.parametrize(
    ("text", "code", "param"),
    [
        ("", "invalid_json", None),
        ("nonsense", "invalid_json", None),
        ("[]", "invalid_json", None),
        ('{"type":', "invalid_json", None),
        ("{}", "invalid_event", "type"),
        ('{"type":7}', "invalid_event", "type"),
        ('{"type":"response.creat"}', "unknown_event_type", "type"),
        ('{"type":"session.created"}', "unknown_event_type", "type"),
        ('{"type":"input_audio_buffer.append","audio":"AAAA"}', "audio_input_unsupported", "type"),
        ('{"type":"conversation.item.truncate"}', "invalid_event", None),
        ('{"type":"response.cancel","event_id":""}', "invalid_event", "event_id"),
        ('{"type":"response.cancel","event_id":7}', "invalid_event", "event_id"),
        ('{"type":"conversation.item.create"}', "invalid_event", None),
        ('{"type":"conversation.item.create","item":{}}', "invalid_event", "item.role"),
        ('{"type":"session.update","session":{"max_output_tokens":0}}', "invalid_event", None),
        ('{"type":"session.update","session":{"max_output_tokens":' + "9" * 40 + "}}", "invalid_event", None),
        (
            '{"type":"response.create","response":{"max_output_tokens":' + "9" * 25 + "}}",
            "invalid_event",
            None,
        ),
        ('{"type":"response.create","response":{"metadata":{"a":7}}}', "invalid_event", None),
        (
            '{"type":"response.cancel","response_id":"' + "x" * 40_000 + '"}',
            "response_cancel_not_active",
            None,
        ),
        ('{"type":"conversation.item.delete","item_id":"' + "\\u0001" * 9_000 + '"}', "item_not_found", None),
        ('{"type":"response.cancel","x":' + "[" * 100 + "]" * 100 + "}", "invalid_json", None),
    ],
)
async def test_what_is_wrong_is_said(
    server: Served[ScriptedAgent], text: str, code: str, param: str | None
) -> None:
    """In a few words: a frame that is sent back is no larger than it has to be."""
    client = await server.client()
    await client.send(text)
    error = await client.error()

    assert error["code"] == code
    assert param is None or error["param"] == param
    assert len(error["message"]) < 400
    await client.ask("hi")
    assert (await client.done())["status"] == "completed"


@pytest.mark.parametrize("name", ["\\ud800", "\\udfff\\ud800", "a\\ud83d"])
async def test_lone_surrogates_are_refused_or_replaced(server: Served[ScriptedAgent], name: str) -> None:
    client = await server.client()
    part = '{"type":"message","role":"user","content":[{"type":"input_text","text":"' + name + '"}]}'
    await client.send('{"type":"conversation.item.create","item":' + part + "}")
    await client.send('{"type":"session.update","session":{"type":"realtime","instructions":"' + name + '"}}')
    await client.send('{"type":"response.create","response":{"metadata":{"k":"' + name + '"}}}')
    await client.sync()
    await client.ask("hi")
    while (await client.done())["output"][0]["content"][0]["text"] != "You said: hi":
        pass


async def test_a_binary_frame_is_an_error(server: Served[ScriptedAgent]) -> None:
    client = await server.client()
    await client.send(json.dumps(ITEM).encode(), b"\xff\xfe", b"")
    errors = [await client.error() for _ in range(3)]

    assert [error["code"] for error in errors] == 3 * ["binary_frame"]


async def test_text_that_is_not_utf8_ends_the_connection(server: Served[ScriptedAgent]) -> None:
    """1007, as RFC 6455 has it. The session goes on."""
    client = await server.client()
    await client.ask("hi")
    await client.done()
    async with RawClient(server.port, resume=client.token or "") as raw:
        await raw.response()
        await raw.next()
        await raw.send('{"type":"response.create","event_id":"\ud800"}')
        await raw.rest()

        assert raw.close_code == 1007
    await client.sync()


async def test_a_frame_that_is_too_long_ends_the_connection(server: Served[ScriptedAgent]) -> None:
    """1009, before it is whole. The session goes on."""
    client = await server.client()
    await client.ask("hi")
    await client.done()
    await client.send(json.dumps({**ITEM, "item": user_item("x" * 65_536)}))

    assert await client.closed() == 1009
    await client.resume()
    assert client.resumed is True
    await client.say("x" * 64_000)
    await client.until("conversation.item.done")


@pytest.mark.parametrize(
    "fault", [b"\x81\xff\x7f\xff\xff\xff\xff\xff\xff\xff\0\0\0\0", b"\x81\x01x", b"\xff\xff"]
)
async def test_what_breaks_the_protocol_in_mid_answer(server: Served[ScriptedAgent], fault: bytes) -> None:
    """A frame without end, one without a mask, garbage: it ends the connection, and isn't logged as a bug."""
    client = await server.client()
    for seen in range(1, 40, 8):
        async with RawClient(server.port, resume=client.token or "") as raw:
            await raw.response()
            await client.ask("/tokens 50 1")
            for _ in range(seen):
                await raw.next()
            await raw.send_bytes(fault)
            await raw.rest()

            assert raw.close_code in (1002, 1009)
        await client.done()

    assert len(client.answers()) == 5
