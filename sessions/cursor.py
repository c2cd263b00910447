"""Connections as places in a log, and how they learn that it grew."""

from __future__ import annotations

from collections.abc import Callable

from unbroken.sessions.errors import CursorLost, Displaced, SessionError, again
from unbroken.sessions.event_log import EventLog, Position, Record
from unbroken.sessions.ids import ChainId

__all__ = ["Cursor", "Feed"]


class Feed:
    """A log and the cursors on it."""

    def __init__(self, log: EventLog) -> None:
        self.log = log
        self.ended: SessionError | None = None
        """Why nothing more will come. None: more may."""
        self.is_durable = True
        """Whether all that is in the log is in the store too, as far as that is known. Publish a change."""
        self._cursors: dict[Cursor, None] = {}  # the oldest first

    def __len__(self) -> int:
        return len(self._cursors)

    @property
    def watching(self) -> int:
        """How many of the cursors watch, and aren't there for a moment, to act."""
        return sum(cursor.watches for cursor in self._cursors)

    @property
    def lowest(self) -> int | None:
        """The lowest sequence number that a cursor is at; None: there is no cursor."""
        return min((cursor.seq for cursor in self._cursors), default=None)

    def attach(self, seq: int, chain: ChainId, *, watches: bool = True) -> Cursor:
        """Return a cursor that has seen everything up to *seq*. Close it when done."""
        cursor = Cursor(self, seq, chain, watches=watches)
        self._cursors[cursor] = None
        return cursor

    def displace(self, chain: ChainId) -> bool:
        """End the oldest cursor of *chain* that watches, and return whether there was one."""
        for cursor in self._cursors:
            if cursor.watches and cursor.chain == chain:
                self.detach(cursor)
                cursor.end(Displaced())
                return True
        return False

    def detach(self, cursor: Cursor) -> None:
        """Forget *cursor*. Harmless when it is forgotten already."""
        self._cursors.pop(cursor, None)

    def publish(self) -> None:
        """Wake every cursor: the log grew, or there is something else to look at."""
        for cursor in tuple(self._cursors):  # whoever is woken may leave
            if (listener := cursor._listener) is not None:  # as in wake(), for each piece of each answer
                listener()

    def restart(self, log: EventLog) -> None:
        """Go on with *log*, which is another: no cursor goes on with it."""
        self.log = log
        for cursor in tuple(self._cursors):
            cursor.end(CursorLost())

    def end(self, reason: SessionError) -> None:
        """Let every cursor raise *reason* once it has read what there is."""
        self.ended = again(reason)
        self.publish()


class Cursor:
    """One connection's place in one log. It holds no entries: a slow connection costs no memory.

    Use from one task at a time.
    """

    __slots__ = ("_ended", "_feed", "_listener", "chain", "seq", "watches")

    def __init__(self, feed: Feed, seq: int, chain: ChainId, *, watches: bool = True) -> None:
        self._feed = feed
        self._listener: Callable[[], None] | None = None
        self._ended: SessionError | None = None
        self.seq = seq
        """Everything up to here has been taken."""
        self.chain = chain
        """Who it belongs to: refusals are shown to the chain that earned them."""
        self.watches = watches
        """Whether it counts as a connection; else it is there for a moment, to act."""

    @property
    def is_durable(self) -> bool:
        """See :attr:`Feed.is_durable`."""
        return self._feed.is_durable

    @property
    def is_at_head(self) -> bool:
        """Whether everything there is has been taken."""
        return self.seq == self._feed.log.head

    def take(self, limit: int) -> list[Record]:
        """Return what comes next, up to *limit* sequence numbers, and move behind it. Empty at the head.

        Raises:
            CursorLost: What comes next has been forgotten.
            Displaced: A newer connection has taken its place.
            SessionError: Everything has been taken, and the feed has ended for this reason.

        """
        log = self._feed.log
        if self._ended is not None:
            raise again(self._ended)
        if self.seq < log.floor:
            raise CursorLost
        if self.seq == log.head:
            if self._feed.ended is not None:
                raise again(self._feed.ended)
            return []
        records = log.read(self.seq, limit)
        last = records[-1]
        self.seq = last.last
        return records

    def end(self, reason: SessionError) -> None:
        """Let :meth:`take` raise *reason*, at once."""
        self._ended = again(reason)
        self.wake()

    def listen(self, callback: Callable[[], None] | None) -> None:
        """Call *callback*, which must not raise, when there is something to look at: no task has to wait."""
        self._listener = callback

    def wake(self) -> None:
        """Call who listens."""
        if self._listener is not None:
            self._listener()

    def position(self) -> Position:
        """Return where the cursor is.

        Raises:
            CursorLost: The place has been forgotten.

        """
        if self.seq < self._feed.log.floor:
            raise CursorLost
        return self._feed.log.position(self.seq)

    def close(self) -> None:
        """Leave the feed."""
        self._feed.detach(self)
