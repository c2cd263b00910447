"""The stage of the pipeline that answers from the cache, and keeps what agents answer.

Where there is an answer, it comes out as an agent's would, at a pace of its own;
where there is none, the agent is asked once for all who ask the same at that
time. The cache never fails a turn: what goes wrong with it is a miss.
"""

from __future__ import annotations

import asyncio
import functools
import random
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing
from typing import Final, TypeAlias

from unbroken.server.agents.base import TurnInput, Usage
from unbroken.server.auth.directory import Directory
from unbroken.server.auth.principal import DEFAULT_PLAN, Principal
from unbroken.server.cache.base import Answer, AnswerStore, CacheUnavailable, Veto
from unbroken.server.cache.comparison import agree
from unbroken.server.cache.embedder import Embedder
from unbroken.server.cache.flight import Flights
from unbroken.server.cache.lookup import LookUp
from unbroken.server.cache.personal import is_personal, parts_of
from unbroken.server.cache.question import Asker, Question, question_of, tenant_digest
from unbroken.server.cache.rules import CacheObserver, CacheRules, Mode
from unbroken.server.quota.share import Share
from unbroken.sessions.clock import Clock, pause
from unbroken.sessions.ids import PrincipalId
from unbroken.sessions.items import Reused
from unbroken.sessions.responder import Finish, Handle, Output, Working

__all__ = ["CacheStage", "Produce"]

Produce: TypeAlias = Callable[[Veto], AsyncGenerator[Output, None]]
"""Asks the agent. Whoever stands in between notes in the veto why the answer is for this asker alone, or how
to find that out."""

_MOST_PIECES: Final = 20_000
"""Of an answer that is kept."""

_EMBEDDING: Final = 1.0
"""Seconds until a question that has been answered is left out of its place's index: nobody waits for that."""


class CacheStage:
    """Stands before the agent.

    Args:
        rules: What the operator wants.
        store: Where answers are.
        clock: Where time comes from.
        embedder: Says what lies near what. None: only the same words are found.
        directory: Who belongs to which tenant and plan. None: nobody knows.
        observer: Told what happens.
        draw: Returns a number from 0 to 1 by chance: decides what is compared.

    """

    def __init__(
        self,
        rules: CacheRules,
        store: AnswerStore,
        clock: Clock,
        *,
        embedder: Embedder | None = None,
        directory: Directory | None = None,
        observer: CacheObserver | None = None,
        draw: Callable[[], float] = random.random,
    ) -> None:
        self.store: Final = store
        self.rules: Final = rules
        self.clock: Final = clock
        self.embedder: Final = embedder
        self.observer: Final = observer or CacheObserver()
        self.draw: Final = draw
        self._directory = directory
        self._flights = Flights()
        self._loading: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Load what is needed, behind everybody's back: until then nothing is found in other words."""
        if self.embedder is not None:
            self._loading = asyncio.create_task(self.embedder.start())

    async def stop(self) -> None:
        """End everything. No turn is running any more."""
        await self._flights.aclose()
        if self.embedder is not None:
            if self._loading is not None:
                await asyncio.wait([self._loading])  # a thread can't be stopped
            await self.embedder.stop()

    async def forget(self, tenant: str | None) -> None:
        """Have no answer be given that was kept, and none be kept that is on its way: of *tenant*, or of all.

        Raises:
            CacheUnavailable: The store is out of reach. Nothing is forgotten.

        """
        await self.store.forget(None if tenant is None else tenant_digest(tenant))
        self._flights.part()

    async def answer(
        self,
        turn: TurnInput,
        produce: Produce,
        *,
        may_use_tools: bool,
        may_join: bool = True,
        share: Share | None = None,
        plan: str | None = None,
    ) -> AsyncGenerator[Output, None]:
        """Answer *turn* from the cache, or else as *produce* does, which may be asked for others too.

        By *plan* it was asked for; None: nobody has said, so that it is the one by which its user is known.

        Not with *may_join* unset: the agent is told something that is this session's alone. *share* is told
        what is the turn's to pay of that.
        """
        asker, plan = await self._asker(turn, plan)
        mode = self.rules.mode_of(plan)
        question: Question | str | None = None
        if mode != "off":
            question = await question_of(turn, asker, self.rules.version, may_use_tools=may_use_tools)
        if not isinstance(question, Question):
            if question is not None:
                self.observer.missed(question)
            async with aclosing(produce(Veto())) as outputs:
                async for output in outputs:
                    yield output
            return
        # In shadow each asks for itself, as if there were no cache.
        key = question.slot.key if may_join and mode == "on" else turn.response_id
        part = functools.partial(self._flights.part, key)
        semantic = self.rules.semantic_mode_of(plan)
        inquiry = _Inquiry(self, LookUp(question), produce, mode, semantic, part)
        seat = self._flights.board(key, inquiry.ask, inquiry.settle, share)
        try:
            if seat.is_late:
                self.observer.hit("flight")
            async with aclosing(seat.follow()) as outputs:
                async for output in outputs:
                    yield output
        finally:
            await self._flights.leave(seat)

    async def _asker(self, turn: TurnInput, plan: str | None) -> tuple[Asker, str]:
        """Return for whom an answer to *turn* is good, and by which plan it is asked."""
        principal: Principal | None = None
        if self._directory is not None:
            principal = await self._directory.known(PrincipalId(turn.principal))
        if principal is None:  # by himself
            return Asker("user", turn.principal, ""), DEFAULT_PLAN if plan is None else plan
        plan = principal.by(plan).plan
        if self.rules.scope == "tenant":
            return Asker("tenant", principal.tenant, principal.tenant), plan
        return Asker("user", turn.principal, principal.tenant), plan


class _Inquiry:
    """One look into the cache, and what is asked of the agent when that isn't enough."""

    def __init__(
        self,
        stage: CacheStage,
        look: LookUp,
        produce: Produce,
        mode: Mode,
        semantic: Mode,
        part: Callable[[], None],
    ) -> None:
        self._stage = stage
        self._look = look
        self._produce = produce
        self._mode = mode
        self._semantic = semantic
        self._part = part
        self._veto = Veto()
        self._is_answered = False  # from the cache

    async def ask(self) -> AsyncGenerator[Output, None]:
        """Return what is answered."""
        stage, look, rules = self._stage, self._look, self._stage.rules
        await look.look(stage.store, None if self._semantic == "off" else stage.embedder, rules)
        acts = self._mode if look.tier == "exact" else self._semantic
        if look.answer is None:
            stage.observer.missed(look.reason)
        elif acts == "on" and stage.draw() >= rules.sample:
            stage.observer.hit(look.tier)
            self._is_answered = True
            self._part()  # whoever asks from now on looks for himself: it may be forgotten, or end, meanwhile
            return self._said_again(look.answer)
        else:
            stage.observer.missed("shadow" if acts != "on" else "sampled")
        return self._produce(self._veto)

    async def _said_again(self, answer: Answer) -> AsyncGenerator[Output, None]:
        """Say an answer as it was said, one piece after another."""
        clock, pace = self._stage.clock, self._stage.rules.pace
        reused = Reused(self._look.tier, max(0.0, round(clock.time() - answer.stored_at, 3)))
        paid = Usage() if self._stage.rules.is_free or answer.usage is None else answer.usage
        yield Usage(paid.input_tokens, paid.output_tokens, paid.cached_tokens, reused)
        began = clock.monotonic()
        for number, piece in enumerate(answer.pieces):
            if pace and number:
                wait = began + number / pace - clock.monotonic()
                if wait > 0:
                    await pause(clock, wait)
            yield piece

    async def settle(self, outputs: Sequence[Output]) -> None:
        """Keep what was said, and compare it with what would have been."""
        if self._is_answered:
            return
        stage, look = self._stage, self._look
        answer = await _answer_of(outputs, stage.clock.time())
        if look.answer is not None and isinstance(answer, Answer):
            agrees = await agree(look.answer.text, answer.text, stage.embedder)
            stage.observer.compared(look.tier, agrees=agrees)
        if (reason := self._veto.reason) is not None:
            stage.observer.kept(reason)
        elif not isinstance(answer, Answer):
            stage.observer.kept(answer)
        elif look.epoch is None:
            stage.observer.kept("store")
        elif self._veto.found is not None and await self._veto.found(answer.text):
            stage.observer.kept("filtered")
        else:
            stage.observer.kept(await self._keep(answer, look.epoch))

    async def _keep(self, answer: Answer, epoch: str) -> str:
        stage, look = self._stage, self._look
        embedder = None if look.wording is None else stage.embedder
        if embedder is not None:
            await look.embed(embedder, _EMBEDDING)
        try:
            async with asyncio.timeout(stage.rules.patience):
                await stage.store.keep(look.question.slot, answer, epoch, look.neighbour())
        except (CacheUnavailable, TimeoutError):
            return "store"
        return "embedder" if embedder is not None and look.vector is None else "kept"


async def _answer_of(outputs: Sequence[Output], now: float) -> Answer | str:
    """Return what was said, if it may be said again; else why not."""
    pieces: list[str] = []
    usage: Usage | None = None
    for output in outputs:
        match output:
            case str():
                if output:
                    pieces.append(output)
            case Usage():
                usage = output
            case Finish():
                if output.reason != "completed":
                    return "filtered" if output.reason == "content_filter" else "truncated"
            case Working() | Handle():
                pass
            case _:
                return "tools"
    if not pieces:
        return "empty"
    if len(pieces) > _MOST_PIECES:
        return "long"
    answer = Answer(tuple(pieces), usage, now)
    for part in parts_of(answer.text):
        if is_personal(part):
            return "personal"
        if part.start:  # it is a long one
            await asyncio.sleep(0)
    return answer
