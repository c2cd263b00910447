"""A session as a node holds it: what was committed, applied in order, and how much that takes."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Final

from unbroken.sessions.account import REFUSAL_COST, SESSION_COST, Account, config_bytes
from unbroken.sessions.backends.base import Fence, Opened, Resident, SessionStore, Snapshot
from unbroken.sessions.cursor import Feed
from unbroken.sessions.entries import (
    Body,
    Deltas,
    Entry,
    InputKey,
    Refused,
    ResponseDone,
    ResponseMerged,
    ResponseQueued,
    ResponseStarted,
    Submitted,
)
from unbroken.sessions.errors import Fenced, StoreUnavailable
from unbroken.sessions.event_log import EventLog, Position
from unbroken.sessions.finished import FinishedTurn, turns_in
from unbroken.sessions.ids import NodeId
from unbroken.sessions.items import SessionConfig
from unbroken.sessions.run import RunLimits
from unbroken.sessions.session import Session

__all__ = ["COUNTED", "ActorLimits", "Replica"]

COUNTED: Final = frozenset({ResponseQueued, ResponseMerged, ResponseStarted, ResponseDone, Refused})
"""Entries after which a session may have more responses, or fewer."""

_READ_LIMIT: Final = 4096

_ACCOUNT_STEP: Final = 8192
"""Bytes by which a session may grow before its node is told, while nothing else happens in it."""


_FORMER_KEYS: Final = 256
"""Inputs that are still known again after the log that held them was lost."""

_ENDED_KEPT: Final = 8
"""Turns that are put into the outbox again when the log is begun anew: what a store loses is moments."""

_RESTING: Final = 3072
"""Bytes of log that are kept of a session that rests in a store: whoever saw most of its last turn still
resumes exactly, and others start over."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ActorLimits:
    """What an actor allows its session."""

    run: RunLimits
    retain_bytes: int = 256 * 1024
    """Log to keep in any case."""
    log_bytes: int = 1024 * 1024
    """Log above which even an attached cursor is left behind."""
    alone_bytes: int = 1024 * 1024
    """What a session takes in while its store is out of reach."""
    attempts: int = 1
    """How often a turn is attempted whose owners are lost, and whose answer no upstream keeps."""
    notes_turns: bool = False
    """Whether turns that end are put into the store's outbox, which it has then."""


class Replica:
    """A session, its log as far as this node remembers it, and the cursors on that.

    Args:
        session: What the log's entries have made of it so far.
        log: The entries.
        store: Where they come from.
        limits: What it may take.
        node: Whose it is.

    """

    def __init__(
        self, session: Session, log: EventLog, store: SessionStore, limits: ActorLimits, node: NodeId
    ) -> None:
        self.session: Final = session
        self.feed: Final = Feed(log)
        self.polled = -1
        """How far the log reached when it was last polled."""
        self.silence = 0
        """How many polls have found no more since."""
        self.is_told = True
        """Whether this node is told of what is new, if it follows: so it was when the store was last read."""
        self._is_behind = False  # whether the store is known to hold entries not applied yet
        self._is_stirred = False  # whether anything but new pieces may call for a write
        self._written = 0  # how many outputs were read, since a write whose answer was lost
        self._waiters: list[tuple[int, asyncio.Future[None]]] = []
        self._limits = limits
        self._node = node
        self._trim_above = limits.retain_bytes * 5 // 4
        self._store = store
        self._stored_floor = log.floor  # how far the store has forgotten
        self._kept_elsewhere = 0  # bytes of what the store keeps beside the log
        self._keys_bytes = store.keys_bytes if isinstance(store, Resident) else None
        self._account_of_log = Account()
        self._config: SessionConfig | None = None  # whose bytes are known
        self._config_bytes = 0
        self._former_keys: dict[int, InputKey] = {}  # of inputs that the log held before it was begun anew
        self._accounted = 0  # the log's size when the node was last told
        self.ended_of_late: tuple[FinishedTurn, ...] = ()
        """The latest turns that ended here, if they are noted."""

    @property
    def log(self) -> EventLog:
        """The session's log, as far as this node holds it."""
        return self.feed.log

    @property
    def size(self) -> int:
        """Bytes this session takes, roughly."""
        session = self.session
        if session.config is not self._config:
            self._config, self._config_bytes = session.config, config_bytes(session.config)
        return (
            SESSION_COST
            + max(self.log.size - self._account_of_log.repeated, 0)
            + session.conversation_bytes
            + self._config_bytes
            + REFUSAL_COST * len(session.refusals)
            + session.endings.size
            + self._kept_elsewhere
            + (self._keys_bytes(session.id) if self._keys_bytes is not None else 0)
        )

    @property
    def position(self) -> Position:
        """The place behind everything that was applied."""
        return Position(self.log.incarnation, self.session.applied, self.log.head_nonce)

    def can_go_on(self, opened: Opened) -> bool:
        """Return whether the store's log goes on where this one ends, and nothing between is forgotten."""
        is_same = opened.fence.incarnation == self.log.incarnation
        return is_same and opened.floor <= self.session.applied

    def keys(self) -> dict[int, InputKey]:
        """Return the keys of the latest inputs, as far as they are known here, by their numbers."""
        return self._former_keys | self.session.keys | self.log.keys()

    def _finished_in(self, bodies: Sequence[Body], at: float) -> tuple[FinishedTurn, ...]:
        """Return the turns that *bodies* end, if they are noted: before these are applied."""
        if not self._limits.notes_turns:
            return ()
        finished = turns_in(self.session, bodies, at, is_attended=len(self.feed) > 0)
        if finished:
            named = {each.response_id for each in finished}  # asked for again, where it goes on alone
            others = (each for each in self.ended_of_late if each.response_id not in named)
            self.ended_of_late = (*others, *finished)[-_ENDED_KEPT:]
        return finished

    def snapshot(self) -> Snapshot:
        """Return what is so, for a store to keep."""
        return Snapshot(self.session.applied, self.log.head_nonce, self.session.snapshot())

    async def answered(self, seq: int) -> None:
        """Wait until input *seq* has been answered, or nothing more comes. Cancelling it loses nothing."""
        if self.session.consumed < seq and self.feed.ended is None:
            waiter = asyncio.get_running_loop().create_future()
            self._waiters.append((seq, waiter))
            await waiter

    def note_poll(self) -> None:
        """Note that it is polled now."""
        self.silence = self.silence + 1 if self.polled == self.log.head else 0
        self.polled = self.log.head

    def _tell_waiters(self) -> None:
        if self._waiters:
            consumed, is_over = self.session.consumed, self.feed.ended is not None
            waiting, self._waiters = self._waiters, []
            for seq, waiter in waiting:
                if waiter.done():
                    continue  # nobody waits any more
                if seq <= consumed or is_over:
                    waiter.set_result(None)
                else:
                    self._waiters.append((seq, waiter))

    def _ingest(self, entries: Sequence[Entry]) -> None:
        """Apply committed entries in order. What leaves a gap waits until it is closed from the store."""
        session, log = self.session, self.log
        before = log.head
        for entry in entries:
            if entry.seq <= session.applied:
                continue
            if entry.seq != session.applied + 1:
                self._is_behind = True
                break
            is_pieces = type(entry.body) is Deltas
            held = 0 if is_pieces else session.conversation_bytes
            session.apply(entry)
            log.append(entry)
            if not is_pieces:
                self._is_stirred = True
                self._account_of_log.note(entry, held - session.conversation_bytes)
                self._observe(entry.body)
        if log.size > self._trim_above:
            self._trim(before)
        if abs(log.size - self._accounted) > _ACCOUNT_STEP:
            self._account()
        self.feed.publish()

    @property
    def _is_apart(self) -> bool:
        """Whether what is here goes on without the store: what that holds is no part of it then."""
        return False

    async def _read_on(self) -> Fence:
        """Read on to the log's end, unless this goes on without it; return its owner's fence."""
        while True:
            page = await self._store.read(self.session.id, self.position, _READ_LIMIT, node=self._node)
            if self._is_apart:
                return page.fence
            self.is_told = page.is_told
            self._written += sum(type(entry.body) is not Submitted for entry in page.entries)
            self._ingest(page.entries)
            if page.is_end:
                self._note_answered(page.consumed)
                return page.fence

    def _note_answered(self, consumed: int) -> None:
        """Note which input its owner had answered last when the store was read. For who doesn't know it."""

    def _restart(self, log: EventLog) -> None:
        """Go on with another log: no cursor goes on with it."""
        keys = self.keys()
        self._former_keys = dict(list(keys.items())[-_FORMER_KEYS:])
        self._account_of_log = Account()
        self.feed.restart(log)

    def _note_durable(self, is_durable: bool) -> None:
        """Tell those who are connected whether what is here is in the store."""
        if self.feed.is_durable != is_durable:
            self.feed.is_durable = is_durable
            self.feed.publish()

    def _observe(self, body: Body) -> None:
        """See to what an entry means beside the session's state. For who knows more."""

    def _account(self) -> None:
        """Note how much there is by now. For who tells it on."""
        self._accounted = self.log.size

    def _forget_deleted(self) -> bool:
        """Forget all up to the latest deletion, so that what was deleted isn't shown from here any more.

        False: it can't be yet. Something runs, or whoever is connected hasn't been shown the deletion.
        """
        log, lowest = self.log, self.feed.lowest
        if log.deleted_at <= log.floor:
            return True
        if self.session.responses or (lowest is not None and lowest < log.deleted_at):
            return False
        self._former_keys = dict(list(self.keys().items())[-_FORMER_KEYS:])
        log.forget(log.deleted_at)
        self._account_of_log.forget(log.floor)
        return True

    def _forget_most(self) -> None:
        """Forget all but what a short turn takes, and what was deleted."""
        self._forget_deleted()
        self.log.trim(retain=_RESTING, maximum=_RESTING, attached=None, running=None, latest=self.log.head)
        self._account_of_log.forget(self.log.floor)

    @property
    def _has_forgotten(self) -> bool:
        """Whether less is here than in the store."""
        return self.log.floor > self._stored_floor

    async def _compact(self, fence: Fence) -> bool:
        """Let the store forget what is forgotten here. False: it can't now; there is another time."""
        self._stored_floor = floor = self.log.floor
        snapshot = self.snapshot()
        self._kept_elsewhere = len(snapshot.data)
        try:
            with suppress(Fenced):
                await self._store.compact(self.session.id, fence, floor, snapshot)
        except StoreUnavailable:
            return False
        return True

    def _trim(self, latest: int) -> None:
        """Forget what is over the bounds: not until it is somewhat over, and then enough for a while."""
        log, limits = self.log, self._limits
        log.trim(
            retain=limits.retain_bytes,
            maximum=limits.log_bytes if log.size <= limits.log_bytes else limits.log_bytes * 3 // 4,
            attached=self.feed.lowest,
            running=self.session.running_from,
            latest=latest,
        )
        self._account_of_log.forget(log.floor)
