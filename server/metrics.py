"""Every metric, in one place. All are listed in docs/operations.md; a test holds the two together.

None of them is touched once per token.
"""

from __future__ import annotations

from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

__all__ = ["Metrics"]

_LATENCY_BUCKETS = (0.005, 0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.28, 2.56, 5.12, 10.24, 20.48, 40.96)


class Metrics:
    """The metrics of one server, in a registry of their own: two servers in a process stay two."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.connections = Gauge(
            "unbroken_connections", "Open WebSocket connections.", registry=self.registry
        )
        self.refused = Counter(
            "unbroken_connections_refused",
            "Connections that were not accepted, by error code.",
            ["code"],
            registry=self.registry,
        )
        self.closed = Counter(
            "unbroken_connections_closed",
            "Connections that the server closed, by close code.",
            ["code"],
            registry=self.registry,
        )
        self.attached = Counter(
            "unbroken_sessions_attached",
            "Connections attached to a session: new, resumed where they were, or reset to a snapshot.",
            ["result"],
            registry=self.registry,
        )
        self.input_errors = Counter(
            "unbroken_input_errors",
            "Client events that could not be taken, by error code.",
            ["code"],
            registry=self.registry,
        )
        self.responses = Counter(
            "unbroken_responses",
            "Attempts at a response that ended, by status.",
            ["status"],
            registry=self.registry,
        )
        self.time_to_first_token = Histogram(
            "unbroken_time_to_first_token_seconds",
            "From the start of a response to its first piece, as the agent gave it.",
            buckets=_LATENCY_BUCKETS,
            registry=self.registry,
        )
        self.agent_calls = Counter(
            "unbroken_agent_calls",
            "Turns that an agent of several was asked to answer, by how that ended.",
            ["agent", "outcome"],
            registry=self.registry,
        )
        self.agent_passed_over = Gauge(
            "unbroken_agent_passed_over",
            "1 while an agent of several is passed over because it fails, else 0.",
            ["agent"],
            registry=self.registry,
        )
        self.tool_calls = Counter(
            "unbroken_tool_calls",
            "Calls of the server's own tools, by toolset and how they ended.",
            ["toolset", "outcome"],
            registry=self.registry,
        )
        self._sessions = Gauge("unbroken_sessions", "Sessions held by this node.", registry=self.registry)
        self._running = Gauge(
            "unbroken_sessions_running", "Sessions with a response in progress.", registry=self.registry
        )
        self._bytes = Gauge(
            "unbroken_sessions_bytes", "Bytes that sessions take, roughly.", registry=self.registry
        )

    def observe_node(
        self, sessions: Callable[[], float], running: Callable[[], float], size: Callable[[], float]
    ) -> None:
        """Take a node's own figures whenever somebody asks."""
        self._sessions.set_function(sessions)
        self._running.set_function(running)
        self._bytes.set_function(size)

    def exposition(self) -> bytes:
        """Return everything in the Prometheus text format."""
        return generate_latest(self.registry)
