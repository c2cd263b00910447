"""A session without a node: its log, those who are connected to it, and an agent, in one thread of control.

Everything that is written is also encoded and read back, as a store that outlives the process would.
"""

from __future__ import annotations

import random
from collections.abc import Iterable
from typing import Any, Final

import orjson

from tests.server.realtime.serving import FrameCheck
from unbroken.server.protocols.items import DecodeError
from unbroken.server.protocols.realtime.connection import RealtimeConnection
from unbroken.server.protocols.realtime.encode import RealtimeEncoder, error_frame
from unbroken.sessions.entries import (
    Body,
    Deltas,
    Entry,
    Failure,
    SessionOpened,
    Submitted,
    decode_entry,
    encode_entry,
)
from unbroken.sessions.event_log import EventLog, Position
from unbroken.sessions.ids import ChainId, Incarnation, ItemId, Nonce, PrincipalId, SessionId
from unbroken.sessions.items import SessionConfig, Usage
from unbroken.sessions.outputs import Taken
from unbroken.sessions.response import Outcome, Response
from unbroken.sessions.session import Session, SessionLimits
from unbroken.sessions.turn import AttemptState

__all__ = ["Chain", "Room", "Violation"]

_LIMITS: Final = SessionLimits(conversation_bytes=100_000, items=60, beside=2, queued=3)
_PIECES: Final = ("word ", "", "\n", '"', "\\", "😀", "\u2028", "x" * 500, "\ufeff", "</script>")
_OUTCOMES: Final = (
    Outcome(status="completed", usage=Usage(3, 4, 1)),
    Outcome(status="completed"),
    Outcome(status="incomplete", reason="max_output_tokens", usage=Usage()),
    Outcome(status="incomplete", reason="content_filter"),
    Outcome(status="failed", failure=Failure("agent_error", "The agent failed.")),
    Outcome(status="failed", failure=Failure("upstream_rate_limited", "Busy.", retry_after=1.5)),
    Outcome(status="interrupted", failure=Failure("interrupted", "The server was restarted.")),
)

Frame = dict[str, Any]


class Violation(AssertionError):
    """Something that must hold does not."""


class Room:
    """A session of *owner*, whose text is marked as theirs."""

    def __init__(self, owner: str, chance: random.Random) -> None:
        self.mark = f"{owner}-{chance.randrange(16**8):08x}"
        self.chains: list[Chain] = []
        self._chance = chance
        self._nonce = 0
        self._items = 0
        self.log = EventLog(Incarnation(f"{chance.randrange(16**8):08x}"))
        self.session = Session(SessionId(f"sess_{owner}"), _LIMITS)
        self.encoder = RealtimeEncoder(self.session.id, self.log.incarnation, merge_above=16)
        self.write(SessionOpened(PrincipalId(owner), SessionConfig("m", f"{self.mark} is the owner")))

    def join(self) -> Chain:
        chain = Chain(self, ChainId(f"{self.mark}-chain-{len(self.chains)}"))
        self.chains.append(chain)
        return chain

    def write(self, *bodies: Body) -> None:
        """Write a batch. It is what it was when it is read back."""
        self._nonce += 1
        for body in bodies:
            entry = Entry(self.log.head + 1, Nonce(self._nonce), body)
            again = decode_entry(encode_entry(entry))
            if again != entry:
                raise Violation(f"written as {entry}, read as {again}")
            self.log.append(again)
            self.session.apply(again)

    def submit(self, submitted: Submitted) -> None:
        self.write(submitted)
        while self.session.has_inputs:
            seq, bodies = self.session.decide()
            self.write(*bodies)
            self.session.consume(seq)
            self.write(*self.session.promote())

    def go_on(self) -> None:
        """Let the agent do something for some of what is running."""
        for response in list(self.session.responses.values()):
            if response.attempt.state is not AttemptState.QUEUED and self._chance.random() < 0.4:
                self._work_on(response)

    def settle(self) -> None:
        """End everything that runs, and what waits behind it."""
        while self.session.is_running:
            for response in list(self.session.responses.values()):
                if response.attempt.state is not AttemptState.QUEUED:
                    self._end(response)

    def _work_on(self, response: Response) -> None:
        is_cancelled = response.attempt.state is AttemptState.CANCELLING
        if is_cancelled or self._chance.random() < 0.3:
            self._end(response)
            return
        if not response.outputs:
            self._items += 1
            name = ItemId(f"item_{self.mark[-8:]}_{self._items}")
            self.write(*self.session.write(response.id, [Taken(0, name, None, [])], response.ordinal))
        count = self._chance.choice((1, 1, 3, 70))
        parts = [*self._chance.choices(_PIECES, k=count), f"{self.mark} "]
        self.write(Deltas(response.id, response.outputs[0].item_id, parts, response.ordinal))

    def _end(self, response: Response) -> None:
        self.write(*self.session.finish(response.id, self._chance.choice(_OUTCOMES)))
        self.write(*self.session.promote())

    def check_copies(self) -> None:
        """Check that the session is the same when it is moved, and when it is shown to a newcomer."""
        snapshot = self.session.snapshot()
        if Session.restore(self.session.id, _LIMITS, snapshot).snapshot() != snapshot:
            raise Violation("not the same once it was moved")
        newcomer = Chain(self, ChainId("newcomer"))
        standing = self.session.standing()
        newcomer.check(newcomer.connection.opening("rt", resumed=False, preamble=standing))
        newcomer.look()


class Chain:
    """A connection to a room, which sees all from its beginning."""

    def __init__(self, room: Room, name: ChainId) -> None:
        self.ids: list[str] = []
        """Of items and responses, as they were shown."""
        self._room = room
        self._seen = 0
        self._violations: list[str] = []
        self._check = FrameCheck(self._violations)
        self._sent: list[bytes] = []
        self.connection = RealtimeConnection(
            room.session,
            Position(room.log.incarnation, 0, Nonce(0)),
            name,
            max_depth=32,
            encoder=room.encoder,
        )

    def submit(self, submitted: Submitted) -> None:
        self._room.submit(submitted)

    def answer(self, frame: Frame) -> None:
        """Show what is for this connection alone, in its place."""
        self.look()
        self.check([self.connection.own(frame)])

    def refuse(self, error: DecodeError) -> None:
        self.answer(error_frame(error.code, error.message, param=error.param, event_id=error.event_id))

    def look(self) -> list[bytes]:
        """Take what is new, check it, and return all frames since the last look."""
        log = self._room.log
        while records := log.read(self._seen, 100):
            self._seen = records[-1].last
            self.check(self.connection.records(records))
        sent, self._sent = self._sent, []
        return sent

    def check(self, frames: Iterable[bytes]) -> None:
        for data in frames:
            self._check(data.decode())
            if self._violations:
                raise Violation(self._violations[0])
            self._sent.append(data)
            frame: Frame = orjson.loads(data)
            for holder in (frame.get("item"), frame.get("response")):
                if holder is not None:
                    self.ids.append(holder["id"])
