"""The interface of a session store, and what every implementation guarantees.

The store is the one place where the order of a session's log is decided. It
knows nothing of conversations: it numbers bodies, fences owners and remembers
the keys of inputs.

Guarantees:

Order
    Sequence numbers of a session are assigned here, contiguous from 1, in the
    order in which calls take effect. Inputs and outputs interleave freely.
Atomicity
    A call takes effect for a session wholly or not at all. :meth:`SessionStore.append`
    takes several sessions at once; each stands for itself.
Fencing
    Outputs are accepted from the current owner only: token and node must both
    match. A token alone would not do, since a store that failed over and lost
    its tail may issue the same number twice.
    And it must have seen all outputs that there are: a write that was taken for lost, and comes
    late, comes before the one that repeats it, and not twice.
Idempotence
    An input whose key was seen within the last ``dedupe_window`` inputs of the
    session is not written again.
Durability
    What a call has returned is in the log, as far as the store is: a store may
    lose its tail, or everything, in a failure of its own. It is then noticed,
    by the incarnation, or by the nonce at the place that the caller knew last,
    and never papered over: a number alone would not do, since other entries
    may have taken the numbers of those that were lost.
News
    Who follows a session is told, through the store's
    :class:`~unbroken.sessions.backends.cluster.Cluster`, when its log has grown
    or its owner has changed; its owner is told of inputs. To be told is a hint:
    it may come late, twice or never. What is read is the truth.
Deletion
    What was deleted by :meth:`SessionStore.erase` stays so, for as long as the store remembers it: every call
    that would read, write, take or begin the session raises :class:`~unbroken.sessions.errors.SessionDeleted`
    where it would raise :class:`~unbroken.sessions.errors.SessionGone`, or do something. That is how whoever
    was cut off tells it from a session that the store has lost, and that is to be given back to it.
Turns that end
    are put into the store's outbox in the same step, where it has one
    (:mod:`unbroken.sessions.backends.outbox`).
Cancellation
    A call that is cancelled may or may not have taken effect. Callers that go
    on must read before they write.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Protocol, runtime_checkable

from msgspec import Struct

from unbroken.sessions.entries import Body, ConfigUpdated, Entry, InputKey, SessionOpened, Submitted
from unbroken.sessions.errors import MessageIdReused, StoreError
from unbroken.sessions.event_log import EventLog, Position, Verdict
from unbroken.sessions.finished import FinishedTurn
from unbroken.sessions.ids import Incarnation, NodeId, Nonce, SessionId

__all__ = [
    "NOBODY",
    "Append",
    "Fence",
    "Immediate",
    "Opened",
    "Page",
    "Parted",
    "Receipt",
    "Resident",
    "SessionStore",
    "Snapshot",
    "metadata_in",
    "names_of",
    "recalled",
]


NOBODY: Final = NodeId("")
"""The owner of a session that was released."""


@dataclass(frozen=True, slots=True)
class Fence:
    """Proof of ownership: void as soon as another node has acquired the session."""

    node: NodeId
    """:data:`NOBODY` where nobody owns it: as what is seen, not as a proof."""
    token: int
    incarnation: Incarnation


class Append(Struct, frozen=True):
    """Outputs for one session. *consumed* is the last input that they answer, or that was answered before."""

    session_id: SessionId
    fence: Fence
    seen: int
    """The last entry that the owner has seen: it must be in the store's log, with that nonce."""
    nonce: Nonce
    """Of the entry at *seen*; 0 for entry 0."""
    consumed: int
    bodies: Sequence[Body]
    is_busy: bool = True
    """Whether a response has begun, or waits, that hasn't ended with *bodies*."""
    finished: tuple[FinishedTurn, ...] = ()
    """The turns that *bodies* end, for the store's outbox; none where there is no outbox."""


@dataclass(frozen=True, slots=True)
class Receipt:
    """What became of an input. A duplicate has the sequence number of the first; nothing was written."""

    seq: int
    duplicate: bool
    entry: Entry | None
    """None for a duplicate."""


def metadata_in(bodies: Iterable[Body]) -> Mapping[str, str] | None:
    """Return what is noted of a session once *bodies* are in its log; None: they say nothing of it."""
    found: Mapping[str, str] | None = None
    for body in bodies:
        if isinstance(body, SessionOpened | ConfigUpdated):
            found = body.config.metadata or {}
    return found


def names_of(keys: Mapping[int, InputKey]) -> dict[str, tuple[int, bytes]]:
    """Return what :func:`recalled` looks in, of the keys of inputs by their numbers, in order."""
    return {key.name: (seq, key.digest) for seq, key in keys.items()}


def recalled(key: InputKey | None, names: Mapping[str, tuple[int, bytes]]) -> Receipt | None:
    """Return what became of the input of *key*; None: there was none. *names* holds the numbers of inputs
    and their digests.

    Raises:
        MessageIdReused: Its name was seen with another digest.

    """
    known = None if key is None else names.get(key.name)
    if key is None or known is None:
        return None
    seq, digest = known
    if digest != key.digest:
        raise MessageIdReused
    return Receipt(seq, duplicate=True, entry=None)


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The state of a session after entry *seq*, encoded by whoever saved it."""

    seq: int
    nonce: Nonce
    data: bytes

    def is_of(self, log: EventLog) -> bool:
        """Return whether *log* holds what this was made of."""
        return log.check(Position(log.incarnation, self.seq, self.nonce)) is Verdict.HELD


@dataclass(frozen=True, slots=True)
class Opened:
    """A session as a node finds it that takes, or only follows it."""

    fence: Fence
    """Its owner's."""
    floor: int
    floor_nonce: Nonce
    head: int
    consumed: int
    snapshot: Snapshot | None
    """None: the log is whole, from entry 1."""


@dataclass(frozen=True, slots=True)
class Page:
    """What follows a place in a log, and whose the session is."""

    entries: list[Entry]
    fence: Fence
    """The owner's, when the entries were read."""
    is_end: bool
    """Whether there was nothing behind them."""
    consumed: int
    """The last input that the owner had answered by then, be it by nothing."""
    is_told: bool = True
    """Whether the node that reads follows the session; or it doesn't, and as many do as may."""


class SessionStore(Protocol):
    """Keeps sessions' logs. The module's text says what is guaranteed."""

    @property
    def is_shared(self) -> bool:
        """Whether other nodes may hold the same sessions, and they outlive this node."""

    async def create(self, session_id: SessionId, node: NodeId, incarnation: Incarnation) -> Fence:
        """Begin an empty log owned by *node*. May be repeated, as long as the node owns that incarnation.

        Raises:
            SessionDeleted: There was one of that id, and it was deleted.
            StoreError: There is another session of that id already.

        """

    async def acquire(self, session_id: SessionId, node: NodeId, *, seen: Fence | None = None) -> Opened:
        """Take ownership: of a session that nobody owns, or from the owner that the caller saw.

        Its owner follows a session no more, also if it was the owner already: it is told of inputs only.

        Raises:
            SessionGone: There is no such session.
            Fenced: Somebody else owns it, and *seen* isn't its current fence.

        """

    async def inspect(self, session_id: SessionId) -> Opened:
        """Return how a session stands, and change nothing.

        Raises:
            SessionGone: There is no such session.

        """

    async def follow(self, session_id: SessionId, node: NodeId) -> Opened:
        """Have *node* told of what happens to a session from here on, and return how it stands.

        May be called again: a registration may be lost, as when the owner changes.

        Raises:
            SessionGone: There is no such session.

        """

    async def unfollow(self, session_id: SessionId, node: NodeId) -> None:
        """Have *node* told no more. Harmless if it wasn't.

        Also where there is no such session: it tells whether the store takes what is written of it.

        Raises:
            StoreUnavailable: The store can't be reached, or can't be written to.

        """

    async def release(self, session_id: SessionId, fence: Fence, *, to: NodeId = NOBODY) -> None:
        """Give up ownership, to *to* if that follows the session, else to nobody.

        The session stays, and its followers are told.

        Raises:
            Fenced: *fence* is void.

        """

    async def submit(self, session_id: SessionId, submitted: Submitted, seen: Position) -> Receipt:
        """Write an input, from any node, once per key, behind whatever the log holds by now.

        *seen* is how far its sender may have been shown the log. An input means something only behind what it
        speaks of: a store that has lost that takes none.

        Raises:
            SessionGone: There is no such session in that incarnation.
            LostTail: The log doesn't hold what was seen. Nothing was written.
            MessageIdReused: The key was seen with another digest.

        """

    async def recall(
        self, session_id: SessionId, incarnation: Incarnation, submitted: Submitted
    ) -> Receipt | None:
        """Return what :meth:`submit` would of an input that was written before, and write nothing.

        None: it wasn't, or has no key, or nobody knows any more.

        Raises:
            SessionGone: There is no such session in that incarnation.
            MessageIdReused: The key was seen with another digest.

        """

    async def append(self, appends: Sequence[Append]) -> list[Sequence[Entry] | StoreError]:
        """Write outputs, for several sessions in one call.

        Returns, for each session in the order given, the entries written, or
        why none was: Fenced, SessionGone, LostTail, Unseen or, of a store that can't
        hold more or can't be reached, StoreUnavailable. All entries of one session's
        batch share a nonce and are contiguous.
        """

    async def read(
        self, session_id: SessionId, after: Position, limit: int, *, node: NodeId = NOBODY
    ) -> Page:
        """Return committed entries behind *after*, in order, up to about *limit* sequence numbers, to *node*.

        The first returned entry follows *after* directly; several pieces that
        were appended together may come as fewer entries or as more.

        Raises:
            SessionGone: There is no such session in that incarnation, or its floor is above *after*.
            LostTail: The log holds another entry at *after*, or none.
            UnknownFormat: A later release has written it. It stays as it is.

        """

    async def compact(self, session_id: SessionId, fence: Fence, floor: int, snapshot: Snapshot) -> None:
        """Save *snapshot* and forget the entries up to *floor*, which must not be above ``snapshot.seq``.

        One that comes late, when a newer snapshot of the log is there, does nothing.

        Raises:
            Fenced: *fence* is void.
            SessionGone: There is no such session.
            LostTail: The log doesn't hold what the snapshot was made of. Nothing was done.

        """

    async def metadata(self, session_ids: Sequence[SessionId]) -> list[Mapping[str, str] | None]:
        """Return what is noted of each session, by the latest configuration in its log; None: it has gone.

        It is kept beside the log, and written with it: nothing else of a session is read.
        """

    async def reseed(
        self,
        session_id: SessionId,
        fence: Fence,
        incarnation: Incarnation,
        snapshot: Snapshot,
        keys: Mapping[int, InputKey],
        *,
        keeps_keys: bool = True,
        is_busy: bool = True,
        head: Position | None = None,
        finished: Sequence[FinishedTurn] = (),
        metadata: Mapping[str, str] | None = None,
    ) -> Fence:
        """Begin the log anew, from *snapshot*, as *incarnation*: for the owner of one that was lost.

        Floor and head are then ``snapshot.seq``. Nothing of the other
        incarnation can be resumed from. *keys* are those of inputs that the snapshot knows of, by their
        numbers. Others that the store remembers are kept, unless *keeps_keys* says otherwise: an input
        that is in no log any more has to be sent again. *is_busy* is as in :attr:`Append.is_busy`. *head* is
        where the lost log ended when it was read for what others had written, whose names are kept.
        *finished* are turns that ended of late: the outbox may have lost them with the log. *metadata* is
        what is noted of the session in *snapshot*; None: nothing.

        Raises:
            SessionDeleted: It isn't lost, it was deleted. Nothing was done.
            Unseen: It has gone on since. Nothing was done.
            Fenced: There is such a session, and *fence* is void.

        """

    async def rejoin(
        self,
        session_id: SessionId,
        fence: Fence,
        after: Position,
        consumed: int,
        entries: Sequence[Entry],
        *,
        is_busy: bool = True,
        finished: Sequence[FinishedTurn] = (),
    ) -> None:
        """Write entries that the owner has numbered itself while the store was out of reach, as they are.

        *is_busy* is as in :attr:`Append.is_busy`, *finished* as in :attr:`Append.finished`.

        Raises:
            Fenced: *fence* is void.
            SessionGone: There is no such session.
            LostTail: The log's head isn't *after*: it has lost entries, or has gone on without these.

        """

    async def busy(
        self, owner: NodeId, limit: int, *, known: Collection[SessionId] = ()
    ) -> list[tuple[SessionId, Fence]]:
        """Return up to *limit* sessions of *owner* that have something to do, each with the owner's fence.

        Those that are *known* are left out, and cost nothing.
        Those with a response that hasn't ended (:attr:`Append.is_busy`), or with an input that hasn't
        been answered: of a dead owner, somebody has to take them.
        """

    async def owners(self) -> set[NodeId]:
        """Return whose sessions have something to do, as :meth:`busy` would tell; :data:`NOBODY` may be one.

        A hint: of a name that is returned, :meth:`busy` may find nothing.
        """

    async def keep(self, session_ids: Collection[SessionId]) -> None:
        """Have sessions last as if something had just been written to them, by whomever they are owned.

        Harmless for those that are gone. A store in which nothing expires has nothing to do.

        Raises:
            StoreUnavailable: Some of them may not have been kept.

        """

    async def delete(self, session_id: SessionId, fence: Fence) -> None:
        """Forget the session altogether. Harmless if it is gone.

        Raises:
            Fenced: *fence* is void.

        """

    async def erase(self, session_id: SessionId) -> None:
        """Delete a session for good, whoever owns it, and remember that it was. From any node.

        Also where there is no such session: somebody who was cut off may have it, and give it back. May be
        repeated. Its owner and its followers are told.

        Raises:
            StoreUnavailable: It may have been done.

        """


@runtime_checkable
class Immediate(Protocol):
    """A store that need not be waited for, as one in this process's memory. One behind a network is none."""

    def append_now(self, appends: Sequence[Append]) -> list[Sequence[Entry] | StoreError]:
        """Do what :meth:`SessionStore.append` does, at once."""


@runtime_checkable
class Parted(Protocol):
    """A store that may be divided among several servers, of which each may fail by itself.

    What is being moved from one to another may, too: it is a part of its own then, from the first call that
    fails of it. There is a bounded number of parts.
    """

    def part_of(self, session_id: SessionId) -> str:
        """Return the name of the part that holds a session now; empty: there is but one."""


@runtime_checkable
class Resident(Protocol):
    """A store whose memory is this process's."""

    def keys_bytes(self, session_id: SessionId) -> int:
        """Return the bytes that a session's input keys take, roughly; 0: there is no such session."""
