"""What blocks at the end of a part of an answer, which what comes next brings about: that doesn't leave."""

from __future__ import annotations

import pytest

from tests.server.guards.leaks.answering import notes, said
from tests.server.guards.leaks.test_filtering import CARD, STRICT, answered
from unbroken.sessions.ids import ItemId
from unbroken.sessions.items import ApprovalHead, ToolHead
from unbroken.sessions.responder import (
    AsksApproval,
    Finish,
    FunctionCallPiece,
    Output,
    ReasoningPiece,
    ToolCallPiece,
)


async def test_nobody_is_asked_about_a_call_whose_arguments_block() -> None:
    asks = AsksApproval(ItemId("item_1"), ApprovalHead("pay", "bank", f'{{"to": "bob", "card": "{CARD}"}}'))
    outputs = await answered(asks, "more", actions={"default": {**STRICT, "card": "block"}})

    assert not any(isinstance(output, AsksApproval) for output in outputs)
    assert notes(outputs) == {"blocked": {"card": 1}}
    assert outputs[-1] == Finish("content_filter")


@pytest.mark.parametrize("kind", ["thought", "call", "tool", "approval"])
async def test_behind_text_that_blocks_at_its_end_nothing_of_what_ends_it_leaves(kind: str) -> None:
    item = ItemId("item_1")
    following: dict[str, Output] = {
        "thought": ReasoningPiece("Well, "),
        "call": FunctionCallPiece(0, "[1, ", "c", "f"),
        "tool": ToolCallPiece(item, "[1, ", ToolHead("f", "bank")),
        "approval": AsksApproval(item, ApprovalHead("pay", "bank", "[1]")),
    }
    outputs = await answered(
        f"It is {CARD}", following[kind], "more", actions={"default": {**STRICT, "card": "block"}}
    )

    assert said(outputs) == "It is "
    assert not any(isinstance(each, type(following[kind])) for each in outputs)
    assert outputs[-1] == Finish("content_filter")


@pytest.mark.parametrize("text", ["Well, ", "my mail is bob@example.com, ", "so " * 1000])
async def test_behind_a_thought_that_blocks_at_its_end_nothing_is_said(text: str) -> None:
    outputs = await answered(
        ReasoningPiece(f"It is {CARD}"), text, "more", actions={"default": {**STRICT, "card": "block"}}
    )

    assert said(outputs) == ""
    assert notes(outputs) == {"blocked": {"card": 1}}
    assert outputs[-1] == Finish("content_filter")
