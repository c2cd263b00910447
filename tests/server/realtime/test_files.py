"""Images and files in a conversation, from the wire's side."""

from __future__ import annotations

from base64 import b64encode
from typing import Any

import openai
import pytest

from tests.fakes.clock import FakeClock
from tests.fakes.upstream import FakeUpstream
from tests.server.agents.upstream_contract import made
from tests.server.conftest import Serve
from tests.server.files.contents import PDF, PNG, TEXT
from tests.server.realtime.agent import ManualAgent
from tests.server.realtime.client import Client, Frame
from tests.server.realtime.official import speaking
from tests.server.realtime.serving import Served, eventually
from unbroken.server.agents.base import Image
from unbroken.server.agents.fallback import FallbackAgent, Member
from unbroken.server.agents.openai import OpenAIAgent
from unbroken.server.agents.responses import ResponsesAgent
from unbroken.server.agents.scripted import ScriptedAgent
from unbroken.server.files.base import FileStore

URI = "data:image/png;base64," + b64encode(PNG).decode()


async def uploaded(server: Served[Any], content: bytes = PNG, name: str = "a.png", key: str = "alice") -> str:
    api = await server.openai(key)
    return (await api.files.create(file=(name, content), purpose="user_data")).id


def image(url: str, **fields: Any) -> Frame:
    return {"type": "input_image", "image_url": url, **fields}


def document(file_id: str) -> Frame:
    return {"type": "input_file", "file_id": file_id}


def message(*parts: Frame | str, **fields: Any) -> Frame:
    content = [{"type": "input_text", "text": part} if isinstance(part, str) else part for part in parts]
    item = {"type": "message", "role": "user", "content": content, **fields}
    return {"type": "conversation.item.create", "item": item}


async def shown(client: Client) -> list[Frame]:
    """Return the content of the item that is shown next."""
    content: list[Frame] = (await client.until("conversation.item.done"))["item"]["content"]
    return content


def store_of(server: Served[Any]) -> FileStore:
    assert server.app.files is not None
    return server.app.files


async def test_everybody_sees_the_same_reference(server: Served[ScriptedAgent]) -> None:
    """The sender, a tab that follows, one that comes later, and one that resumes in between."""
    file_id, pdf_id = await uploaded(server), await uploaded(server, PDF, "a.pdf")
    sender = await server.client()
    tab = await server.tab(sender)
    await sender.send(message("look", image(file_id, detail="low"), document(pdf_id)))
    content = await shown(sender)
    await sender.drop()
    sender.last_id = next(frame for frame in sender.frames if frame["type"].endswith("item.added"))[
        "event_id"
    ]
    await sender.resume()

    assert content == [
        {"type": "input_text", "text": "look"},
        {
            "type": "input_image",
            "image_url": f"unbroken-file:{file_id}",
            "detail": "low",
            "unbroken": {
                "file_id": file_id,
                "filename": "a.png",
                "media_type": "image/png",
                "bytes": len(PNG),
            },
        },
        {
            "type": "input_text",
            "text": "[a.pdf]",
            "unbroken": {
                "file_id": pdf_id,
                "filename": "a.pdf",
                "media_type": "application/pdf",
                "bytes": len(PDF),
            },
        },
    ]
    assert [await shown(each) for each in (sender, tab, await server.tab(sender))] == 3 * [content]
    snapshot = server.stranger(token=sender.token)
    await snapshot.resume(after="unusable")
    assert await shown(snapshot) == content
    await sender.send({"type": "conversation.item.retrieve", "item_id": sender.frames[-1]["item"]["id"]})
    assert (await sender.until("conversation.item.retrieved"))["item"]["content"] == content


async def test_what_is_shown_can_be_sent_again(server: Served[ScriptedAgent]) -> None:
    first, second = await server.client(), await server.client()
    await first.send(message(image(await uploaded(server)), document(await uploaded(server, TEXT, "a.txt"))))
    content = await shown(first)
    await second.send(message(*content))

    assert await shown(second) == content


async def test_content_that_comes_along_is_a_file_from_then_on(server: Served[ScriptedAgent]) -> None:
    client = await server.client()
    data = "data:application/octet-stream;base64," + b64encode(TEXT).decode()
    await client.send(message(image(URI), {"type": "input_file", "file_data": data, "filename": "../n.txt"}))
    picture, text = await shown(client)
    api = await server.openai()

    assert (picture["unbroken"]["filename"], text["text"]) == ("image.png", "[n.txt]")
    assert (await api.files.content(picture["unbroken"]["file_id"])).content == PNG
    assert (await api.files.content(text["unbroken"]["file_id"])).content == TEXT
    assert b64encode(PNG).decode() not in str(client.frames)


async def test_what_comes_along_twice_runs_once_and_is_kept_once(server: Served[ScriptedAgent]) -> None:
    client = await server.client()
    event = {**message("look", image(URI)), "unbroken": {"message_id": "m"}}
    await client.send(event)
    await shown(client)
    await client.drop()
    await client.resume()
    await client.send(event)
    await client.sync()
    other = message("look", image("data:image/png;base64," + b64encode(PNG + b"x").decode()))
    await client.send({**other, "unbroken": {"message_id": "m"}})

    assert (await client.error())["code"] == "message_id_reused"
    assert len(client.of("conversation.item.added")) == 1
    store = store_of(server)
    await eventually(lambda: store.count == 1)


async def test_what_cannot_be_taken_is_refused_with_its_place(server: Served[ScriptedAgent]) -> None:
    mine, pdf = await uploaded(server), await uploaded(server, PDF, "a.pdf")
    bobs = await uploaded(server, key="bob")
    exe = "data:image/png;base64," + b64encode(b"MZ\x90\x00" * 9).decode()
    client = await server.client()
    for part, code, field in [
        (image(bobs), "file_not_found", "content[0]"),
        (image("file-" + "0" * 32), "file_not_found", "content[0]"),
        (image(pdf), "unsupported_content", "content[0].type"),
        (document(mine), "unsupported_content", "content[0].type"),
        (image(exe), "unsupported_file_type", "content[0]"),
        (image("https://example.com/a.png"), "unsupported_content", "content[0].image_url"),
    ]:
        await client.send({**message(part), "event_id": "e"})
        error = await client.error()
        assert (error["code"], error["param"], error["event_id"]) == (code, f"item.{field}", "e")
    await client.send({"type": "response.create", "response": {"input": [message(image(bobs))["item"]]}})
    error = await client.error()
    assert (error["code"], error["param"]) == ("file_not_found", "response.input[0].content[0]")

    assert client.of("conversation.item.added") == []
    assert store_of(server).count == 3


async def test_of_a_message_that_is_refused_nothing_is_kept(server: Served[ScriptedAgent]) -> None:
    client = await server.client()
    pdf = "data:application/pdf;base64," + b64encode(PDF).decode()
    await client.send(message(image(URI), image(pdf)))
    assert (await client.error())["code"] == "unsupported_content"
    store = store_of(server)
    await eventually(lambda: store.count == 0)


async def test_one_that_the_conversation_does_not_take_is_refused_once_its_files_are_there(
    server: Served[ScriptedAgent],
) -> None:
    """The session decides after it was written: its refusal comes through the log, and the file expires."""
    client = await server.client()
    await client.send({**message(image(URI)), "previous_item_id": "no-such-item"})

    assert (await client.error())["code"] == "item_not_found"


async def test_a_quota_that_is_reached_is_told_of(serve: Serve) -> None:
    server = await serve(ScriptedAgent(), max_principal_files=1)
    client = await server.client()
    await client.send(message(image(URI)), message(image(URI)))

    assert (await client.error())["code"] == "too_many_files"


async def test_where_files_are_off_parts_are_refused(serve: Serve) -> None:
    server = await serve(ScriptedAgent(), files="off")
    client = await server.client()
    await client.send(message("look", image(URI)))

    assert (await client.error())["code"] == "unsupported_content"
    await client.ask("hi")
    assert (await client.done())["status"] == "completed"


async def test_the_official_client_sends_an_image_and_reads_it_back(server: Served[ScriptedAgent]) -> None:
    api = await server.openai()
    async with speaking(api) as official:
        part: Any = {"type": "input_image", "image_url": URI}
        await official.connection.conversation.item.create(
            item={"type": "message", "role": "user", "content": [part]}
        )
        added = await official.until("conversation.item.done")

    file_id = added["item"]["content"][0]["image_url"].removeprefix("unbroken-file:")
    assert (await api.files.content(file_id)).content == PNG


# What the agent gets.


async def test_a_python_agent_reads_what_a_message_refers_to(manual: Served[ManualAgent]) -> None:
    client = await manual.client()
    await client.send(message("look", image(await uploaded(manual))), {"type": "response.create"})
    held = await manual.agent.turn()
    (asked,) = held.given.messages
    part = asked.content[1]
    assert isinstance(part, Image)
    assert (asked.text, part.name) == ("look", "a.png")
    assert await held.given.files.read(part) == PNG
    assert manual.app.reading.held == len(PNG)
    held.say("a dot")
    held.end()
    await client.done()

    assert manual.app.reading.held == 0


UPSTREAMS: list[Any] = [OpenAIAgent, ResponsesAgent]


def images_in(request: Any) -> list[str]:
    """Return the images in an upstream's request, whichever dialect it is."""
    urls = []
    for each in request.get("messages") or request["input"]:
        for part in each["content"] if isinstance(each["content"], list) else []:
            if "image_url" in part:
                url = part["image_url"]
                urls.append(url if isinstance(url, str) else url["url"])
    return urls


@pytest.mark.parametrize("kind", UPSTREAMS)
async def test_an_upstream_sees_the_image_and_later_that_it_has_gone(kind: Any, serve: Serve) -> None:
    clock = FakeClock()
    async with FakeUpstream() as upstream:
        agent = made(kind, model="m", base_url=upstream.base_url, api_key="k")
        server = await serve(agent, clock=clock, file_lifetime=60)
        client = await server.client()
        await client.send(message("look", image(await uploaded(server))), {"type": "response.create"})
        assert (await client.done())["status"] == "completed"
        await client.ask("and now?")
        await client.done()
        clock.advance(61)
        await client.ask("and now?")
        assert (await client.done())["status"] == "completed"
        requests = [(await upstream.request(number)).json for number in range(3)]

    assert [images_in(request) for request in requests] == [[URI], [URI], []]
    assert "[Image a.png: it has expired, and is gone]" in str(requests[2])
    assert server.app.reading.held == 0


@pytest.mark.parametrize("kind", UPSTREAMS)
async def test_the_input_of_one_response_is_seen_too(kind: Any, serve: Serve) -> None:
    async with FakeUpstream() as upstream:
        server = await serve(made(kind, model="m", base_url=upstream.base_url, api_key="k"))
        client = await server.client()
        asked = {"conversation": "none", "input": [message("look", image(URI))["item"]]}
        await client.send({"type": "response.create", "response": asked})
        await client.done()

        assert images_in((await upstream.request()).json) == [URI]


async def test_a_cancelled_turn_lets_go_of_what_it_read(serve: Serve) -> None:
    async with FakeUpstream() as upstream:
        upstream.never_ending()
        server = await serve(made(OpenAIAgent, model="m", base_url=upstream.base_url, api_key="k"))
        client = await server.client()
        await client.send(message("look", image(URI)), {"type": "response.create"})
        await client.until("response.output_text.delta")
        assert server.app.reading.held == len(PNG)
        await client.cancel()
        assert (await client.done())["status"] == "cancelled"
        await eventually(lambda: server.app.reading.held == 0)


async def test_a_fallback_sees_the_image_too(serve: Serve) -> None:
    async with FakeUpstream() as upstream:
        upstream.status(500)
        agents = [
            made(OpenAIAgent, model="m", base_url=upstream.base_url, api_key="k", max_retries=0)
            for _ in range(2)
        ]
        members = [Member(name=f"agent{number}", agent=agent) for number, agent in enumerate(agents)]
        server = await serve(FallbackAgent(members, FakeClock()))
        client = await server.client()
        await client.send(message("look", image(URI)), {"type": "response.create"})

        assert (await client.done())["status"] == "completed"
        assert [images_in(request.json) for request in upstream.requests] == [[URI], [URI]]


async def test_a_deleted_file_can_not_be_named_any_more(server: Served[ScriptedAgent]) -> None:
    file_id = await uploaded(server)
    client = await server.client()
    await client.send(message(image(file_id)))
    await shown(client)
    api = await server.openai()
    await api.files.delete(file_id)
    with pytest.raises(openai.NotFoundError):
        await api.files.content(file_id)
    await client.send(message(image(file_id)))

    assert (await client.error())["code"] == "file_not_found"
