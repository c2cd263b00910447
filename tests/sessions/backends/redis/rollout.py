"""Releases beside each other: nodes in one process, over one Redis, and people who are being answered."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from typing import Any

from tests.server.realtime.client import WAIT
from tests.server.realtime.serving import eventually
from tests.sessions.backends.redis.test_membership import PACE
from tests.sessions.conversation import Client, World, limits_of
from unbroken.sessions.backends.redis.connection import Address, connect
from unbroken.sessions.backends.redis.keys import Bounds, Keys
from unbroken.sessions.backends.redis.membership import RedisMembership
from unbroken.sessions.backends.redis.packing import unpacked
from unbroken.sessions.backends.redis.store import RedisStore
from unbroken.sessions.entries import version_of
from unbroken.sessions.format import Formats
from unbroken.sessions.ids import SessionId

__all__ = ["Place", "Region", "Talk"]

_PACE = type(PACE)(
    beat=0.1, lease=PACE.lease, look=0.05, missing=0.1, poll=0.1, settling=PACE.settling, agreeing=0.3
)


class Place:
    """A node of some release."""

    def __init__(self, region: Region, formats: Formats) -> None:
        self.formats = formats
        self.unreadable = 0
        formats.on_unreadable = self._note
        self.client = connect(Address(region.url), name="test")
        self.store = RedisStore(self.client, region.keys, Bounds(), formats=formats)
        self.membership = RedisMembership(self.client, region.keys, _PACE, formats=formats)
        self.world = World(self.store, limits_of(), cluster=self.membership)

    def _note(self) -> None:
        self.unreadable += 1

    async def steady(self) -> None:
        """Return when it has reached Redis for so long that it may agree on a later format."""
        loop = asyncio.get_running_loop()
        end = self.membership._steady_since + _PACE.agreeing
        await eventually(lambda: loop.time() >= end)

    async def freeze(self) -> None:
        """Have it renew nothing, and hear of nothing, any more."""
        tasks, self.membership._tasks = self.membership._tasks, []
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)

    async def thaw(self) -> None:
        """Have it go on."""
        membership = self.membership
        for work in (membership._listen, membership._beat_on, membership._look_on, membership._poll_on):
            membership._tasks.append(asyncio.create_task(membership._for_ever(work)))


class Talk:
    """Somebody who is being answered."""

    def __init__(self, client: Client, place: Place) -> None:
        self.client = client
        self.place = place
        self.said: list[str] = []
        self.count = 0

    def heard(self) -> list[str]:
        """Return each answer's text as it was shown."""
        self.client.read()
        texts: dict[str, str] = {}
        for frame in self.client.of_type("response.output_text.delta"):
            texts[frame["response_id"]] = texts.get(frame["response_id"], "") + frame["delta"]
        return list(texts.values())


class Region:
    """Nodes that share one Redis."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.keys = Keys("test")
        self.places: list[Place] = []
        self.all: list[Place] = []
        """Also those that have left."""
        self.talks: list[Talk] = []
        self.redis: Any = connect(Address(url), name="test")
        self._open = AsyncExitStack()

    async def __aenter__(self) -> Region:
        await self.redis.flushall()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._open.aclose()
        for place in self.all:
            await place.store.aclose()
            await place.client.aclose()
        await self.redis.aclose()

    async def start(self, formats: Formats) -> Place:
        """Start a node."""
        place = Place(self, formats)
        self.all.append(place)
        await self._open.enter_async_context(place.world.node)
        self.places.append(place)
        return place

    async def stop(self, place: Place) -> None:
        """Drain a node and end it. Its people go elsewhere at once; their answers end where they began."""
        place.world.node.begin_drain()
        self.places.remove(place)
        for talk in self.talks:
            if talk.place is place:
                await self.move(talk, self.places[-1])
        await self.go_on(end=True)
        await place.world.node.drained(10)
        await place.world.node.__aexit__(None, None, None)

    # People.

    async def talk(self, place: Place) -> Talk:
        """Have somebody come, and ask something."""
        talk = Talk(await place.world.client(), place)
        self.talks.append(talk)
        await self.ask(talk)
        return talk

    async def ask(self, talk: Talk) -> None:
        """Ask, and wait until somewhere an answer begins."""
        count = len(self._turns(talk))
        talk.said.append("")
        await talk.client.ask(f"question {len(talk.said)}")
        await eventually(lambda: len(self._turns(talk)) > count)

    def _turns(self, talk: Talk) -> list[Any]:
        session_id = talk.client.session_id
        return [
            turn
            for place in self.all
            for turn in place.world.responder.turns
            if turn.turn.session_id == session_id
        ]

    async def move(self, talk: Talk, place: Place) -> None:
        """Lose the connection, and come back to another node, in mid-answer."""
        talk.client.disconnect()
        await self.come(talk, place)

    async def come(self, talk: Talk, place: Place) -> None:
        talk.client.world, talk.place = place.world, place
        await talk.client.resume()
        assert talk.client.resumed

    async def go_on(self, *, end: bool = False) -> None:
        """Have each answer go on by a word, or end, and wait until everybody has seen it."""
        for talk in self.talks:
            (turn,) = [turn for turn in self._turns(talk) if not turn.is_closed]
            word = f"w{talk.count} "
            talk.count += 1
            talk.said[-1] += word
            turn.say(word)
            if end:
                turn.end()
        for talk in self.talks:
            await eventually(lambda talk=talk: talk.heard() == talk.said)  # type: ignore[misc]
            if end:
                done = len(talk.said)
                await eventually(lambda talk=talk, done=done: self._done(talk) == done)  # type: ignore[misc]
                await self.ask(talk)

    @staticmethod
    def _done(talk: Talk) -> int:
        talk.client.read()
        return len(talk.client.statuses())

    def owner(self, talk: Talk) -> Place:
        """Return the node that owns a session."""
        session_id = SessionId(talk.client.session_id or "")
        (found,) = [
            place
            for place in self.places
            if (actor := place.world.node.hub.get(session_id)) is not None and actor.is_owner
        ]
        return found

    # What is in Redis.

    async def versions(self) -> set[int | None]:
        """Return the formats of all entries and snapshots."""
        found: set[int | None] = set()
        async for key in self.redis.scan_iter(match="test:*:l"):
            found |= {version_of(fields[b"b"]) for _, fields in await self.redis.xrange(key)}
        async for key in self.redis.scan_iter(match="test:*:s"):
            data = await self.redis.hget(key, "d")
            if data is not None:
                found.add(version_of(unpacked(data)))
        return found

    async def range(self) -> tuple[int, int, int]:
        """Return the format that is written, and from which to which something may be there."""
        found = await self.redis.hmget(self.keys.formats, "w", "l", "h")
        written, lowest, highest = (int(each or 0) for each in found)
        return written, lowest, highest

    async def until_owned(self, client: Client, node: str) -> None:
        """Return when a session is a node's, or nobody's."""
        meta = self.keys.meta(SessionId(client.session_id or ""))
        async with asyncio.timeout(WAIT):
            while await self.redis.hget(meta, "o") != node.encode():  # noqa: ASYNC110 - as `eventually`
                await asyncio.sleep(0)

    async def until_range(self, *expected: int) -> None:
        async with asyncio.timeout(WAIT):
            while await self.range() != expected:  # noqa: ASYNC110 - as `eventually`
                await asyncio.sleep(0)
