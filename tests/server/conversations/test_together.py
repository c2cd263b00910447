"""What one request brings into a conversation: all of it, once, or nothing."""

from __future__ import annotations

from typing import Any

import pytest
from openai import APIStatusError, BadRequestError, InternalServerError

from tests.server.conftest import Serve
from tests.server.realtime.serving import Served
from unbroken.server.agents.scripted import ScriptedAgent
from unbroken.sessions.errors import StoreUnavailable

HELLO = {"type": "message", "role": "user", "content": "hello"}
OUTPUT = {"type": "function_call_output", "call_id": "call_none", "output": "lost"}
CALL = {"type": "function_call", "call_id": "call_1", "name": "look", "arguments": "{}"}


def named(name: str) -> dict[str, Any]:
    return {"extra_headers": {"Idempotency-Key": name}}


async def texts(client: Any, conversation: str) -> list[str]:
    items = [item async for item in client.conversations.items.list(conversation, order="asc")]
    return [item.content[0].text if item.type == "message" else item.type for item in items]


async def listed(client: Any) -> list[str]:
    page = await client.get("/conversations", cast_to=object)
    return [each["id"] for each in page["data"]]


async def test_items_of_which_one_is_refused_leave_nothing(server: Served[ScriptedAgent]) -> None:
    client: Any = await server.openai()
    made = await client.conversations.create(items=[HELLO])
    for items in ([HELLO, OUTPUT], [CALL, CALL], [HELLO, CALL, {**OUTPUT, "call_id": "call_2"}]):
        with pytest.raises(APIStatusError):
            await client.conversations.items.create(made.id, items=items)
        with pytest.raises(APIStatusError):
            await client.conversations.create(items=items)
        with pytest.raises(APIStatusError):
            await client.conversations.create(items=items, **named("refused"))

    assert await texts(client, made.id) == ["hello"]
    assert await listed(client) == [made.id]
    both = await client.conversations.items.create(made.id, items=[CALL, {**OUTPUT, "call_id": "call_1"}])
    assert [item.type for item in both.data] == ["function_call", "function_call_output"]


async def test_more_than_fits_is_none_of_it(serve: Serve) -> None:
    server = await serve(ScriptedAgent(), max_session_bytes=64 * 1024)
    client: Any = await server.openai()
    made = await client.conversations.create()
    long = {**HELLO, "content": 20_000 * "x"}
    with pytest.raises(APIStatusError) as refused:
        await client.conversations.items.create(made.id, items=[long, long, long, long])
    assert refused.value.code == "conversation_full"
    assert await texts(client, made.id) == []


async def test_what_has_a_name_is_done_once(server: Served[ScriptedAgent]) -> None:
    client: Any = await server.openai()
    made = await client.conversations.create(items=[HELLO], metadata={"a": "b"}, **named("one"))
    again = await client.conversations.create(items=[HELLO], metadata={"a": "b"}, **named("one"))
    other = await client.conversations.create(items=[HELLO], metadata={"a": "b"}, **named("two"))
    theirs: Any = await server.openai("bob")
    bobs = await theirs.conversations.create(items=[HELLO], metadata={"a": "b"}, **named("one"))
    assert made.id == again.id
    assert len({made.id, other.id, bobs.id}) == 3

    first = await client.conversations.items.create(made.id, items=[HELLO, HELLO], **named("one"))
    await client.conversations.items.delete(first.data[0].id, conversation_id=made.id)
    second = await client.conversations.items.create(made.id, items=[HELLO, HELLO], **named("one"))
    assert [item.id for item in second.data] == [first.data[1].id]
    elsewhere = await client.conversations.items.create(other.id, items=[HELLO], **named("one"))
    assert elsewhere.data[0].id not in {item.id for item in first.data}
    assert await texts(client, made.id) == ["hello", "hello"]

    answer = await client.responses.create(model="default", input="hi", **named("one"))
    assert answer.conversation.id not in (made.id, other.id)


async def test_an_empty_one_with_a_name_is_begun_once(server: Served[ScriptedAgent]) -> None:
    client: Any = await server.openai()
    made = [await client.conversations.create(**named("empty")) for _ in range(2)]
    assert made[0].id == made[1].id
    assert await listed(client) == [made[0].id]


async def test_a_name_is_good_for_one_request(server: Served[ScriptedAgent]) -> None:
    client: Any = await server.openai()
    made = await client.conversations.create(items=[HELLO], **named("one"))
    await client.conversations.items.create(made.id, items=[HELLO], **named("two"))
    for other in (
        client.conversations.create(items=[HELLO, HELLO], **named("one")),
        client.conversations.create(items=[HELLO], metadata={"a": "b"}, **named("one")),
        client.conversations.items.create(made.id, items=[CALL], **named("two")),
    ):
        with pytest.raises(APIStatusError) as refused:
            await other
        assert (refused.value.status_code, refused.value.code) == (409, "message_id_reused")
    assert await texts(client, made.id) == ["hello", "hello"]
    with pytest.raises(BadRequestError) as bad:
        await client.conversations.create(**named("x" * 300))
    assert (bad.value.code, bad.value.param) == ("invalid_request", "Idempotency-Key")


async def test_what_was_refused_is_refused_again(server: Served[ScriptedAgent]) -> None:
    client: Any = await server.openai()
    made = await client.conversations.create()
    codes = []
    for _ in range(2):
        with pytest.raises(APIStatusError) as refused:
            await client.conversations.items.create(made.id, items=[HELLO, OUTPUT], **named("one"))
        codes.append(refused.value.code)
    assert codes == ["item_not_found", "item_not_found"]
    assert await texts(client, made.id) == []


async def test_what_was_refused_may_be_asked_for_otherwise_by_its_name(server: Served[ScriptedAgent]) -> None:
    """Nothing was begun, so that the name stands for nothing yet."""
    client: Any = await server.openai()
    with pytest.raises(APIStatusError):
        await client.conversations.create(items=[OUTPUT], metadata={"a": "b"}, **named("one"))
    made = await client.conversations.create(items=[HELLO], metadata={"c": "d"}, **named("one"))
    assert made.metadata == {"c": "d"}
    assert await texts(client, made.id) == ["hello"]


async def test_one_whose_first_input_was_never_written_is_begun_all_the_same(
    server: Served[ScriptedAgent], monkeypatch: pytest.MonkeyPatch
) -> None:
    client: Any = await server.openai()
    store = server.app._stored.store
    submit = store.submit

    async def fails(*_: Any) -> Any:
        raise StoreUnavailable

    monkeypatch.setattr(store, "submit", fails)
    with pytest.raises(InternalServerError):
        await client.conversations.create(items=[HELLO], metadata={"a": "b"}, **named("one"))
    monkeypatch.setattr(store, "submit", submit)

    with pytest.raises(APIStatusError) as refused:
        await client.conversations.create(items=[HELLO], metadata={"c": "d"}, **named("one"))
    assert refused.value.code == "message_id_reused"
    made = await client.conversations.create(items=[HELLO], metadata={"a": "b"}, **named("one"))
    assert await texts(client, made.id) == ["hello"]


async def test_one_that_was_deleted_is_not_begun_again_by_its_name(server: Served[ScriptedAgent]) -> None:
    client: Any = await server.openai()
    made = await client.conversations.create(items=[HELLO], **named("one"))
    await client.conversations.delete(made.id)
    with pytest.raises(APIStatusError) as refused:
        await client.conversations.create(items=[HELLO], **named("one"))
    assert (refused.value.status_code, refused.value.code) == (410, "session_deleted")
