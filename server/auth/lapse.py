"""Connections whose right to be there ends while they live: it expires, or its key is revoked."""

from __future__ import annotations

import enum
from collections import OrderedDict
from collections.abc import Callable, Collection
from typing import Final

from unbroken.server.auth.base import Grant
from unbroken.sessions.clock import Clock, Timer

__all__ = ["Lapse", "Lapses", "Stay"]

_LONGEST_TIMER: Final = 3600.0
"""Seconds. The wall clock may be set meanwhile, so that what is far off is looked at again."""

_REMEMBERED: Final = 1024
"""Revoked keys of late, by which a connection that is just being let in is still found."""


class Lapse(enum.Enum):
    """Why a connection may not go on. The value is the error's code."""

    EXPIRED = "credential_expired"
    REVOKED = "credential_revoked"


class Lapses:
    """Tells connections when what they were let in with ends. Those that it can't end for cost nothing."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._stays: dict[str, set[Stay]] = {}  # by key
        self._revoked: OrderedDict[str, None] = OrderedDict()

    def stay(self, grant: Grant, on_lapse: Callable[[Lapse], None]) -> Stay | None:
        """Have *on_lapse* called, once, when *grant* ends; None: it doesn't. Close it with the connection.

        It is never called from within this call.
        """
        expires_at, key_id = grant.principal.expires_at, grant.key_id
        if expires_at is None and key_id is None:
            return None
        stay = Stay(self, key_id, on_lapse)
        if key_id is not None:
            self._stays.setdefault(key_id, set()).add(stay)
        if key_id in self._revoked:
            stay.timer = self._clock.call_later(0, lambda: stay.lapse(Lapse.REVOKED))
        elif expires_at is not None:
            self._wait(stay, expires_at)
        return stay

    def _wait(self, stay: Stay, expires_at: float) -> None:
        left = expires_at - self._clock.time()

        def due() -> None:
            if self._clock.time() >= expires_at:
                stay.lapse(Lapse.EXPIRED)
            else:
                self._wait(stay, expires_at)

        stay.timer = self._clock.call_later(max(0.0, min(left, _LONGEST_TIMER)), due)

    @property
    def key_ids(self) -> frozenset[str]:
        """The keys that connections are there by."""
        return frozenset(self._stays)

    def revoke(self, key_ids: Collection[str]) -> None:
        """End all that those keys have let in, and whoever is just being let in by them."""
        for key_id in key_ids:
            self._revoked[key_id] = None
            self._revoked.move_to_end(key_id)
            for stay in list(self._stays.get(key_id, ())):
                stay.lapse(Lapse.REVOKED)
        while len(self._revoked) > _REMEMBERED:
            self._revoked.popitem(last=False)

    def reinstate(self, key_ids: Collection[str]) -> None:
        """Know that those keys count: a store that had lost them has them again."""
        for key_id in [key_id for key_id in self._revoked if key_id in key_ids]:
            del self._revoked[key_id]

    def forget(self, stay: Stay, key_id: str) -> None:
        """Have *stay* be counted no more. For :class:`Stay`."""
        stays = self._stays.get(key_id, set())
        stays.discard(stay)
        if not stays:
            self._stays.pop(key_id, None)


class Stay:
    """One connection, as long as it lives."""

    __slots__ = ("_key_id", "_lapses", "_on_lapse", "timer")

    def __init__(
        self,
        lapses: Lapses,
        key_id: str | None,
        on_lapse: Callable[[Lapse], None],
    ) -> None:
        self._lapses = lapses
        self._key_id = key_id
        self._on_lapse: Callable[[Lapse], None] | None = on_lapse
        self.timer: Timer | None = None

    def lapse(self, reason: Lapse) -> None:
        """Tell the connection, unless it has ended."""
        tell, self._on_lapse = self._on_lapse, None
        self.close()
        if tell is not None:
            tell(reason)

    def close(self) -> None:
        """Tell nothing any more. Harmless if it is closed."""
        self._on_lapse = None
        if self.timer is not None:
            self.timer.cancel()
            self.timer = None
        if self._key_id is not None:
            self._lapses.forget(self, self._key_id)
            self._key_id = None
