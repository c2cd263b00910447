"""Turns, and an agent behind the cache that is told what to say."""

from __future__ import annotations

import asyncio
import itertools
from collections import Counter
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field, replace
from typing import Any

from tests.fakes.clock import FakeClock
from tests.fakes.embedder import FakeEmbedder
from tests.server.realtime.serving import eventually
from unbroken.server.agents.base import Message, Text, TurnInput, Usage
from unbroken.server.auth.directory import MemoryDirectory
from unbroken.server.auth.principal import Principal
from unbroken.server.cache.base import AnswerStore, Tier, Veto
from unbroken.server.cache.rules import CacheObserver, CacheRules
from unbroken.server.cache.stage import CacheStage
from unbroken.sessions.ids import ItemId
from unbroken.sessions.responder import Output

__all__ = [
    "ASKED",
    "ON",
    "REWORDED",
    "SEMANTIC",
    "TENANTS",
    "Asked",
    "Counted",
    "Kitchen",
    "kitchen",
    "said",
    "text_of",
    "turn_of",
]

ON: CacheRules = CacheRules(modes={"default": "on"}, pace=0, sample=0, threshold=0.5, patience=5)
SEMANTIC = replace(ON, semantic={"default": "on"})
TENANTS = replace(SEMANTIC, scope="tenant")

ASKED = "How do I reset the red router?"
REWORDED = "How can I reset the red router?"

_numbers = itertools.count()


def turn_of(*texts: str, who: Principal | None = None, **fields: Any) -> TurnInput:
    """Return a turn of a conversation that begins with a user's message; the others alternate."""
    roles: Any = itertools.cycle(("user", "assistant"))
    items = tuple(
        Message(ItemId(f"i{next(_numbers)}"), role, (Text(text),))
        for role, text in zip(roles, texts, strict=False)
    )
    given: dict[str, Any] = {
        "session_id": f"sess_{next(_numbers)}",
        "response_id": f"resp_{next(_numbers)}",
        "principal": (who or Principal("alice")).id,
        "model": "m",
        "instructions": "",
        "items": items,
    }
    return TurnInput(**(given | fields))


def text_of(outputs: Sequence[Output]) -> str:
    return "".join(output for output in outputs if isinstance(output, str))


def tier_of(outputs: Sequence[Output]) -> str | None:
    """Return the tier that the last bill names; None: it is no hit."""
    bills = [output for output in outputs if isinstance(output, Usage)]
    return getattr(bills[-1].reused, "tier", None) if bills else None


class Counted(CacheObserver):
    """Remembers what it was told."""

    def __init__(self) -> None:
        self.hits: Counter[str] = Counter()
        self.misses: Counter[str] = Counter()
        self.outcomes: Counter[str] = Counter()
        self.comparisons: Counter[tuple[str, bool]] = Counter()

    def hit(self, tier: Tier) -> None:
        self.hits[tier] += 1

    def missed(self, reason: str) -> None:
        self.misses[reason] += 1

    def kept(self, outcome: str) -> None:
        self.outcomes[outcome] += 1

    def compared(self, tier: Tier, *, agrees: bool) -> None:
        self.comparisons[tier, agrees] += 1


@dataclass(frozen=True)
class Asked:
    """What came of one turn."""

    outputs: list[Output]

    @property
    def text(self) -> str:
        return text_of(self.outputs)

    @property
    def tier(self) -> str | None:
        return tier_of(self.outputs)


@dataclass
class Kitchen:
    """An agent and a cache before it."""

    store: AnswerStore
    rules: CacheRules = ON
    embedder: FakeEmbedder | None = None
    clock: FakeClock = field(default_factory=FakeClock)
    draw: float = 0.5
    outputs: list[Output] | None = None
    """What the agent says. None: which call this is."""
    veto: str | None = None
    found: Callable[[str], Awaitable[bool]] | None = None
    """Looks through answers that would be kept."""

    def __post_init__(self) -> None:
        self.calls = 0
        self.stopped = 0
        self.gate = asyncio.Event()
        self.gate.set()
        self.counted = Counted()
        self.directory = MemoryDirectory(self.clock)
        self.stage = CacheStage(
            self.rules,
            self.store,
            self.clock,
            embedder=self.embedder,
            directory=self.directory,
            observer=self.counted,
            draw=lambda: self.draw,
        )

    async def respond(self, veto: Veto) -> AsyncGenerator[Output, None]:
        self.calls += 1
        veto.found = self.found
        outputs: list[Output] = self.outputs or ["answer ", str(self.calls), Usage(3, 2)]
        try:
            for output in outputs:
                await self.gate.wait()
                if isinstance(output, BaseException):
                    raise output
                yield output
            if self.veto is not None:
                veto.note(self.veto)
        except (asyncio.CancelledError, GeneratorExit):
            self.stopped += 1
            raise

    def begin(self, turn: TurnInput, *, may_use_tools: bool = False) -> AsyncGenerator[Output, None]:
        return self.stage.answer(turn, self.respond, may_use_tools=may_use_tools)

    async def ask(self, *texts: str, may_use_tools: bool = False, **fields: Any) -> Asked:
        """Ask, and wait until what was said is kept."""
        async with aclosing(self.begin(turn_of(*texts, **fields), may_use_tools=may_use_tools)) as answered:
            outputs = [output async for output in answered]
        await self.settled()
        return Asked(outputs)

    async def settled(self) -> None:
        """Return when no flight is left."""
        await eventually(lambda: not len(self.stage._flights))

    def changed(self, **rules: Any) -> Kitchen:
        """Return another node over the same store, with other rules."""
        return Kitchen(self.store, replace(self.rules, **rules), self.embedder, self.clock)


def kitchen(store: AnswerStore, rules: CacheRules = SEMANTIC, **named: Any) -> Kitchen:
    return Kitchen(store, rules, FakeEmbedder(), **named)


async def said(cache: Kitchen, turn: TurnInput) -> Asked:
    """Ask *turn* to its end, as a task of its own may."""
    return Asked([output async for output in cache.begin(turn)])
