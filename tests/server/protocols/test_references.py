"""Images and files in messages: how they are named, and how they are shown."""

from __future__ import annotations

from base64 import b64encode
from typing import Any

import orjson
import pytest
from openai.types.realtime import ConversationItem
from pydantic import TypeAdapter

from tests.server.files.contents import PNG
from tests.server.protocols.test_decode import SESSION, create, decoded, refused, user
from unbroken.server.files.references import InlineFile, InlineImage, needs_files
from unbroken.server.protocols.realtime.connection import RealtimeConnection
from unbroken.server.protocols.realtime.encode import item_fields
from unbroken.sessions.entries import CreateItem, CreateResponse, Submitted
from unbroken.sessions.event_log import Position
from unbroken.sessions.ids import ChainId, Incarnation, ItemId, Nonce
from unbroken.sessions.items import File, Image, Message, Part, Text

ID = "file-" + "0" * 32
URI = "data:image/png;base64," + b64encode(PNG).decode()


def saying(*parts: dict[str, Any], role: str = "user") -> dict[str, Any]:
    return create({"type": "message", "role": role, "content": list(parts)})


def part_of(part: dict[str, Any]) -> Part:
    command = decoded(saying(part))
    assert isinstance(command, CreateItem)
    assert isinstance(command.item, Message)
    assert needs_files(command) == (not isinstance(command.item.content[0], Text))
    return command.item.content[0]


@pytest.mark.parametrize(
    ("part", "expected"),
    [
        ({"type": "input_image", "image_url": ID}, Image(ID)),
        ({"type": "input_image", "image_url": f"unbroken-file:{ID}"}, Image(ID)),
        ({"type": "input_image", "file_id": ID, "detail": "high"}, Image(ID, detail="high")),
        ({"type": "input_image", "file_id": ID, "detail": None, "image_url": None}, Image(ID)),
        (
            {"type": "input_image", "image_url": URI, "detail": "low"},
            InlineImage("", detail="low", content=PNG),
        ),
        (
            {"type": "input_image", "image_url": URI.replace("data:", "DATA:"), "filename": "../x/a.png"},
            InlineImage("", name="a.png", content=PNG),
        ),
        ({"type": "input_file", "file_id": ID}, File(ID)),
        ({"type": "input_file", "file_url": f"unbroken-file:{ID}"}, File(ID)),
        (
            {"type": "input_file", "file_data": "data:text/plain;charset=utf-8;base64,aGk=", "filename": "a"},
            InlineFile("", name="a", content=b"hi"),
        ),
        ({"type": "input_text", "text": "[a.pdf]", "unbroken": {"file_id": ID}}, File(ID)),
        ({"type": "input_text", "text": "a", "unbroken": {}}, Text("a")),
        ({"type": "input_text", "text": "a", "file_id": ID}, Text("a")),
    ],
)
def test_what_a_part_stands_for(part: dict[str, Any], expected: Part) -> None:
    assert part_of(part) == expected


@pytest.mark.parametrize(
    ("part", "code", "field"),
    [
        ({"type": "input_image"}, "invalid_event", "image_url"),
        (
            {"type": "input_image", "image_url": "https://example.com/a.png"},
            "unsupported_content",
            "image_url",
        ),
        ({"type": "input_image", "image_url": "http://169.254.169.254/"}, "unsupported_content", "image_url"),
        ({"type": "input_image", "image_url": "file:///etc/passwd"}, "unsupported_content", "image_url"),
        ({"type": "input_image", "image_url": ""}, "unsupported_content", "image_url"),
        ({"type": "input_image", "image_url": "data:image/png,x"}, "invalid_event", "image_url"),
        ({"type": "input_image", "image_url": "data:image/png;base64"}, "invalid_event", "image_url"),
        ({"type": "input_image", "image_url": "data:image/png;base64,a"}, "invalid_event", "image_url"),
        ({"type": "input_image", "image_url": "data:image/png;base64,é==="}, "invalid_event", "image_url"),
        ({"type": "input_image", "file_id": ID, "detail": "sharp"}, "invalid_event", "detail"),
        ({"type": "input_file"}, "invalid_event", "file_id"),
        ({"type": "input_file", "file_data": "aGk="}, "invalid_event", "file_data"),
        ({"type": "input_file", "file_url": "https://example.com/"}, "unsupported_content", "file_url"),
    ],
)
def test_what_stands_for_nothing_is_refused(part: dict[str, Any], code: str, field: str) -> None:
    error = refused(saying(part))

    assert (error.code, error.param) == (code, f"item.content[0].{field}")


@pytest.mark.parametrize("role", ["system", "assistant"])
def test_only_users_show_something(role: str) -> None:
    assert refused(saying({"type": "input_image", "file_id": ID}, role=role)).code == "unsupported_content"


def test_the_input_of_a_response_may_refer_too() -> None:
    item = {"type": "message", "role": "user", "content": [{"type": "input_image", "file_id": ID}]}
    command = decoded({"type": "response.create", "response": {"input": [item]}})

    assert isinstance(command, CreateResponse)
    assert needs_files(command)
    assert not needs_files(decoded({"type": "response.create"}))
    assert not needs_files(decoded(create(user())))


IMAGE = Image(ID, "image/png", 70, "a.png", "low")
DOCUMENT = File(ID, "application/pdf", 1000, "a.pdf")


def test_they_are_shown_as_the_api_knows_them_and_mean_the_same_when_sent_again() -> None:
    item = Message(ItemId("i"), "user", (Text("look"), IMAGE, DOCUMENT))
    fields = item_fields(item)
    shown = TypeAdapter[Any](ConversationItem).validate_python(
        orjson.loads(orjson.dumps(fields)), strict=True
    )

    assert [part.type for part in shown.content] == ["input_text", "input_image", "input_text"]
    assert shown.content[1].image_url == f"unbroken-file:{ID}"
    assert shown.content[2].text == "[a.pdf]"
    assert fields["content"][2]["unbroken"] == {
        "file_id": ID,
        "filename": "a.pdf",
        "media_type": "application/pdf",
        "bytes": 1000,
    }
    again = decoded(create(fields))
    assert isinstance(again, CreateItem)
    assert again.item == Message(ItemId("i"), "user", (Text("look"), Image(ID, detail="low"), File(ID)))


def key_of(part: dict[str, Any]) -> Any:
    connection = RealtimeConnection(
        SESSION, Position(Incarnation("00000000"), 0, Nonce(0)), ChainId("c"), max_depth=32
    )
    event = {**saying(part), "unbroken": {"message_id": "m"}}
    submitted = connection.receive(orjson.dumps(event).decode())
    assert isinstance(submitted, Submitted)
    return submitted.key


def test_what_came_along_is_known_again_by_its_content() -> None:
    image = {"type": "input_image", "image_url": URI}
    other = "data:image/png;base64," + b64encode(PNG + b"x").decode()

    assert key_of(image) == key_of(image)
    assert key_of(image) != key_of({**image, "image_url": other})
    assert key_of(image) != key_of({**image, "detail": "low"})
    assert key_of({"type": "input_image", "file_id": ID}) == key_of({"type": "input_image", "image_url": ID})
