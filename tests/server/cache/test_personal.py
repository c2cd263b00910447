from __future__ import annotations

import pytest

from unbroken.server.cache.personal import is_passing, is_personal

PERSONAL = [
    "Write to ada@example.org",
    "Call +49 170 1234567",
    "My card is 4111 1111 1111 1111",
    "DE89 3704 0044 0532 0130 00",
    "It runs on 10.0.0.1",
    "Born 01.02.1990",
    "Use sk-abcdefghijkl1234",
    "My name is Ada, what is yours?",
    "I live in Ulm",
    "What do you know about me?",
]

PASSING = [
    "What time is it?",
    "What's the weather in Ulm?",
    "Who is the current king?",
    "Say it again",
    "News?",
]

NEITHER = [
    "How do I reset my router?",
    "What is 7 times 8?",
    "Why is the sky blue?",
    "Which king died in 1066?",
]


@pytest.mark.parametrize("text", PERSONAL)
def test_somebody_s_data_is_seen(text: str) -> None:
    assert is_personal(text)


@pytest.mark.parametrize("text", PASSING)
def test_what_changes_by_itself_is_seen(text: str) -> None:
    assert is_passing(text)


@pytest.mark.parametrize("text", NEITHER)
def test_a_plain_question_is_neither(text: str) -> None:
    assert not (is_personal(text) or is_passing(text))
