"""Stands in for a connection's transport: a node, and clients that speak Realtime to it, without sockets."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Annotated, Any, Final

import orjson
from openai.types.realtime.realtime_server_event import RealtimeServerEvent
from pydantic import Field, TypeAdapter

from tests.fakes.clock import FakeClock
from tests.fakes.responder import ManualResponder
from unbroken.server.protocols.cursor import parse_cursor
from unbroken.server.protocols.items import DecodeError
from unbroken.server.protocols.realtime.connection import RealtimeConnection
from unbroken.server.protocols.realtime.encode import RealtimeEncoder, error_frame
from unbroken.sessions.backends.base import SessionStore
from unbroken.sessions.backends.cluster import Cluster
from unbroken.sessions.backends.index import SessionIndex
from unbroken.sessions.backends.memory import MemoryStore
from unbroken.sessions.backends.tally import Tally
from unbroken.sessions.caps import Caps
from unbroken.sessions.entries import Submitted
from unbroken.sessions.errors import Refusal
from unbroken.sessions.event_log import Position, Record
from unbroken.sessions.holders import Holder, HolderOf
from unbroken.sessions.ids import ChainId, Incarnation, PrincipalId, SessionId, new_chain_id
from unbroken.sessions.items import SessionConfig
from unbroken.sessions.node import Attachment, Node, NodeLimits
from unbroken.sessions.replica import ActorLimits
from unbroken.sessions.run import RunLimits
from unbroken.sessions.session import SessionLimits

__all__ = ["ALICE", "Client", "World", "limits_of", "open_world", "settle"]

ALICE: Final = PrincipalId("alice")

_SERVER_EVENT: Final[TypeAdapter[Any]] = TypeAdapter(
    Annotated[RealtimeServerEvent, Field(discriminator="type")]
)

Frame = dict[str, Any]


def limits_of(**node: Any) -> NodeLimits:
    actor = node.pop("actor", None) or ActorLimits(run=RunLimits())
    return NodeLimits(actor=actor, session=node.pop("session", SessionLimits()), **node)


async def settle(rounds: int = 500) -> None:
    """Let every task run until all of them wait for something: nothing here waits for time to pass."""
    loop = asyncio.get_running_loop()
    for _ in range(rounds):
        await asyncio.sleep(0)
        if not loop._ready:  # type: ignore[attr-defined]
            return
    raise AssertionError("the tasks never come to rest")


def validated(data: bytes) -> Frame:
    """Return a frame, once the official SDK's own model has taken it without a change."""
    frame: Frame = orjson.loads(data)
    if not frame["type"].startswith("unbroken."):
        _SERVER_EVENT.validate_python(frame, strict=True)
    return frame


class Client:
    """One speaker, over one connection after another: a chain of them.

    It keeps what a real client keeps: the frames it was shown and the id that came last.
    """

    def __init__(self, world: World, session_id: str | None = None) -> None:
        self.world = world
        self.chain: ChainId = new_chain_id()
        self.frames: list[Frame] = []
        self.last_id: str | None = None
        self.session_id = session_id
        self.plan: str | None = None
        self.attachment: Attachment | None = None
        self.connection: RealtimeConnection | None = None
        self.resumed: bool | None = None
        self._pending: list[bytes] = []  # on the wire: sent by the server, not seen by the client
        self._own: list[Frame] = []
        self._is_durable = True  # as it was told

    async def connect(self, *, after: str | None = None, principal: PrincipalId = ALICE) -> None:
        """Begin a session, or resume the one there is, from *after*."""
        node = self.world.node
        if self.session_id is None:
            attachment = await node.create(principal, SessionConfig("m"), self.chain)
            self.session_id = attachment.session.id
            self.attach(attachment, None, is_new=True)
            return
        cursor = None if after is None else parse_cursor(after)
        assert after is None or cursor is not None
        position, remaining = (None, 0) if cursor is None else cursor
        attachment = await node.attach(
            self.session_id,  # type: ignore[arg-type]
            principal,
            position,
            self.chain,
            repeat=remaining > 0,
        )
        self.attach(attachment, position, remaining)

    def attach(
        self, attachment: Attachment, position: Position | None, remaining: int = 0, *, is_new: bool = False
    ) -> None:
        """Go on with *attachment*, which was asked for from *position*."""
        self.attachment = attachment
        self.resumed = None if is_new else attachment.resumed
        start = attachment.cursor.position()
        if position is not None and attachment.resumed:
            start = position
        else:
            remaining = 0
            self.frames.clear()
        self.connection = RealtimeConnection(
            attachment.session,
            start,
            self.chain,
            max_depth=32,
            remaining=remaining,
            refusals_from=attachment.session.applied if position is None else 0,
            encoder=self.world.encoder(attachment.session.id, start.incarnation),
            most_tokens=self.world.most_tokens,
            plan=self.plan,
        )
        self._is_durable = attachment.cursor.is_durable
        opening = self.connection.opening(
            "rt", resumed=self.resumed, preamble=attachment.preamble, is_durable=self._is_durable
        )
        self._pending = list(opening)

    def disconnect(self) -> None:
        """Lose the connection, and what was on the wire with it."""
        assert self.attachment is not None
        self.attachment.close()
        self.attachment = self.connection = None
        self._pending.clear()
        self._own.clear()

    async def resume(self) -> None:
        """Connect again, from the last id seen."""
        after = self.last_id if self.last_id and parse_cursor(self.last_id) else None
        await self.connect(after=after)

    def read(self, count: int | None = None) -> list[Frame]:
        """See the next *count* frames, or all there are."""
        seen: list[Frame] = []
        while count is None or len(seen) < count:
            if not self._pending:
                self._pending = self._next()
                if not self._pending:
                    break
            frame = validated(self._pending.pop(0))
            self.last_id = frame["event_id"]
            self.frames.append(frame)
            seen.append(frame)
        return seen

    def _next(self) -> list[bytes]:
        assert self.attachment is not None
        assert self.connection is not None
        while records := self._taken():
            if frames := list(self.connection.records(records)):
                return frames
        if self._own:
            return [self.connection.own(self._own.pop(0))]
        if self.attachment.cursor.is_durable is not self._is_durable:
            self._is_durable = not self._is_durable
            return [self.connection.durability(self._is_durable)]
        return []

    def _taken(self) -> list[Record]:
        """Take what comes next in the log."""
        assert self.attachment is not None
        return self.attachment.cursor.take(7)

    async def send(self, event: Frame) -> None:
        """Say something, and let the server take it."""
        assert self.attachment is not None
        assert self.connection is not None
        try:
            answer = self.connection.receive(orjson.dumps(event).decode())
            if isinstance(answer, Submitted):
                await self.attachment.submit(answer)
            else:
                self._own.append(answer)
        except DecodeError as exc:
            self._own.append(error_frame(exc.code, exc.message, param=exc.param, event_id=exc.event_id))
        except Refusal as exc:
            self._own.append(error_frame(exc.code, exc.message))
        await settle()

    async def say(self, text: str, **extra: Any) -> None:
        item = {"type": "message", "role": "user", "content": [{"type": "input_text", "text": text}]}
        if "id" in extra:
            item["id"] = extra.pop("id")
        await self.send({"type": "conversation.item.create", "item": item, **extra})

    async def ask(self, text: str = "hello") -> None:
        """Say something and ask for a response."""
        await self.say(text)
        await self.send({"type": "response.create"})

    def types(self) -> list[str]:
        return [frame["type"] for frame in self.frames]

    def of_type(self, kind: str) -> list[Frame]:
        return [frame for frame in self.frames if frame["type"] == kind]

    def text(self) -> str:
        """All deltas seen, joined."""
        return "".join(frame["delta"] for frame in self.of_type("response.output_text.delta"))

    def errors(self) -> list[str]:
        return [frame["error"]["code"] for frame in self.of_type("error")]

    def statuses(self) -> list[str]:
        return [frame["response"]["status"] for frame in self.of_type("response.done")]


class World:
    """A node with a manual responder and a clock that stands still."""

    def __init__(
        self,
        store: SessionStore,
        limits: NodeLimits,
        most_tokens: int | None = None,
        cluster: Cluster | None = None,
        tally: Tally | None = None,
        holder_of: HolderOf = Holder,
        index: SessionIndex | None = None,
    ) -> None:
        self.most_tokens = most_tokens
        self.clock = FakeClock()
        self.responder = ManualResponder()
        self.store = store
        self.ended: list[str] = []
        self._encoders: dict[tuple[SessionId, Incarnation], RealtimeEncoder] = {}
        self.node = Node(
            store=store,
            responder=self.responder,
            clock=self.clock,
            limits=limits,
            cluster=cluster,
            caps=Caps(self.clock, tally),
            holder_of=holder_of,
            index=index,
            on_response=lambda _, done: self.ended.append(done.status),
        )

    def encoder(self, session_id: SessionId, incarnation: Incarnation) -> RealtimeEncoder:
        """Return the encoder that all connections of a session share."""
        key = session_id, incarnation
        if key not in self._encoders:
            self._encoders[key] = RealtimeEncoder(session_id, incarnation, merge_above=4)
        return self._encoders[key]

    async def client(self, principal: PrincipalId = ALICE) -> Client:
        client = Client(self)
        await client.connect(principal=principal)
        client.read()
        return client


@contextlib.asynccontextmanager
async def open_world(
    limits: NodeLimits | None = None,
    store: SessionStore | None = None,
    most_tokens: int | None = None,
    holder_of: HolderOf = Holder,
) -> AsyncIterator[World]:
    world = World(
        MemoryStore() if store is None else store, limits or limits_of(), most_tokens, holder_of=holder_of
    )
    async with world.node:
        yield world
