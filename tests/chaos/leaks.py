"""What has to be nowhere: what agents say, and the leak filter keeps back (I13). Pure."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable, Iterator

from tests.chaos.checker import Violation
from tests.chaos.history import History
from tests.chaos.logs import Log
from tests.chaos.words import SECRET
from unbroken.sessions.entries import Deltas

__all__ = ["check_kept", "check_told"]


def check_told(history: History) -> Iterator[Violation]:
    """Check what a tab was shown: each frame, and what the pieces of each item come to."""
    for segment in history.segments():
        said: defaultdict[str, str] = defaultdict(str)
        texts: list[tuple[str, str]] = []
        for frame in segment.frames:
            texts.append((frame["event_id"], json.dumps(frame)))
            if frame["type"] == "response.output_text.delta":
                said[frame["item_id"]] += frame["delta"]
        yield from _look(f"{history.session} {history.tab}", [*texts, *said.items()])


def check_kept(log: Log) -> Iterator[Violation]:
    """Check what the store holds: each entry, what the pieces of each answer come to, and the snapshot."""
    said: defaultdict[str, str] = defaultdict(str)
    texts = [(f"entry {entry.seq}", str(entry.body)) for entry in log.entries]
    for entry in log.entries:
        if isinstance(entry.body, Deltas):
            said[entry.body.response_id] += "".join(entry.body.parts)
    standing = [(item_id, text) for item_id, _, text in log.standing]
    yield from _look(f"log of {log.session}", [*texts, *said.items(), *standing])


def _look(where: str, texts: Iterable[tuple[str, str]]) -> Iterator[Violation]:
    for name, text in texts:
        if SECRET in text:
            yield Violation("I13", where, f"{name} has what was to be kept back")
