"""What is wrong with Redis, said to the operator: what it is and what helps, each reason once a minute."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final

import structlog

from unbroken.sessions.errors import StoreUnavailable

__all__ = ["Trouble", "hint_of", "reason_of"]

_PAUSE: Final = 60.0
"""Seconds in which a reason is said once."""

_HINTS: Final[dict[str, str]] = {
    "timeout": "Redis or the network is slow. Look at SLOWLOG and LATENCY, or raise UNBROKEN_REDIS_TIMEOUT.",
    "unreachable": "Start Redis, or see to the network between.",
    "out_of_memory": "Raise maxmemory, or have sessions expire sooner by UNBROKEN_SESSION_IDLE_TIMEOUT.",
    "read_only": "This is a replica. Name the primary in UNBROKEN_REDIS_URL, or its Sentinels.",
    "refused_user": "The user or the password isn't right any more. Correct UNBROKEN_REDIS_URL and restart.",
    "not_permitted": "The user may not run a command. docs/operations.md has the ACL rule that is needed.",
    "loading": "Redis reads its data. Wait.",
    "cluster_down": "Slots of the cluster have no server, or are being moved. See CLUSTER INFO.",
    "disk": "Redis can't write its data to its disk, and takes nothing more. See its log.",
    "no_replicas": "Fewer replicas keep up than min-replicas-to-write asks for.",
    "busy": "A script or a function keeps Redis busy. See SLOWLOG; SCRIPT KILL ends it.",
    "waiting": "More calls are waiting than get their turn. Raise UNBROKEN_REDIS_CONNECTIONS, or add nodes.",
    "other": "See the log of Redis.",
}

_REASONS: Final[dict[str, str]] = {
    "TimeoutError": "timeout",
    "ConnectionError": "unreachable",
    "ConnectionRefusedError": "unreachable",
    "ConnectionResetError": "unreachable",
    "MasterNotFoundError": "unreachable",
    "OutOfMemoryError": "out_of_memory",
    "OOM": "out_of_memory",
    "ReadOnlyError": "read_only",
    "READONLY": "read_only",
    "AuthenticationError": "refused_user",
    "NoPermissionError": "not_permitted",
    "BusyLoadingError": "loading",
    "LOADING": "loading",
    "ClusterDownError": "cluster_down",
    "ClusterError": "cluster_down",
    "CLUSTERDOWN": "cluster_down",
    "MasterDownError": "cluster_down",
    "MASTERDOWN": "cluster_down",
    "HalfMoved": "cluster_down",
    "SlotDown": "cluster_down",
    "RedisClusterException": "cluster_down",
    "SlotNotCoveredError": "cluster_down",
    "MISCONF": "disk",
    "NOREPLICAS": "no_replicas",
    "BUSY": "busy",
    "UNKILLABLE": "busy",
    "TooManyCalls": "waiting",
}


def reason_of(error: StoreUnavailable) -> str:
    """Return which of a closed list of reasons *error* has."""
    return _REASONS.get(str(error.args[0]) if error.args else "", "other")


def hint_of(error: StoreUnavailable) -> str:
    """Return what an operator can do about *error*."""
    return _HINTS[reason_of(error)]


class Trouble:
    """Notes failed calls, by reason."""

    def __init__(self) -> None:
        self.on_failure: Callable[[str], None] = _nothing
        """Told the reason of each."""
        self._said: dict[str, float] = {}

    def note(self, error: StoreUnavailable) -> None:
        """Note a call that failed."""
        reason, now = reason_of(error), time.monotonic()
        self.on_failure(reason)
        if now - self._said.get(reason, -_PAUSE) >= _PAUSE:
            self._said[reason] = now
            structlog.get_logger().error("redis fails", reason=reason, hint=hint_of(error))


def _nothing(reason: str) -> None:
    pass
