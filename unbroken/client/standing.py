"""What a conversation shows of one turn to whoever starts over: what stands behind what was said. No I/O."""

from __future__ import annotations

from collections.abc import Iterable

from unbroken.client.wire import Item

__all__ = ["Standing"]


class Standing:
    """Is shown the conversation's items in their order, and picks those that may be the turn's answer.

    Args:
        known: The ids of messages that are known to be of it.

    """

    def __init__(self, known: Iterable[str] = ()) -> None:
        self.is_there = False
        """Whether what was said has been shown."""
        self.items: list[Item] = []
        """Whole ones of the agent, and of what functions returned, behind that."""
        self._known = frozenset(known)
        self._is_behind = False

    def begin(self) -> None:
        """Note that what was said is shown: what is shown from here on stands behind it."""
        self.is_there = self._is_behind = True
        self.items = []

    def note(self, item: Item) -> None:
        """Note any other item. Behind what somebody else has said, only what is known is of this turn."""
        if item.role in ("user", "system"):
            self._is_behind = False
        elif (self._is_behind or item.id in self._known) and item.status != "in_progress":
            self.items.append(item)

    @property
    def ids(self) -> set[str]:
        """The messages and calls that were found."""
        return {item.id for item in self.items if item.kind in ("message", "function_call")}

    @property
    def is_known(self) -> bool:
        """Whether what was found is of this turn, for sure."""
        return not self._known.isdisjoint(self.ids)

    @property
    def is_whole(self) -> bool:
        """Whether nothing that was found was cut short."""
        return all(item.status == "completed" for item in self.items)

    @property
    def messages(self) -> list[Item]:
        """The messages that were found."""
        return [item for item in self.items if item.kind == "message"]

    @property
    def open_calls(self) -> list[Item]:
        """The calls that were found, are whole, and have no output yet."""
        answered = {item.call_id for item in self.items if item.kind == "function_call_output"}
        return [
            item
            for item in self.items
            if item.kind == "function_call" and item.status == "completed" and item.call_id not in answered
        ]
