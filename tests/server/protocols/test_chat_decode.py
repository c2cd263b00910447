"""Whatever a client sends to ``/v1/chat/completions``, it is asked for or refused with what to do."""

from __future__ import annotations

from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from unbroken.server.errors import ERROR_MEANINGS
from unbroken.server.protocols.chat.decode import ChatAsked, asked_of, decode_completion
from unbroken.server.protocols.items import DecodeError
from unbroken.sessions.items import (
    FunctionCall,
    FunctionOutput,
    FunctionTool,
    Image,
    Message,
    NamedTool,
    Parameters,
    ResponseRequest,
)

_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)
_ROLES = st.sampled_from(["system", "developer", "user", "assistant", "tool", "function", ""])
_PARTS = st.fixed_dictionaries(
    {"type": st.sampled_from(["text", "image_url", "file", "refusal", "input_audio", "input_image", "x"])},
    optional={
        "text": st.text(max_size=5) | _VALUES,
        "image_url": st.fixed_dictionaries({"url": st.sampled_from(["data:;base64,aaaa", "file-1", "x"])})
        | _VALUES,
        "file": st.dictionaries(st.sampled_from(["file_id", "file_data", "filename"]), st.text(max_size=5)),
        "refusal": st.text(max_size=5),
    },
)
_CALLS = st.fixed_dictionaries(
    {},
    optional={
        "id": st.sampled_from(["c1", "c2", ""]),
        "type": st.sampled_from(["function", "custom", None]),
        "function": st.fixed_dictionaries(
            {}, optional={"name": st.sampled_from(["f", "no name"]), "arguments": st.text(max_size=5)}
        ),
    },
)
_MESSAGES = st.lists(
    st.fixed_dictionaries(
        {"role": _ROLES},
        optional={
            "content": st.text(max_size=5) | st.lists(_PARTS, max_size=3) | st.none(),
            "tool_calls": st.lists(_CALLS, max_size=3) | st.none(),
            "tool_call_id": st.sampled_from(["c1", "c2"]),
            "refusal": st.text(max_size=5),
        },
    ),
    max_size=5,
)
_BODIES = st.fixed_dictionaries(
    {"messages": _MESSAGES | _VALUES},
    optional={
        "stop": st.text(max_size=3) | st.lists(st.text(max_size=3), max_size=5) | _VALUES,
        "tools": st.lists(
            st.fixed_dictionaries(
                {"type": st.just("function")},
                optional={"function": st.fixed_dictionaries({"name": st.just("f"), "parameters": _VALUES})},
            ),
            max_size=2,
        )
        | _VALUES,
        "tool_choice": st.sampled_from(["auto", "x", {"type": "function", "function": {"name": "f"}}])
        | _VALUES,
        "response_format": st.fixed_dictionaries(
            {"type": st.sampled_from(["text", "json_object", "json_schema", "x"])},
            optional={"json_schema": st.dictionaries(st.sampled_from(["name", "schema"]), _VALUES) | _VALUES},
        )
        | _VALUES,
        "unbroken": st.dictionaries(st.sampled_from(["session", "message_id"]), st.text(max_size=6)),
        **dict.fromkeys(
            ("model", "n", "logprobs", "temperature", "top_p", "max_tokens", "stream", "metadata"), _VALUES
        ),
    },
)


def asked(body: Any, **beside: Any) -> ChatAsked:
    data = body if isinstance(body, bytes) else orjson.dumps(body)
    return asked_of(decode_completion(data, max_depth=32), plan="p", **beside)


def refused(body: Any, **beside: Any) -> DecodeError:
    with pytest.raises(DecodeError) as caught:
        asked(body, **beside)
    return caught.value


def said(*messages: Any, **wanted: Any) -> Any:
    return {"messages": [m if isinstance(m, dict) else {"role": "user", "content": m} for m in messages]} | (
        wanted
    )


def request(**wanted: Any) -> ResponseRequest:
    return asked(said("hi", **wanted)).asked.request


def holds(data: bytes) -> None:
    try:
        wanted = asked(data).asked
    except DecodeError as exc:
        assert exc.code in ERROR_MEANINGS
        assert exc.code != "invalid_event"
        assert exc.message
    else:
        assert wanted.items
        assert wanted.is_lone == (not wanted.store)


@given(body=_BODIES)
def test_any_body_is_asked_for_or_refused(body: Any) -> None:
    try:
        data = orjson.dumps(body)
    except TypeError:  # numbers beyond 64 bits
        return
    holds(data)


@given(data=st.binary(max_size=64) | st.text(max_size=64).map(str.encode))
def test_any_bytes_are_asked_for_or_refused(data: bytes) -> None:
    holds(data)


@pytest.mark.parametrize(
    "data",
    [
        b'{"messages":[{"role":"user","content":"\\ud800"}]}',
        b'{"messages":[{"role":"user","content":"a"}],"metadata":{"\\ud800":"x"}}',
        b'{"messages":[{"role":"user","content":"a"}],"response_format":'
        b'{"type":"json_schema","json_schema":{"name":"n","schema":{"a":123456789012345678901234567890}}}}',
        b'{"messages":[{"role":"user","content":"a"}],"temperature":1e999}',
        b"[" * 100_000,
        b"null",
        b'{"messages":null}',
    ],
)
def test_what_nobody_could_write_again_is_refused(data: bytes) -> None:
    holds(data)
    with pytest.raises(DecodeError):
        asked(data)


def test_messages_are_items() -> None:
    call = {"id": "c1", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    items = asked(
        said(
            {"role": "developer", "content": "Be kind."},
            {
                "role": "user",
                "content": [{"type": "text", "text": "look: "}, _image("data:image/png;base64,YQ==")],
            },
            {"role": "assistant", "content": "so", "tool_calls": [call]},
            {
                "role": "tool",
                "tool_call_id": "c1",
                "content": [{"type": "text", "text": "4"}, {"type": "text"}],
            },
            {"role": "assistant", "content": None, "tool_calls": [call | {"id": "c2"}]},
            {"role": "tool", "tool_call_id": "c2", "content": ""},
            {"role": "assistant", "content": None, "refusal": "no"},
            "and?",
        )
    ).asked.items

    kinds = [(type(item), getattr(item, "role", None), item.text) for item in items]
    assert kinds == [
        (Message, "system", "Be kind."),
        (Message, "user", "look: "),
        (Message, "assistant", "so"),
        (FunctionCall, None, "{}"),
        (FunctionOutput, None, "4"),
        (FunctionCall, None, "{}"),
        (FunctionOutput, None, ""),
        (Message, "assistant", "no"),
        (Message, "user", "and?"),
    ]
    assert isinstance(items[1], Message)
    assert isinstance(items[1].references[0], Image)


def _image(url: str) -> Any:
    return {"type": "image_url", "image_url": {"url": url, "detail": "low"}}


def test_nothing_is_fetched_from_elsewhere() -> None:
    error = refused(said({"role": "user", "content": [_image("https://example.com/a.png")]}))

    assert (error.code, error.param) == ("unsupported_content", "messages[0].content[0].image_url")


def test_what_is_asked_for_is_in_the_request() -> None:
    wanted = request(
        max_tokens=5,
        max_completion_tokens=7,
        temperature=0.5,
        top_p=1,
        stop="x",
        metadata={"a": "b"},
        tools=[{"type": "function", "function": {"name": "f", "description": "d", "strict": True}}],
        tool_choice={"type": "function", "function": {"name": "f"}},
        parallel_tool_calls=False,
        response_format={"type": "json_object"},
    )

    assert wanted == ResponseRequest(
        max_output_tokens=7,
        metadata={"a": "b"},
        tools=(FunctionTool("f", "d"),),
        tool_choice=NamedTool("f"),
        parallel_tool_calls=False,
        plan="p",
        parameters=Parameters(0.5, 1, ("x",), {"type": "json_object"}),
    )
    assert request() == ResponseRequest(plan="p")
    assert request(tools=[]) == ResponseRequest(tools=(), plan="p")


def test_a_schema_has_the_shape_that_agents_know() -> None:
    form = {
        "type": "json_schema",
        "json_schema": {"name": "n", "strict": True, "schema": {"a": 1}, "x": None},
    }

    parameters = request(response_format=form).parameters

    assert parameters is not None
    assert parameters.format == {"type": "json_schema", "name": "n", "strict": True, "schema": {"a": 1}}
    assert request(response_format={"type": "text"}).parameters is None


@pytest.mark.parametrize("name", ["sess_abc", "conv_abc"])
def test_in_a_session_only_what_is_behind_the_last_answer_is_said(name: str) -> None:
    body = said("one", {"role": "assistant", "content": "two"}, "three", "four")

    for each in (asked(body, session=name).asked, asked(body | {"unbroken": {"session": name}}).asked):
        assert [item.text for item in each.items] == ["three", "four"]
        assert (each.conversation, each.store, each.is_lone) == ("conv_abc", True, False)


def test_a_session_that_begins_has_all_of_it() -> None:
    begun = asked(said("one", {"role": "assistant", "content": "two"}, "three"), session="new").asked

    assert [item.text for item in begun.items] == ["one", "two", "three"]
    assert (begun.conversation, begun.store) == (None, True)


def test_a_name_of_the_request_counts_in_a_session_alone() -> None:
    assert asked(said("a"), message_id="m").asked.message_id is None
    assert asked(said("a"), message_id="m", session="new").asked.message_id == "m"
    body = said("a", unbroken={"message_id": "own", "session": "new"})
    assert asked(body, message_id="m").asked.message_id == "own"


def test_two_sessions_are_one_too_many() -> None:
    error = refused(said("a", unbroken={"session": "sess_a"}), session="sess_b")

    assert (error.code, error.param) == ("invalid_request", "unbroken.session")


def test_the_place_of_what_is_wrong_is_that_in_the_request() -> None:
    body = said("one", {"role": "assistant", "content": "two"}, {"role": "user", "content": None})

    assert refused(body, session="sess_a").param == "messages[2].content"


def test_there_are_not_too_many_messages() -> None:
    assert refused(said(*["a"] * 2049)).param == "messages"
    assert len(asked(said(*["a"] * 2048)).asked.items) == 2048
