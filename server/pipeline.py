"""How a turn is answered. The counterpart of the sessions' *when*: it implements their responder.

One straight line, no way back: a turn comes in, the cache or the agent answers,
its pieces go out. Guards and quota are further stages of this line.
"""

from __future__ import annotations

import asyncio
import functools
from collections.abc import AsyncGenerator
from contextlib import AbstractContextManager, aclosing, closing, nullcontext
from dataclasses import replace
from typing import Final

from msgspec import UNSET
from structlog.contextvars import bind_contextvars

from unbroken.server.agents.base import Agent, AgentNotReady, Handle, Reattaching, TurnInput
from unbroken.server.agents.calls import in_pairs
from unbroken.server.auth.presence import Presence
from unbroken.server.cache.base import Veto
from unbroken.server.cache.stage import CacheStage
from unbroken.server.files.reading import FileReader, FileReading
from unbroken.server.guards.canary import Canaries
from unbroken.server.guards.leaks.filtering import LeakFiltering
from unbroken.server.metrics import Metrics
from unbroken.server.quota.gate import Gate
from unbroken.server.quota.share import Share
from unbroken.server.tools.loop import ToolLoop
from unbroken.server.trace_context import trace_id_of
from unbroken.sessions.clock import Clock
from unbroken.sessions.ids import PrincipalId
from unbroken.sessions.items import NamedTool, Parameters, Usage
from unbroken.sessions.responder import (
    AsksApproval,
    FunctionCallPiece,
    Output,
    ReasoningPiece,
    ToolCallPiece,
    Turn,
    Working,
)

__all__ = ["Pipeline"]

_LOADING_TIMEOUT: Final = 30.0
"""Seconds that a turn waits for a model that is still being loaded."""

_LOADING_INTERVAL: Final = 0.05

_SHOWN: Final = (str, FunctionCallPiece, ToolCallPiece, AsksApproval)
"""What clients see of an answer."""

_SHOWN_ALL: Final = (*_SHOWN, ReasoningPiece)


class Pipeline:
    """A :class:`~unbroken.sessions.responder.Responder` that asks one agent.

    Args:
        agent: What answers.
        metrics: Where figures go.
        clock: Where time comes from.
        files: Where agents read what messages refer to.
        max_output_tokens: The operator's bound on one answer, whatever its client asks for. None: none.
        tools: Runs the server's own tools. None: there are none.
        leaks: Filters what leaves. None: nothing does.
        cache: Answers what was answered before. None: nothing is.
        own_agent: The name of the first of several agents. What another answers for it isn't kept.
        gate: Holds each turn's budget. None: nothing is counted.
        canaries: Marks each session's instructions. None: they aren't marked.
        presence: Knows whose turns run, whether they are connected or not. None: nobody asks.

    """

    def __init__(
        self,
        agent: Agent,
        metrics: Metrics,
        clock: Clock,
        *,
        files: FileReading | None = None,
        max_output_tokens: int | None = None,
        tools: ToolLoop | None = None,
        leaks: LeakFiltering | None = None,
        cache: CacheStage | None = None,
        own_agent: str | None = None,
        gate: Gate | None = None,
        canaries: Canaries | None = None,
        presence: Presence | None = None,
    ) -> None:
        self._presence = presence
        self._gate = gate
        self._cache = cache
        self._own_agent = own_agent
        self._files = files or FileReading(None, turn_bytes=0, node_bytes=0)
        self._tools = tools
        self._leaks = leaks
        self._canaries = canaries
        self._max_output_tokens = max_output_tokens
        self._agent = agent
        self._metrics = metrics
        self._clock = clock

    def respond(self, turn: Turn) -> AsyncGenerator[Output, None]:
        """See :meth:`Responder.respond`."""
        return self._said(turn) if self._leaks is None else self._leaks.filtered(turn, self._said)

    async def _said(self, turn: Turn) -> AsyncGenerator[Output, None]:
        """Yield what the agent says, as it says it."""
        if turn.request.trace is not None:  # in the run's task alone
            bind_contextvars(trace_id=trace_id_of(turn.request.trace))
        waited = 0.0
        while not self._agent.is_ready:
            if waited >= _LOADING_TIMEOUT:
                raise AgentNotReady
            yield Working()
            await asyncio.sleep(_LOADING_INTERVAL)
            waited += _LOADING_INTERVAL
        started = self._clock.monotonic()
        waits = True
        shown = _SHOWN_ALL if turn.config.reasoning is True else _SHOWN
        with await self._stay(turn.principal), closing(self._files.for_turn(turn.principal)) as files:
            given = _turn_input(turn, self._max_output_tokens, files)
            share = Share()
            answer = self._answer(turn, given, share)
            if self._gate is not None:
                answer = self._gate.metered(turn, given, answer, share)
            async with aclosing(answer) as outputs:
                async for output in outputs:
                    if waits and type(output) is Usage and output.reused is not UNSET:
                        waits = False  # it isn't the agent's
                    if waits and output and type(output) in shown and not _was_approved(output):
                        waits = False
                        self._metrics.time_to_first_token.observe(self._clock.monotonic() - started)
                    yield output

    async def _stay(self, principal_id: PrincipalId) -> AbstractContextManager[None]:
        """Return what has whoever it is be known, to all who ask about them while their turn runs."""
        principal = None if self._presence is None else await self._presence.known(principal_id)
        return (
            nullcontext() if self._presence is None or principal is None else self._presence.stay(principal)
        )

    @property
    def can_resume(self) -> bool:
        """See :meth:`Resuming.can_resume`. Not with the server's tools: a resumed answer might call one."""
        return self._tools is None and isinstance(self._agent, Reattaching)

    async def abandon(self, handle: str) -> None:
        """See :meth:`Abandoning.abandon`."""
        if isinstance(self._agent, Reattaching):
            await self._agent.abandon(Handle(handle))

    def _marked(self, given: TurnInput) -> TurnInput:
        """Return *given* with its session's canary, where there are any."""
        if self._canaries is None:
            return given
        return replace(given, instructions=self._canaries.planted(given.instructions, given.session_id))

    def _answer(self, turn: Turn, given: TurnInput, share: Share) -> AsyncGenerator[Output, None]:
        agent, resumption = self._agent, turn.resumption
        if resumption is not None and isinstance(agent, Reattaching):
            given = self._marked(given)
            return agent.reattach(given, Handle(resumption.handle), resumption.offset, resumption.calls)
        if self._cache is None:
            return self._asked(turn, given)
        may_use_tools = bool(given.tools) or (self._tools is not None and self._tools.may_call(turn, given))
        return self._cache.answer(
            given,
            functools.partial(self._kept, turn, given),
            may_use_tools=may_use_tools,
            may_join=self._canaries is None,
            share=share,
            plan=turn.request.plan,
        )

    def _asked(self, turn: Turn, given: TurnInput) -> AsyncGenerator[Output, None]:
        given = self._marked(given)  # for the agent alone: to the cache, sessions don't differ by their marks
        if self._tools is None:
            return self._agent.respond(given)
        return self._tools.answer(self._agent, turn, given)

    def _kept(self, turn: Turn, given: TurnInput, veto: Veto) -> AsyncGenerator[Output, None]:
        """Ask, and have it be known whether the answer may be kept."""
        if self._leaks is not None:
            veto.found = functools.partial(self._leaks.finds, turn)
        if self._own_agent is not None:
            veto.at_end = lambda: "fallback" if given.author.name not in (None, self._own_agent) else None
        return self._asked(turn, given)


def _was_approved(output: Output) -> bool:
    """Return whether it is a call of an earlier response's, run now that its user has approved of it."""
    return isinstance(output, ToolCallPiece) and output.head is not None and output.head.approval is not None


def _turn_input(turn: Turn, most_tokens: int | None, files: FileReader) -> TurnInput:
    request, config = turn.request, turn.config
    wanted = config.max_output_tokens if request.max_output_tokens is None else request.max_output_tokens
    bounds = [bound for bound in (wanted, most_tokens) if bound is not None]
    tools, choice = request.tools_with(config), request.tool_choice_with(config)
    # The session's tools may have changed while the response waited; no upstream takes the choice of another.
    is_there = not isinstance(choice, NamedTool) or any(tool.name == choice.name for tool in tools)
    return TurnInput(
        session_id=turn.session_id,
        response_id=turn.response_id,
        principal=turn.principal,
        model=request.model_with(config),
        instructions=config.instructions if request.instructions is None else request.instructions,
        items=in_pairs(turn.items),
        tools=tools,
        tool_choice=choice if is_there else "auto",
        parallel_tool_calls=request.parallel_tool_calls_with(config),
        max_output_tokens=min(bounds, default=None),
        parameters=request.parameters or Parameters(),
        metadata=request.metadata or {},
        trace=request.trace,
        files=files,
        shows_reasoning=config.reasoning is True,
        custody=turn.custody,
    )
