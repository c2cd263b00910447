"""One answer on its way through the reading of names: the shell around it.

A sentence that isn't over in time is read as far as it has come, and leaves. When the answer is cut
short, what is held is read within a moment, or dropped; when its user cancels it, it is dropped at once.
"""

from __future__ import annotations

import asyncio
import functools
from collections import deque
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from dataclasses import replace
from typing import Final

import structlog

from unbroken.server.guards.leaks.names import NamesIn
from unbroken.server.guards.leaks.portions import ACTS
from unbroken.server.guards.leaks.recogniser import NamesUnread
from unbroken.server.guards.leaks.resumed import AnswerChanged
from unbroken.sessions.clock import Clock, Timer
from unbroken.sessions.responder import Finish, Interjection, Output, Turn

__all__ = ["NameStage"]

_BLOCKED: Final = Finish("content_filter")

_LAST: Final = 0.5
"""Seconds that an answer that is cut short waits for what it holds to be read."""


class NameStage:
    """The way of one answer.

    Args:
        names: Reads it.
        clock: Where time comes from.
        hold: Seconds that the beginning of a sentence waits for its end.

    """

    def __init__(self, names: NamesIn, clock: Clock, hold: float) -> None:
        self._names = names
        self._clock = clock
        self._hold = hold
        self._lock = asyncio.Lock()  # of the reading: time may be up while an output is being read
        self._aside: deque[Output] = (
            deque()
        )  # what has yet to be taken: that too which was said while the answer waited
        self._timer: Timer | None = None
        self._sentences = 0  # how many had left when the timer was set
        self._is_due = False  # the time of the sentence that is held is up
        self._reading: asyncio.Task[None] | None = None  # while the answer waits
        self._failure: AnswerChanged | None = None  # met when time was up
        self._waiting: asyncio.Timeout | None = None  # for what is said next

    async def passed(
        self, turn: Turn, respond: Callable[[Turn], AsyncGenerator[Output, None]]
    ) -> AsyncGenerator[Output, None]:
        """Yield what may leave of the answer that *respond* gives to *turn*.

        Raises:
            AnswerChanged: It is resumed, and isn't what it was.
            NamesUnread: A sentence couldn't be read.

        """
        outer, inner = turn.interjection, Interjection()
        inner.take = functools.partial(self._set_aside, outer)
        try:
            async with aclosing(respond(replace(turn, interjection=inner))) as outputs:
                while (output := await self._next(outputs)) is not None:
                    self._aside.append(output)  # where nothing that is stopped loses it
                    async with self._lock:
                        if self._failure is not None:
                            raise self._failure
                        await self._take_aside()
                        while self._names.ready:
                            yield self._names.ready.popleft()
                    if self._names.is_blocked:
                        break
                    self._watch(outer)
            await self._stop()
            if self._failure is not None:
                raise self._failure
            if not self._names.is_blocked:
                await self._take_aside()
                await self._names.finish()
                while self._names.ready:
                    yield self._names.ready.popleft()
            if self._names.is_blocked:
                blocked = sorted(entity for entity, action in self._names.reader.found if action == "block")
                structlog.get_logger().warning("answer blocked", found=blocked)
                yield _BLOCKED
        except (asyncio.CancelledError, GeneratorExit):
            await self._stop()
            if outer.is_heard:  # else its user has cancelled it, and waits
                await self._read_last()
            self._names.let_go()
            while self._names.ready:
                if not isinstance(output := self._names.ready.popleft(), ACTS):
                    outer.put(output)
            raise
        except Exception as exc:
            await self._stop()
            if not isinstance(exc, NamesUnread):  # what couldn't be read doesn't leave
                await self._read_last()
            self._names.let_go()
            while self._names.ready:
                yield self._names.ready.popleft()
            raise
        finally:
            await self._stop()

    async def _next(self, outputs: AsyncGenerator[Output, None]) -> Output | None:
        """Return what is said next. None: nothing is, or nothing may be, as was found meanwhile."""
        if self._is_over:
            return None
        waiting = asyncio.timeout(None)
        try:
            async with waiting:
                self._waiting = waiting
                return await anext(outputs)
        except StopAsyncIteration:
            return None
        except TimeoutError:
            if waiting.expired():
                return None
            raise
        finally:
            self._waiting = None

    @property
    def _is_over(self) -> bool:
        return self._names.is_blocked or self._failure is not None

    async def _take_aside(self) -> None:
        while self._aside:
            output = self._aside.popleft()
            try:
                await self._names.take(output)
            except asyncio.CancelledError:
                if not self._names.has_taken:
                    self._aside.appendleft(output)
                raise

    async def _read_last(self) -> None:
        try:
            async with asyncio.timeout(_LAST):
                await self._take_aside()
                await self._names.finish(is_whole=False)
        except (TimeoutError, AnswerChanged, NamesUnread):
            pass  # what wasn't read doesn't leave

    def _set_aside(self, outer: Interjection, output: Output) -> None:
        self._aside.append(output)
        self._go_on(outer)

    # Time.

    def _watch(self, outer: Interjection) -> None:
        """Look again when the sentence that is held now has been held for long enough."""
        if self._names.reader.sentences != self._sentences or not self._names.held:
            self._sentences = self._names.reader.sentences
            self._disarm()
        if self._names.held and self._timer is None:
            self._timer = self._clock.call_later(self._hold, lambda: self._time_is_up(outer))

    def _time_is_up(self, outer: Interjection) -> None:
        self._timer = None
        self._is_due = True
        self._go_on(outer)

    def _go_on(self, outer: Interjection) -> None:
        if self._reading is None or self._reading.done():
            self._reading = asyncio.create_task(self._read_on(outer))

    async def _read_on(self, outer: Interjection) -> None:
        """Read what was said while the answer waited, and the sentence whose time is up."""
        while (self._aside or self._is_due) and not self._is_over:
            async with self._lock:
                try:
                    await self._take_aside()
                    if self._is_due:
                        self._is_due = False
                        await self._names.cut()
                except NamesUnread:
                    self._names.let_go()  # the sentence waits: it is tried again, and fails the answer then
                except AnswerChanged as exc:
                    self._failure = exc  # raised where the answer goes on
                while self._names.ready:
                    outer.put(self._names.ready.popleft())
        if not self._is_over:
            self._watch(outer)
        elif self._waiting is not None and self._waiting.when() is None:
            self._waiting.reschedule(0.0)  # at once: its agent may say nothing more for long

    def _disarm(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    async def _stop(self) -> None:
        """End what time has begun."""
        self._disarm()
        if (reading := self._reading) is not None:
            self._reading = None
            reading.cancel()
            await asyncio.gather(reading, return_exceptions=True)
