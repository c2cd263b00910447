"""The questions of one place, by what they mean. One object for each place: it holds no other's.

Needs NumPy, which comes with the extra ``cache``.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from unbroken.server.cache.base import Neighbour

__all__ = ["PlaceIndex"]


class PlaceIndex:
    """A bounded list of questions with their embeddings, searched as a whole: 1,000 take about 50 us.

    Args:
        most: Questions it holds. Of more, the oldest goes.

    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._vectors: NDArray[np.float32] | None = None
        self._held: list[Neighbour | None] = []  # a row each; None: it is free
        self._rows: dict[str, int] = {}  # by key, the oldest first
        self._free: list[int] = []
        self._signatures: Counter[bytes] = Counter()
        self.size = 0
        """Bytes that its questions take, roughly."""

    def __len__(self) -> int:
        return len(self._rows)

    def add(self, neighbour: Neighbour) -> None:
        """Add a question, or put it in place of the one of the same key. One of another length is ignored."""
        vector = np.frombuffer(neighbour.vector, dtype="<f2").astype(np.float32)
        if self._vectors is None:
            self._vectors = np.zeros((min(self._most, 1), len(vector)), np.float32)
            self._held = [None] * len(self._vectors)
            self._free = list(range(len(self._vectors) - 1, -1, -1))
        if len(vector) != self._vectors.shape[1] or not np.isfinite(vector).all():
            return
        self.discard(neighbour.key)
        if not self._free and len(self._held) < self._most:
            self._grow()
        if not self._free:
            self.discard(next(iter(self._rows)))
        row = self._free.pop()
        self._vectors[row] = vector
        self._held[row] = neighbour
        self._rows[neighbour.key] = row
        self._signatures[neighbour.signature] += 1
        self.size += neighbour.size

    def discard(self, key: str) -> None:
        """Take a question out, if it is there."""
        row = self._rows.pop(key, None)
        if row is None or self._vectors is None:
            return
        if (held := self._held[row]) is not None:
            self.size -= held.size
            self._signatures[held.signature] -= 1
            if not self._signatures[held.signature]:
                del self._signatures[held.signature]
        self._vectors[row] = 0
        self._held[row] = None
        self._free.append(row)
        if len(self._rows) <= len(self._held) // 4:
            self._shrink()

    def may_have(self, signature: bytes) -> bool:
        """Return whether a question may be in it that asks the same as one with this signature."""
        return signature in self._signatures or b"" in self._signatures

    def near(self, vector: bytes, threshold: float, most: int = 8) -> Iterator[tuple[float, Neighbour]]:
        """Yield the questions whose cosine to *vector* is *threshold* or more, the nearest first."""
        if self._vectors is None:
            return
        wanted = np.frombuffer(vector, dtype="<f2").astype(np.float32)
        if len(wanted) != self._vectors.shape[1]:
            return
        cosines = self._vectors @ wanted
        for row in np.argsort(-cosines)[:most]:
            neighbour = self._held[row]
            if cosines[row] < threshold or neighbour is None:
                return
            yield float(cosines[row]), neighbour

    def _grow(self) -> None:
        assert self._vectors is not None
        size = len(self._held)
        larger = min(2 * size, self._most)
        vectors = np.zeros((larger, self._vectors.shape[1]), np.float32)
        vectors[:size] = self._vectors
        self._vectors = vectors
        self._held += [None] * (larger - size)
        self._free += range(larger - 1, size - 1, -1)

    def _shrink(self) -> None:
        """Give up half of the rows, of which three in four are free."""
        assert self._vectors is not None
        rows = list(self._rows.values())
        size = max(1, len(self._held) // 2)
        vectors = np.zeros((size, self._vectors.shape[1]), np.float32)
        vectors[: len(rows)] = self._vectors[rows]
        self._held = [self._held[row] for row in rows] + [None] * (size - len(rows))
        self._vectors = vectors
        self._rows = {key: row for row, key in enumerate(self._rows)}
        self._free = list(range(size - 1, len(rows) - 1, -1))
