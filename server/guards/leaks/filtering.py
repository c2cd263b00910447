"""What an agent says, on its way to the log: the shell around the filter.

It holds no word longer than it has to while the agent is silent, lets go of what is held when the
answer is cut short, and stops an answer that must not go on.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Iterable, Iterator
from contextlib import aclosing, suppress
from dataclasses import replace
from typing import Final

import structlog

from unbroken.server.guards.leaks.answer import AnswerChanged, AnswerFilter, Watch
from unbroken.server.guards.leaks.name_count import NameCount
from unbroken.server.guards.leaks.name_reading import NameReading, acts_on_names, looks_for_names
from unbroken.server.guards.leaks.name_stage import NameStage
from unbroken.server.guards.leaks.names import NamesIn
from unbroken.server.guards.leaks.policy import LeakPolicy
from unbroken.server.guards.leaks.portions import ACTS, AT_ONCE, portions, size_of
from unbroken.server.guards.leaks.recogniser import NamesUnread
from unbroken.sessions.clock import Clock, Timer
from unbroken.sessions.responder import Finish, Interjection, Output, Resumption, Turn

__all__ = ["LeakFiltering"]

_BLOCKED: Final = Finish("content_filter")

_IN_PIECES: Final = 2048
"""Characters of ordinary pieces after which others have their turn: an agent may never wait for anything."""

_PIECE: Final = 8
"""Characters that each piece counts for beside its own."""


class LeakFiltering:
    """Filters answers.

    Args:
        policy: Whose are filtered how.
        clock: Where time comes from.
        reading: What reads names and addresses, where a plan's rules look for them. None: no plan's do.

    """

    def __init__(self, policy: LeakPolicy, clock: Clock, reading: NameReading | None = None) -> None:
        self._policy = policy
        self._clock = clock
        self._reading = reading
        self._patience = _Patience(clock, policy.rules.hold)

    def filtered(
        self, turn: Turn, respond: Callable[[Turn], AsyncGenerator[Output, None]]
    ) -> AsyncGenerator[Output, None]:
        """Yield what may leave of the answer that *respond* gives to *turn*.

        The answer is closed, and ends for the reason ``content_filter``, once something is found that
        blocks it. When the answer is cut short, what is held leaves first: redacted, if need be.

        Raises:
            AnswerChanged: It is resumed, and isn't what it was.

        """
        if self._reading is None:
            return self._formed(turn, respond)
        return self._named(turn, respond, self._reading)

    async def _named(
        self, turn: Turn, respond: Callable[[Turn], AsyncGenerator[Output, None]], reading: NameReading
    ) -> AsyncGenerator[Output, None]:
        """Yield what both let pass: the filter of what has a form, and behind it the reading of names."""
        watch = await self._policy.watch_for(turn)
        if watch is None or not looks_for_names(watch.actions):
            answer, names = self._formed(turn, respond, watch), None
        else:
            is_held = not watch.is_shadow and acts_on_names(watch.actions)
            names = NamesIn(
                reading,
                watch.actions,
                watch.placeholder,
                principal=turn.principal,
                is_held=is_held,
                tool_outputs=watch.tool_outputs,
                resumption=turn.resumption if is_held else None,
            )

            def formed(given: Turn) -> AsyncGenerator[Output, None]:
                return self._formed(given, respond, watch, is_checked=not is_held, heard=turn.interjection)

            stage = NameStage(names, self._clock, reading.hold) if is_held else NameCount(names)
            answer = stage.passed(turn, formed)
        try:
            async with aclosing(answer) as outputs:
                async for output in outputs:
                    yield output
        finally:
            if names is not None and watch is not None:
                self._policy.note(names.reader.found, is_shadow=watch.is_shadow)

    async def _formed(
        self,
        turn: Turn,
        respond: Callable[[Turn], AsyncGenerator[Output, None]],
        watch: Watch | None = None,
        *,
        is_checked: bool = True,
        heard: Interjection | None = None,
    ) -> AsyncGenerator[Output, None]:
        """Yield what has no form that is watched for. Whether a resumed answer is what it was is checked
        where *is_checked*; else it is later. *heard* says whether anybody wants the answer still; None: the
        turn's own.
        """
        if watch is None:
            watch = await self._policy.watch_for(turn)
        if watch is None:
            async with aclosing(respond(turn)) as outputs:
                async for output in outputs:
                    yield output
            return
        is_known = is_checked and not watch.is_shadow
        answer = AnswerFilter(watch, turn.resumption if is_known else None)
        if turn.resumption is not None and not watch.is_shadow:
            # The upstream counts what it said; the log holds what was left of it. See the filter.
            turn = replace(turn, resumption=Resumption(turn.resumption.handle, 0))
        pending = self._patience.begin(answer, turn.interjection)  # in shadow nothing is ever held
        left: Iterator[Output | None] = iter(())  # what has yet to leave of the output that came last
        try:
            async with aclosing(respond(turn)) as outputs:
                looked_at = 0  # characters, since others had their turn
                async for output in outputs:
                    pending.is_quiet = False
                    size = len(output) if type(output) is str else size_of(output)
                    left = iter(answer.take(output)) if size <= AT_ONCE else answer.steps(output)
                    for step in left:
                        if step is not None:
                            yield step
                        else:
                            await asyncio.sleep(0)
                            pending.is_quiet = False
                    if answer.is_blocked:
                        break
                    looked_at += size + _PIECE
                    if looked_at >= _IN_PIECES:
                        looked_at = 0
                        await asyncio.sleep(0)
            left = iter(answer.finish())
            for released in left:
                if released is not None:
                    yield released
            if answer.is_blocked:
                structlog.get_logger().warning("answer blocked", found=_names(answer))
                yield _BLOCKED
        except (asyncio.CancelledError, GeneratorExit):
            self._patience.end(pending)
            # Where its user has cancelled it, nobody takes what is put there.
            await _cut_short(answer, left if (heard or turn.interjection).is_heard else (), turn.interjection)
            raise
        except Exception:
            for released in answer.cut():
                yield released
            raise
        finally:
            self._patience.end(pending)
            self._policy.note(answer.found, is_shadow=watch.is_shadow)

    async def finds(self, turn: Turn, text: str) -> bool:
        """Return whether anything in *text*, a whole answer to *turn*, is watched for, or may be: where the
        model of names has much to do, nobody looks. Nothing is counted.
        """
        watch = await self._policy.watch_for(turn)
        if watch is None:
            return False
        answer = AnswerFilter(watch)
        for portion in portions(text):
            answer.take(portion)
            await asyncio.sleep(0)  # an answer may be long, and others have their turn
        answer.cut()
        if answer.found.total() or self._reading is None or not looks_for_names(watch.actions):
            return answer.found.total() > 0
        reading = replace(self._reading, fails_closed=True, unread=lambda _: None)
        names = NamesIn(reading, watch.actions, watch.placeholder, principal=turn.principal, gives_way=True)
        try:
            for portion in portions(text):
                await names.take(portion)
                if names.reader.found.total():
                    return True
                await asyncio.sleep(0)
            await names.finish()
        except NamesUnread:
            return True  # nobody knows
        return names.reader.found.total() > 0


async def _cut_short(answer: AnswerFilter, left: Iterable[Output | None], interjection: Interjection) -> None:
    """Put what is *left* of an output, and what is held, where it is heard still. Tools are no longer run."""
    with suppress(AnswerChanged):  # then nothing of it leaves
        for step in left:
            if step is None:
                await asyncio.sleep(0)
            elif not isinstance(step, ACTS):
                interjection.put(step)
    for released in answer.cut():
        interjection.put(released)


def _names(answer: AnswerFilter) -> list[str]:
    return sorted(entity for entity, action in answer.found if action == "block")


class _Pending:
    """An answer that is being filtered."""

    __slots__ = ("answer", "interjection", "is_quiet")

    def __init__(self, answer: AnswerFilter, interjection: Interjection) -> None:
        self.answer = answer
        self.interjection = interjection
        self.is_quiet = False
        """Set again and again: whether nothing has come since."""


class _Patience:
    """Lets go of an ordinary word when nothing has come for a while: between once and twice *seconds*.

    One timer for all answers: one for each would cost more than the filter.
    """

    def __init__(self, clock: Clock, seconds: float) -> None:
        self._clock = clock
        self._seconds = seconds
        self._answers: dict[_Pending, None] = {}
        self._timer: Timer | None = None

    def begin(self, answer: AnswerFilter, interjection: Interjection) -> _Pending:
        """Look after an answer, until :meth:`end`."""
        pending = _Pending(answer, interjection)
        self._answers[pending] = None
        if self._timer is None:
            self._wait()
        return pending

    def end(self, pending: _Pending) -> None:
        """Look after it no more. Harmless when that was done."""
        self._answers.pop(pending, None)
        if not self._answers and self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _wait(self) -> None:
        self._timer = self._clock.call_later(self._seconds, self._look)

    def _look(self) -> None:
        self._wait()
        for pending in tuple(self._answers):  # whoever is told may end
            if pending.is_quiet:
                for shown in pending.answer.show():
                    pending.interjection.put(shown)
            pending.is_quiet = True
