"""An embedder that counts words: what shares words is near. No model, and faults on demand."""

from __future__ import annotations

import asyncio
import math
import re
import struct
import zlib

from unbroken.server.cache.base import CacheUnavailable

__all__ = ["FakeEmbedder"]

_LENGTH = 256


class FakeEmbedder:
    """An :class:`~unbroken.server.cache.embedder.Embedder`. Fault verbs: :meth:`fail`, :meth:`hang`."""

    def __init__(self) -> None:
        self.texts: list[str] = []
        """What it was asked for."""
        self._is_down = False
        self._hangs = False

    def fail(self) -> None:
        """Be down from now on."""
        self._is_down = True

    def hang(self) -> None:
        """Never answer from now on."""
        self._hangs = True

    async def start(self) -> None:
        """Nothing has to be loaded."""

    async def embed(self, text: str) -> bytes:
        """See :meth:`Embedder.embed`."""
        self.texts.append(text)
        if self._is_down:
            raise CacheUnavailable("down, as the test asked for")
        if self._hangs:
            await asyncio.Event().wait()
        counts = [0.0] * _LENGTH
        for word in re.findall(r"\w+", text.casefold()):
            counts[zlib.crc32(word.encode()) % _LENGTH] += 1
        length = math.sqrt(sum(count * count for count in counts)) or 1.0
        return struct.pack(f"<{_LENGTH}e", *(count / length for count in counts))

    async def stop(self) -> None:
        """Nothing is held."""
