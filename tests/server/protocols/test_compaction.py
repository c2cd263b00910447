"""What stands for a conversation that was summed up, whatever was said in it."""

from __future__ import annotations

import json
from typing import Any, Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from unbroken.server.compactions import MOST_BYTES, Compactions
from unbroken.server.protocols.asked import Asked
from unbroken.server.protocols.items import DecodeError
from unbroken.server.protocols.responses.compaction import (
    asked_of_compact,
    decode_compact,
    summary_of,
    window_of,
)
from unbroken.server.protocols.responses.decode import asked_of, decode_create
from unbroken.sessions.clock import SystemClock
from unbroken.sessions.ids import ItemId, PrincipalId, ResponseId, new_item_id
from unbroken.sessions.items import FunctionCall, FunctionOutput, Item, Message, Role, Text

FRAME: Final = 64 * 1024


def message(text: str, role: Role = "user") -> Message:
    return Message(new_item_id(), role, (Text(text),))


def call(name: str) -> FunctionCall:
    return FunctionCall(new_item_id(), name, "f", "{}")


def window(said: list[Item], sealed: str = "sealed") -> list[dict[str, Any]]:
    output: list[dict[str, Any]] = window_of(ResponseId("resp_1"), said, sealed, None, {})["output"]
    return output


def asked(body: dict[str, Any]) -> Asked:
    wanted = decode_compact(json.dumps(body).encode(), max_depth=16)
    return asked_of_compact(wanted, plan="default", opened=lambda sealed: "known" if sealed == "k" else None)


def test_what_is_asked_for_is_a_summary_and_no_part_of_anything() -> None:
    wanted = asked({"model": "m", "input": "hello", "instructions": "Be kind.", "prompt_cache_key": "k"})

    assert (wanted.is_lone, wanted.store, wanted.has_tools) == (True, False, False)
    assert [item.text for item in wanted.items if isinstance(item, Message)] == ["hello"]
    assert wanted.request.instructions == "Be kind."
    (task,) = wanted.closing
    assert isinstance(task, Message)
    assert task.role == "user"


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"input": "hello"}, "model"),
        ({"input": "hello", "model": None}, "model"),
        ({"model": "m"}, "input"),
        ({"model": "m", "input": []}, "input"),
        ({"model": "m", "input": 5}, "input"),
        ({"model": "m", "input": "x", "prompt_cache_key": 5}, "prompt_cache_key"),
        ({"model": "m", "input": [{"type": "compaction"}]}, "input[0].encrypted_content"),
        ({"model": "m", "input": [{"type": "compaction", "encrypted_content": "x"}]}, None),
    ],
)
def test_what_cant_be_summed_up_is_said(body: dict[str, Any], param: str | None) -> None:
    with pytest.raises(DecodeError) as caught:
        asked(body)

    assert caught.value.code == ("invalid_request" if param else "invalid_compaction")
    assert caught.value.param == (param or "input[0].encrypted_content")


def test_a_compaction_is_what_the_assistant_said_wherever_it_stands() -> None:
    items = [
        {"role": "user", "content": "before"},
        {"type": "compaction", "id": "cmp_1", "encrypted_content": "k"},
        {"role": "user", "content": "after"},
    ]
    for body in (asked({"model": "m", "input": items}), asked({"model": "m", "input": items[1:]})):
        read = [(item.role, item.text) for item in body.items if isinstance(item, Message)]
        assert ("assistant", "Summary of the conversation so far:\n\nknown") in read


def test_messages_stay_and_calls_that_wait() -> None:
    said: list[Item] = [
        message("one"),
        call("a"),
        FunctionOutput(new_item_id(), "a", "x"),
        message("yes", "assistant"),
        message("be kind", "system"),
        message("two"),
        call("b"),
    ]
    output = window(said)

    assert [each["type"] for each in output] == ["message", "message", "compaction", "function_call"]
    assert [each["content"][0]["text"] for each in output[:2]] == ["one", "two"]
    assert output[3]["call_id"] == "b"


def test_the_latest_messages_stay() -> None:
    output = window([message(str(number)) for number in range(100)])
    assert [each["content"][0]["text"] for each in output[:-1]] == [str(n) for n in range(68, 100)]

    output = window([message("old"), message("x" * 30_000), message("new")])
    assert [each["content"][0]["text"] for each in output[:-1]] == ["new"]


ITEMS: Final = st.lists(
    st.builds(
        message, st.text(max_size=400) | st.text("\U0001f600é\x00", max_size=9000), st.sampled_from(["user"])
    ),
    max_size=40,
)


@given(ITEMS, st.text(max_size=200))
def test_it_fits_into_a_frame_however_it_is_written(said: list[Item], tail: str) -> None:
    text = summary_of(["é" * MOST_BYTES, tail], is_cut=False, most_bytes=MOST_BYTES)
    assert text is not None
    sealed = Compactions(b"s", SystemClock()).seal(text, PrincipalId("alice"))
    output = window(said, sealed)

    assert len(json.dumps({"type": "response.create", "input": output, "store": False})) < FRAME - 4096


@given(ITEMS)
def test_it_is_taken_back_as_it_is(said: list[Item]) -> None:
    output = window([*said, call("a")], "k")
    body = {"input": [*output, {"type": "function_call_output", "call_id": "a", "output": "x"}]}

    taken = asked_of(
        decode_create(json.dumps(body).encode(), max_depth=16), plan="default", opened=lambda _: "sum"
    )

    assert len(taken.items) == len(body["input"])


@pytest.mark.parametrize(
    ("texts", "is_cut", "summary"),
    [
        ([], False, None),
        ([" ", "\n"], True, None),
        (["one ", "two"], False, "one \n\ntwo"),
        (["one"], True, "one\n\n(The summary was cut short here.)"),
        (["é" * 100], False, "é" * 31 + "\n\n(The summary was cut short here.)"),
    ],
)
def test_a_summary_says_that_it_was_cut_short(texts: list[str], is_cut: bool, summary: str | None) -> None:
    assert summary_of(texts, is_cut=is_cut, most_bytes=98) == summary


def test_an_item_that_names_nothing_is_left_out() -> None:
    picture = Message(ItemId("i"), "user", ())
    assert [each["type"] for each in window([picture])] == ["compaction"]
