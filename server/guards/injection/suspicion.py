"""How much a session gave rise to suspicion: what was tried before counts, and is forgotten by and by."""

from __future__ import annotations

from collections import OrderedDict
from typing import Final, Protocol

from unbroken.sessions.clock import Clock
from unbroken.sessions.ids import SessionId

__all__ = ["HALF_LIFE", "LEAST", "MOST", "MemorySuspicion", "Suspicion", "raised"]

HALF_LIFE: Final = 600.0
"""Seconds after which half of it is forgotten."""

LEAST: Final = 0.3
"""The least score of a message that adds to it, or that it adds to: small talk stays small talk."""

MOST: Final = 2.0
"""What a session is suspected of at most, in scores."""

_SHARE: Final = 0.3
_SESSIONS: Final = 50_000
"""Some 10 MB."""


class Suspicion(Protocol):
    """Remembers sessions' scores.

    Guarantees: what was added counts for half as much after each :data:`HALF_LIFE`; never more than
    a small number in all, so that a session can be used again; everything it remembers expires.
    """

    async def add(self, session_id: SessionId, score: float) -> float:
        """Add *score* to a session's, and return what it was before. Never fails: 0 if it isn't known."""


class MemorySuspicion:
    """A :class:`Suspicion` of one node.

    Args:
        clock: Where time comes from.
        sessions: How many are remembered; the one that was suspected longest ago is forgotten first.

    """

    def __init__(self, clock: Clock, *, sessions: int = _SESSIONS) -> None:
        self._clock = clock
        self._most = sessions
        self._known: OrderedDict[SessionId, tuple[float, float]] = OrderedDict()  # each with when it was so

    def __len__(self) -> int:
        return len(self._known)

    async def add(self, session_id: SessionId, score: float) -> float:
        """See :meth:`Suspicion.add`."""
        now = self._clock.monotonic()
        amount, since = self._known.pop(session_id, (0.0, now))
        before = amount * 0.5 ** ((now - since) / HALF_LIFE)
        self._known[session_id] = min(before + score, MOST), now
        if len(self._known) > self._most:
            self._known.popitem(last=False)
        return float(before)


def raised(score: float, before: float) -> float:
    """Return a message's *score* in a session of which *before* is remembered."""
    return 1 - (1 - score) * (1 - _SHARE * min(before, MOST))
