"""What a node holds, and for how long."""

from __future__ import annotations

from dataclasses import dataclass

from unbroken.sessions.replica import ActorLimits
from unbroken.sessions.session import SessionLimits

__all__ = ["NodeLimits"]


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeLimits:
    """What a node holds, and for how long. Times are in seconds."""

    actor: ActorLimits
    session: SessionLimits
    sessions: int = 10_000
    bytes: int = 1024**3
    """All sessions together."""
    principal_share: float = 1.0
    """Of both, what one principal may have."""
    strangers_share: float = 1.0
    """Of both, what all strangers together may have."""
    connections_per_session: int = 8
    responses_per_principal: int = 0
    """Those that run or wait, on all nodes that share its caps; 0: there is no bound."""
    idle_timeout: float = 86_400.0
    """A session is forgotten after so long without a connection or anything to do."""
    release_after: float = 60.0
    """One that other nodes may hold too is released after so long; the store keeps it."""
    room_timeout: float = 600.0
    """When the node is full, one that has been so for this long makes room for a new one."""
    empty_grace: float = 60.0
    """One that never had an input, after so long without a connection."""
    outage_patience: float = 1.0
    """For so long writes wait for a store that is out of reach. Then owners go on without it."""
    handover_delay: float = 0.0
    """A node that drains sends its connections elsewhere after so long: all others may be ending, too."""
    is_strict: bool = False
    """Whether they wait for it however long it takes."""
    patience: float = 0.0
    """Pieces of an answer that come faster than this are written together, but for the first."""
    gathering: float = 0.0
    """Between two calls of a distant store that write for several sessions there is at least so much time."""
    sweep_interval: float = 15.0
    """How often the node looks for sessions to forget."""

    def rest(self, *, is_shared: bool, is_empty: bool) -> float:
        """Return the seconds for which a session in which nothing happens stays on its node."""
        if is_empty:
            return self.empty_grace
        return min(self.idle_timeout, self.release_after) if is_shared else self.idle_timeout
