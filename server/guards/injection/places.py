"""Who may wait: so many at once, and no more than a share of them for one."""

from __future__ import annotations

from collections import Counter

from unbroken.sessions.ids import PrincipalId

__all__ = ["Places"]


class Places:
    """Places in a queue.

    Args:
        most: How many there are.
        share: How many of these may be one principal's, from 0 to 1: nobody keeps out all others.

    """

    def __init__(self, most: int, share: float) -> None:
        self._most = most
        self._most_each = max(1, most * share)
        self._taken: Counter[PrincipalId] = Counter()

    def take(self, principal: PrincipalId) -> bool:
        """Take a place, and return True; False: there is none. Whoever takes one leaves it."""
        if self._taken.total() >= self._most or self._taken[principal] >= self._most_each:
            return False
        self._taken[principal] += 1
        return True

    def leave(self, principal: PrincipalId) -> None:
        """Give a place back."""
        self._taken[principal] -= 1
        if not self._taken[principal]:
            del self._taken[principal]
