"""A model of this process as the heavier detector: whose turn it is, and in which threads."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Sequence
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.server.guards.injection.models import FakeClassifier, FakeRater
from tests.server.realtime.serving import eventually
from unbroken.server.guards.injection.base import DetectorFailed, Origin, Passage, Question
from unbroken.server.guards.injection.heavy import ModelDetector


class HeldModel:
    """Reads one text after another, each when it may."""

    name = "heavy"

    def __init__(self) -> None:
        self.shown: list[str] = []
        self.threads: list[str] = []
        self._may = threading.Semaphore(0)

    def scores(self, texts: Sequence[str]) -> list[float]:
        self.shown += texts
        self.threads.append(threading.current_thread().name.partition("_")[0])
        self._may.acquire()
        return [0.0 for _ in texts]

    def go_on(self, times: int = 1) -> None:
        self._may.release(times)


class Asked:
    """A detector, its model, and those who ask."""

    def __init__(self, threads: ThreadPoolExecutor, aside: ThreadPoolExecutor) -> None:
        self.model = HeldModel()
        self.detector = ModelDetector(self.model, FakeRater(), threads, aside, waiting=4)

    def ask(self, text: str, name: str = "alice", *, is_aside: bool = False) -> asyncio.Task[float]:
        question = Question(Passage(Origin.USER, text), name=name, is_aside=is_aside)
        return asyncio.create_task(self.detector.score(question))


@pytest.fixture
async def asked() -> AsyncIterator[Asked]:
    with (
        ThreadPoolExecutor(1, thread_name_prefix="heavy") as threads,
        ThreadPoolExecutor(1, thread_name_prefix="aside") as aside,
    ):
        each = Asked(threads, aside)
        try:
            yield each
        finally:
            each.model.go_on(100)


async def test_a_model_may_be_the_heavier_detector() -> None:
    with ThreadPoolExecutor(1) as threads:
        classifier, rater = FakeClassifier(needle=0.9), FakeRater(0.0, needle=1.0)
        detector = ModelDetector(classifier, rater, threads, threads)
        texts = ("a needle", "", "hay. " * 9999 + "A needle. " + "hay. " * 9999)
        scores = [await detector.score(Question(Passage(Origin.USER, text))) for text in texts]
        await detector.close()

    assert scores == [0.9, 0.0, 0.9]


async def test_those_who_ask_take_turns(asked: Asked) -> None:
    many = [asked.ask(f"{number}", "mallory") for number in range(3)]
    await eventually(lambda: asked.model.shown == ["0"])
    other = asked.ask("hello")
    await asyncio.sleep(0)
    asked.model.go_on(4)
    await asyncio.gather(*many, other)

    assert asked.model.shown == ["0", "1", "hello", "2"]


async def test_so_many_wait_and_half_of_these_are_one_s(asked: Asked) -> None:
    many = [asked.ask(f"{number}", "mallory") for number in range(3)]  # one is read, and two wait
    await eventually(lambda: asked.model.shown == ["0"])
    with pytest.raises(DetectorFailed):
        await asked.ask("3", "mallory")
    other = asked.ask("hello")
    asked.model.go_on(4)

    assert await asyncio.gather(*many, other) == 4 * [0.0]


async def test_who_is_gone_holds_the_turn_until_the_thread_is_free_and_who_waited_is_not_read(
    asked: Asked,
) -> None:
    gone, waited = asked.ask("gone"), asked.ask("waited")
    await eventually(lambda: asked.model.shown == ["gone"])
    gone.cancel()
    waited.cancel()
    await asyncio.gather(gone, waited, return_exceptions=True)
    following = asked.ask("following")
    await asyncio.sleep(0)
    assert asked.model.shown == ["gone"]
    asked.model.go_on(2)
    await following

    assert asked.model.shown == ["gone", "following"]


async def test_what_nobody_waits_for_is_read_aside(asked: Asked) -> None:
    first = asked.ask("first", is_aside=True)
    await eventually(lambda: asked.model.shown == ["first"])
    second = asked.ask("second")  # isn't held up
    await eventually(lambda: asked.model.shown == ["first", "second"])
    asked.model.go_on(2)
    await asyncio.gather(first, second)

    assert asked.model.threads == ["aside", "heavy"]
