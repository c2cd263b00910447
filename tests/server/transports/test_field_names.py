"""What is refused is told in the names of the protocol in which it was asked for."""

from __future__ import annotations

import pytest

from unbroken.server.protocols.items import DecodeError
from unbroken.server.transports.asking import not_there
from unbroken.server.transports.field_names import (
    AGUI,
    CHAT,
    CONVERSATIONS,
    GRAPHQL,
    RESPONSES,
    UI,
    FieldNames,
)
from unbroken.sessions.errors import NodeDraining, Refusal


@pytest.mark.parametrize(
    ("names", "param", "told"),
    [
        (RESPONSES, "response.input[0].content[0]", "input[0].content[0]"),
        (RESPONSES, "item.call_id", "input"),
        (RESPONSES, "previous_response_id", "previous_response_id"),
        (CONVERSATIONS, "item.call_id", "items"),
        (CHAT, "response.input[0].content[0]", "messages"),
        (CHAT, "input", "messages"),
        (CHAT, "conversation", "unbroken.session"),
        (CHAT, "response.text.format", "response_format"),
        (CHAT, "response.instructions", "instructions"),
        (UI, "response.input[0].content[0]", "messages"),
        (UI, "messages[0].parts", "messages[0].parts"),
        (UI, "conversation", "id"),
        (AGUI, "response.input[0]", "messages"),
        (AGUI, "conversation", "threadId"),
        (GRAPHQL, "response.input[0].content[0]", "items[0].content[0]"),
        (GRAPHQL, "item.call_id", "items"),
        (GRAPHQL, "previous_response_id", "previousResponseId"),
        (GRAPHQL, "max_output_tokens", "maxOutputTokens"),
        (GRAPHQL, "unbroken.message_id", "messageId"),
        (GRAPHQL, "inputs", "inputs"),
        (GRAPHQL, None, None),
    ],
)
def test_a_field_has_the_name_of_its_protocol(names: FieldNames, param: str | None, told: str | None) -> None:
    refusal = names.refusal_of(Refusal("invalid_request", "No.", param=param))

    assert refusal is not None
    assert refusal.param == told


def test_names_in_messages_and_codes_are_of_the_protocol_too() -> None:
    both = DecodeError("invalid_request", "Give `previous_response_id` or `conversation`, not both.")
    given, missing = GRAPHQL.refusal_of(both), GRAPHQL.refusal_of(not_there("sess_x"))

    assert given is not None
    assert missing is not None
    assert given.message == "Give `previousResponseId` or `sessionId`, not both."
    assert (missing.code, missing.param) == ("session_not_found", "sessionId")


@pytest.mark.parametrize("names", [RESPONSES, CHAT, CONVERSATIONS])
def test_a_key_that_was_used_before_is_none_of_a_message(names: FieldNames) -> None:
    refusal = names.refusal_of(Refusal("message_id_reused", "This message id was used before."))

    assert refusal is not None
    assert (refusal.status, refusal.code) == (409, "message_id_reused")
    assert "`Idempotency-Key`" in refusal.message


def test_what_is_about_no_field_stays_as_it_is() -> None:
    refusal = UI.refusal_of(NodeDraining())

    assert refusal is not None
    assert refusal.code == "server_draining"
    assert UI.refusal_of(ValueError()) is None
