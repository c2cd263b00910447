"""A conversation as its items tell, in order: what an answer has to know of what was said before."""

from __future__ import annotations

from tests.chaos.words import digest

__all__ = ["Talk"]


class Talk:
    """Messages in order. Whether all are known is known, too."""

    def __init__(self) -> None:
        self.is_whole = True
        """False: something came behind an item that was never shown."""
        self._order: list[str] = []
        self._said: dict[str, tuple[str, str]] = {}

    def add(self, item_id: str, role: str, text: str, previous: str | None) -> None:
        """Put a message behind *previous*; None: it is the first. One that is there already stays."""
        if item_id in self._said:
            return
        if previous is not None and previous not in self._said:
            self.is_whole = False
            place = len(self._order)
        else:
            place = 0 if previous is None else self._order.index(previous) + 1
        self._order.insert(place, item_id)
        self._said[item_id] = role, text

    def close(self, item_id: str, text: str) -> None:
        """Note what a message says, now that it is whole."""
        if item_id in self._said:
            self._said[item_id] = self._said[item_id][0], text

    def delete(self, item_id: str) -> None:
        """Remove a message."""
        if self._said.pop(item_id, None) is not None:
            self._order.remove(item_id)

    def before(self, item_id: str) -> str | None:
        """Return the digest of what was said before a message; None: not all of that is known."""
        if not self.is_whole:
            return None
        return digest([self._said[each] for each in self._order[: self._order.index(item_id)]])
