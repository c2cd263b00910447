"""A turn, as its caller sees it: what comes of the answer, how it ends, and a way to stop it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Self

from unbroken.client.answer import Piece, Result
from unbroken.client.errors import ClientError
from unbroken.client.exchange import Exchange

__all__ = ["Turn"]


class Turn:
    """What :meth:`Client.send` returns. Iterate over it for the answer, piece by piece.

    Each piece comes once, to whoever iterates; pieces that nobody has taken are one when it is their turn.
    A piece is a string, which goes on from those before it, or :class:`Restarted`, which voids them.
    All waiting can be cancelled, and loses nothing.
    """

    def __init__(self, exchange: Exchange, stop: Callable[[Exchange], None]) -> None:
        self._exchange = exchange
        self._stop = stop
        self._changed = asyncio.Event()
        self._ended = asyncio.Event()
        exchange.on_change = self._wake

    @property
    def id(self) -> str:
        """Its name."""
        return self._exchange.id

    @property
    def message(self) -> str:
        """What was said."""
        return self._exchange.message

    @property
    def text(self) -> str:
        """The answer as far as it has come, taken or not."""
        return self._exchange.answer.text

    @property
    def is_over(self) -> bool:
        """Whether it has ended: :meth:`result` returns at once."""
        return self._exchange.is_over

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Piece:
        """Return what has come of the answer since the last time.

        Raises:
            StopAsyncIteration: It has ended, and all of it was taken.
            ClientError: It has ended otherwise, as for :meth:`result`; what had come of it was taken.

        """
        while True:
            self._changed.clear()
            piece = self._exchange.answer.take()
            if piece is not None:
                return piece
            outcome = self._exchange.outcome
            if isinstance(outcome, Result):
                raise StopAsyncIteration
            if outcome is not None:
                raise outcome
            await self._changed.wait()

    async def result(self) -> Result:
        """Wait for the end, and return the whole answer. What wasn't taken can still be.

        Raises:
            Refused: The server didn't take the message, or wouldn't answer it.
            AnswerFailed: It failed to answer.
            SessionGone, Unreachable, ClientClosed: Nobody knows what becomes of it.
            ClientError: As the package's docstring says.

        """
        if not self.is_over:
            await self._ended.wait()
        match self._exchange.outcome:
            case Result() as result:
                return result
            case ClientError() as error:
                raise error
            case None:
                raise AssertionError("can't happen: it is over")

    def stop(self) -> None:
        """Stop it: at once if nothing was asked yet, else as soon as the server has heard of it.

        It then ends as ``cancelled``, with what was said, unless it ends otherwise meanwhile.
        """
        self._stop(self._exchange)

    def _wake(self) -> None:
        self._changed.set()
        if self.is_over:
            self._ended.set()

    def __repr__(self) -> str:
        return f"<Turn {self.id} {self._exchange.phase.value}>"
