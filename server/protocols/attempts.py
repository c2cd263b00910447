"""A turn that is attempted again: how its next attempt is known, and one answer told of all its attempts."""

from __future__ import annotations

import abc
from collections.abc import Iterable, Iterator
from typing import TypeGuard

from unbroken.sessions.entries import Body, ResponseDone, ResponseStarted
from unbroken.sessions.event_log import Record, Slice
from unbroken.sessions.ids import ResponseId

__all__ = ["TurnEncoder", "is_next_attempt"]


def is_next_attempt(body: Body, turn: int) -> TypeGuard[ResponseStarted]:
    """Return whether *body*, written with the end of an attempt at *turn*, begins a further one."""
    return isinstance(body, ResponseStarted) and body.turn == turn and body.attempt > 1


class TurnEncoder(abc.ABC):
    """Encodes one answer for one client: feed it what the log says of it, from its beginning on.

    Args:
        response_id: The response. A further attempt at the same turn is gone on with.

    """

    def __init__(self, response_id: ResponseId) -> None:
        self._id = response_id
        self._turn = 0
        self._left: list[bytes] | None = None  # to be said of an attempt that another may follow
        self.is_done = False
        """Whether the answer has ended: nothing follows."""

    def encode(self, records: Iterable[Record], *, is_last: bool = True) -> Iterator[bytes]:
        """Yield what is said of *records*, those of other responses aside.

        *is_last*: nothing follows these so far. A further attempt would have: it is written with the end of
        the one before.
        """
        for record in records:
            if isinstance(record, Slice):
                if record.response_id == self._id:
                    yield from self._pieces(record)
                continue
            body = record.body
            if self._left is not None and is_next_attempt(body, self._turn):
                self._id, self._left = body.response_id, None
                yield from self._begun_anew(body)
            elif getattr(body, "response_id", None) == self._id:
                if isinstance(body, ResponseStarted):
                    self._turn = body.turn
                yield from self._told(body)
        if is_last and self._left is not None:
            self.is_done = True
            left, self._left = self._left, None
            yield from left

    def _over(self, body: ResponseDone, left: list[bytes]) -> Iterator[bytes]:
        """Yield what is *left* to be said of an attempt that has ended, unless another may follow."""
        if body.status == "interrupted":
            self._left = left
            return
        self.is_done = True
        yield from left

    @abc.abstractmethod
    def _pieces(self, piece: Slice) -> Iterator[bytes]:
        """Yield what is said of pieces."""

    @abc.abstractmethod
    def _told(self, body: Body) -> Iterator[bytes]:
        """Yield what is said of an entry of the attempt."""

    @abc.abstractmethod
    def _begun_anew(self, body: ResponseStarted) -> Iterator[bytes]:
        """Yield what is said of a further attempt as it begins."""
