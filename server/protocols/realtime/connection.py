"""One client's end of the Realtime protocol: frames in to submissions, log records in to frames out.

No I/O. The transport feeds it and writes what it returns.
"""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import chain
from typing import Final

import msgspec
import orjson

from unbroken.server.auth.pins import Pins
from unbroken.server.protocols.items import DecodeError
from unbroken.server.protocols.realtime.decode import command_of, decode_event
from unbroken.server.protocols.realtime.encode import (
    Frame,
    RealtimeEncoder,
    error_frame,
    item_frame,
    refusal_frame,
    session_fields,
)
from unbroken.server.protocols.realtime.frames import (
    ItemCreate,
    ItemRetrieve,
    ResponseCreate,
    ResponseParam,
)
from unbroken.server.protocols.realtime.pinning import check_pins
from unbroken.sessions.entries import (
    Command,
    CreateItem,
    CreateResponse,
    Entry,
    InputKey,
    Refused,
    Submitted,
)
from unbroken.sessions.event_log import Position, Record, Slice
from unbroken.sessions.ids import ChainId, ItemId
from unbroken.sessions.items import Item
from unbroken.sessions.response import Ongoing, Standing
from unbroken.sessions.session import Session

__all__ = ["RealtimeConnection", "lone_error"]

# The Agents SDKs ask for responses under these. Resumed by their application, they begin at one again:
# the first request would be taken for the one that was answered before, and nobody would answer.
_COUNTED: Final = ("agents_py_response_create_", "agents_js_response_create_")


class RealtimeConnection:
    """The protocol state of one connection.

    Args:
        session: The session it is attached to, to look at.
        start: Where its cursor stands at first.
        chain: Whose refusals it shows.
        max_depth: How deeply a client's event may be nested.
        refusals_from: Refusals up to this entry aren't shown: a client that has seen nothing
            doesn't know what was refused.
        encoder: Of the session's log, which its connections share. None: one of its own.
        pins: What the client can't change. None: nothing.
        most_tokens: What no answer may go beyond, whatever its client asks for. None: nothing.
        plan: By which the client came: what it asks for is noted with it. None: nobody knows.
        now: Says what time it is, in seconds since 1970.
        remaining: If not 0, the cursor stands before a record that the client has seen in
            part: only so many of its last frames are sent.

    """

    def __init__(
        self,
        session: Session,
        start: Position,
        chain: ChainId,
        *,
        max_depth: int,
        remaining: int = 0,
        refusals_from: int = 0,
        encoder: RealtimeEncoder | None = None,
        most_tokens: int | None = None,
        pins: Pins | None = None,
        plan: str | None = None,
        now: Callable[[], float] = float,
    ) -> None:
        self._session = session
        self._chain = chain
        self._refusals_from = refusals_from
        self._max_depth = max_depth
        self._most_tokens = most_tokens
        self._pins = pins
        self._plan = plan
        self._now = now
        self._encoder = encoder or RealtimeEncoder(session.id, start.incarnation)
        # Of the last frame sent from the log: sequence, nonce, and how many frames are still to come there.
        self._place: tuple[int, int, int] = (start.seq, start.nonce, remaining)
        self._remaining = remaining  # > 0: of the first record, only so many frames are to be sent
        self._own = 0
        self._mark = secrets.token_hex(4)  # tells this connection's own frames from another's

    # What the server says.

    def opening(
        self, resume: str, *, resumed: bool | None, preamble: Iterable[Standing], is_durable: bool = True
    ) -> Iterator[bytes]:
        """Yield the first frames: the session, and what to start over from.

        They are encoded one by one, as the client takes them. *resumed* is None
        for a new session. Only the last frame has a cursor to resume from: a
        client that lost its connection in between must start over.
        """
        session = session_fields(self._session.id, self._session.config)
        session["unbroken"]["resume"] = resume
        if resumed is not None:
            session["unbroken"]["resumed"] = resumed
        if not is_durable:
            session["unbroken"]["durable"] = False
        frames: list[Frame] = [{"type": "session.created", "session": session}]
        previous: str | None = None
        begun: set[str] = set()  # the responses of which something has been shown
        for shown in preamble:
            if not isinstance(shown, Ongoing):
                frames.append(item_frame("conversation.item.added", shown, previous))
                frames.append(item_frame("conversation.item.done", shown, previous))
                previous = shown.id
            else:
                is_first = shown.response_id not in begun
                frames += self._encoder.ongoing(shown, previous, is_first=is_first)
                begun.add(shown.response_id)
                previous = shown.item_id or previous
        for frame in frames[:-1]:
            yield orjson.dumps({**frame, "event_id": _unplaced_id()})
        yield self.own(frames[-1])

    def records(self, records: Sequence[Record]) -> Iterator[bytes]:
        """Return what log records are in this protocol, for this client, each record when it is asked for."""
        if len(records) == 1:  # the usual case, without a generator
            return iter(self._record(records[0]))
        return chain.from_iterable(map(self._record, records))

    def _record(self, record: Record) -> list[bytes]:
        if isinstance(record, Slice):
            encoded = self._encoder.deltas.encode(record)
            self._place = (record.last, record.nonces[-1], 0)
        else:
            encoded = self._entry(record)
            self._place = (record.seq, record.nonce, 0)
        if self._remaining:
            encoded, self._remaining = encoded[-self._remaining :], 0
        return encoded

    def _entry(self, entry: Entry) -> list[bytes]:
        body = entry.body
        if type(body) is not Refused:
            return self._encoder.encode(entry)
        if body.chain != self._chain or entry.seq <= self._refusals_from:
            return []
        frame = refusal_frame(body)
        frame["event_id"] = self._encoder.cursor(entry.seq, entry.nonce)
        return [orjson.dumps(frame)]

    def own(self, frame: Frame) -> bytes:
        """Encode a frame that isn't in the log, at the moment it is sent.

        It has the cursor of the last frame that is, with a suffix of its own:
        whichever id a client kept last, nothing is lost or repeated.
        """
        self._own += 1
        place = self._encoder.cursor(*self._place)
        return orjson.dumps({**frame, "event_id": f"{place}-{self._mark}{self._own:x}"})

    def durability(self, is_durable: bool) -> bytes:
        """Encode that what is said is saved from here on, or isn't for the moment. It isn't in the log."""
        session = session_fields(self._session.id, self._session.config)
        session["unbroken"]["durable"] = is_durable
        return self.own({"type": "session.updated", "session": session})

    # What the client says.

    def receive(self, data: str | bytes) -> Submitted | Frame:
        """Return what a frame from the client asks for: an input to write, or the answer right away.

        Raises:
            DecodeError: It asks for nothing that can be done.

        """
        if isinstance(data, bytes):
            raise DecodeError("binary_frame", "Send text frames: this protocol has no binary ones.")
        event = decode_event(data.encode("utf-8", "surrogatepass"), max_depth=self._max_depth)
        if isinstance(event, ItemRetrieve):
            item = self._session.item(event.item_id)
            if item is None:
                raise DecodeError(
                    "item_not_found",
                    f"There is no item {event.item_id[:64]!r} in the conversation.",
                    param="item_id",
                    event_id=event.event_id,
                )
            return {"type": "conversation.item.retrieved", **_bare(item)}
        command = command_of(
            event, self._session, most_tokens=self._most_tokens, plan=self._plan, now=self._now()
        )
        if self._pins is not None:
            check_pins(self._pins, event, command, self._session.config)
            command = self._pins.kept_by(command)
        message_id = None if event.unbroken is None else event.unbroken.message_id
        named = event.item.id if isinstance(event, ItemCreate) else None
        said = event.response if isinstance(event, ResponseCreate) else None
        key = self._key(command, said, message_id, named, event.event_id)
        return Submitted(command, self._chain, event.event_id, key)

    def _key(
        self,
        command: Command,
        said: ResponseParam | None,
        message_id: str | None,
        item_id: str | None,
        event_id: str | None,
    ) -> InputKey | None:
        """Return the name that an input is known again by.

        Event ids are reused by some SDKs: they count from one in each
        connection. So one means the same only within a chain, and only together
        with what it names; of SDKs that name all their requests for responses
        so, and send none of them twice, it is no name.
        """
        if message_id is not None:
            return InputKey(f"m:{type(command).__name__}:{message_id}", _digest(command, said))
        if item_id is not None:
            return InputKey(f"i:{item_id}", _digest(command, said))
        if event_id is not None and not event_id.startswith(_COUNTED):
            digest = _digest(command, said)
            return InputKey(f"e:{self._chain}:{event_id}:{digest.hex()}", digest)
        return None


def _digest(command: Command, response: ResponseParam | None) -> bytes:
    """Return a digest of what a client said: without the ids that were minted, or what it referred to."""
    said: object = command
    if isinstance(command, CreateItem):
        said = (msgspec.structs.replace(command.item, id=ItemId("")), command.previous)
    elif isinstance(command, CreateResponse):
        said = response
    kind = type(command).__name__
    return hashlib.blake2b(msgspec.json.encode((kind, said)), digest_size=12).digest()


def _bare(item: Item) -> Frame:
    return {"item": item_frame("", item, None)["item"]}


def lone_error(
    code: str,
    message: str,
    *,
    type: str = "invalid_request_error",
    status: int = 400,  # noqa: ARG001 - the protocol has no place for it
    retry_after: int | None = None,
) -> bytes:
    """Return an error for a client that has no session. Its id is no cursor."""
    frame = error_frame(code, message, type=type, retry_after=retry_after)
    frame["event_id"] = _unplaced_id()
    return orjson.dumps(frame)


def _unplaced_id() -> str:
    """Return an event id that is no cursor: to resume from it is to start over."""
    return "event_" + secrets.token_hex(12)
