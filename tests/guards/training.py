"""``make guards-train``: makes the linear model's weights, from rows that may be used so, and our phrases.

Everything is drawn from fixed seeds: the same rows give the same weights. Of each public source, six
tenths are trained on, two more may set the bands, and two are kept to be measured; which, a digest of
the text says. Of the corpus and of the follow-ups, one half is trained on. Sources that ``SOURCES``
doesn't name are all kept.
"""

from __future__ import annotations

import argparse
import json
import random
import re
import tomllib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy
from numpy.typing import NDArray

from tests.guards.corpus import SOURCES, Part, read_corpus, read_follow_ups, read_rows
from unbroken.server.guards.injection.base import Origin
from unbroken.server.guards.injection.linear import BUCKETS, FEWEST, FOLDER, Features, LinearModel
from unbroken.server.guards.injection.normal_form import NormalForm
from unbroken.server.guards.injection.onnx import OnnxClassifier, packaged_model
from unbroken.server.guards.injection.reading import Bands, Reading
from unbroken.server.guards.injection.selection import TOKENS
from unbroken.server.guards.injection.windows import runs, windows

__all__ = ["phrases", "train"]

CHAT: Final = frozenset({"ultrachat_benign", "hf_instr_benign", "alpaca_seed"})
"""Ordinary chat, on which the bands are set: no system prompts that somebody pasted, no tests of morals."""

_FOLDS: Final = 4
"""Of chat: each is rated by weights that were trained without it."""

DOCUMENTS: Final = "presidio_synth_v2"
"""Harmless sentences of documents, by their file's name. MIT."""

_WEIGHTS: Final = {"mosscap": 0.4, "awesome_chatgpt_benign": 2.0}
"""Of rows: many guesses at riddles are harmless by themselves, and few rows give roles to play in earnest."""

_OURS: Final = 0.7
_PHRASES: Final = (7000, 26000)
"""Attacks and harmless ones that are put together."""

_BIAS: Final = -2.0
"""Of what nobody has seen: other languages, other alphabets. Never trained."""

_EPOCHS: Final = 5
_RATE: Final = 0.1
_DECAY: Final = 1e-6
_MOST_WINDOWS: Final = 40
_MOST_RUNS: Final = 180
_LEAST: Final = 0.02
"""Weights below it are left out."""

_FLAGGED: Final = 0.03
_BLOCKED: Final = 0.015
"""Shares of that chat that the models by themselves flag at most, and block. It is the hardest of chat:
long requests, full of orders. Of what people write in all, a third of that."""

_PHRASES_FILE: Final = Path(__file__).parent / "phrases.toml"
_SLOT: Final = re.compile(r"\{(\w+)\}")


@dataclass(frozen=True, slots=True)
class Example:
    """One text: its windows as buckets, each with what a weight is scaled by there."""

    windows: list[tuple[NDArray[Any], float]]
    runs: list[tuple[NDArray[Any], float]]
    """Sentences by themselves: of harmless texts alone."""
    is_attack: bool
    weight: float


def phrases(kind: str, count: int, seed: int) -> list[str]:
    """Return different texts of *kind*, ``attack`` or ``benign``, put together at random."""
    content = tomllib.loads(_PHRASES_FILE.read_text("utf-8"))
    words, texts, drawn = content["words"], content[kind]["texts"], random.Random(seed)
    found: dict[str, None] = {}
    for _ in range(count):
        text = drawn.choice(texts)
        while (slot := _SLOT.search(text)) is not None:
            text = text[: slot.start()] + drawn.choice(words[slot[1]]) + text[slot.end() :]
        found[re.sub(r"\s+", " ", text).strip()] = None
    return list(found)


def example(text: str, is_attack: bool, weight: float, form: NormalForm) -> Example:
    """Return *text* as what the model reads."""
    formed = form.of(text)
    features = Features(formed)
    order = numpy.argsort(features.places, kind="stable")
    places, buckets = features.places[order], features.buckets[order].astype(numpy.int64)

    def scaled(pieces: Sequence[tuple[int, int]]) -> list[tuple[NDArray[Any], float]]:
        found: list[tuple[NDArray[Any], float]] = []
        for start, end in pieces:
            first, last = numpy.searchsorted(places, [start, end])
            if last > first:
                found.append((buckets[first:last], float(1 / numpy.sqrt(max(last - first, FEWEST)))))
        return found

    sentences = [] if is_attack else runs(formed)[:_MOST_RUNS]
    return Example(scaled(windows(formed)[:_MOST_WINDOWS]), scaled(sentences), is_attack, weight)


def train(examples: Sequence[Example], seed: int = 1) -> NDArray[Any]:
    """Return the weights: logistic regression, with steps that shrink for each feature by itself (AdaGrad).

    Of an attack's windows the one that looks most like it is taken for it; of a harmless text's, the
    three that do are not, nor are the two of its sentences.
    """
    weights, steps = numpy.zeros(BUCKETS), numpy.full(BUCKETS, 1e-2)
    drawn, rows = random.Random(seed), [each for each in examples if each.windows]
    for epoch in range(_EPOCHS):
        drawn.shuffle(rows)
        for row in rows:
            taken, share = _taken(row, weights, is_first=epoch == 0)
            for buckets, scale in taken:
                found = 1 / (1 + numpy.exp(-(weights[buckets].sum() * scale + _BIAS)))
                distinct, counts = numpy.unique(buckets, return_counts=True)
                slope = (found - row.is_attack) * row.weight * share * scale * counts
                slope += _DECAY * weights[distinct]
                steps[distinct] += slope * slope
                weights[distinct] -= _RATE * slope / numpy.sqrt(steps[distinct])
    return weights


def _taken(
    row: Example, weights: NDArray[Any], *, is_first: bool
) -> tuple[list[tuple[NDArray[Any], float]], float]:
    """Return the pieces of *row* that are learnt from, and what each counts for."""
    if len(row.windows) == 1 and not row.runs:
        return row.windows, 1.0
    if row.is_attack:
        return (row.windows[:2], 0.5) if is_first else (_worst(row.windows, weights, 1), 1.0)
    taken = _worst(row.windows, weights, 3) + _worst(row.runs, weights, 2)
    return taken, len(taken) ** -0.5


def _worst(
    pieces: list[tuple[NDArray[Any], float]], weights: NDArray[Any], most: int
) -> list[tuple[NDArray[Any], float]]:
    ratings = [float(weights[buckets].sum() * scale) for buckets, scale in pieces]
    return [pieces[at] for at in sorted(range(len(ratings)), key=lambda at: -ratings[at])[:most]]


def _ours(form: NormalForm) -> Iterator[Example]:
    for kind, count, seed in (("attack", _PHRASES[0], 1), ("benign", _PHRASES[1], 2)):
        for text in phrases(kind, count, seed):
            yield example(text, kind == "attack", _OURS, form)
    for case in read_corpus():
        # What is encoded or in other languages is the rules' part.
        if case.part is Part.TRAIN and len(case.turns) == 1 and case.source not in ("encodings", "languages"):
            yield example(case.turns[0], case.is_attack, 1.0, form)
    for case in read_follow_ups():
        if case.part is Part.TRAIN:
            yield example(case.turns[0], case.is_attack, 1.0, form)


def _public(folder: Path, form: NormalForm, without: frozenset[str] = frozenset()) -> Iterator[Example]:
    for case in read_rows(folder):
        text = case.turns[0]
        if case.part is Part.TRAIN and text not in without:
            yield example(text, case.is_attack, _WEIGHTS.get(case.source, 1.0), form)
    for path in sorted(folder.rglob(f"{DOCUMENTS}.jsonl")):
        for line in path.read_text("utf-8").splitlines():
            yield example(json.loads(line)["full_text"], False, _OURS, form)


def chat_odds(folder: Path, weights: NDArray[Any], form: NormalForm) -> list[float]:
    """Return the log odds of both models together of all chat that isn't kept.

    What *weights* were trained on is rated by others, trained without it.
    """
    chat = [case for case in read_rows(folder) if case.source in CHAT and case.part is not Part.KEPT]
    trained = [case.turns[0] for case in chat if case.part is Part.TRAIN]
    found = [*both_odds(weights, [case.turns[0] for case in chat if case.part is Part.SET], form)]
    for fold in range(_FOLDS):
        left_out = frozenset(trained[fold::_FOLDS])
        others = train([*_public(folder, form, left_out), *_ours(form)])
        found += both_odds(others, sorted(left_out), form)
    return found


def both_odds(weights: NDArray[Any], texts: Iterable[str], form: NormalForm) -> Iterator[float]:
    """Yield what both models say of each text, as messages are read."""
    folder = packaged_model()
    if folder is None:
        raise SystemExit("The local model isn't installed: make setup")
    reading = Reading(LinearModel(weights, _BIAS), OnnxClassifier(folder, tokens=TOKENS), _ALWAYS)
    for text in texts:
        yield reading.odds(reading.suspected(form.of(text), Origin.USER))


_ALWAYS: Final = Bands(flag=-30.0, block=30.0)
"""By which the local model is always asked."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Train, set the bands, and write both into the package."""
    parser = argparse.ArgumentParser(prog="make guards-train", description=__doc__)
    parser.add_argument(
        "--data", type=Path, required=True, help="a folder of .jsonl files: text, label, source"
    )
    parser.add_argument("--into", type=Path, default=FOLDER, help="where the weights go (the package)")
    options = parser.parse_args(arguments)
    form = NormalForm()
    rows = [*_public(options.data, form), *_ours(form)]
    weights = train(rows)
    kept = numpy.flatnonzero(numpy.abs(weights) >= _LEAST)
    scale = float(numpy.abs(weights).max() / 127)
    rounded = numpy.round(weights[kept] / scale).astype(numpy.int8)
    weights = numpy.zeros(BUCKETS)
    weights[kept] = rounded * scale
    chat = chat_odds(options.data, weights, form)
    flag, block = (float(each) for each in numpy.quantile(chat, [1 - _FLAGGED, 1 - _BLOCKED]))
    options.into.mkdir(parents=True, exist_ok=True)
    numpy.savez_compressed(options.into / "linear.npz", buckets=kept.astype(numpy.uint32), weights=rounded)
    about = {
        "about": "Weights of server/guards/injection/linear.py, made by `make guards-train`.",
        "trained_on": {
            **{f"{name}, six tenths": licence for name, licence in SOURCES.items()},
            DOCUMENTS: "MIT",
            "phrases.toml, half of corpus and of follow_ups.tsv, in tests/guards": "this repository's",
        },
        "texts": len(rows),
        "attacks": sum(row.is_attack for row in rows),
        "bands_set_on": f"{len(chat)} texts of {', '.join(sorted(CHAT))}, by weights trained without them",
        "scale": scale,
        "bias": _BIAS,
        "flag": round(flag, 3),
        "block": round(block, 3),
    }
    (options.into / "linear.json").write_text(json.dumps(about, indent=2) + "\n", "utf-8")
    print(json.dumps(about, indent=2))  # noqa: T201


if __name__ == "__main__":
    main()
