"""Every metric, in one place. All are listed in docs/operations.md; a test holds the two together.

None of them is touched once per token, and asking for them walks through
nothing that grows with sessions or connections: a scrape costs the same with
one session and with ten thousand. Labels are from closed lists, or from the
settings: never an id, and nothing that a client or an upstream wrote.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    generate_latest,
)

from unbroken.server.errors import ERROR_MEANINGS
from unbroken.server.overload import Overload
from unbroken.server.process_figures import ProcessFigures
from unbroken.sessions.entries import ResponseDone
from unbroken.sessions.format import Formats
from unbroken.sessions.run import Run

__all__ = ["Metrics", "NodeFigures", "RedisFigures"]

_LATENCY_BUCKETS: Final = (
    0.005,
    0.01,
    0.02,
    0.04,
    0.08,
    0.16,
    0.32,
    0.64,
    1.28,
    2.56,
    5.12,
    10.24,
    20.48,
    40.96,
)
"""Up to 41 seconds."""

_LAG_BUCKETS: Final = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0)

_GUARD_BUCKETS: Final = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0)

# RFC 6455, section 7.4.1, and the registry it opens. A client may send any number from 1000 to 4999.
_CLOSE_CODES: Final = frozenset(range(1000, 1016))


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeFigures:
    """What a node can be asked at any time: calls that return a number. Only that of what isn't saved
    walks over the sessions, and only while the store is out of reach.
    """

    sessions: Callable[[], float]
    running: Callable[[], float]
    waiting: Callable[[], float]
    size: Callable[[], float]
    commits_waiting: Callable[[], float]
    is_draining: Callable[[], float]
    unsaved: Callable[[], float]
    is_store_lost: Callable[[], float]


@dataclass(frozen=True, slots=True, kw_only=True)
class RedisFigures:
    """What is known of Redis: calls that return a number."""

    may_evict: Callable[[], float]
    evicted: Callable[[], float]
    used: Callable[[], float]
    limit: Callable[[], float]
    has_foreign: Callable[[], float]


class Metrics:
    """The metrics of one server, in a registry of their own: two servers in a process stay two."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.inputs_waiting = 0
        """Client events that were received and wait to be taken. A plain number: it changes with each."""
        self._add_connections()
        self._add_responses()
        self._add_agents()
        self._add_cache()
        self._add_files()
        self._add_archive()
        self._add_firewall()
        self._add_node()
        self.registry.register(ProcessFigures())

    def _counter(self, name: str, what: str, *labels: str) -> Counter:
        return Counter(f"unbroken_{name}", what, labels, registry=self.registry)

    def _gauge(self, name: str, what: str, *labels: str) -> Gauge:
        return Gauge(f"unbroken_{name}", what, labels, registry=self.registry)

    def _histogram(self, name: str, what: str, buckets: tuple[float, ...]) -> Histogram:
        return Histogram(f"unbroken_{name}", what, buckets=buckets, registry=self.registry)

    def _add_connections(self) -> None:
        self.connections = self._gauge("connections", "Open WebSocket connections.")
        self.opened = self._counter("connections_opened", "Connections that were accepted.")
        self._closed = self._counter(
            "connections_closed",
            "Connections that ended, by close code, whichever side closed; other: no registered code.",
            "code",
        )
        self.handshakes_waiting = self._gauge(
            "handshakes_waiting", "Handshakes that wait for their turn to be looked at."
        )
        self.refused = self._counter(
            "connections_refused",
            "Connections and HTTP requests that were refused, by error code.",
            "code",
        )
        self.let_in_alone = self._counter(
            "let_in_alone",
            "Connections and responses let in by this node's count alone, as the store was out of reach.",
            "kind",
        )
        self.short_lived_keys = self._counter(
            "short_lived_keys",
            "Short-lived keys and tickets: made, made for strangers, and uses of them.",
            "outcome",
        )
        self.lapsed = self._counter(
            "connections_lapsed", "Connections whose key expired or was revoked meanwhile.", "reason"
        )
        self.jwks_fetches = self._counter(
            "jwks_fetches", "Attempts at fetching the keys that tokens are signed with.", "outcome"
        )
        self.attached = self._counter(
            "sessions_attached",
            "Connections attached to a session: new, resumed where they were, or reset to a snapshot.",
            "result",
        )
        self.fell_behind = self._counter(
            "connections_fell_behind",
            "Connections that were closed because they fell below what the log holds.",
        )
        self.slow = self._gauge("connections_slow", "Connections with more to send than their client takes.")
        self.slowed = self._counter("connections_slowed", "How often a connection became slow.")
        self.input_errors = self._counter(
            "input_errors", "Client events that could not be taken, by error code.", "code"
        )
        inputs = self._gauge("inputs_waiting", "Client events that were received and wait to be taken.")
        inputs.set_function(lambda: self.inputs_waiting)

    def _add_responses(self) -> None:
        self.responses = self._counter("responses", "Attempts at a response that ended, by status.", "status")
        self._failures = self._counter(
            "responses_failed",
            "Attempts that failed or were interrupted, by error code; other: one of an agent's own.",
            "code",
        )
        tokens = self._counter(
            "tokens", "Tokens as the agent reported them; cached are among those of the input.", "kind"
        )
        self._tokens = [tokens.labels(kind) for kind in ("input", "output", "cached")]
        self.quota_decisions = self._counter(
            "quota_decisions",
            "Decisions on budgets, and would_deny on connections too; alone: by this node's count, "
            "busy: it asked too much at once, and the turn went on, unknown: nobody knows whose turn it is.",
            "outcome",
        )
        self.time_to_first_token = self._histogram(
            "time_to_first_token_seconds",
            "From the start of a response to its first piece, as the agent gave it.",
            _LATENCY_BUCKETS,
        )
        self._longest_gap = self._histogram(
            "longest_gap_seconds",
            "Longest time between two pieces of a response's text, as the agent gave them.",
            _LATENCY_BUCKETS,
        )

    def _add_agents(self) -> None:
        self.agent_calls = self._counter(
            "agent_calls",
            "Turns that an agent of several was asked to answer, by how that ended.",
            "agent",
            "outcome",
        )
        self.agent_passed_over = self._gauge(
            "agent_passed_over",
            "1 while an agent of several is passed over because it fails, else 0.",
            "agent",
        )
        self.embedded_waiting = self._gauge(
            "embedded_waiting", "Turns that wait for a slot of the embedded model."
        )
        self.upstream_requests = self._counter(
            "upstream_requests", "Requests sent to an upstream: first ones, and retries.", "agent", "kind"
        )
        self.upstream_calls = self._counter(
            "upstream_calls",
            "Streams asked of an upstream, by how each ended: completed, stopped by us, or an error code.",
            "agent",
            "outcome",
        )

        self.leaks = self._counter(
            "leaks",
            "What the leak filter found, by kind and by what was done; ..._shadow: would have been.",
            "entity",
            "action",
        )
        self.names_unread = self._counter(
            "names_unread",
            "Sentences that could not be looked through for names and addresses, by reason.",
            "reason",
        )
        self.names_seconds = self._histogram(
            "names_seconds",
            "Time until a sentence was looked through for names, waiting included.",
            _GUARD_BUCKETS,
        )
        self.tool_calls = self._counter(
            "tool_calls",
            "Calls of the server's own tools, by toolset and how they ended.",
            "toolset",
            "outcome",
        )

    def _add_cache(self) -> None:
        self.cache_hits = self._counter(
            "cache_hits",
            "Turns answered with what was said before, by tier; flight: asked while it was being said.",
            "tier",
        )
        self.cache_misses = self._counter(
            "cache_misses", "Turns that the cache did not answer, by reason.", "reason"
        )
        self.cache_kept = self._counter(
            "cache_kept", "Answers to what the cache could not answer: kept, or why they were not.", "outcome"
        )
        self.cache_compared = self._counter(
            "cache_compared",
            "Kept answers, compared with what the agent said to the same: an estimate of false hits.",
            "tier",
            "outcome",
        )
        self._cache_entries = self._gauge("cache_entries", "Answers that are kept, as this node knows.")
        self._cache_bytes = self._gauge("cache_bytes", "Bytes that answers take, as this node knows.")
        self._cache_index_bytes = self._gauge(
            "cache_index_bytes", "Bytes that questions and their vectors take in this process."
        )

    def _add_files(self) -> None:
        self.uploads = self._counter(
            "uploads",
            "Files that clients uploaded, by outcome: stored, an error code, or failed (a client that went).",
            "outcome",
        )
        self._files = self._gauge("files", "Files held by this node.")
        self._file_bytes = self._gauge("files_bytes", "Bytes that files take, with 4 KiB for each on top.")

    def _add_archive(self) -> None:
        self.archive_turns = self._counter(
            "archive_turns",
            "Turns that this node took out of the outbox: written, known to the archive (or erased), "
            "unreadable for this version, or failed; of these, the last two stay there.",
            "outcome",
        )
        self.archive_lost = self._counter(
            "archive_lost",
            "Turns that the outbox had no room for, or that nobody could read or write for seven days: they "
            "will never be archived.",
        )
        self.archive_failures = self._counter(
            "archive_failures", "Times that turns could not be brought into the archive for the moment."
        )
        self.archive_waiting = self._gauge(
            "archive_waiting", "Turns that wait in the outbox, when this node last searched it."
        )
        self.archive_oldest = self._gauge(
            "archive_oldest_seconds", "For how long the oldest of them has waited."
        )
        self.archive_expired = self._counter(
            "archive_expired", "Turns that this node removed from the archive when their time was over."
        )
        self.webhooks = self._counter(
            "webhooks",
            "Tries at sending webhooks: delivered or failed; dead: given up for good.",
            "endpoint",
            "outcome",
        )
        self.webhooks_passed_over = self._gauge(
            "webhooks_passed_over", "1 while an endpoint is left alone because it fails, else 0.", "endpoint"
        )

    def _add_firewall(self) -> None:
        self.firewall_verdicts = self._counter(
            "firewall_verdicts",
            "What the injection firewall made of what came in, by where it came from.",
            "origin",
            "verdict",
        )
        self.firewall_seconds = self._histogram(
            "firewall_seconds",
            "Time until there was a verdict, or none; in shadow without what it waited for its turns.",
            _GUARD_BUCKETS,
        )
        self.firewall_detectors = self._counter(
            "firewall_detector_calls",
            "Times that a heavier detector was asked, by how that ended.",
            "outcome",
        )

    def _add_node(self) -> None:
        self._sessions = self._gauge("sessions", "Sessions held by this node.")
        self._running = self._gauge("sessions_running", "Sessions with a response in progress.")
        self._waiting = self._gauge(
            "responses_waiting", "Responses that wait behind another one of their session."
        )
        self._bytes = self._gauge("sessions_bytes", "Bytes that sessions take, roughly.")
        self.sessions_limit = self._gauge("sessions_limit", "Sessions that this node may hold.")
        self.bytes_limit = self._gauge("sessions_bytes_limit", "Bytes that sessions may take.")
        self._commits_waiting = self._gauge(
            "commits_waiting", "Sessions whose new pieces wait to be written to the log."
        )
        self._draining = self._gauge("draining", "1 while the node is shutting down, else 0.")
        self._unsaved = self._gauge("sessions_unsaved", "Sessions that go on without the store.")
        self._store_lost = self._gauge("store_lost", "1 while the store is out of reach, else 0.")
        self.lag = self._histogram(
            "event_loop_lag_seconds", "How late the event loop was, ten times a second.", _LAG_BUCKETS
        )
        self._lag_median = self._gauge(
            "event_loop_lag_median_seconds", "Median of the latest 20 samples: what admission goes by."
        )
        self._lag_worst = self._gauge("event_loop_lag_worst_seconds", "Longest of the latest 20 samples.")
        self._overload = self._gauge(
            "overload_level", "0: calm, 1: new sessions are refused, 2: new responses too."
        )

        self._store_format = self._gauge(
            "store_format", "Format that sessions are written in to Redis; 0: they are in memory."
        )
        self.store_failures = self._counter(
            "store_failures", "Calls to Redis that failed, by reason.", "reason"
        )
        self._store_evicts = self._gauge(
            "store_evicts", "1 while Redis would throw sessions away when it is full, else 0."
        )
        self._store_evicted = self._gauge(
            "store_evicted_keys", "Keys that Redis has thrown away for lack of room since it was started."
        )
        self._store_bytes = self._gauge("store_bytes", "Bytes that Redis takes.")
        self._store_bytes_limit = self._gauge(
            "store_bytes_limit", "Bytes that Redis may take; 0: nothing bounds it."
        )
        self._store_foreign = self._gauge(
            "store_foreign_nodes", "1 while nodes of another deployment are in this Redis, else 0."
        )
        self.unreadable = self._counter(
            "store_unreadable", "What was found in Redis in a format that this version can't read."
        )

    def closed(self, code: int) -> None:
        """Count a connection that ended with *code*."""
        self._closed.labels(str(code) if code in _CLOSE_CODES else "other").inc()

    def response_ended(self, done: ResponseDone) -> None:
        """Count an attempt that ended."""
        self.responses.labels(done.status).inc()
        if done.failure is not None:
            code = done.failure.code
            self._failures.labels(code if code in ERROR_MEANINGS else "other").inc()
        if done.usage is not None:
            usage = done.usage
            counts = (usage.input_tokens, usage.output_tokens, usage.cached_tokens)
            for counter, count in zip(self._tokens, counts, strict=True):
                counter.inc(count)

    def run_ended(self, run: Run) -> None:
        """Note how evenly a response's pieces came."""
        if run.longest_gap is not None:
            self._longest_gap.observe(run.longest_gap)

    def observe_node(self, figures: NodeFigures) -> None:
        """Take a node's own figures whenever somebody asks."""
        self._sessions.set_function(figures.sessions)
        self._running.set_function(figures.running)
        self._waiting.set_function(figures.waiting)
        self._bytes.set_function(figures.size)
        self._commits_waiting.set_function(figures.commits_waiting)
        self._draining.set_function(figures.is_draining)
        self._unsaved.set_function(figures.unsaved)
        self._store_lost.set_function(figures.is_store_lost)

    def observe_formats(self, formats: Formats) -> None:
        """Take what is agreed on to write whenever somebody asks, and count what can't be read."""
        self._store_format.set_function(lambda: formats.written)
        formats.on_unreadable = self.unreadable.inc

    def observe_redis(self, watch: RedisFigures) -> None:
        """Take what is known of Redis whenever somebody asks."""
        self._store_evicts.set_function(watch.may_evict)
        self._store_evicted.set_function(watch.evicted)
        self._store_bytes.set_function(watch.used)
        self._store_bytes_limit.set_function(watch.limit)
        self._store_foreign.set_function(watch.has_foreign)

    def observe_overload(self, overload: Overload) -> None:
        """Take what is known of the load whenever somebody asks."""
        self._lag_median.set_function(lambda: overload.median)
        self._lag_worst.set_function(lambda: overload.worst)
        self._overload.set_function(lambda: overload.level)

    def observe_cache(
        self, entries: Callable[[], float], size: Callable[[], float], index_size: Callable[[], float]
    ) -> None:
        """Take a cache's own figures whenever somebody asks."""
        self._cache_entries.set_function(entries)
        self._cache_bytes.set_function(size)
        self._cache_index_bytes.set_function(index_size)

    def observe_files(self, count: Callable[[], float], size: Callable[[], float]) -> None:
        """Take a file store's own figures whenever somebody asks."""
        self._files.set_function(count)
        self._file_bytes.set_function(size)

    def exposition(self) -> bytes:
        """Return everything in the Prometheus text format."""
        return generate_latest(self.registry)
