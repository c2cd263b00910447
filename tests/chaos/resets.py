"""Who was told to start over, and needn't have been (I4). Pure."""

from __future__ import annotations

from collections.abc import Iterator

from tests.chaos.checker import Violation
from tests.chaos.history import Connected, Disconnected, History, Received
from tests.chaos.logs import Log
from unbroken.server.protocols.cursor import parse_cursor

__all__ = ["check_resets"]


def check_resets(history: History, log: Log) -> Iterator[Violation]:
    """Check that who came back with a place that *log* holds in the end went on from there.

    A log's floor only rises: what it holds in the end, it held then. A node that couldn't ask its store,
    or that stood still for so long that others took its sessions, may not have known: then don't check.
    """
    nonces = {seq: entry.nonce for entry in log.entries for seq in range(entry.seq, entry.last + 1)}
    for node, after in _resets(history):
        parsed = parse_cursor(after)
        if parsed is None or parsed[0].incarnation != log.incarnation:
            continue
        position, remaining = parsed
        is_beginning = position.seq == log.floor == 0
        is_held = nonces.get(position.seq) == position.nonce and position.seq > log.floor
        if (is_beginning and not remaining) or is_held:
            where = f"{history.session} {history.tab}"
            yield Violation("I4", where, f"{after} is in the log, and {node} had its client start over")


def _resets(history: History) -> Iterator[tuple[str, str]]:
    """Yield for each time that the client was told to start over which node said so, and where it was."""
    came: Connected | None = None
    for event in history.events:
        if isinstance(event, Connected):
            came = event
        elif isinstance(event, Disconnected):
            came = None
        elif isinstance(event, Received) and event.frame["type"] == "session.created":
            is_reset = event.frame["session"]["unbroken"].get("resumed") is False
            if is_reset and came is not None and came.after is not None:
                yield came.node, came.after
