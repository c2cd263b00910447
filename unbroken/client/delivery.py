"""What was sent on this connection, by its names, and what is sent again after a pause. No I/O, no clock."""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Final

from unbroken.client.backoff import Backoff
from unbroken.client.errors import Refused, is_passing

__all__ = ["Delivery"]

_LEAST_PAUSE: Final = 0.25
_MOST_PAUSE: Final = 8.0


class Delivery:
    """Everything is sent once on each connection, and again where the server refuses it for the moment.

    Args:
        patience: Seconds for which something is sent again.
        draw: Draws from 0 to 1, for pauses.

    """

    def __init__(self, patience: float, draw: Callable[[], float]) -> None:
        self._patience = patience
        self._pause = Backoff(_LEAST_PAUSE, _MOST_PAUSE, draw)
        self._sent: set[str] = set()
        self._again: dict[str, float] = {}
        self._refused_since: float | None = None

    def begin(self) -> None:
        """Begin with a connection, on which nothing was sent yet."""
        self._sent.clear()
        self._again.clear()

    def is_first(self, name: str) -> bool:
        """Return whether something is to be sent now, and note that it is."""
        if name in self._again or name in self._sent:
            return False
        self._sent.add(name)
        return True

    def was_sent(self, name: str) -> bool:
        """Return whether something was sent on this connection."""
        return name in self._sent

    # Refusals.

    def postpone(self, name: str, now: float, asked: float | None = None) -> None:
        """Send something again after a pause: of *asked* seconds at least."""
        self._again[name] = now + self._pause.next(asked)

    def retry(self, name: str, error: Refused, now: float) -> bool:
        """Send again what was refused, after a pause. False: it was in vain for too long, or always is."""
        since = self._refused_since = now if self._refused_since is None else self._refused_since
        if not is_passing(error.code) or now - since >= self._patience:
            return False
        self.postpone(name, now, error.retry_after)
        return True

    def postpone_all(self, now: float) -> None:
        """Send everything again after a pause: something was dropped unread, and nobody knows what."""
        at = now + self._pause.next()
        self._again |= dict.fromkeys(self._sent, at)

    def went_well(self) -> None:
        """Note that something was taken: pauses are short again, and patience is new."""
        self._refused_since = None
        self._pause.reset()

    # Time.

    def look(self, now: float) -> None:
        """Have everything whose pause is over count as not sent."""
        for name in [name for name, at in self._again.items() if at <= now]:
            del self._again[name]
            self._sent.discard(name)

    def is_postponed(self, name: str) -> bool:
        """Return whether something waits for its pause to end."""
        return name in self._again

    @property
    def due(self) -> float | None:
        """When the next pause ends; None: there is none."""
        return min(self._again.values(), default=None)

    def keep(self, names: Collection[str | None]) -> None:
        """Forget the pauses of all but *names*."""
        if self._again:
            self._again = {name: at for name, at in self._again.items() if name in names}
