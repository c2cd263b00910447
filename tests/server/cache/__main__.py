"""How often the cache hits, and how often wrongly: labelled pairs of questions, asked of a real one.

``python -m tests.server.cache --data FOLDER [--threshold T]``. The folder may hold, as JSON lines:

- ``fow_pairs.jsonl``: ``id``, ``a``, ``b``, ``same_answer``;
- ``qqp_pairs.jsonl``: ``text_a``, ``text_b``, ``label`` (1: the same);
- ``gptcache_mock.jsonl``: ``origin``, ``similar``: each of the latter is asked among all of the former;
- ``fow_conv_billing.jsonl``: ``a``, ``b``: conversations that end in like words; ``same_answer``.

Pairs are divided by a digest: the words of the guards, and the threshold, were settled on the one half
alone; ``unseen`` is the other. Each pair is asked by a user of its own, one question after the other.
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TextIO

from tests.fakes.clock import FakeClock
from tests.server.cache.asking import ON, Kitchen
from unbroken.server.auth.principal import Principal
from unbroken.server.cache.base import StoreLimits
from unbroken.server.cache.embedder import Embedder, OnnxEmbedder, packaged_files
from unbroken.server.cache.index import PlaceIndex
from unbroken.server.cache.memory import MemoryAnswers


@dataclass
class Tally:
    same: int = 0
    hits: int = 0
    different: int = 0
    false_hits: int = 0

    def count(self, *, is_same: bool, is_hit: bool) -> None:
        if is_same:
            self.same += 1
            self.hits += is_hit
        else:
            self.different += 1
            self.false_hits += is_hit

    def __str__(self) -> str:
        hits = f"{self.hits}/{self.same} ({self.hits / self.same:.1%})" if self.same else "-"
        wrong = (
            f"{self.false_hits}/{self.different} ({self.false_hits / self.different:.2%})"
            if self.different
            else "-"
        )
        return f"{hits} | {wrong}"


class Desk:
    """A cache with the real embedder, as a server has it, and users who ask."""

    def __init__(self, embedder: Embedder, threshold: float) -> None:
        rules = replace(ON, semantic={"default": "on"}, threshold=threshold, patience=30)
        store = MemoryAnswers(FakeClock(), StoreLimits(place_entries=10_000), PlaceIndex)
        self.kitchen = Kitchen(store, rules, embedder)  # type: ignore[arg-type]

    async def ask(self, user: str, *said: str) -> tuple[str | None, str]:
        """Return the tier of a hit, and what was said."""
        asked = await self.kitchen.ask(*said, who=Principal(user))
        return asked.tier, asked.text


def rows(path: Path) -> Iterator[dict[str, Any]]:
    with path.open() as lines:
        yield from map(json.loads, lines)


def half_of(name: str) -> str:
    return "unseen" if hashlib.sha256(name.encode()).digest()[0] % 2 else "tuned on"


def pairs(folder: Path) -> Iterator[tuple[str, str, str, bool]]:
    """Yield source and half, both questions, and whether they are the same."""
    if (path := folder / "fow_pairs.jsonl").exists():
        for row in rows(path):
            yield f"fow_pairs, {half_of(row['id'])}", row["a"], row["b"], row["same_answer"]
    if (path := folder / "qqp_pairs.jsonl").exists():
        for row in rows(path):
            one, other = row["text_a"], row["text_b"]
            yield f"qqp_pairs, {half_of(one + other)}", one, other, row["label"] == 1


async def measure(folder: Path, threshold: float, out: TextIO | None = None) -> dict[str, Tally]:
    """Return the figures of each source, and write each false hit to *out*."""
    embedder = OnnxEmbedder(*packaged_files())
    await embedder.start()
    desk = Desk(embedder, threshold)
    tallies: dict[str, Tally] = {}
    for number, (name, one, other, is_same) in enumerate(pairs(folder)):
        await desk.ask(f"pair {number}", one)
        tier, _ = await desk.ask(f"pair {number}", other)
        tallies.setdefault(name, Tally()).count(is_same=is_same, is_hit=tier is not None)
        if tier and not is_same and out:
            out.write(f"{name}: {one} | {other}\n")
    if (path := folder / "gptcache_mock.jsonl").exists():
        tally = tallies["gptcache_mock, unseen"] = Tally()
        answers: dict[str, str] = {}
        found = list(rows(path))
        for row in found:
            answers[row["origin"]] = (await desk.ask("mock", row["origin"]))[1]
        desk.kitchen.veto = "measured"  # one paraphrase mustn't be found by another
        for row in found:
            tier, text = await desk.ask("mock", row["similar"])
            is_right = text == answers[row["origin"]]
            tally.count(is_same=True, is_hit=tier is not None and is_right)
            tally.count(is_same=False, is_hit=tier is not None and not is_right)
        desk.kitchen.veto = None
    if (path := folder / "fow_conv_billing.jsonl").exists():
        tally = tallies["fow_conv_billing (conversations)"] = Tally()
        for number, row in enumerate(rows(path)):
            first, second = ([turn["content"] for turn in row[side]] for side in "ab")
            await desk.ask(f"talk {number}", *first)
            tier, _ = await desk.ask(f"talk {number}", *second)
            tally.count(is_same=row["same_answer"], is_hit=tier is not None)
    await embedder.stop()
    return tallies


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--threshold", type=float, default=0.92)
    parser.add_argument("--show", action="store_true", help="print each false hit")
    args = parser.parse_args()
    tallies = asyncio.run(measure(args.data, args.threshold, sys.stdout if args.show else None))
    lines = [f"| {name} | {tally} |" for name, tally in sorted(tallies.items())]
    sys.stdout.write("\n".join(["| source | hits | false hits |", "|---|---|---|", *lines, ""]))


if __name__ == "__main__":
    main()
