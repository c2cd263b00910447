"""How fast one connection may send: an account of what it has sent of late. No I/O, no clock.

Three rates, each with its own consequence:

========  ==========================================  =================================================
rate      what is counted                             beyond it
========  ==========================================  =================================================
frames    every frame; a message is one or several    reading waits: TCP holds the peer back, and
                                                      nothing is lost
bytes     everything, frames' headers included        likewise
controls  pings, and pongs that nobody asked for      the connection is closed: they carry nothing that
                                                      anybody would miss, and holding the peer back
                                                      would hold up its messages behind them
========  ==========================================  =================================================
"""

from __future__ import annotations

from dataclasses import dataclass

from unbroken.server.connection_settings import ConnectionSettings
from unbroken.server.limits import Rate

__all__ = ["Intake", "IntakeLimits", "intake_limits"]


@dataclass(frozen=True, slots=True, kw_only=True)
class IntakeLimits:
    """The three rates of a connection."""

    frames: Rate
    bytes: Rate
    controls: Rate


def intake_limits(settings: ConnectionSettings) -> IntakeLimits:
    """Return how fast a connection may send by *settings*."""
    return IntakeLimits(
        frames=Rate(settings.rate_messages, settings.burst_messages),
        bytes=Rate(settings.rate_bytes, settings.burst_bytes),
        controls=Rate(settings.rate_pings, 10 * settings.rate_pings),
    )


class Intake:
    """One connection's account. What it costs doesn't depend on how much was sent."""

    __slots__ = ("_bytes", "_controls", "_frames", "_limits")

    def __init__(self, limits: IntakeLimits) -> None:
        self._limits = limits
        self._frames = self._bytes = self._controls = 0.0

    def charge(self, now: float, frames: int, size: int) -> float:
        """Note what came, and return the seconds for which nothing more should be read; 0 or less: none."""
        limits = self._limits
        self._frames = limits.frames.spent(self._frames, now, frames)
        self._bytes = limits.bytes.spent(self._bytes, now, size)
        return max(limits.frames.debt(self._frames, now), limits.bytes.debt(self._bytes, now))

    def admits_control(self, now: float) -> bool:
        """Note a ping or a pong, and return whether the connection may go on."""
        rate = self._limits.controls
        self._controls = rate.spent(self._controls, now, 1)
        # Sums of fractions aren't exact: half a ping is none.
        return rate.debt(self._controls, now) * rate.per_second < 0.5
