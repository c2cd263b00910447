"""The suites: each module measures one thing. A new one is a module here and a line in :data:`SUITES`."""

from __future__ import annotations

from tests.bench.suites import (
    burst,
    capacity,
    connect,
    crash,
    direct,
    doors,
    hold,
    idle,
    leaks,
    litellm,
    paced,
    peers,
    pipeline,
    resume,
    shared,
    silence,
    storm,
    upstream,
)
from tests.bench.suites.base import Bench, Suite

__all__ = ["SUITES", "Bench", "Suite"]

SUITES: dict[str, Suite] = {
    "burst": burst.run,
    "paced": paced.run,
    "capacity": capacity.run,
    "doors": doors.run,
    "direct": direct.run,
    "idle": idle.run,
    "hold": hold.run,
    "connect": connect.run,
    "upstream": upstream.run,
    "leaks": leaks.run,
    "pipeline": pipeline.run,
    "litellm": litellm.run,
    "peers": peers.run,
    "shared": shared.run,
    "resume": resume.run,
    "silence": silence.run,
    "crash": crash.run,
    "storm": storm.run,
}
"""By name, in the order in which they run."""
