"""The corpus: attacks written by hand, each with a harmless twin, and follow-ups. And rows from elsewhere."""

from __future__ import annotations

import enum
import hashlib
import json
import random
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Final

from tests.guards.encoding import encoded
from unbroken.server.guards.injection.base import Origin

__all__ = [
    "FOLDER",
    "SOURCES",
    "Case",
    "Part",
    "among",
    "part_of",
    "read_corpus",
    "read_follow_ups",
    "read_ordinary",
    "read_rows",
]

FOLDER: Final = Path(__file__).parent / "corpus"
_FOLLOW_UPS: Final = Path(__file__).parent / "follow_ups.tsv"
_ORDINARY: Final = Path(__file__).parent / "ordinary.txt"
_TURN: Final = " // "

SOURCES: Final = {
    "neuralchemy_train": "Apache-2.0 upstream; the repository that hosts it states none",
    "mosscap": "MIT",
    "ultrachat_benign": "MIT",
    "wildguardmix_ben_benign": "ODC-BY",
    "awesome_chatgpt_benign": "CC0",
    "hf_instr_benign": "Apache-2.0",
    "alpaca_seed": "Apache-2.0",
}
"""Public sources that weights are trained on, with their licences."""


class Part(enum.Enum):
    """What a text may be used for: each for one thing only."""

    TRAIN = "train"
    """Weights are trained on it, and rules written after it."""
    SET = "set"
    """Bands are set on it."""
    KEPT = "kept"
    """It is measured, and nothing else."""


def part_of(text: str) -> Part:
    """Return what a public *text* may be used for, where its source is trained on: by its digest."""
    tenth = int(hashlib.sha256(text.encode("utf-8", "replace")).hexdigest()[:8], 16) % 10
    return Part.TRAIN if tenth < 6 else Part.SET if tenth < 8 else Part.KEPT


@dataclass(frozen=True, slots=True)
class Case:
    """One text, or the messages of one conversation, with what it is."""

    source: str
    origin: Origin
    turns: tuple[str, ...]
    is_attack: bool
    part: Part = Part.KEPT
    before: str = ""
    """What the same speaker said before all this, and nobody judges."""


def read_corpus() -> Iterator[Case]:
    """Yield the cases written by hand: an attack, then its twin. Every second pair is kept."""
    for path in sorted(FOLDER.glob("*.tsv")):
        lines = path.read_text("utf-8").splitlines()
        origin = Origin(lines[0].removeprefix("# origin: "))
        for number, line in enumerate(line for line in lines[1:] if not line.startswith("# ")):
            part = Part.KEPT if number % 2 else Part.TRAIN
            _, *texts = line.split("\t")
            attack, benign = texts
            for text, is_attack in ((attack, True), (benign, False)):
                turns = tuple(encoded(turn.replace("\\n", "\n")) for turn in text.split(_TURN))
                yield Case(path.stem, origin, turns, is_attack, part)


def read_follow_ups() -> Iterator[Case]:
    """Yield what people say after their first message: short, and meaningless without it.

    Every second conversation is kept, as a whole.
    """
    lines = _FOLLOW_UPS.read_text("utf-8").splitlines()
    for number, line in enumerate(line for line in lines if not line.startswith("# ")):
        part = Part.KEPT if number % 2 else Part.TRAIN
        _, conversation = line.split("\t")
        said = [message.replace("\\n", "\n") for message in conversation.split(_TURN)]
        for before, message in pairwise(said):
            yield Case("follow-ups", Origin.USER, (message,), False, part, before)


def read_ordinary() -> Iterator[tuple[str, Part]]:
    """Yield ordinary sentences, to stand around others. Every second one is kept."""
    lines = _ORDINARY.read_text("utf-8").splitlines()
    for number, line in enumerate(line for line in lines if not line.startswith("# ")):
        yield line, Part.KEPT if number % 2 else Part.TRAIN


def among(case: Case, count: int) -> Case:
    """Return *case*, of one message, with so many ordinary sentences around it, and a source of its own.

    Which they are, and how many of them stand in front, a digest of the text says.
    """
    (text,) = case.turns
    drawn = random.Random(hashlib.sha256(f"{count} {text}".encode("utf-8", "replace")).digest())
    sentences = drawn.sample([each for each, part in read_ordinary() if part is case.part], count)
    front = drawn.randint(0, count)
    said = " ".join([*sentences[:front], text, *sentences[front:]])
    return replace(case, source=f"{case.source}, among {count}", turns=(said,))


def read_rows(folder: Path) -> Iterator[Case]:
    """Yield the rows in ``.jsonl`` files of *folder*: ``text``, ``label`` (1: attack) and ``source``.

    A source whose name speaks of documents is taken for what tools return.
    """
    for path in sorted(folder.rglob("*.jsonl")):
        for line in path.read_text("utf-8").splitlines():
            row = json.loads(line)
            if {"text", "label", "source"} <= row.keys():
                origin = Origin.TOOL if "docs" in row["source"] else Origin.USER
                part = part_of(row["text"]) if row["source"] in SOURCES else Part.KEPT
                yield Case(row["source"], origin, (row["text"],), row["label"] == 1, part)
