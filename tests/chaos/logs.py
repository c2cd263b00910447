"""What must hold of the logs that are left in the end, and of histories beside them. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field

from tests.chaos.checker import Violation, acknowledged, check_words
from tests.chaos.history import History, Segment
from tests.chaos.talk import Talk
from unbroken.server.protocols.cursor import parse_cursor
from unbroken.sessions.backends.redis.keys import Bounds
from unbroken.sessions.entries import (
    Body,
    CancelAccepted,
    CreateItem,
    CreateResponse,
    Deltas,
    Entry,
    ItemAdded,
    ItemDeleted,
    OutputDone,
    OutputStarted,
    ResponseDone,
    ResponseStarted,
    Submitted,
)
from unbroken.sessions.items import Message

__all__ = ["Log", "check_acknowledged", "check_log", "check_shown"]

_VISIBLE = (ItemAdded, ResponseStarted, OutputStarted, OutputDone, ResponseDone)
"""What every client is shown, whoever it is, as frames of its own."""


_MOST_NAMES = Bounds().dedupe_window * 5 // 4
_MOST_BYTES = 2 * (1 << 20) + 2 * (2 << 20)
"""Twice the log that a node keeps at most, and twice the conversation: Redis needs some more than that."""


@dataclass(frozen=True, slots=True)
class Log:
    """A session's log as the store holds it."""

    session: str
    incarnation: str
    floor: int
    """Entries up to here are forgotten."""
    entries: list[Entry]
    owner: str = ""
    standing: tuple[tuple[str, str, str], ...] = ()
    """The items of its snapshot, in order: id, role and text. What is being said says nothing yet."""
    snapshot: int = 0
    """The last entry that the snapshot knows of."""
    is_whole: bool = True
    """False: the store itself can't read on behind the last of these."""
    names: int = 0
    """How many inputs the store knows again."""
    bytes: int = 0
    """What its entries and its snapshot take there."""

    def turns(self) -> dict[str, str]:
        """Return for each response what it was asked, also where the log has but its end left."""
        return {
            entry.body.response_id: _turn(entry.body)
            for entry in self.entries
            if isinstance(entry.body, ResponseStarted | ResponseDone)
        }

    def answers(self) -> Iterator[tuple[str, str]]:
        """Yield each item of an answer, with the response that it is of."""
        for entry in self.entries:
            if isinstance(entry.body, OutputStarted):
                yield entry.body.item_id, entry.body.response_id


@dataclass(slots=True)
class _Attempt:
    turn: str
    """What was asked."""
    text: str = ""
    past: str | None = None
    """Digest of what was said before; None: that isn't known."""
    is_cancelled: bool = False
    status: str | None = None


def _turn(body: ResponseStarted | CreateResponse | ResponseDone) -> str:
    metadata = body.metadata if isinstance(body, ResponseDone) else body.request.metadata
    return (metadata or {}).get("turn", "")


def check_log(log: Log, *, is_over: bool = True) -> list[Violation]:
    """Check that a log's entries follow from one another. *is_over*: nothing should run any more."""
    auditor = _Auditor(log)
    for entry in log.entries:
        auditor.read(entry)
    if not log.is_whole:
        last = log.entries[-1].last if log.entries else log.floor
        auditor.found.append(Violation("I1", f"log of {log.session}", f"can't be read behind {last}"))
    if is_over:
        auditor.close()
    for what, much, most in (("names", log.names, _MOST_NAMES), ("bytes", log.bytes, _MOST_BYTES)):
        if much > most:
            auditor.found.append(Violation("I10", f"log of {log.session}", f"has {much} {what}"))
    return auditor.found


@dataclass(slots=True)
class _Auditor:
    log: Log
    found: list[Violation] = field(default_factory=list)
    _attempts: dict[str, _Attempt] = field(default_factory=dict)
    _numbers: dict[str, tuple[int, int]] = field(default_factory=dict)  # each attempt's turn, and its number
    _lost: dict[int, int] = field(default_factory=dict)  # turns whose latest attempt was lost: its number
    _inputs: Counter[str] = field(default_factory=Counter)
    _talk: Talk = field(default_factory=Talk)
    _next: int = 0

    def __post_init__(self) -> None:
        self._next = self.log.floor + 1
        previous = None
        for item_id, role, text in self.log.standing:
            self._talk.add(item_id, role, text, previous)
            previous = item_id

    def _blame(self, rule: str, what: str) -> None:
        self.found.append(Violation(rule, f"log of {self.log.session}", what))

    def read(self, entry: Entry) -> None:
        """Take the next entry."""
        if entry.seq != self._next:
            self._blame("I1", f"entry {entry.seq} follows {self._next - 1}")
        self._next = entry.last + 1
        if entry.seq > self.log.snapshot:
            self._listen(entry.body)
        match entry.body:
            case Submitted():
                self._input(entry.body)
            case ResponseStarted():
                self._started(entry.body)
            case Deltas() as body:
                if attempt := self._attempt(body.response_id, f"pieces at {entry.seq}"):
                    attempt.text += "".join(body.parts)
                    if attempt.is_cancelled:
                        self._blame("I7", f"pieces of {body.response_id} after its cancel was accepted")
            case CancelAccepted() as body:
                if attempt := self._attempt(body.response_id, f"a cancel at {entry.seq}"):
                    attempt.is_cancelled = True
            case OutputStarted() | OutputDone() as body:
                self._attempt(body.response_id, f"an output at {entry.seq}")
            case ResponseDone():
                self._done(entry.body)
            case _:
                pass

    def _listen(self, body: Body) -> None:
        """Follow the conversation."""
        match body:
            case ItemAdded(item=Message() as item):
                self._talk.add(item.id, item.role, item.text, body.previous)
            case ItemDeleted():
                self._talk.delete(body.item_id)
            case OutputStarted(in_conversation=True):
                self._talk.add(body.item_id, "assistant", "", body.previous)
                if attempt := self._attempts.get(body.response_id):
                    attempt.past = self._talk.before(body.item_id)
            case OutputDone(item=Message() as item):
                self._talk.close(item.id, item.text)
            case _:
                pass

    def _input(self, body: Submitted) -> None:
        command = body.command
        if isinstance(command, CreateItem):
            name = f"item {command.item.id}"
        elif isinstance(command, CreateResponse):
            name = f"request {_turn(command)}"
        else:
            return
        self._inputs[name] += 1
        if self._inputs[name] == 2:
            self._blame("I5", f"{name} is there twice")

    def _started(self, body: ResponseStarted) -> None:
        if body.response_id in self._attempts:
            self._blame("I3", f"{body.response_id} was begun twice")
        is_whole = self.log.floor == 0
        if is_whole and body.attempt > 1 and self._lost.get(body.turn) != body.attempt - 1:
            self._blame("I6", f"{body.response_id} is attempt {body.attempt} of a turn that was not lost")
        turn = _turn(body)
        for other_id, other in self._attempts.items():
            if other.turn == turn and other.status != "interrupted":
                self._blame("I6", f"{turn!r} is answered by {body.response_id} and {other_id}")
        self._lost.pop(body.turn, None)
        self._attempts[body.response_id] = _Attempt(turn)
        self._numbers[body.response_id] = body.turn, body.attempt

    def _attempt(self, response_id: str, what: str) -> _Attempt | None:
        attempt = self._attempts.get(response_id)
        if attempt is None:
            if self.log.floor == 0:
                self._blame("I3", f"{what} of {response_id}, which was never begun")
        elif attempt.status is not None:
            self._blame("I7", f"{what} of {response_id} after its end")
        return attempt

    def _done(self, body: ResponseDone) -> None:
        if body.ordinal == 0:  # it ended while it waited, and was never begun
            return
        attempt = self._attempt(body.response_id, "the end")
        if attempt is None or attempt.status is not None:
            return
        attempt.status = body.status
        where = f"log of {self.log.session}"
        final = "".join(item.text for item in body.output if isinstance(item, Message))
        if final != attempt.text:
            self._blame("I8", f"{body.response_id} says {final[-40:]!r}, its pieces {attempt.text[-40:]!r}")
        self.found += check_words(where, attempt.turn, body.status, attempt.text, attempt.past)
        if body.status == "interrupted":
            turn, number = self._numbers[body.response_id]
            self._lost[turn] = number

    def close(self) -> None:
        """Note what never ended."""
        for response_id, attempt in self._attempts.items():
            if attempt.status is None:
                self._blame("I12", f"{response_id} ({attempt.turn}) never ended")


def check_shown(history: History, log: Log) -> Iterator[Violation]:
    """Check that what a tab holds in the end is what the log holds. It must have come to its end."""
    segments = history.segments()
    if not segments:
        return
    where = f"{history.session} {history.tab}"
    places = _places(segments[-1])
    nonces = _nonces(log)
    for seq, (incarnation, nonce, event_id) in places.items():
        if incarnation != log.incarnation:
            yield Violation("I2", where, f"{event_id} is of a log that is gone, and nobody said so")
            return
        if seq > log.floor and nonces.get(seq) != nonce:
            yield Violation("I2", where, f"{event_id} is not what the log holds there: {nonces.get(seq)}")
    if not places:
        return
    first, last = min(places), max(places)
    for entry in log.entries:
        if isinstance(entry.body, _VISIBLE) and first < entry.seq <= last and entry.seq not in places:
            kind = type(entry.body).__name__
            yield Violation("I1", where, f"{kind} at {entry.seq} was left out between {first} and {last}")


def _places(segment: Segment) -> dict[int, tuple[str, int, str]]:
    """Return which entries' frames a segment has, but for those that merely repeat where a connection is."""
    places: dict[int, tuple[str, int, str]] = {}
    for frame in segment.frames:
        parsed = parse_cursor(frame["event_id"])
        if parsed is not None and "-" not in frame["event_id"]:
            position = parsed[0]
            places[position.seq] = position.incarnation, position.nonce, frame["event_id"]
    return places


def _nonces(log: Log) -> dict[int, int]:
    return {seq: entry.nonce for entry in log.entries for seq in range(entry.seq, entry.last + 1)}


def check_acknowledged(history: History, log: Log | None) -> Iterator[Violation]:
    """Check that what was acknowledged is in the log, or that the client was told to start over later.

    *log* is None where the store doesn't have the session any more.
    """
    kept = _taken(log)
    if log is not None and log.floor > 0:  # requests before that are forgotten, items aren't
        kept |= {_name(event) for event in history.sent() if event["type"] == "response.create"}
    segments = history.segments()
    sent = {_name(event) for event in history.sent()} - {""}
    for number, segment in enumerate(segments):
        if any(later.is_reset for later in segments[number + 1 :]):
            continue
        for name in (acknowledged(segment.frames) & sent) - kept:
            yield Violation("I9", f"{history.session} {history.tab}", f"{name} was acknowledged and is gone")


def _name(event: dict[str, object]) -> str:
    """Return what an event is recognised by in :func:`acknowledged`."""
    if event["type"] == "conversation.item.create":
        item = event["item"]
        return str(item["id"]) if isinstance(item, dict) else ""
    response = event.get("response")
    if event["type"] == "response.create" and isinstance(response, dict):
        return str(response["metadata"]["turn"])
    return ""


def _taken(log: Log | None) -> set[str]:
    taken: set[str] = set() if log is None else {item_id for item_id, _, _ in log.standing}
    for entry in [] if log is None else log.entries:
        if isinstance(entry.body, ItemAdded):
            taken.add(entry.body.item.id)
        elif isinstance(entry.body, ResponseStarted | ResponseDone):
            taken.add(_turn(entry.body))  # it may have ended while it waited, and never begun
    return taken
