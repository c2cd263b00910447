"""The loop between an agent and a session: run the tools that the agent calls, and ask it again.

All rounds make one response. A call is in the log before its tool is run
(:class:`~unbroken.sessions.responder.RunsTools`), under a key that no other call
has; whoever finds it there without an end knows that it may have been run, and
nobody runs it again.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field, replace
from typing import Final

from unbroken.server.agents.base import (
    Agent,
    AgentError,
    Finish,
    FunctionCallPiece,
    Prompted,
    ToolChoice,
    TurnInput,
    Usage,
    Working,
)
from unbroken.server.guards.injection.screening import ResultScreen
from unbroken.server.tools.base import ToolContext
from unbroken.server.tools.calls import Called, CallLimits, run
from unbroken.server.tools.catalogue import Catalogue, Offer
from unbroken.server.tools.round import Round, pair_of
from unbroken.sessions.ids import new_item_id
from unbroken.sessions.items import ToolError, ToolHead
from unbroken.sessions.responder import Output, RunsTools, ToolCallPiece, ToolEnded, Turn

__all__ = ["LoopLimits", "ToolLoop", "ToolRoundsExceeded"]

_GONE: Final = ToolError("There is no such tool any more. Nothing was done.")


class ToolRoundsExceeded(AgentError):
    """The agent goes on calling tools after it was told to answer."""

    code = "too_many_tool_rounds"
    message = "The model called tools again and again without coming to an answer."


@dataclass(frozen=True, slots=True, kw_only=True)
class LoopLimits:
    """What one response may do with tools."""

    rounds: int = 8
    """Times that tools are run. Then the agent is asked to answer without."""
    calls: int = 8
    """Tools that run at once: further calls of the same round aren't run, and the agent is told."""
    call: CallLimits = field(default_factory=CallLimits)
    sign_interval: float = 5.0
    """Seconds between signs of life while tools run: well below the turn's stall time-out."""


class ToolLoop:
    """Has an agent answer with the server's tools.

    Args:
        catalogue: The tools.
        limits: What a response may do with them.
        count: Told the label of a toolset, and how a call of it ended.
        screen: Says what is given to the agent of a result, and of the label of the toolset it came from.
        may_ask: Says whether there is a budget for a round, from 0, whose agent is to be asked so.

    """

    def __init__(
        self,
        catalogue: Catalogue,
        limits: LoopLimits | None = None,
        count: Callable[[str, str], None] = lambda *_: None,
        screen: ResultScreen | None = None,
        may_ask: Callable[[Turn, TurnInput, int], Awaitable[bool]] | None = None,
    ) -> None:
        self._catalogue = catalogue
        self._limits = limits or LoopLimits()
        self._count = count
        self._screen = screen
        self._may_ask = may_ask

    def may_call(self, turn: Turn, given: TurnInput) -> bool:
        """Whether an answer to *turn* may call any of the server's tools."""
        return bool(turn.approved or self._offers(turn, given))

    def answer(self, agent: Agent, turn: Turn, given: TurnInput) -> AsyncGenerator[Output, None]:
        """Answer *turn*, which an agent is told of as *given*.

        Raises:
            ToolRoundsExceeded: The agent doesn't come to an end.
            AgentError: As the agent says.

        """
        offers = self._offers(turn, given)
        if not offers and not turn.approved:
            return agent.respond(given)
        return self._answer(agent, turn, given, list(offers.values()))

    def _offers(self, turn: Turn, given: TurnInput) -> Mapping[str, Offer]:
        if turn.config.server_tools is False:
            return {}
        taken = {tool.name for tool in given.tools}
        return self._catalogue.offers(taken, may_ask=turn.request.answers_conversation)

    async def _answer(
        self, agent: Agent, turn: Turn, given: TurnInput, offers: Sequence[Offer]
    ) -> AsyncGenerator[Output, None]:
        items = list(given.items)
        async with aclosing(self._run_approved(turn, items)) as outputs:
            async for output in outputs:
                yield output
        by_name = {offer.name: offer for offer in offers}
        tools = (*given.tools, *(offer.function for offer in offers))
        first, bill = 0, Usage()
        for number in range(self._limits.rounds + 1):
            left = _left(given.max_output_tokens, bill)
            if left == 0:
                yield Finish("max_output_tokens")
                return
            asked = replace(
                given,
                # Each request is another one, to whoever knows requests by their keys.
                response_id=f"{given.response_id}-{number}" if number else given.response_id,
                items=tuple(items),
                tools=tools,
                tool_choice=_choice(given.tool_choice, number, self._limits.rounds),
                max_output_tokens=left,
            )
            if self._may_ask is not None and not await self._may_ask(turn, asked, number):
                yield Finish("quota_exceeded")
                return
            round_, finish, paid = Round(by_name, first), Finish(), bill
            async with aclosing(agent.respond(asked)) as said:
                async for output in said:
                    match output:
                        case str():
                            if output:
                                round_.say(output)
                            yield output
                        case FunctionCallPiece():
                            yield round_.call(output) or Working()
                        case Usage():  # at once: the round may fail yet
                            bill = _sum(paid, output)
                            yield bill
                        case Finish():
                            finish = output
                        case _:
                            yield output
            calls, requests = round_.calls, round_.requests
            if finish.reason != "completed" or not (calls or requests):
                yield finish
                return
            if number == self._limits.rounds:
                raise ToolRoundsExceeded
            for piece in round_.held:
                yield piece
            ended: list[ToolEnded] = []
            async with aclosing(self._run_all(turn, calls)) as results:
                async for result in results:
                    if isinstance(result, ToolEnded):
                        ended.append(result)
                    yield result
            for request in requests:
                yield request
            if requests or round_.has_client_calls:
                return  # the next response goes on, with what the user and the client say
            items += round_.items(ended)
            first = round_.next

    async def _run_approved(self, turn: Turn, items: list[Prompted]) -> AsyncGenerator[Output, None]:
        """Run what the user has approved of, and add it to *items*."""
        calls: list[Called] = []
        for request in turn.approved:
            item_id = new_item_id()
            yield ToolCallPiece(item_id, request.arguments, ToolHead(request.name, request.label, request.id))
            offer = self._catalogue.find(request.label, request.name)
            if offer is not None:
                calls.append(Called(item_id, offer, request.arguments))
            else:
                gone = ToolEnded(item_id, error=_GONE)
                items += pair_of(item_id, request.name, request.arguments, gone)
                yield gone
        by_id = {call.item_id: call for call in calls}
        most = self._limits.calls
        for start in range(0, len(calls), most):
            async with aclosing(self._run_all(turn, calls[start : start + most])) as results:
                async for result in results:
                    if isinstance(result, ToolEnded):
                        call = by_id[result.item_id]
                        items += pair_of(call.item_id, call.offer.name, call.arguments, result)
                    yield result

    async def _run_all(
        self, turn: Turn, calls: Sequence[Called]
    ) -> AsyncGenerator[RunsTools | ToolEnded | Working, None]:
        """Run as many of *calls* as may run, all at once, and yield what comes of each when it ends."""
        most = self._limits.calls
        for call in calls[most:]:
            yield ToolEnded(call.item_id, error=ToolError(f"Not run: no more than {most} tools run at once."))
        calls = calls[:most]
        if not calls:
            return
        yield RunsTools(tuple(call.item_id for call in calls))
        # No task group: a generator that is closed inside one raises a group of exceptions.
        tasks = {asyncio.create_task(self._run(turn, call)) for call in calls}
        running = tasks
        try:
            while running:
                done, running = await asyncio.wait(
                    running, timeout=self._limits.sign_interval, return_when=asyncio.FIRST_COMPLETED
                )
                if not done:
                    yield Working()
                for task in done:
                    yield task.result()
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _run(self, turn: Turn, call: Called) -> ToolEnded:
        """Return what came of a call. Every result passes here, on its way to log, client and model."""
        context = ToolContext(key=call.item_id, session_id=turn.session_id, principal=turn.principal)
        ended = await run(call, context, self._limits.call, self._count)
        return ended if self._screen is None else await self._screen(ended, call.offer.toolset.label, turn)


def _choice(wanted: ToolChoice, number: int, rounds: int) -> ToolChoice:
    """Return how the agent chooses in round *number*. What must be called has been, after the first."""
    if number == rounds:
        return "none"
    return wanted if number == 0 or wanted == "none" else "auto"


def _left(most: int | None, bill: Usage) -> int | None:
    return None if most is None else max(most - bill.output_tokens, 0)


def _sum(bill: Usage, usage: Usage) -> Usage:
    """Return both together. What an upstream left out counts as 0."""
    return Usage(
        bill.input_tokens + (usage.input_tokens or 0),
        bill.output_tokens + (usage.output_tokens or 0),
        bill.cached_tokens + (usage.cached_tokens or 0),
    )
