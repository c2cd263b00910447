"""Walks at random: an agent speaks and clients write, while calls of the store are held, fail or are lost.

A walk is made of steps that its seed draws, one after another; then all is well again, and every answer comes
to its end.
"""

from __future__ import annotations

import asyncio
import itertools
import random
from collections.abc import Callable, Coroutine
from typing import Any, Final

import orjson

from tests.fakes.responder import ManualTurn
from tests.sessions.calls import Calls
from tests.sessions.conversation import Client, World, settle
from tests.sessions.town import Town, distant, polls, tab_on
from unbroken.sessions.entries import CreateItems, InputKey, Submitted
from unbroken.sessions.errors import ResponderError, SessionError
from unbroken.sessions.ids import ItemId, ResponseId, SessionId
from unbroken.sessions.items import Message, Text

__all__ = ["HELD", "PAIR", "Walk"]

HELD: Final = (
    "append",
    "submit",
    "read",
    "rejoin",
    "reseed",
    "inspect",
    "follow",
    "unfollow",
    "compact",
    "recall",
)
"""Calls of the store that may be held on their way."""


PAIR: Final = (" one", " two")
"""What the texts of two items end with that are one input."""


class Walk:
    """One walk: a node that owns a session, another one that follows it, and clients of both."""

    def __init__(
        self, town: Town, seed: int, steps: list[str], *, has_losses: bool, has_pairs: bool = False
    ) -> None:
        self.town = town
        self.one, self.two = town.worlds
        self.clients: list[Client] = []
        """The first has begun the session."""
        self.steps: Final = steps
        """What happened, in order."""
        self.said: dict[ResponseId, list[str]] = {}
        """The agent's words."""
        self.taken: list[str] = []
        """Names of what clients have sent and was acknowledged."""
        self.is_cancelled = False
        """Whether clients have wanted an answer to stop."""
        self._draw = random.Random(seed)
        self._calls = Calls(self._draw, HELD, steps.append, self._copy)
        self._has_losses = has_losses
        self._has_pairs = has_pairs
        self._copied: dict[SessionId, Any] | None = None
        self._names = itertools.count(1)
        self._tasks: list[asyncio.Task[None]] = []
        self._ending: set[ManualTurn] = set()
        self._coming_back: set[Client] = set()
        kinds: dict[Callable[[], None], float] = {
            self._say: 0.25,
            self._end: 0.07,
            self._fail: 0.02,
            self._send_item: 0.08,
            self._send_request: 0.07,
            self._send_cancel: 0.02 * (self._draw.random() < 0.3),
            self._let_store_be_out: 0.08,
            self._let_answers_be_lost: 0.03,
            self._let_time_pass: 0.17,
            self._let_a_call_go: 0.15,
            self.town.poll: 0.05,
            self._lose: 0.05 * has_losses,
        }
        self._kinds = list(kinds)
        # What is rare together on most walks is frequent on some.
        self._weights = [weight * self._draw.choice([0.3, 1, 3]) for weight in kinds.values()]

    async def go(self) -> None:
        """Take all steps, and come to rest."""
        await self._set_out()
        for _ in range(self._draw.randint(20, 60)):
            self._take_a_step()
            await settle(3000)
        await self._come_to_rest()

    async def _set_out(self) -> None:
        self.town.memory._draw = self._draw.getrandbits  # each walk can be made again
        self._calls.may_hold(distant(self.one))
        if self._draw.random() < 0.7:
            self._calls.may_hold(distant(self.two))
        client = await self.one.client()
        self.clients.append(client)
        await client.ask()
        if self._draw.random() < 0.5:
            self.clients.append(await tab_on(self.two, client))
        self._calls.is_calm = False

    async def _come_to_rest(self) -> None:
        self._calls.is_calm = True
        for _ in range(12):
            self._calls.let_all_go()
            await self.town.store_is_back()
            await polls(self.town, 1)
        for _ in range(12):
            for turn in self.one.responder.open:
                turn.end()
            await settle(3000)
            await self.town.store_is_back()
            await polls(self.town, 1)
        assert all(task.done() for task in self._tasks), "a client still waits"
        for task in self._tasks:
            task.result()

    # Steps.

    def _take_a_step(self) -> None:
        self._draw.choices(self._kinds, self._weights)[0]()

    @property
    def _turn(self) -> ManualTurn | None:
        """The agent's that speaks, and hasn't been told to end."""
        turns = [turn for turn in self.one.responder.open if turn not in self._ending]
        return turns[-1] if turns else None

    def _say(self) -> None:
        if turn := self._turn:
            word = f"w{next(self._names)} "
            self.steps.append(f"say {word}")
            self.said.setdefault(turn.turn.response_id, []).append(word)
            turn.say(word)
        else:
            self._send_request()

    def _end(self) -> None:
        if turn := self._turn:
            self.steps.append("end")
            self._ending.add(turn)
            turn.end()

    def _fail(self) -> None:
        if turn := self._turn:
            self.steps.append("fail")
            self._ending.add(turn)
            turn.fail(ResponderError("upstream_unavailable", "no"))

    def _send_item(self) -> None:
        name = f"item{next(self._names)}"
        if self._has_pairs:
            self._send_pair(name)
            return
        content = [{"type": "input_text", "text": name}]
        item: dict[str, Any] = {"type": "message", "role": "user", "content": content}
        if self._draw.random() < 0.5:
            item["id"] = name  # else nobody can know it again
        self._send(name, {"type": "conversation.item.create", "item": item})

    def _send_pair(self, name: str) -> None:
        """Have two items be sent that are one input, by a request over HTTP."""
        client = self._draw.choice(self.clients)
        self.steps.append(f"send {name} and another")
        assert client.attachment is not None
        if client.attachment.cursor._ended is not None:
            self._begin(self._come_back(client))
            return
        pair = tuple(Message(ItemId(f"{name}{end}"), "user", (Text(f"{name}{end}"),)) for end in PAIR)
        key = InputKey(f"h:items:{name}", name.encode()) if self._draw.random() < 0.5 else None
        submitted = Submitted(CreateItems(pair), client.chain, key=key)
        self._begin(self._have_taken(client, submitted, name, *(item.id for item in pair)))

    def _send_request(self) -> None:
        name = f"ask{next(self._names)}"
        self._send(name, {"type": "response.create", "event_id": name})

    def _send_cancel(self) -> None:
        self.is_cancelled = True
        self._send("cancel", {"type": "response.cancel"})

    def _send(self, name: str, event: dict[str, Any]) -> None:
        """Have a client send something. One whose connection has ended comes back instead."""
        client = self._draw.choice(self.clients)
        self.steps.append(f"send {name}")
        assert client.attachment is not None
        if client.attachment.cursor._ended is not None:
            self._begin(self._come_back(client))
        else:
            self._begin(self._submit(client, name, event))

    async def _submit(self, client: Client, name: str, event: dict[str, Any]) -> None:
        assert client.attachment is not None
        assert client.connection is not None
        submitted = client.connection.receive(orjson.dumps(event).decode())
        assert isinstance(submitted, Submitted)
        await self._have_taken(client, submitted, name, name)

    async def _have_taken(self, client: Client, submitted: Submitted, name: str, *taken: str) -> None:
        assert client.attachment is not None
        try:
            await client.attachment.submit(submitted)
        except SessionError as exc:
            self.steps.append(f"{name} isn't taken: {exc!r}")
        else:
            self.steps.append(f"{name} is taken")
            self.taken += taken

    async def _come_back(self, client: Client) -> None:
        if client in self._coming_back:
            return
        self._coming_back.add(client)
        before = client.attachment
        assert before is not None
        try:
            await client.connect()
            before.close()  # now: its owner doesn't let the session go meanwhile
        except SessionError as exc:
            self.steps.append(f"a client isn't let in: {exc!r}")
        finally:
            self._coming_back.discard(client)

    def _begin(self, work: Coroutine[Any, Any, None]) -> None:
        self._tasks.append(asyncio.create_task(work))

    def _let_store_be_out(self) -> None:
        world = self._draw.choice([self.one, self.one, self.two])
        store = distant(world)
        store.is_out = not store.is_out
        self.steps.append(f"out of {self._name(world)}'s reach: {store.is_out}")
        if store.is_out and self._draw.random() < 0.7:
            world.node._outages.of(SessionId("")).note_failure(SessionId(""))  # somebody noticed
            if self._draw.random() < 0.5:
                world.clock.advance(3.0)  # its patience is over

    def _let_answers_be_lost(self) -> None:
        store = distant(self.one)
        store.loses_answers = not store.loses_answers
        self.steps.append(f"answers are lost: {store.loses_answers}")

    def _let_time_pass(self) -> None:
        seconds = self._draw.choice([0.1, 0.6, 1.2, 3.0])
        self.steps.append(f"{seconds} seconds")
        for world in self.town.worlds:
            world.clock.advance(seconds)

    def _let_a_call_go(self) -> None:
        if self._calls:
            self._calls.let_go()
            self.steps.append("let a call go")

    def _copy(self) -> None:
        if self._has_losses:
            self._copied = self.town.copy()

    def _lose(self) -> None:
        """Have the store lose what was last heard of late, and all since; at times, everything."""
        self.town.lose(self._copied if self._draw.random() < 0.8 else None)
        self._copied = None
        self.steps.append("lose")

    def _name(self, world: World) -> str:
        return "the owner" if world is self.one else "the other"
