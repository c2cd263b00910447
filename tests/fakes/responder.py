"""A responder that says what the test tells it to, when the test tells it to."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import AsyncGenerator

from unbroken.sessions.responder import Handle, Output, Turn

__all__ = ["ManualResponder", "ManualTurn"]


class ManualTurn:
    """One turn in progress. Fault verbs: :meth:`fail`, :attr:`ignores_cancel`, :attr:`hangs_on_close`."""

    def __init__(self, turn: Turn) -> None:
        self.turn = turn
        self.is_closed = False
        """Whether the responder has been stopped, or has ended."""
        self.closed = asyncio.Event()
        self.ignores_cancel = False
        self.hangs_on_close: asyncio.Event | None = None
        self.cancelled: list[str] = []
        """What its upstream was told to stop: it keeps whatever has a handle."""
        self._handle = None if turn.resumption is None else turn.resumption.handle
        self._script: asyncio.Queue[Output | BaseException | None] = asyncio.Queue()

    def say(self, *pieces: Output) -> None:
        for piece in pieces:
            self._script.put_nowait(piece)

    def end(self) -> None:
        self._script.put_nowait(None)

    def fail(self, exc: BaseException) -> None:
        self._script.put_nowait(exc)

    async def outputs(self) -> AsyncGenerator[Output, None]:
        try:
            while True:
                try:
                    step = await self._script.get()
                except asyncio.CancelledError:
                    if self.ignores_cancel:
                        continue
                    raise
                if step is None:
                    self._handle = None
                    return
                if isinstance(step, BaseException):
                    raise step
                if isinstance(step, Handle):
                    if not step.value:
                        self._leave_handle()
                    self._handle = step.value or None
                yield step
        finally:
            self._leave_handle()
            if self.hangs_on_close is not None:
                await self.hangs_on_close.wait()
            self.is_closed = True
            self.closed.set()

    def _leave_handle(self) -> None:
        if self._handle is not None:
            self.turn.custody.stop(functools.partial(self.cancelled.append, self._handle))


class ManualResponder:
    """Implements :class:`unbroken.sessions.responder.Responder`."""

    def __init__(self) -> None:
        self.turns: list[ManualTurn] = []
        """All turns ever begun, in order."""
        self.can_resume = False
        self.abandoned: list[str] = []
        """What upstreams were told to stop."""

    @property
    def last(self) -> ManualTurn:
        return self.turns[-1]

    @property
    def cancelled(self) -> list[str]:
        """What upstreams were told to stop, by those who read it or instead of one who did."""
        return [*(handle for turn in self.turns for handle in turn.cancelled), *self.abandoned]

    @property
    def open(self) -> list[ManualTurn]:
        return [turn for turn in self.turns if not turn.is_closed]

    async def abandon(self, handle: str) -> None:
        self.abandoned.append(handle)

    def respond(self, turn: Turn) -> AsyncGenerator[Output, None]:
        manual = ManualTurn(turn)
        self.turns.append(manual)
        return manual.outputs()
