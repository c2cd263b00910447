"""Who may wait: so many at once, and no more than a share of them for one."""

from __future__ import annotations

from collections import Counter

__all__ = ["Places"]


class Places:
    """Places in a queue.

    Args:
        most: How many there are.
        share: How many of these may be taken under one name, from 0 to 1: nobody keeps out all others.

    """

    def __init__(self, most: int, share: float) -> None:
        self._most = most
        self._most_each = max(1, most * share)
        self._taken: Counter[str] = Counter()

    def take(self, name: str, count: int = 1) -> bool:
        """Take *count* places, and return True; False: there aren't so many. Whoever takes some leaves them.

        Who has none gets them wherever one is free, even if they are more than a share: what needs
        many would never have any.
        """
        taken, total = self._taken[name], self._taken.total()
        fits = taken + count <= self._most_each and total + count <= self._most
        if not fits and (taken or total >= self._most):
            return False
        self._taken[name] += count
        return True

    def leave(self, name: str, count: int = 1) -> None:
        """Give places back."""
        self._taken[name] -= count
        if not self._taken[name]:
            del self._taken[name]
