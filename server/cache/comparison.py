"""Whether two answers to what counts as one question say the same: an estimate, for figures alone."""

from __future__ import annotations

import re
from collections import Counter
from typing import Final

from unbroken.server.cache.base import CacheUnavailable
from unbroken.server.cache.embedder import Embedder, cosine

__all__ = ["agree"]

_WORD: Final = re.compile(r"\w+")

_SHARED_WORDS: Final = 0.5
"""Of the words of both answers together, those that both have: two answers of one model to one question
have more, answers to different questions less."""

_NEAR: Final = 0.75
"""Cosine of two answers' embeddings, where there is an embedder: it forgives other words."""


async def agree(one: str, other: str, embedder: Embedder | None) -> bool:
    """Return whether the two say the same, as far as words, or an embedder that has time, can tell."""
    if embedder is not None:
        try:
            return cosine(await embedder.embed(one), await embedder.embed(other)) >= _NEAR
        except CacheUnavailable:
            pass
    first, second = (Counter(_WORD.findall(text.casefold())) for text in (one, other))
    total = first.total() + second.total()
    return not total or 2 * (first & second).total() / total >= _SHARED_WORDS
