"""The text of one answer: as far as it has been said, and how far its reader has come. No I/O."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from io import StringIO
from itertools import takewhile
from typing import Literal, TypeAlias

from unbroken.client.wire import Usage

__all__ = ["Answer", "Piece", "Restarted", "Result", "Status"]

Status: TypeAlias = Literal["completed", "incomplete", "cancelled", "unknown"]
"""How a turn ended. unknown: the server's log doesn't reach back so far; what is known of the answer is its
text, which may have been cut short."""


@dataclass(frozen=True, slots=True)
class Result:
    """A turn that has ended, and didn't fail.

    Attributes:
        text: The whole answer; behind a call of functions too.
        status: How it ended.
        reason: Why it is ``incomplete`` (``max_output_tokens``, ``content_filter``, ``quota_exceeded``) or
            ``cancelled`` (``client_cancelled``, ``superseded``); else None.
        usage: What was billed. None: nobody has said.

    """

    text: str = field(repr=False)
    status: Status
    reason: str | None = None
    usage: Usage | None = None


@dataclass(frozen=True, slots=True)
class Restarted:
    """What was read of the answer until now is void: this is the answer as it stands. What follows goes on.

    It comes when the server couldn't go on from where the connection was lost, or has begun the answer
    anew. The text is often the same, or longer: all that is said is that it is not known to be.
    As a string it is its text in a new line.
    """

    text: str = field(repr=False)

    def __str__(self) -> str:
        return f"\n{self.text}"


Piece: TypeAlias = str | Restarted
"""What comes of an answer: more of it, or all of it anew."""


class Answer:
    """Whoever takes all pieces, and heeds what restarts, has :attr:`text`: nothing is lost or doubled.

    What isn't taken is merged; it takes no more memory than the text.
    """

    def __init__(
        self, items: Mapping[str, str] | None = None, *, unread: str = "", has_told: bool = False
    ) -> None:
        self._items: dict[str, StringIO] = {}
        self._unread = _written(unread)
        self._has_told = has_told  # whether its reader knows anything of it
        self._is_anew = False  # whether what its reader knows is void
        self._is_held = False
        self.size = 0
        """Characters of all that was said."""
        for item_id, text in (items or {}).items():
            self._put(item_id, text)

    @property
    def text(self) -> str:
        """All of it, as it stands."""
        return "".join(item.getvalue() for item in self._items.values())

    # What is said.

    def say(self, item_id: str, delta: str) -> None:
        """Add to a message of it. Messages stand in the order in which they began.

        What comes to one behind which more was said already stands ahead of what was read: that is void.
        """
        if item_id not in self._items:
            self._items[item_id] = StringIO()
        elif delta and self._has_more_behind(item_id):
            self._is_anew = True
        self._items[item_id].write(delta)
        self._unread.write(delta)
        self.size += len(delta)

    def _has_more_behind(self, item_id: str) -> bool:
        later = takewhile(lambda each: each != item_id, reversed(self._items))
        return any(self._items[each].tell() for each in later)

    def settle(self, item_id: str, text: str) -> None:
        """Note that a message's whole text is *text*. If something else was said, that is void."""
        known = self._items.get(item_id)
        if known is None:
            if text:
                self.say(item_id, text)
        elif known.getvalue() != text:
            self._put(item_id, text)
            self._is_anew = True

    def drop(self, item_ids: Iterable[str]) -> None:
        """Forget messages: they are no part of it any more."""
        for item_id in item_ids:
            if (dropped := self._items.pop(item_id, None)) is not None:
                self.size -= len(dropped.getvalue())
                self._is_anew = True

    def hold(self) -> None:
        """Give nothing until :meth:`release`: it isn't known how it stands."""
        self._is_held = True

    def release(self) -> None:
        """Give it as it stands now."""
        if self._is_held:
            self._is_held, self._is_anew = False, True

    def _put(self, item_id: str, text: str) -> None:
        known = self._items.get(item_id)
        self.size += len(text) - (0 if known is None else len(known.getvalue()))
        self._items[item_id] = _written(text)

    # What is read.

    def take(self) -> Piece | None:
        """Return what has come since the last time, in one piece; None: nothing has."""
        if self._is_held:
            return None
        if self._is_anew:
            self._is_anew, self._unread = False, StringIO()
            if self._has_told:
                return Restarted(self.text)
            piece = self.text
        else:
            piece, self._unread = self._unread.getvalue(), StringIO()
        self._has_told |= piece != ""
        return piece or None

    def state(self) -> dict[str, object]:
        """Return it for another process, as arguments of this class."""
        if self._is_held or self._is_anew:
            # As it stands is how it is told, there too.
            return {"items": self._texts(), "unread": "", "has_told": self._has_told, "is_anew": True}
        return {"items": self._texts(), "unread": self._unread.getvalue(), "has_told": self._has_told}

    @classmethod
    def restore(cls, state: Mapping[str, object]) -> Answer:
        """Return what :meth:`state` made *state* of.

        Raises:
            KeyError, TypeError, ValueError: It made none of it.

        """
        items = state["items"]
        if not isinstance(items, dict):
            raise TypeError("items")
        answer = cls(items, unread=str(state["unread"]), has_told=bool(state["has_told"]))
        answer._is_anew = bool(state.get("is_anew", False))
        return answer

    def _texts(self) -> dict[str, str]:
        return {item_id: item.getvalue() for item_id, item in self._items.items()}


def _written(text: str) -> StringIO:
    written = StringIO()  # an initial value would be overwritten
    written.write(text)
    return written
