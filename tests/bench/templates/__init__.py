"""Texts of our own with labelled spans: sentences in several languages, into which random values are put.

What is labelled is the value: of `password = "x"` the x, of a place its two numbers with what stands
between them, or each number by itself where each has a name of its own.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from random import Random
from typing import Final, Literal, TypeAlias

from tests.bench.labelled import Labelled, Span
from tests.bench.templates import coordinate_sentences, id_sentences, secret_sentences
from tests.bench.templates.coordinates import COORDINATES
from tests.bench.templates.ids import IDS, SPOILT
from tests.bench.templates.ordinary import ORDINARY
from tests.bench.templates.secrets import SECRETS

__all__ = ["LOOKED_AT", "SUBJECTS", "UNSEEN", "Subject", "drawn"]

Subject: TypeAlias = Literal["national_id", "secret", "coordinates"]

SUBJECTS: Final[tuple[Subject, ...]] = ("national_id", "secret", "coordinates")
LOOKED_AT: Final = (*id_sentences.LOOKED_AT, *secret_sentences.LOOKED_AT, *coordinate_sentences.LOOKED_AT)
"""Rules were mended with these before one's eyes."""
UNSEEN: Final = (*id_sentences.UNSEEN, *secret_sentences.UNSEEN, *coordinate_sentences.UNSEEN)
"""No rule was changed for these."""

_VALUE: Final = re.compile("«(~?)([a-z_0-9]+)»")
_LABELLED: Final[tuple[tuple[Mapping[str, Callable[[Random], str]], Subject], ...]] = (
    (IDS, "national_id"),
    (SECRETS, "secret"),
    (COORDINATES, "coordinates"),
)


def drawn(sentences: Sequence[str], rounds: int, seed: int = 0) -> Iterator[Labelled]:
    """Yield each of *sentences* so often, each time with other values; with the same *seed* the same."""
    random = Random(seed)
    for _ in range(rounds):
        for sentence in sentences:
            yield _filled(sentence, random)


def _filled(sentence: str, random: Random) -> Labelled:
    text, spans, end = "", list[Span](), 0
    for place in _VALUE.finditer(sentence):
        text += sentence[end : place.start()]
        value, entity = _value(place[2], random, is_spoilt=bool(place[1]))
        if entity is not None:
            spans.append((len(text), len(text) + len(value), entity))
        text += value
        end = place.end()
    return Labelled(text + sentence[end:], spans)


def _value(name: str, random: Random, *, is_spoilt: bool) -> tuple[str, Subject | None]:
    if is_spoilt:
        return SPOILT[name](random), None
    for values, entity in _LABELLED:
        if name in values:
            return values[name](random), entity
    return ORDINARY[name](random), None
