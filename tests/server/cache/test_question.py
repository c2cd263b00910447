"""What a look at a long conversation costs others: it gives them their turn, and has an end."""

from __future__ import annotations

import unicodedata
from typing import Any

import pytest

from tests.fakes.clock import FakeClock
from tests.fakes.turns import turns_given
from tests.server.cache.asking import Kitchen, turn_of
from unbroken.server.agents.base import TurnInput
from unbroken.server.cache import question, stage
from unbroken.server.cache.base import StoreLimits
from unbroken.server.cache.index import PlaceIndex
from unbroken.server.cache.memory import MemoryAnswers
from unbroken.server.cache.personal import AT_ONCE
from unbroken.server.cache.question import Asker, Question, question_of


async def asked(turn: TurnInput) -> Question | str:
    return await question_of(turn, Asker("user", "u", "t"), "1", may_use_tools=False)


@pytest.mark.parametrize("unit", ["x", "words ", "\u00fc ", "e\u0301\u0323", "\n"])
@pytest.mark.parametrize("messages", [1, 15])
async def test_others_have_their_turn_while_a_long_conversation_is_looked_at(
    unit: str, messages: int
) -> None:
    size = 60_000 // messages
    text = "Why?" + (unit * size)[:size] + "So?"
    turn = turn_of(*[text] * messages)

    assert await turns_given(asked(turn)) >= 60_000 // AT_ONCE


async def test_an_ordinary_question_is_looked_at_in_one_step() -> None:
    assert await turns_given(asked(turn_of("Hello", "Good day", "Why is the sky blue?"))) == 0


async def test_a_conversation_that_is_too_long_is_not_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    def look(*_: object) -> None:
        raise AssertionError("there is too much of it")

    for name in ("parts_of", "_normal"):
        monkeypatch.setattr(question, name, look)
    cache = Kitchen(MemoryAnswers(FakeClock(), StoreLimits(), PlaceIndex))
    texts = ["x" * 16_384] * 5
    assert [(await cache.ask(*texts)).tier for _ in range(2)] == [None, None]
    assert cache.counted.misses == {"long": 2}
    assert cache.counted.outcomes == {}


async def test_a_row_of_accents_is_not_sorted_as_a_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    """Sorting them takes as many steps as the square of their number: seconds, for a message of 64 KiB."""
    longest = 0

    class Watched:
        @staticmethod
        def normalize(form: Any, text: str) -> str:
            nonlocal longest
            longest = max(longest, len(text))
            return unicodedata.normalize(form, text)

    monkeypatch.setattr(question, "unicodedata", Watched)
    await asked(turn_of("a" + "\u0301\u0323" * 16_000))
    assert 0 < longest <= 256


@pytest.mark.parametrize("length", [1, 40, 200])
async def test_however_letters_are_encoded_a_long_question_is_the_same(length: int) -> None:
    text = "Où est l'été à Zürich? " * length
    asked_in = [await asked(turn_of(unicodedata.normalize(form, text))) for form in ("NFC", "NFD")]

    assert isinstance(asked_in[0], Question)
    assert asked_in[0] == asked_in[1]
    assert asked_in[0] != await asked(turn_of(text + "x"))


async def test_others_have_their_turn_while_a_long_answer_is_looked_at() -> None:
    """Before it is kept."""
    assert await turns_given(stage._answer_of(["words " * 40_000], 0.0)) >= 240_000 // AT_ONCE
