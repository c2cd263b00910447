"""I5: what is never kept."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from tests.server.cache.asking import ASKED, REWORDED, SEMANTIC, kitchen, said, turn_of
from unbroken.server.agents.base import File, Message, Text, UpstreamCut
from unbroken.server.cache.base import AnswerStore
from unbroken.sessions.ids import ItemId
from unbroken.sessions.responder import Finish, FunctionCallPiece, Output, Working


@pytest.mark.parametrize(
    ("outputs", "reason"),
    [
        (["half", Finish("max_output_tokens")], "truncated"),
        (["bad", Finish("content_filter")], "filtered"),
        (["Write to ada@example.org"], "personal"),
        (["So: ", FunctionCallPiece(0, "{}", "c", "f")], "tools"),
        ([Working()], "empty"),
    ],
    ids=["truncated", "filtered", "personal", "tools", "empty"],
)
async def test_i5_what_is_not_whole_or_not_for_all_is_not_kept(
    store: AnswerStore, outputs: list[Output], reason: str
) -> None:
    cache = kitchen(store)
    cache.outputs = outputs
    await cache.ask(ASKED)
    assert (await cache.ask(ASKED)).tier is None
    assert cache.counted.outcomes == {reason: 2}


async def test_i5_what_failed_is_not_kept(store: AnswerStore) -> None:
    """However much of it was said. What was cancelled: see I4."""
    cache = kitchen(store)
    cache.outputs = ["answer ", UpstreamCut()]  # type: ignore[list-item]
    with pytest.raises(UpstreamCut):
        await cache.ask(ASKED)
    cache.outputs = None
    assert (await cache.ask(REWORDED)).text == "answer 2"
    assert cache.counted.hits == {}


async def test_i5_a_filter_s_veto_counts(store: AnswerStore) -> None:
    cache = kitchen(store)
    cache.veto = "filtered"
    await cache.ask(ASKED)
    assert (await cache.ask(ASKED)).tier is None


async def test_i5_an_answer_is_looked_through_behind_its_end_and_kept_only_then(store: AnswerStore) -> None:
    cache, goes_on, texts = kitchen(store), asyncio.Event(), list[str]()

    async def found(text: str) -> bool:
        texts.append(text)
        await goes_on.wait()
        return text != "answer 2"

    cache.found = found
    assert (await said(cache, turn_of(ASKED))).text == "answer 1"
    assert cache.counted.outcomes == {}
    goes_on.set()
    await cache.settled()
    assert cache.counted.outcomes == {"filtered": 1}
    await cache.ask(ASKED)
    assert (await cache.ask(ASKED)).text == "answer 2"
    assert cache.counted.outcomes == {"filtered": 1, "kept": 1}
    assert texts == ["answer 1", "answer 2"], "and none that comes from the cache"


@pytest.mark.parametrize("why", ["off", "question", "answer", "veto"])
async def test_i5_what_is_not_kept_anyhow_is_not_looked_through(store: AnswerStore, why: str) -> None:
    cache = kitchen(store, replace(SEMANTIC, modes={"default": "off" if why == "off" else "on"}))
    texts: list[str] = []

    async def found(text: str) -> bool:
        texts.append(text)
        return False

    cache.found = found
    cache.veto = "fallback" if why == "veto" else None
    cache.outputs = ["So.", Finish("max_output_tokens")] if why == "answer" else None
    await cache.ask("What time is it?" if why == "question" else ASKED)

    assert (texts, cache.calls) == ([], 1)


@pytest.mark.parametrize(
    ("texts", "reason"),
    [
        (("My name is Ada. Who am I?",), "personal"),
        (("Write to ada@example.org", "Done", "What did I ask?"), "personal"),
        (("What time is it?",), "passing"),
        (("   ",), "empty"),
    ],
)
async def test_i5_a_personal_or_passing_question_is_the_agent_s(
    store: AnswerStore, texts: tuple[str, ...], reason: str
) -> None:
    cache = kitchen(store)
    for _ in range(2):
        assert (await cache.ask(*texts)).tier is None
    assert cache.counted.misses == {reason: 2}
    assert cache.counted.outcomes == {}


async def test_i5_files_and_reasoning_are_the_agent_s(store: AnswerStore) -> None:
    cache = kitchen(store)
    message = Message(ItemId("i"), "user", (Text(ASKED), File("file_1", "text/plain", 1)))
    for _ in range(2):
        assert (await cache.ask(ASKED, shows_reasoning=True)).tier is None
        assert (await cache.ask(items=(message,))).tier is None
    assert cache.counted.misses == {"reasoning": 2, "content": 2}
