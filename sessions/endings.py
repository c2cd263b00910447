"""How a session's latest responses ended: what is known of each when the log has forgotten it.

The text is the conversation's, which keeps it anyway; here is which items it is in.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Final

import msgspec
from msgspec import UNSET, Struct, UnsetType
from msgspec.structs import replace

from unbroken.sessions.entries import Failure, ResponseDone, Status
from unbroken.sessions.ids import ItemId, ResponseId
from unbroken.sessions.items import Note, Usage
from unbroken.sessions.response import Response

__all__ = ["Ended", "Endings"]

_MOST: Final = 32
_MOST_BYTES: Final = 16 * 1024

_COST: Final = 700
"""Bytes of one beside what clients and agents said of it."""


class Ended(Struct, frozen=True, omit_defaults=True):
    """An attempt in the conversation that has ended."""

    id: ResponseId
    status: Status
    anchor: ItemId | None
    """The last item that it answers. None: there was none."""
    end: ItemId | None
    """What follows it belongs behind this. None: at the beginning."""
    output: tuple[ItemId, ...] = ()
    """The items of the conversation that are its own, in order. They may have been deleted since."""
    reason: str | None = None
    failure: Failure | None = None
    usage: Usage | None = None
    metadata: dict[str, str] | None = None
    notes: dict[str, Note] | UnsetType = UNSET
    turn: int = 0
    """The input that it answers."""
    is_deleted: bool = False
    """Whether all that it said has been taken out of the conversation: nobody is shown it any more."""

    @classmethod
    def of(cls, response: Response, done: ResponseDone, end: ItemId | None) -> Ended:
        """Return how *response* ended."""
        return cls(
            response.id,
            done.status,
            response.anchor,
            end,
            tuple(each.item_id for each in response.outputs if each.in_conversation),
            done.reason,
            done.failure,
            done.usage,
            done.metadata,
            done.notes,
            response.turn,
        )

    @property
    def size(self) -> int:
        """Bytes it takes, roughly."""
        said = (self.output, self.failure, self.metadata)
        return _COST + 2 * len(msgspec.json.encode(said))


class Endings:
    """The latest of a session, so many and so many bytes of them; of the last one there is always one."""

    __slots__ = ("_kept", "size")

    def __init__(self, kept: tuple[Ended, ...] = ()) -> None:
        self._kept: dict[ResponseId, Ended] = {}
        self.size = 0
        """Bytes they take, roughly."""
        for each in kept:
            self.note(each)

    def __iter__(self) -> Iterator[Ended]:
        """Iterate over them, the one that ended last last."""
        return iter(self._kept.values())

    def get(self, response_id: str) -> Ended | None:
        """Return how a response ended; None: it hasn't, or nobody knows any more."""
        return self._kept.get(ResponseId(response_id))

    def of_turn(self, turn: int) -> Ended | None:
        """Return how the response to an input ended, at its last attempt; None: nobody knows."""
        return next((each for each in reversed(self._kept.values()) if each.turn == turn), None)

    def attempts(self, response_id: str) -> list[Ended]:
        """Return how a response ended, and other attempts at its turn, in order; empty: nobody knows."""
        ended = self.get(response_id)
        if ended is None or not ended.turn:
            return [] if ended is None else [ended]
        return [each for each in self if each.turn == ended.turn]

    def later_attempt(self, response_id: str, running: Iterable[Response]) -> ResponseId | None:
        """Return the latest attempt at the turn of a response that was cut off; None: nobody knows of one."""
        ended = self.get(response_id)
        if ended is None or ended.status != "interrupted" or not ended.turn:
            return None
        for each in running:
            if each.turn == ended.turn and each.number > 1:
                return each.id
        last = self.of_turn(ended.turn)
        return None if last is None or last.id == response_id else last.id

    def note_deleted(self, item_id: ItemId) -> None:
        """Take in that an item has left the conversation."""
        for ended in self._kept.values():
            if item_id in ended.output:
                rest = tuple(each for each in ended.output if each != item_id)
                self.size -= ended.size
                changed = replace(ended, output=rest, is_deleted=not rest)
                self._kept[ended.id] = changed
                self.size += changed.size
                return

    def note(self, ended: Ended) -> None:
        """Take in how one more ended."""
        self._kept[ended.id] = ended
        self.size += ended.size
        while len(self._kept) > 1 and (len(self._kept) > _MOST or self.size > _MOST_BYTES):
            self.size -= self._kept.pop(next(iter(self._kept))).size
