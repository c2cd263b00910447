"""Whatever a client sends about conversations is a value, or an error that says what to do."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from unbroken.server.errors import ERROR_MEANINGS
from unbroken.server.protocols.conversation_names import conversation_id, session_named
from unbroken.server.protocols.conversations.decode import decode_create, decode_items, decode_update
from unbroken.server.protocols.conversations.encode import (
    conversation_fields,
    exported,
)
from unbroken.server.protocols.items import DecodeError
from unbroken.sessions.entries import Entry, SessionOpened
from unbroken.sessions.ids import Nonce, PrincipalId, SessionId, new_session_id
from unbroken.sessions.items import SessionConfig
from unbroken.sessions.session import Session, SessionLimits

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.sampled_from(["items", "metadata", "type", "role", "content", "text", "id", "output"])
            | st.text(max_size=4),
            inner,
            max_size=4,
        )
    ),
    max_leaves=12,
)


@pytest.mark.parametrize("decode", [decode_create, decode_items, decode_update])
@given(body=VALUES.map(lambda value: json.dumps(value).encode()) | st.binary(max_size=64))
def test_any_body_is_taken_or_refused(decode: Callable[..., Any], body: bytes) -> None:
    try:
        decode(body, max_depth=32)
    except DecodeError as exc:
        assert exc.code in ERROR_MEANINGS
        assert exc.message.endswith(".")


def test_nothing_asks_for_an_empty_one() -> None:
    for body in (b"", b"{}", b'{"items": null, "metadata": null}'):
        wanted = decode_create(body, max_depth=32)
        assert (wanted.items, wanted.metadata) == ((), {})


@pytest.mark.parametrize("prefix", ["conv_", "sess_", ""])
def test_a_session_is_named_either_way(prefix: str) -> None:
    session_id = new_session_id("alice")
    assert session_named(prefix + session_id.removeprefix("sess_")) == session_id
    assert session_named(conversation_id(session_id)) == session_id


def test_what_an_earlier_release_has_begun_has_no_time() -> None:
    session = Session(SessionId("sess_a"), SessionLimits())
    session.apply(Entry(1, Nonce(1), SessionOpened(PrincipalId("alice"), SessionConfig("m"))))
    fields = conversation_fields(session)
    assert (fields["created_at"], fields["metadata"]) == (0, {})
    document = json.loads(b"".join(exported(session, 5)))
    assert (document["items"], document["responses"], document["exported_at"]) == ([], [], 5)
