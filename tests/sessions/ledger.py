"""A store that remembers all it ever held, also what it has lost since, and what readers were shown of it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

from tests.sessions.conversation import Client, Frame
from unbroken.server.protocols.cursor import parse_cursor
from unbroken.sessions.backends.memory import MemoryStore, _Stored
from unbroken.sessions.entries import Body, Deltas, Entry
from unbroken.sessions.errors import SessionError
from unbroken.sessions.event_log import Position, Record, Slice
from unbroken.sessions.ids import Incarnation, NodeId, Nonce, ResponseId, SessionId
from unbroken.sessions.node import Attachment

__all__ = ["Ledger", "Piece", "Reader"]


class Piece(NamedTuple):
    """One piece of an answer."""

    response_id: ResponseId
    item_id: str
    output_index: int
    content_index: int
    ordinal: int
    text: str


class Held(NamedTuple):
    """What was at a place, and the nonce of the place before."""

    what: Body | Piece
    before: int


def places(record: Record, incarnation: Incarnation) -> Iterator[tuple[Position, Body | Piece]]:
    """Yield each place that a record takes in a log, and what is there."""
    said: Slice | Deltas
    if isinstance(record, Slice):
        said, nonces = record, record.nonces
    elif isinstance(record.body, Deltas):
        said, nonces = record.body, [record.nonce] * len(record.body.parts)
    else:
        yield Position(incarnation, record.seq, record.nonce), record.body
        return
    for index, (text, nonce) in enumerate(zip(said.parts, nonces, strict=True)):
        piece = Piece(
            said.response_id,
            said.item_id,
            said.output_index,
            said.content_index,
            said.ordinal + index,
            text,
        )
        yield Position(incarnation, record.seq + index, Nonce(nonce)), piece


class Ledger(MemoryStore):
    """What is written once is never something else; and what follows what."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.held: dict[Position, Held] = {}
        """All there ever was, of all sessions."""

    def chain(self, head: Position) -> list[tuple[Position, Body | Piece]]:
        """Return what leads to *head*, from the beginning of its log."""
        found: list[tuple[Position, Body | Piece]] = []
        while (held := self.held.get(head)) is not None:
            found.append((head, held.what))
            head = Position(head.incarnation, head.seq - 1, Nonce(held.before))
        return found[::-1]

    def _keep(self, stored: _Stored, entry: Entry) -> None:
        log = stored.log
        before: int = log.head_nonce
        for place, what in places(entry, log.incarnation):
            held = Held(what, before)
            assert self.held.setdefault(place, held) == held
            before = place.nonce
        super()._keep(stored, entry)

    def _announce(self, session_id: SessionId, stored: _Stored, *others: NodeId) -> None:
        if self._tell is not None:
            for node in (*sorted(stored.followers), *others):  # in an order that follows from the seed
                if node:
                    self._tell(node, session_id)


class Reader(Client):
    """A client that looks at each record it is shown, and remembers how each answer has ended."""

    ledger: Ledger

    is_lossy = False
    """Whether what was in the store may be lost."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.stretch: list[Position] = []
        """The places it has seen since it began, or began anew: one after another."""
        self.unsaved: list[tuple[Position, Held]] = []
        """Of these, what the store isn't known to have held."""
        self._former: tuple[list[Position], list[tuple[Position, Held]], list[Frame]] | None = None
        self.ends: dict[str, tuple[str, Position]] = {}
        """How answers have ended, and where, by the store."""
        self.is_cut_off = True
        """Whether nothing more comes over the connection, as far as it has looked, or there is none."""

    def attach(
        self, attachment: Attachment, position: Position | None, remaining: int = 0, *, is_new: bool = False
    ) -> None:
        place, before = attachment.cursor.position(), (self.stretch, self.unsaved, list(self.frames))
        super().attach(attachment, position, remaining, is_new=is_new)
        self.is_cut_off = False
        if position is None or not attachment.resumed:
            self.check_frames(before[2])
            self._former = self._former or before
            self.stretch, self.unsaved = [place], []
            return
        if self._former is not None:  # it was told to begin anew, and hasn't heard of it
            self.stretch, self.unsaved, self.frames = self._former
            self._former = None
        assert place in self.stretch, "it goes on where it never was"
        del self.stretch[self.stretch.index(place) + 1 :]
        self.unsaved = [each for each in self.unsaved if each[0].seq <= place.seq]

    def _taken(self) -> list[Record]:
        assert self.attachment is not None
        records = super()._taken()
        is_saved = self.attachment.cursor.is_durable
        for record in records:
            for place, what in places(record, self.stretch[-1].incarnation):
                before = self.stretch[-1]
                assert place.seq == before.seq + 1, "there is a gap"
                held = Held(what, before.nonce)
                if is_saved:
                    assert self.ledger.held.get(place) == held, "it isn't what the store has"
                else:
                    self.unsaved.append((place, held))
                self.stretch.append(place)
        return records

    def read(self, count: int | None = None) -> list[Frame]:
        known = len(self.frames)
        try:
            return super().read(count)
        finally:
            for frame in self.frames[known:]:
                self._former = None
                if frame["type"] == "response.done":
                    self._note_end(frame)

    def _note_end(self, frame: Frame) -> None:
        parsed = parse_cursor(frame["event_id"])
        assert parsed is not None
        place, _ = parsed
        if place in self.ledger.held:
            response = frame["response"]
            end = response["status"], place
            known = self.ends.setdefault(response["id"], end)
            assert self.is_lossy or known == end, "it ends twice"
            self.ends[response["id"]] = end

    def look(self, count: int | None = None) -> None:
        """See what there is, if anything comes at all."""
        if not self.is_cut_off:
            try:
                self.read(count)
            except SessionError:
                self.is_cut_off = True

    def drop(self) -> None:
        """Lose the connection to a node that doesn't notice."""
        self.attachment = self.connection = None
        self.is_cut_off = True
        self._pending.clear()
        self._own.clear()

    def disconnect(self) -> None:
        super().disconnect()
        self.is_cut_off = True

    @staticmethod
    def check_frames(frames: list[Frame]) -> None:
        """What an answer's pieces were is what it was in the end; and it has one end."""
        said: dict[str, str] = {}
        done: set[str] = set()
        for frame in frames:
            if frame["type"] == "response.output_text.delta":
                assert frame["response_id"] not in done
                said[frame["item_id"]] = said.get(frame["item_id"], "") + frame["delta"]
            elif frame["type"] == "response.done":
                assert frame["response"]["id"] not in done
                done.add(frame["response"]["id"])
                for item in frame["response"]["output"]:
                    if item["type"] == "message":
                        whole = "".join(part["text"] for part in item["content"])
                        assert said.get(item["id"], "") == whole

    def check(self, head: Position) -> None:
        """All it was shown is the store's, up to *head*."""
        self.check_frames(self.frames)
        assert self.stretch[-1] == head
        for place, held in self.unsaved:
            assert self.ledger.held.get(place) == held
