"""A chain of agents: the next one is asked when one fails before its first piece, text or call.

What a failure leads to is one table, in :mod:`~unbroken.server.agents.consequence`. After the first
piece nothing leads on: an answer has one author, or it is cut short and says so.

Each agent has a circuit breaker: after repeated failures it is passed over for
a while instead of being waited for. See :mod:`~unbroken.server.agents.breaker`.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, replace

import structlog
from structlog.typing import FilteringBoundLogger

from unbroken.server.agents.base import (
    Agent,
    AgentError,
    AgentNotReady,
    AgentOutput,
    Finish,
    Handle,
    ReasoningPiece,
    Reattaching,
    ResponseGone,
    TurnInput,
    UpstreamStalled,
    UpstreamUnavailable,
    Usage,
    Working,
)
from unbroken.server.agents.breaker import Admission, Breaker, BreakerLimits, BreakerState
from unbroken.server.agents.consequence import Consequence, consequence_of
from unbroken.sessions.clock import Clock

__all__ = ["FallbackAgent", "Member", "Observer"]

_log: FilteringBoundLogger = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Member:
    """An agent of a chain."""

    name: str
    """For logs, metrics and handles: letters, digits, dashes, dots and underscores."""
    agent: Agent
    model: str | None = None
    """What it is asked for. None: what the turn names."""


class Observer:
    """Is told what happens in a chain. This one ignores it all."""

    def called(self, name: str, outcome: str) -> None:
        """An agent was asked; *outcome* is ``completed``, ``stopped``, ``crashed`` or an error's code."""

    def answering(self, turn: TurnInput, name: str, model: str) -> None:
        """The agent of that *name* has begun to answer *turn*, with that *model*."""

    def breaker_changed(self, name: str, state: BreakerState) -> None:
        """An agent's breaker has a new state."""


@dataclass(slots=True, eq=False)
class _Link:
    """A member with what the chain knows of it."""

    member: Member
    breaker: Breaker


class FallbackAgent:
    """Answers with the first of several agents that can.

    Args:
        members: The agents, in the order in which they are asked. Names differ.
        clock: For the breakers.
        limits: When an agent is passed over.
        patience: Seconds that an agent may give no sign of life before its first
            piece, if there is another to ask. Must be below the time after which
            the whole turn fails for silence.
        observer: Is told what happens.

    """

    def __init__(
        self,
        members: Sequence[Member],
        clock: Clock,
        *,
        limits: BreakerLimits | None = None,
        patience: float = 20.0,
        observer: Observer | None = None,
    ) -> None:
        self._observer = observer or Observer()
        self._patience = patience
        self._links = [
            _Link(member, Breaker(limits or BreakerLimits(), clock, self._reporter(member.name)))
            for member in members
        ]

    @property
    def model(self) -> str:
        """The first agent's model: what clients are told, and what they ask for."""
        return self._links[0].member.agent.model

    @property
    def is_ready(self) -> bool:
        """Whether any of them is."""
        return any(link.member.agent.is_ready for link in self._links)

    @property
    def states(self) -> Mapping[str, BreakerState]:
        """Each agent's breaker, by name, in order."""
        return {link.member.name: link.breaker.state for link in self._links}

    async def start(self) -> None:
        """Start all of them, in order.

        Raises:
            AgentNotReady: One can't be; the text says which. None is started then.

        """
        for number, link in enumerate(self._links):
            try:
                await link.member.agent.start()
            except AgentError as error:
                for started in self._links[:number]:
                    await started.member.agent.stop()
                raise AgentNotReady(f"{link.member.name}: {error.message}") from None

    async def stop(self) -> None:
        """Stop all of them."""
        for link in self._links:
            await link.member.agent.stop()

    async def respond(self, turn: TurnInput) -> AsyncGenerator[AgentOutput, None]:
        """Answer *turn* with the first agent that can.

        All text comes from one agent. At most one error comes out: that of the
        last one asked.

        Raises:
            UpstreamUnavailable: All are passed over; with the seconds until one isn't.
            AgentError: What the agent raised that answered, or was asked last.

        """
        failure: AgentError | None = None
        last = len(self._links) - 1
        is_named = False  # whether one that has failed has a name for it
        for number, link in enumerate(self._links):
            if turn.author.name not in (None, link.member.name):
                continue  # another one has begun this response
            admission = link.breaker.admit()
            if admission is None:
                continue
            if failure is not None:
                if is_named:  # whoever took the response over would go on with what is stopped
                    yield Handle("")
                    is_named = False
                yield Working()
            attempt = _Attempt(link, admission, turn, self._observer, is_first=not number)
            try:
                has_others = number < last and turn.author.name is None
                outputs = attempt.outputs(self._patience if has_others else None)
                async with aclosing(outputs):
                    async for output in outputs:
                        yield output
                return
            except AgentError as error:
                if turn.author.name is not None or consequence_of(error) is Consequence.END:
                    raise
                failure = error
                is_named = is_named or attempt.has_name
                _log.warning("agent failed, the next one is asked", agent=link.member.name, code=error.code)
        if failure is not None:
            raise failure
        # 0: a probe is under way; how long that takes, nobody knows.
        seconds = min(link.breaker.seconds_left for link in self._links)
        raise UpstreamUnavailable(retry_after=seconds or None)

    async def reattach(
        self, turn: TurnInput, handle: Handle, offset: int, calls: Sequence[int] = ()
    ) -> AsyncGenerator[AgentOutput, None]:
        """Go on with a response, through the agent that it came from.

        Raises:
            ResponseGone: There is no such agent (any more), or it can't reattach.
            AgentError: As that agent says.

        """
        name, _, value = handle.value.partition(":")
        for link in self._links:
            agent = link.member.agent
            if link.member.name == name and isinstance(agent, Reattaching):
                async with aclosing(agent.reattach(turn, Handle(value), offset, calls)) as outputs:
                    async for output in outputs:
                        yield output
                return
        raise ResponseGone

    async def abandon(self, handle: Handle) -> None:
        """See :meth:`Reattaching.abandon`: of the agent that it came from, if there is one."""
        name, _, value = handle.value.partition(":")
        for link in self._links:
            agent = link.member.agent
            if link.member.name == name and isinstance(agent, Reattaching):
                await agent.abandon(Handle(value))

    def _reporter(self, name: str) -> Callable[[BreakerState], None]:
        def report(state: BreakerState) -> None:
            _log.warning("breaker changed", agent=name, state=state.value)
            self._observer.breaker_changed(name, state)

        return report


class _Attempt:
    """One agent at one turn."""

    def __init__(
        self, link: _Link, admission: Admission, turn: TurnInput, observer: Observer, *, is_first: bool
    ) -> None:
        self.has_begun = False
        """Whether a piece has been passed on."""
        self.has_name = False
        """Whether a handle has."""
        self._member = link.member
        self._admission = admission
        self._turn = turn
        self._observer = observer
        self._is_first = is_first

    async def outputs(self, patience: float | None) -> AsyncGenerator[AgentOutput, None]:
        """Yield what the agent says; nothing but Working and Handle before its first piece.

        What it has billed when it fails before that comes on top of what the next one bills.
        """
        outcome = "stopped"
        held: list[AgentOutput] = []  # whoever fails before the text hasn't finished
        try:
            async with aclosing(self._member.agent.respond(self._own_turn())) as outputs:
                while not self.has_begun and (output := await _next(outputs, patience)) is not None:
                    match output:
                        case Working() | Handle():
                            yield self._named(output)
                        case Usage() | Finish():
                            held.append(output)
                        case "":
                            pass
                        case ReasoningPiece(text=text) if not self._turn.shows_reasoning:
                            yield Working(thought=len(text.encode("utf-8", "surrogatepass")))
                        case _:
                            self._begin()
                            held.append(output)
                for output in held:
                    yield output
                async for output in outputs:
                    yield self._named(output)
            self._admission.succeed()
            outcome = "completed"
        except AgentError as error:
            outcome = error.code
            self._judge(error)
            bills = [output for output in held if isinstance(output, Usage)]
            if bills and not self.has_begun:
                yield Working(spent=bills[-1])
            raise
        except Exception:
            outcome = "crashed"
            raise
        finally:
            self._admission.release()
            self._observer.called(self._member.name, outcome)

    def _named(self, output: AgentOutput) -> AgentOutput:
        """Return *output*, a handle so that it is known whose it is."""
        if not isinstance(output, Handle):
            return output
        self.has_name = bool(output.value)
        return Handle(f"{self._member.name}:{output.value}") if output.value else output

    def _own_turn(self) -> TurnInput:
        model = self._member.model
        return self._turn if model is None else replace(self._turn, model=model)

    def _begin(self) -> None:
        self.has_begun = True
        self._turn.author.name = self._member.name
        self._admission.succeed()
        model = self._own_turn().model
        if not self._is_first:
            _log.info("turn answered by a fallback", agent=self._member.name, model=model)
        self._observer.answering(self._turn, self._member.name, model)

    def _judge(self, error: AgentError) -> None:
        match consequence_of(error):
            case Consequence.COUNT:
                self._admission.fail(retry_after=error.retry_after)
            case Consequence.OPEN:
                self._admission.fail(is_final=True, retry_after=error.retry_after)
            case Consequence.END:
                self._admission.succeed()
            case Consequence.NEXT:
                self._admission.release()


async def _next(outputs: AsyncGenerator[AgentOutput, None], patience: float | None) -> AgentOutput | None:
    """Return the next of *outputs*; None: there is none.

    Raises:
        UpstreamStalled: It takes longer than *patience* seconds.

    """
    limit = asyncio.timeout(patience)
    try:
        async with limit:
            return await anext(outputs, None)
    except TimeoutError:
        if limit.expired():
            raise UpstreamStalled from None
        raise
