"""What follows when a connection has ended, or couldn't be had. No I/O, no clock.

Whoever restarts, is overloaded or has failed is come back to, after a pause; who says that it would be in
vain isn't.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, TypeAlias

from unbroken.client.backoff import Backoff
from unbroken.client.errors import ClientError, ProtocolError, Refused
from unbroken.client.limits import Timing

__all__ = ["Again", "Dormant", "Never", "Next", "Rejoining"]


@dataclass(frozen=True, slots=True)
class Again:
    """Connect again, after so many seconds."""

    wait: float


@dataclass(frozen=True, slots=True)
class Dormant:
    """Connect again when there is something to say."""


@dataclass(frozen=True, slots=True)
class Never:
    """Don't connect again."""

    error: ClientError


Next: TypeAlias = Again | Dormant | Never

_IDLE: Final = 1000
_POLICY: Final = 1008
_TOO_LARGE: Final = 1009
_AGAIN: Final = frozenset({1001, 1005, 1006, 1011, 1012, 1013, 1014, 1015})
"""RFC 6455, 7.4.1, and the registry behind it: the server goes, fails, restarts, or has too much to do."""
_TRY_AGAIN: Final = 1013
_MOMENT: Final = 1.0
"""Seconds that whoever says "after a moment" is left alone, at least."""
_AGAIN_STATUSES: Final = frozenset({408, 425, 429, 500, 502, 503, 504})


class Rejoining:
    """Decides when to connect again.

    Args:
        timing: How patient the client is.
        draw: Draws from 0 to 1.
        has_fresh_keys: Whether each connection presents another key: that one has expired ends nothing then.

    """

    def __init__(self, timing: Timing, draw: Callable[[], float], *, has_fresh_keys: bool) -> None:
        self._timing = timing
        self._backoff = Backoff(timing.first_wait, timing.longest_wait, draw)
        self._has_fresh_keys = has_fresh_keys
        self._away_since: float | None = None
        self._welcomed_at: float | None = None
        self.fruitless = 0
        """Attempts in a row that came to nothing. By another number a balancer may choose another node."""

    def begun(self, now: float) -> None:
        """Note that a connection is wanted, and there is none."""
        self._away_since = now if self._away_since is None else self._away_since

    def welcomed(self, now: float) -> None:
        """Note that a connection has shown its session."""
        self._welcomed_at = now
        self._away_since = None
        self.fruitless = 0

    def unreachable(self, error: ClientError, now: float) -> Next:
        """Return what follows when there was no connection."""
        self.fruitless += 1
        return self._again(error, None, now)

    def refused(self, error: Refused, now: float) -> Next:
        """Return what follows when a handshake was refused with an HTTP status."""
        self.fruitless += 1
        if error.status in _AGAIN_STATUSES:
            return self._again(error, error.retry_after, now)
        return Never(error)

    def closed(
        self, code: int, error: Refused | None, why: ClientError, now: float, *, is_idle: bool
    ) -> Next:
        """Return what follows when a connection was closed.

        Args:
            code: The close code; 1006 where there was none.
            error: What its last frame said, if it was an error.
            why: The same in an exception, if there was an error or not.
            now: The time.
            is_idle: Whether there is nothing to say, nor to hear.

        """
        at, self._welcomed_at = self._welcomed_at, None
        if at is None:
            self.fruitless += 1
        elif now - at >= self._timing.stable_after:
            self._backoff.reset()
        if code == _IDLE and is_idle and at is not None:
            return Dormant()
        if code in _AGAIN or code in (_IDLE, _TOO_LARGE):
            asked = None if error is None else error.retry_after
            return self._again(why, _MOMENT if asked is None and code == _TRY_AGAIN else asked, now)
        if (
            code == _POLICY
            and error is not None
            and error.code == "credential_expired"
            and self._has_fresh_keys
        ):
            return self._again(error, None, now)
        return Never(error or ProtocolError(f"{why} It isn't one to come back from."))

    def _again(self, why: ClientError, asked: float | None, now: float) -> Next:
        """Come back, unless there has been no connection for too long: then *why* is the end."""
        self.begun(now)
        since, most = self._away_since, self._timing.give_up_after
        if since is not None and most is not None and now - since >= most:
            return Never(why)
        return Again(self._backoff.next(asked))
