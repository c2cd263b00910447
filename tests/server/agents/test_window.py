from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.server.agents.agent_contract import message
from unbroken.server.agents.base import ContextTooLong
from unbroken.server.agents.window import MESSAGE_OVERHEAD_TOKENS, estimate_tokens, fit
from unbroken.sessions.ids import ItemId
from unbroken.sessions.items import File, Image, Message, Role, Text

ROLES: st.SearchStrategy[Role] = st.sampled_from(["system", "user", "user", "assistant", "assistant"])
CONVERSATIONS = st.lists(
    st.builds(lambda size, role: message("x" * size, role), st.integers(0, 20), ROLES), max_size=12
)


def tokens_of(messages: tuple[Message, ...], instructions: str = "") -> int:
    tokens = sum(len(m.text) + MESSAGE_OVERHEAD_TOKENS for m in messages)
    return tokens + (len(instructions) + MESSAGE_OVERHEAD_TOKENS if instructions else 0)


def turns_of(conversation: list[Message]) -> tuple[tuple[Message, ...], list[tuple[Message, ...]]]:
    """Return the leading system messages, and the turns, found by going forward."""
    leading: list[Message] = []
    turns: list[list[Message]] = []
    for m in conversation:
        if m.role == "system" and not turns:
            leading.append(m)
        elif m.role == "user" or not turns:
            turns.append([m])
        else:
            turns[-1].append(m)
    return tuple(leading), [tuple(turn) for turn in turns]


@given(CONVERSATIONS, st.text("i", max_size=10), st.integers(0, 250))
def test_as_many_whole_turns_stay_as_fit(conversation: list[Message], instructions: str, budget: int) -> None:
    leading, turns = turns_of(conversation)
    windows = [leading + sum(turns[start:], ()) for start in range(len(turns) or 1)]
    fitting = [window for window in windows if tokens_of(window, instructions) <= budget]

    if not fitting:
        with pytest.raises(ContextTooLong):
            fit(conversation, instructions=instructions, budget_tokens=budget, count=len)
        return
    window = fit(conversation, instructions=instructions, budget_tokens=budget, count=len)

    assert fitting[0] == window.messages
    assert tokens_of(window.messages, instructions) == window.tokens
    assert len(conversation) - len(window.messages) == window.dropped


@given(CONVERSATIONS)
def test_what_fits_stays_whole(conversation: list[Message]) -> None:
    assert tuple(conversation) == fit(conversation, budget_tokens=10_000).messages


def test_a_question_leaves_with_its_answer() -> None:
    conversation = [
        message("one"),
        message("1", "assistant"),
        message("two"),
        message("2", "assistant"),
        message("three"),
    ]
    budget = tokens_of(tuple(conversation)) - 1

    window = fit(conversation, budget_tokens=budget, count=len)

    assert [m.text for m in window.messages] == ["two", "2", "three"]
    assert window.dropped == 2


def test_only_what_may_stay_is_counted() -> None:
    counted: list[str] = []

    def count(text: str) -> int:
        counted.append(text)
        return 10

    fit([message(str(number)) for number in range(1000)], budget_tokens=60, count=count)

    assert counted == ["999", "998", "997", "996"]


@pytest.mark.parametrize(
    ("text", "tokens"),
    [
        # Counted by llama.cpp's /tokenize with the vocabulary of SmolLM2-135M-Instruct.
        ("", 0),
        ("Hello, world!", 4),
        ("The quick brown fox jumps over the lazy dog.", 10),
        ("def f(x: int) -> int:\n    return x + 1\n", 17),
        ('{"a": [1, 2, 3, {"b": null, "name": "x y"}], "n": 123456789}', 39),
        ("3141592653589793238462643383279502884197", 40),
        ("日本語のテキストです。今日はとても良い天気ですね。", 46),
        ("今天天气很好，我们一起去公园散步吧。", 35),  # noqa: RUF001 - its own comma
        ("Der schnelle braune Fuchs springt über den faulen Hund. Übermäßig größere Häuser.", 35),
    ],
)
def test_estimate_is_above_real_counts_and_not_far(text: str, tokens: int) -> None:
    assert tokens <= estimate_tokens(text) <= 2 * tokens


@given(st.text(), st.text())
def test_estimate_grows_with_the_text(one: str, other: str) -> None:
    assert (
        estimate_tokens(one) <= estimate_tokens(one + other) <= estimate_tokens(one) + estimate_tokens(other)
    )


def test_estimate_takes_any_text() -> None:
    assert estimate_tokens("\ud800") > 0


@pytest.mark.parametrize(
    ("part", "tokens"),
    [
        (Image("file-1", "image/png", 10**6), 1600),
        (Image("file-1", "image/png", 10**6, detail="low"), 100),
        (File("file-1", "text/plain", 3000), 1000),
        (File("file-1", "application/pdf", 100), 1600),
        (File("file-1", "application/pdf", 200_000), 10_000),
    ],
)
def test_images_and_files_count_by_estimate(part: Image | File, tokens: int) -> None:
    asked = Message(ItemId("i"), "user", (Text("look"), part))

    assert fit([asked], budget_tokens=20_000).tokens == estimate_tokens("look") + 8 + tokens
