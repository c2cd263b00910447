"""``make guards-train``: makes the linear model's weights, from rows that may be used so, and our phrases.

Everything is drawn from fixed seeds: the same rows give the same weights. Of each public source, six
tenths are trained on, two more may set the bands, and two are kept to be measured; which, a digest of
the text says. Of the corpus and of the follow-ups, one half is trained on. Sources that ``SOURCES``
doesn't name are all kept. Code and READMEs are those of Python and of packages that are installed: with
other versions of these, weights are a little different.
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
from tests.guards.documents import Text, read_developers, read_texts
from tests.guards.learned import chunks, learned, licences, long_texts, short_ones
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

_DOCUMENTS: Final = 0.6
_LONG: Final = 60
"""Long texts put together of each source's short ones."""

_BIAS: Final = -2.0
"""Of what nobody has seen: other languages, other alphabets. Never trained."""

_EPOCHS: Final = 5
_RATE: Final = 0.1
_DECAY: Final = 1e-6
_MOST_WINDOWS: Final = 40
_MOST_RUNS: Final = 180
_LEAST: Final = 0.02
"""Weights below it are left out."""

_FLAGGED: Final = 0.0165
_BLOCKED: Final = 0.01
"""Shares of that chat that the models by themselves flag at most, and block. It is the hardest of chat:
long requests, full of orders. Of what people write in all, a third of that."""

_PHRASES_FILE: Final = Path(__file__).parent / "phrases.toml"
_SLOT: Final = re.compile(r"\{(\w+)\}")


@dataclass(frozen=True, slots=True)
class Example:
    """One text: its features, and which of them are in each piece."""

    text: str
    buckets: NDArray[Any]
    windows: Pieces
    runs: Pieces
    """Sentences by themselves: of harmless texts alone."""
    is_attack: bool
    weight: float


@dataclass(frozen=True, slots=True)
class Pieces:
    """Where in the features of a text each piece of it begins and ends, and what scales weights there."""

    firsts: NDArray[Any]
    lasts: NDArray[Any]
    scales: NDArray[Any]

    def worst(self, sums: NDArray[Any], most: int) -> list[tuple[int, int, float]]:
        """Return the *most* that are rated highest. *sums* are those of the weights before each feature."""
        ratings = (sums[self.lasts] - sums[self.firsts]) * self.scales
        return [self[at] for at in numpy.argsort(-ratings, kind="stable")[:most]]

    def __getitem__(self, at: int) -> tuple[int, int, float]:
        return int(self.firsts[at]), int(self.lasts[at]), float(self.scales[at])

    def __len__(self) -> int:
        return len(self.firsts)


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

    def pieces(found: Sequence[tuple[int, int]]) -> Pieces:
        edges = numpy.searchsorted(places, numpy.array(found, numpy.int64).reshape(-1, 2))
        firsts, lasts = edges[edges[:, 0] < edges[:, 1]].T
        return Pieces(firsts, lasts, 1 / numpy.sqrt(numpy.maximum(lasts - firsts, FEWEST)))

    sentences = [] if is_attack else runs(formed)[:_MOST_RUNS]
    return Example(
        text, buckets, pieces(windows(formed)[:_MOST_WINDOWS]), pieces(sentences), is_attack, weight
    )


def train(examples: Sequence[Example], seed: int = 1) -> NDArray[Any]:
    """Return the weights: logistic regression, with steps that shrink for each feature by itself (AdaGrad).

    Of an attack's windows the one that looks most like it is taken for it; of a harmless text's, the
    three that do are not, nor are the two of its sentences.
    """
    weights, steps = numpy.zeros(BUCKETS), numpy.full(BUCKETS, 1e-2)
    drawn, rows = random.Random(seed), [each for each in examples if len(each.windows)]
    for epoch in range(_EPOCHS):
        drawn.shuffle(rows)
        for row in rows:
            taken, share = _taken(row, weights, is_first=epoch == 0)
            for first, last, scale in taken:
                buckets = row.buckets[first:last]
                found = 1 / (1 + numpy.exp(-(weights[buckets].sum() * scale + _BIAS)))
                distinct, counts = numpy.unique(buckets, return_counts=True)
                slope = (found - row.is_attack) * row.weight * share * scale * counts
                slope += _DECAY * weights[distinct]
                steps[distinct] += slope * slope
                weights[distinct] -= _RATE * slope / numpy.sqrt(steps[distinct])
    return weights


def _taken(
    row: Example, weights: NDArray[Any], *, is_first: bool
) -> tuple[list[tuple[int, int, float]], float]:
    """Return the pieces of *row* that are learnt from, and what each counts for."""
    if len(row.windows) == 1 and not len(row.runs):
        return [row.windows[0]], 1.0
    if row.is_attack and is_first:
        return [row.windows[at] for at in range(min(2, len(row.windows)))], 0.5
    sums = numpy.concatenate([[0.0], numpy.cumsum(weights[row.buckets])])
    if row.is_attack:
        return row.windows.worst(sums, 1), 1.0
    taken = row.windows.worst(sums, 3) + row.runs.worst(sums, 2)
    return taken, len(taken) ** -0.5


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


def _public(folder: Path, form: NormalForm) -> Iterator[Example]:
    for case in read_rows(folder):
        if case.part is Part.TRAIN:
            yield example(case.turns[0], case.is_attack, _WEIGHTS.get(case.source, 1.0), form)
    for path in sorted(folder.rglob(f"{DOCUMENTS}.jsonl")):
        for line in path.read_text("utf-8").splitlines():
            yield example(json.loads(line)["full_text"], False, _OURS, form)


def _of_documents(folder: Path, texts: Sequence[Text], form: NormalForm) -> Iterator[Example]:
    """Yield code, documents and long texts: none of them is an attack."""
    rows = [case for case in read_rows(folder) if case.part is Part.TRAIN and case.source not in CHAT]
    short = short_ones([*rows, *read_follow_ups()]) | {"phrases": phrases("benign", 3000, 5)}
    for text in (*chunks(texts), *long_texts(short, _LONG)):
        yield example(text, False, _DOCUMENTS, form)
    for case in read_developers(Part.TRAIN):
        yield example(case.turns[0], False, 1.0, form)


def chat_odds(folder: Path, weights: NDArray[Any], rows: Sequence[Example], form: NormalForm) -> list[float]:
    """Return the log odds of both models together of all chat that isn't kept.

    What *weights* were trained on, *rows*, is rated by others, trained without it.
    """
    chat = [case for case in read_rows(folder) if case.source in CHAT and case.part is not Part.KEPT]
    trained = [case.turns[0] for case in chat if case.part is Part.TRAIN]
    found = [*both_odds(weights, [case.turns[0] for case in chat if case.part is Part.SET], form)]
    for fold in range(_FOLDS):
        left_out = frozenset(trained[fold::_FOLDS])
        others = train([each for each in rows if each.text not in left_out])
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
    texts = learned(read_texts())
    rows = [*_public(options.data, form), *_ours(form), *_of_documents(options.data, texts, form)]
    weights = train(rows)
    kept = numpy.flatnonzero(numpy.abs(weights) >= _LEAST)
    scale = float(numpy.abs(weights).max() / 127)
    rounded = numpy.round(weights[kept] / scale).astype(numpy.int8)
    weights = numpy.zeros(BUCKETS)
    weights[kept] = rounded * scale
    chat = chat_odds(options.data, weights, rows, form)
    flag, block = (float(each) for each in numpy.quantile(chat, [1 - _FLAGGED, 1 - _BLOCKED]))
    options.into.mkdir(parents=True, exist_ok=True)
    numpy.savez_compressed(options.into / "linear.npz", buckets=kept.astype(numpy.uint32), weights=rounded)
    about = {
        "about": "Weights of server/guards/injection/linear.py, made by `make guards-train`.",
        "trained_on": {
            **{f"{name}, six tenths": licence for name, licence in SOURCES.items()},
            DOCUMENTS: "MIT",
            **licences(texts),
            "phrases.toml, half of corpus, follow_ups.tsv and developers.txt, in tests/guards": "our own",
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
