"""Whether a question has been answered: first in the same words, then in others that mean the same."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

from unbroken.server.cache.base import Answer, AnswerStore, CacheUnavailable, Neighbour, Tier
from unbroken.server.cache.embedder import Embedder
from unbroken.server.cache.guards import Wording, difference
from unbroken.server.cache.question import Question
from unbroken.server.cache.rules import CacheRules

if TYPE_CHECKING:
    from unbroken.server.cache.index import PlaceIndex

__all__ = ["LookUp"]


@dataclass(slots=True)
class LookUp:
    """One look, and what came of it. It never fails: what can't be looked up isn't there."""

    question: Question
    answer: Answer | None = None
    tier: Tier = "exact"
    epoch: str | None = None
    """Under which an answer of now is kept. None: the store is out of reach, and it isn't."""
    vector: bytes | None = None
    """Where the question lies, as far as that was asked."""
    wording: Wording | None = None
    """How it is worded, where it is compared with others."""
    reason: str = "new"
    """Why there is nothing."""

    async def look(self, store: AnswerStore, embedder: Embedder | None, rules: CacheRules) -> None:
        """Find an answer, within the time that the rules give. *embedder*: None: in the same words only."""
        try:
            async with asyncio.timeout(rules.patience):
                found = await store.find(self.question.slot)
        except (CacheUnavailable, TimeoutError):
            self.reason = "store"
            return
        self.epoch, self.answer = found.epoch, found.answer
        if self.answer is not None or embedder is None:
            return
        if self.question.message is None:
            self.reason = "follow_up"
            return
        self.wording = Wording(self.question.message)
        try:
            async with asyncio.timeout(rules.patience):
                index = await store.index(self.question.slot.place)
        except (CacheUnavailable, TimeoutError):
            self.reason = "store"
            return
        if index is None or not index.may_have(self.wording.signature):
            return  # as good as always: nobody waits for the embedder then
        await self.embed(embedder, rules.patience)
        if self.vector is None:
            self.reason = "embedder"
            return
        try:
            async with asyncio.timeout(rules.patience):
                await self._look_near(self.wording, self.vector, store, index, rules.threshold)
        except (CacheUnavailable, TimeoutError):
            self.reason = "store"

    async def embed(self, embedder: Embedder, patience: float) -> None:
        """Have it known where the question lies, as far as it is one, within *patience* seconds."""
        if self.vector is None and self.question.message is not None:
            with suppress(CacheUnavailable, TimeoutError):
                async with asyncio.timeout(patience):
                    self.vector = await embedder.embed(self.question.message)

    async def _look_near(
        self, wording: Wording, vector: bytes, store: AnswerStore, index: PlaceIndex, threshold: float
    ) -> None:
        for _, near in list(index.near(vector, threshold)):
            if difference(Wording(near.text), wording) is not None:
                self.reason = "differs"
                continue
            slot = self.question.slot
            found = await store.find(type(slot)(slot.place, near.key, slot.tenant))
            if found.answer is None:
                index.discard(near.key)  # its time is over
                continue
            self.answer, self.tier = found.answer, "semantic"
            return

    def neighbour(self) -> Neighbour | None:
        """Return the question as its place's index holds it; None: it has no place there."""
        message = self.question.message
        if self.vector is None or self.wording is None or message is None:
            return None
        return Neighbour(self.question.slot.key, message, self.vector, self.wording.signature)
