"""The bounded, contiguous log of one session, and places in it.

The log holds entries by sequence number, from just above its floor to its head.
Consecutive pieces of one output are kept together as a :class:`Run`, and packed
into one string when their response ends: a piece then costs eight bytes beside
its text, and yet every position inside the answer stays resumable exactly.

No I/O, no clock. What to forget is decided by :meth:`EventLog.trim` from what
the caller tells it; nothing is forgotten otherwise.
"""

from __future__ import annotations

import enum
from array import array
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from itertools import accumulate
from typing import Final, NamedTuple, TypeAlias

import msgspec
from msgspec import UNSET, Struct, UnsetType

from unbroken.sessions.entries import (
    DeleteItem,
    DeltaKind,
    Deltas,
    Entry,
    InputKey,
    ItemDeleted,
    ResponseDone,
    ResponseQueued,
    ResponseStarted,
    Submitted,
    encode_entry,
)
from unbroken.sessions.errors import OutOfOrder
from unbroken.sessions.ids import Incarnation, ItemId, Nonce, ResponseId
from unbroken.sessions.items import Produced

__all__ = ["EventLog", "Position", "Record", "Slice", "Verdict"]

_ENTRY_COST: Final = 300
"""Bytes an entry takes beside its text, roughly: objects, ids, list slots."""

_PIECE_COST: Final = 64
"""Bytes an unpacked piece takes beside its text, roughly."""

_PACKED_PIECE_COST: Final = 8

_RUN_LIMIT: Final = 65_536
"""Characters after which a run is followed by another, so that old parts of a long answer can be dropped."""


class Position(NamedTuple):
    """A place in a log: everything up to and including entry *seq* has been seen.

    A sequence number alone would not do. A log that was lost and begun anew
    uses the same numbers for other entries; the incarnation tells them apart.
    A store that failed over and lost its tail goes on in the same incarnation;
    the nonce of the entry at *seq* tells the branches apart.
    """

    incarnation: Incarnation
    seq: int
    nonce: Nonce


class Verdict(enum.Enum):
    """What a log says of a position."""

    HELD = "held"
    """It can be resumed from: what follows it is here, all of it."""

    BELOW_FLOOR = "below_floor"
    """What follows it has been forgotten in part."""

    OTHER_BRANCH = "other_branch"
    """It is of another incarnation, or of a branch that was lost."""

    FUTURE = "future"
    """It is beyond the head."""


class Slice(Struct, frozen=True):
    """Consecutive pieces of one output, as read from a log. ``nonces[i]`` belongs to ``parts[i]``."""

    seq: int
    last: int
    """The last piece's sequence number."""
    response_id: ResponseId
    item_id: ItemId
    output_index: int
    content_index: int
    ordinal: int
    parts: Sequence[str]
    nonces: Sequence[int]
    call_id: str | UnsetType = UNSET
    kind: DeltaKind | UnsetType = UNSET
    """As in :class:`Deltas`, both."""


Record: TypeAlias = Entry | Slice


class Run:
    """Consecutive pieces of one output, growing until it is packed."""

    __slots__ = ("_ends", "_nonces", "_parts", "_text", "body", "seq", "size")

    def __init__(self, seq: int, body: Deltas) -> None:
        self.seq = seq
        self.body = msgspec.structs.replace(body, parts=[])
        """Whose pieces they are; its own ``parts`` are left empty."""
        self.size = 0
        self._parts: list[str] = []
        self._nonces = array("I")
        self._text = ""  # once packed, all pieces joined
        self._ends: array[int] | None = None  # once packed, where each piece ends in the text

    @property
    def last(self) -> int:
        return self.seq + len(self._nonces) - 1

    def add(self, body: Deltas, nonce: Nonce) -> int:
        """Add pieces which come next in the log, and return by how many bytes the run grew.

        0: *body* doesn't go on where this run stops, or the run is long enough.
        """
        own = self.body
        if not (
            self._ends is None
            and self.size < _RUN_LIMIT
            and body.item_id == own.item_id
            and body.content_index == own.content_index
            and body.output_index == own.output_index
            and body.response_id == own.response_id
        ):
            return 0
        parts = body.parts
        if len(parts) == 1:
            grown = len(parts[0]) + _PIECE_COST
            self._nonces.append(nonce)
            self._parts.append(parts[0])
        else:
            grown = sum(map(len, parts)) + _PIECE_COST * len(parts)
            self._nonces.extend([nonce] * len(parts))
            self._parts += parts
        self.size += grown
        return grown

    def pack(self, whole: str) -> int:
        """Join the pieces, and return by how many bytes the run shrank.

        *whole* is used for the text if it is the same: then both are one object.
        """
        if self._ends is not None:
            return 0
        ends = array("I", accumulate(map(len, self._parts)))
        joined = "".join(self._parts)
        self._text = whole if whole == joined else joined
        self._ends = ends
        self._parts = []
        packed = _ENTRY_COST + len(self._text) + _PACKED_PIECE_COST * len(ends)
        shrunk = self.size - packed
        self.size = packed
        return shrunk

    def nonce_at(self, seq: int) -> Nonce:
        return Nonce(self._nonces[seq - self.seq])

    def slice(self, after: int, limit: int) -> Slice:
        """Return up to *limit* pieces behind sequence number *after*."""
        start = max(0, after + 1 - self.seq)
        stop = min(len(self._nonces), start + limit)
        if self._ends is None:
            parts = self._parts[start:stop]
        else:
            begin = self._ends[start - 1] if start else 0
            parts = []
            for end in self._ends[start:stop]:
                parts.append(self._text[begin:end])
                begin = end
        own = self.body
        return Slice(
            self.seq + start,
            self.seq + stop - 1,
            own.response_id,
            own.item_id,
            own.output_index,
            own.content_index,
            own.ordinal + start,
            parts,
            self._nonces[start:stop],
            own.call_id,
            own.kind,
        )


class EventLog:
    """One session's log, as far as it is remembered."""

    __slots__ = (
        "_firsts",
        "_floor_nonce",
        "_segments",
        "_weights",
        "deleted_at",
        "floor",
        "head",
        "head_nonce",
        "incarnation",
        "size",
    )

    def __init__(self, incarnation: Incarnation, *, floor: int = 0, floor_nonce: Nonce | None = None) -> None:
        self.incarnation: Final = incarnation
        self.floor = floor
        """The highest sequence number that is forgotten. 0: nothing is."""
        self.head = floor
        """The highest sequence number there is. 0: the log is empty."""
        self.size = 0
        """Bytes held, roughly."""
        self.deleted_at = 0
        """The latest entry by which an item left that a client deleted; what it said is at or before that."""
        self._floor_nonce = floor_nonce if floor_nonce is not None else Nonce(0)
        self.head_nonce = self._floor_nonce
        """The nonce of the entry at the head; 0: the log is empty."""
        self._segments: list[Entry | Run] = []
        self._firsts: list[int] = []  # each segment's first sequence number, for bisection
        self._weights: list[int] = []  # each entry's bytes, which are dear to count; a run knows its own

    def append(self, entry: Entry) -> None:
        """Add the next entry.

        Raises:
            OutOfOrder: *entry* does not follow the head directly.

        """
        if entry.seq != self.head + 1:
            raise OutOfOrder(self.head + 1, entry.seq)
        body = entry.body
        self.head_nonce = entry.nonce
        if type(body) is Deltas:
            if not body.parts:
                raise ValueError("a Deltas entry must hold at least one piece")
            tail = self._segments[-1] if self._segments else None
            grown = tail.add(body, entry.nonce) if type(tail) is Run else 0
            if not grown:
                tail = Run(entry.seq, body)
                self._add(tail, entry.seq, 0)
                grown = tail.add(body, entry.nonce)
            self.size += grown
            self.head += len(body.parts)
        else:
            weight = _ENTRY_COST + len(encode_entry(entry))
            self._add(entry, entry.seq, weight)
            self.size += weight
            self.head = entry.seq
            if type(body) is ItemDeleted and self._is_deletion(body.input):
                self.deleted_at = entry.seq

    def _add(self, segment: Entry | Run, first: int, weight: int) -> None:
        self._segments.append(segment)
        self._firsts.append(first)
        self._weights.append(weight)

    def _weight(self, index: int) -> int:
        """Return how many bytes a segment takes, roughly: its text and the objects around it."""
        segment = self._segments[index]
        return segment.size if isinstance(segment, Run) else self._weights[index]

    def nonce_at(self, seq: int) -> Nonce:
        """Return the nonce of entry *seq*, which must be from the floor to the head. 0 has nonce 0."""
        if seq == self.floor:
            return self._floor_nonce
        segment = self._segments[bisect_right(self._firsts, seq) - 1]
        return segment.nonce_at(seq) if isinstance(segment, Run) else segment.nonce

    def position(self, seq: int) -> Position:
        """Return the position at *seq*, which must be from the floor to the head."""
        return Position(self.incarnation, seq, self.nonce_at(seq))

    def holds(self, entry: Entry) -> bool:
        """Return whether *entry* is in here: itself, not another one in its place."""
        return self.floor < entry.seq <= self.head and self.nonce_at(entry.seq) == entry.nonce

    def check(self, position: Position) -> Verdict:
        """Say whether *position* can be resumed from."""
        if position.incarnation != self.incarnation:
            return Verdict.OTHER_BRANCH
        if position.seq > self.head:
            return Verdict.FUTURE
        if position.seq < self.floor:
            return Verdict.BELOW_FLOOR
        return Verdict.HELD if self.nonce_at(position.seq) == position.nonce else Verdict.OTHER_BRANCH

    def read(self, after: int, limit: int) -> list[Record]:
        """Return what follows *after*, in order, up to *limit* sequence numbers.

        *after* must not be below the floor: check first.
        """
        tail = self._segments[-1] if self._segments else None
        if type(tail) is Run and after >= tail.seq - 1:
            return [tail.slice(after, limit)] if after < self.head else []
        records: list[Record] = []
        index = max(0, bisect_right(self._firsts, after + 1) - 1)
        while limit > 0 and index < len(self._segments):
            segment = self._segments[index]
            index += 1
            if segment.last <= after:
                continue
            if type(segment) is Run:
                piece = segment.slice(after, limit)
                records.append(piece)
                limit -= len(piece.parts)
            else:
                records.append(segment)  # type: ignore[arg-type]
                limit -= 1
        return records

    def beginning_of(self, response_id: str) -> int | None:
        """Return the first entry of a response by its number; None: it isn't remembered, or never began."""
        found: int | None = None
        for segment in reversed(self._segments):
            if type(segment) is Run:
                continue
            body = segment.body
            if type(body) is ResponseQueued and body.response_id == response_id:
                found = segment.seq
            elif type(body) is ResponseStarted and body.response_id == response_id:
                # If its input is forgotten, so may be that it waited.
                found = segment.seq if body.turn > self.floor or body.attempt > 1 else None
            elif type(body) is ResponseDone and body.response_id == response_id and not body.ordinal:
                found = segment.seq  # unless there is another: it ended while it waited
        return found

    def ends(self) -> Iterator[ResponseDone]:
        """Yield how responses ended, as far as that is remembered, the last one first."""
        for segment in reversed(self._segments):
            if type(segment) is Entry and type(segment.body) is ResponseDone:
                yield segment.body

    def input_at(self, seq: int) -> Submitted | None:
        """Return the input of that number; None: it is none, or isn't remembered."""
        if not self.floor < seq <= self.head:
            return None
        segment = self._segments[bisect_right(self._firsts, seq) - 1]
        return segment.body if type(segment) is Entry and type(segment.body) is Submitted else None

    def _is_deletion(self, seq: int) -> bool:
        submitted = self.input_at(seq)
        return submitted is not None and type(submitted.command) is DeleteItem

    def keys(self) -> dict[int, InputKey]:
        """Return the keys of the inputs that are remembered, by their numbers."""
        return {
            segment.seq: segment.body.key
            for segment in self._segments
            if type(segment) is Entry and type(segment.body) is Submitted and segment.body.key is not None
        }

    def pack(self, response_id: ResponseId, output: Sequence[Produced] = ()) -> None:
        """Pack the pieces of a response that has ended. Changes no sequence number, nonce or text.

        Pieces that make up the text of an item in *output* share its memory.
        """
        texts = {item.id: item.text for item in output}
        for segment in reversed(self._segments):
            if type(segment) is Run:
                if segment.body.response_id == response_id:
                    self.size -= segment.pack(texts.get(segment.body.item_id, ""))
            elif type(segment.body) is ResponseStarted and segment.body.response_id == response_id:
                return

    def trim(
        self, *, retain: int, maximum: int, attached: int | None, running: int | None, latest: int
    ) -> int:
        """Forget the oldest entries, and return the floor.

        Args:
            retain: Bytes to keep in any case; above it, what every attached cursor has passed may go.
            maximum: Bytes above which the oldest goes even though an attached cursor still needs it.
            attached: The lowest sequence number that an attached cursor is at; None: there is none.
            running: The first sequence number of the oldest response that still runs; None: there is none.
                It is kept like what a cursor needs: whoever is cut off in mid-answer comes back for it.
            latest: The head before what was committed last, which stays in any case: else a cursor
                that keeps up could lose it unseen.

        """
        size = self.size
        through = self.floor
        for index, segment in enumerate(self._segments):
            if segment.last > latest:
                break
            needed = (attached is not None and segment.last > attached) or (
                running is not None and segment.last >= running
            )
            if size <= (maximum if needed else retain):
                break
            size -= self._weight(index)
            through = segment.last
        self.forget(through)
        return self.floor

    def forget(self, through: int) -> None:
        """Forget entries up to *through*. A run that goes beyond it stays whole."""
        drop = 0
        for segment in self._segments:
            if segment.last > through:
                break
            self.size -= self._weight(drop)
            drop += 1
        if drop:
            last = self._segments[drop - 1].last
            self._floor_nonce = self.nonce_at(last)
            self.floor = last
            del self._segments[:drop]
            del self._firsts[:drop]
            del self._weights[:drop]

    def __repr__(self) -> str:
        return f"<EventLog {self.incarnation} {self.floor}..{self.head} {self.size} bytes>"
