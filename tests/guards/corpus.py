"""The corpus: attacks written by hand, each with a harmless twin. And rows from elsewhere."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tests.guards.encoding import encoded
from unbroken.server.guards.injection.base import Origin

__all__ = ["FOLDER", "Case", "read_corpus", "read_rows"]

FOLDER: Final = Path(__file__).parent / "corpus"
_TURN: Final = " // "


@dataclass(frozen=True, slots=True)
class Case:
    """One text, or the messages of one conversation, with what it is."""

    source: str
    origin: Origin
    turns: tuple[str, ...]
    is_attack: bool


def read_corpus() -> Iterator[Case]:
    """Yield the cases written by hand: an attack, then its twin."""
    for path in sorted(FOLDER.glob("*.tsv")):
        lines = path.read_text("utf-8").splitlines()
        origin = Origin(lines[0].removeprefix("# origin: "))
        for line in lines[1:]:
            if line.startswith("# "):
                continue
            _, *texts = line.split("\t")
            attack, benign = texts
            for text, is_attack in ((attack, True), (benign, False)):
                turns = tuple(encoded(turn.replace("\\n", "\n")) for turn in text.split(_TURN))
                yield Case(path.stem, origin, turns, is_attack)


def read_rows(folder: Path) -> Iterator[Case]:
    """Yield the rows in ``.jsonl`` files of *folder*: ``text``, ``label`` (1: attack) and ``source``.

    A source whose name speaks of documents is taken for what tools return.
    """
    for path in sorted(folder.rglob("*.jsonl")):
        for line in path.read_text("utf-8").splitlines():
            row = json.loads(line)
            if {"text", "label", "source"} <= row.keys():
                origin = Origin.TOOL if "docs" in row["source"] else Origin.USER
                yield Case(row["source"], origin, (row["text"],), row["label"] == 1)
