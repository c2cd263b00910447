"""The labelled texts: what is labelled is what was drawn, and what was drawn is what it is said to be."""

from __future__ import annotations

import re
from collections import Counter
from random import Random
from typing import Final

import pytest

from tests.bench.labelled import Labelled, score
from tests.bench.templates import LOOKED_AT, SUBJECTS, UNSEEN, drawn
from tests.bench.templates.ids import IDS, SPOILT

_PUBLISHED: Final = {
    "hetu": "131052-308T",
    "personnummer": "811218-9876",
    "dni": "12345678Z",
    "codice_fiscale": "RSSMRA85T10A562S",
    "pesel": "44051401359",
    "steuer_id": "86095742719",
    "nir": "255081416802538",
    "cpf": "111.444.777-35",
    "ahv": "756.9217.0769.85",
    "belgian": "85.07.30-033.28",
    "resident_cn": "11010519491231002X",
}
"""Examples that those who issue them, or standards, print: to see that ours have their form."""


def test_there_are_many_sentences_no_two_alike_and_each_is_filled() -> None:
    sentences = [*LOOKED_AT, *UNSEEN]
    texts = list(drawn(sentences, 1))

    assert len(set(sentences)) == len(sentences) == len(texts) >= 150
    assert not any("«" in labelled.text or "»" in labelled.text for labelled in texts)
    assert {entity for labelled in texts for _, _, entity in labelled.spans} == set(SUBJECTS)


def test_with_the_same_seed_the_same_is_drawn_and_with_another_something_else() -> None:
    once, again, other = (list(drawn(UNSEEN, 2, seed)) for seed in (1, 1, 2))

    assert once == again != other
    assert once[0].text != once[len(UNSEEN)].text


def test_spans_are_in_order_and_apart() -> None:
    for labelled in drawn([*LOOKED_AT, *UNSEEN], 3):
        ends = [0, *[end for _, end, _ in labelled.spans]]
        assert all(
            before <= start < end for before, (start, end, _) in zip(ends, labelled.spans, strict=False)
        )
        assert all(labelled.text[start:end].strip() for start, end, _ in labelled.spans)


@pytest.mark.parametrize("name", _PUBLISHED)
def test_ids_are_as_those_that_are_published(name: str) -> None:
    shape = _shape(_PUBLISHED[name])

    assert shape in {_shape(IDS[name](Random(seed))) for seed in range(200)}


def _shape(value: str) -> str:
    return re.sub("[A-Z]", "A", re.sub("[0-9]", "0", value))


@pytest.mark.parametrize("name", IDS)
def test_a_spoilt_id_looks_like_a_good_one_and_is_another(name: str) -> None:
    good = {IDS[name](Random(seed)) for seed in range(100)}
    spoilt = {SPOILT[name](Random(seed)) for seed in range(100)}

    assert not good & spoilt
    assert {_shape(value) for value in spoilt} & {_shape(value) for value in good}


def test_scores_are_of_what_was_found_missed_and_found_in_vain() -> None:
    number = "460-89-9847"
    texts = [
        Labelled(f"SSN {number}.", [(4, 15, "national_id")]),
        Labelled(f"Order {number}.", []),
        Labelled("Its name is kept.", [(12, 16, "national_id")]),
        Labelled(f"Twice: {number}, {number}", [(7, 18, "national_id"), (20, 31, "national_id")]),
    ]
    scores = score(texts)

    assert scores.found == Counter(national_id=3)
    assert scores.in_vain == scores.missed == Counter(national_id=1)
    assert scores.precision("national_id") == scores.recall("national_id") == scores.f1("national_id") == 0.75
    assert scores.f1("card") == scores.precision("card") == scores.recall("card") == 1
