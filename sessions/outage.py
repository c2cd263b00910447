"""Whether a node's store can be reached: noted by all who ask it, and asked for by those who decide."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from unbroken.sessions.clock import Clock, Timer
from unbroken.sessions.errors import StoreBusy, StoreUnavailable
from unbroken.sessions.ids import SessionId

__all__ = ["Outage", "Retry"]

_DELAYS: Final = (0.05, 0.1, 0.2, 0.5, 1.0)
"""Seconds after which a store that couldn't be reached is asked again; the last one from then on."""


class Outage:
    """How long the store has been out of reach.

    Args:
        clock: Where time comes from.
        patience: Seconds for which writes wait for a store that doesn't answer. Then owners go on without.
        is_strict: They don't: what can't be saved isn't said.
        on_begin: Called with the session for which the store has failed first since it last answered.

    """

    def __init__(
        self, clock: Clock, *, patience: float, is_strict: bool, on_begin: Callable[[SessionId], None]
    ) -> None:
        self._clock = clock
        self._patience: Final = patience
        self.is_strict: Final = is_strict
        """Whether what can't be saved isn't said, for however long."""
        self._on_begin = on_begin
        self._since: float | None = None

    @property
    def is_on(self) -> bool:
        """Whether the store failed when it was last asked."""
        return self._since is not None

    @property
    def is_over_patience(self) -> bool:
        """Whether owners go on without the store."""
        return (
            self._since is not None
            and not self.is_strict
            and self._clock.monotonic() - self._since >= self._patience
        )

    def lasts_for(self, seconds: float) -> bool:
        """Whether the store has been out of reach for so long."""
        return self._since is not None and self._clock.monotonic() - self._since >= seconds

    def note_failure(self, session_id: SessionId, why: StoreUnavailable | None = None) -> None:
        """Note that the store didn't answer, or could take nothing of a session.

        That it is asked too much, of here or of one session, says neither.
        """
        if self._since is None and not isinstance(why, StoreBusy):
            self._since = self._clock.monotonic()
            self._on_begin(session_id)

    def note_success(self) -> None:
        """Note that it did what it was asked to."""
        self._since = None


class Retry:
    """When somebody who couldn't reach the store asks it again.

    Args:
        clock: Where time comes from.
        again: Called when it is time.

    """

    __slots__ = ("_again", "_clock", "_timer", "failures", "is_waiting")

    def __init__(self, clock: Clock, again: Callable[[], None]) -> None:
        self._clock = clock
        self._again = again
        self._timer: Timer | None = None
        self.failures = 0
        """How many there were in succession."""
        self.is_waiting = False
        """Whether it isn't time yet."""

    def later(self) -> None:
        """Wait, after another failure a little longer."""
        if self._timer is None:
            delay = _DELAYS[min(self.failures, len(_DELAYS) - 1)]
            self.failures += 1
            self.is_waiting = True
            self._timer = self._clock.call_later(delay, self._is_time)

    def reached(self) -> None:
        """Note that the store answered after failures."""
        self.failures = 0

    def stop(self) -> None:
        """Wait no more, and call nobody."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
            self.is_waiting = False

    def _is_time(self) -> None:
        self._timer = None
        self.is_waiting = False
        self._again()
