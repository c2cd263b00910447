"""What every cluster must do. Subclass, and provide ``street``."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from typing import Protocol

from tests.sessions.backends.store_contract import LIFE, NONE, START, asked, mark
from unbroken.sessions.backends.base import Append, SessionStore
from unbroken.sessions.backends.cluster import Cluster, Neighbour
from unbroken.sessions.errors import StoreError
from unbroken.sessions.ids import NodeId, SessionId, new_node_id, new_session_id


class Listener:
    """Notes what a node is told."""

    def __init__(self) -> None:
        self.news: list[SessionId] = []
        self.wishes: list[tuple[SessionId, NodeId]] = []
        self.lost: list[NodeId] = []
        self.gaps = 0
        self.polls = 0
        self._told = asyncio.Event()

    def on_news(self, session_ids: Iterable[SessionId]) -> None:
        self.news += session_ids
        self._told.set()

    def on_wish(self, session_id: SessionId, by: NodeId) -> None:
        self.wishes.append((session_id, by))
        self._told.set()

    def on_lost(self, node: NodeId) -> None:
        self.lost.append(node)
        self._told.set()

    def on_gap(self) -> None:
        self.gaps += 1
        self._told.set()

    def on_poll(self) -> None:
        self.polls += 1
        self._told.set()

    async def until(self, holds: Callable[[], bool]) -> None:
        """Return when *holds*, which is looked at whenever something is told."""
        async with asyncio.timeout(20):
            while not holds():
                self._told.clear()
                await self._told.wait()


class Street(Protocol):
    """Where nodes live: one store, and each one's part in the cluster."""

    store: SessionStore

    def cluster(self) -> Cluster:
        """Return a place for another node."""

    async def kill(self, cluster: Cluster) -> None:
        """End a node as ``kill -9`` does, and see to it that the others can notice."""


class House:
    """A node that has joined."""

    def __init__(self, street: Street) -> None:
        self.cluster = street.cluster()
        self.node = new_node_id()
        self.listener = Listener()

    async def join(self) -> House:
        neighbour: Neighbour = self.listener
        await self.cluster.join(self.node, neighbour)
        return self


class ClusterContract:
    """Run over each implementation."""

    async def test_who_follows_is_told_of_what_is_written(self, street: Street) -> None:
        a, b, c = [await House(street).join() for _ in range(3)]
        session_id = new_session_id()
        fence = await street.store.create(session_id, a.node, LIFE)
        await street.store.follow(session_id, b.node)

        (written,) = await street.store.append([Append(session_id, fence, 0, NONE, 0, [mark("a")])])
        assert not isinstance(written, StoreError)
        await b.listener.until(lambda: session_id in b.listener.news)
        assert a.listener.news == c.listener.news == []

    async def test_an_owner_is_told_of_inputs_and_followers_are_too(self, street: Street) -> None:
        a, b = [await House(street).join() for _ in range(2)]
        session_id = new_session_id()
        await street.store.create(session_id, a.node, LIFE)
        await street.store.follow(session_id, b.node)

        await street.store.submit(session_id, asked(), START)
        for house in (a, b):
            await house.listener.until(lambda house=house: session_id in house.listener.news)  # type: ignore[misc]

    async def test_a_change_of_owner_is_told_to_all_it_concerns(self, street: Street) -> None:
        a, b, c = [await House(street).join() for _ in range(3)]
        session_id = new_session_id()
        fence = await street.store.create(session_id, a.node, LIFE)
        await street.store.follow(session_id, c.node)

        await street.store.acquire(session_id, b.node, seen=fence)
        for house in (a, c):
            await house.listener.until(lambda house=house: session_id in house.listener.news)  # type: ignore[misc]

    async def test_whoever_it_is_released_to_is_told(self, street: Street) -> None:
        a, b = [await House(street).join() for _ in range(2)]
        session_id = new_session_id()
        fence = await street.store.create(session_id, a.node, LIFE)
        await street.store.release(session_id, fence, to=b.node)

        await b.listener.until(lambda: session_id in b.listener.news)

    async def test_who_follows_no_more_is_told_no_more(self, street: Street) -> None:
        a, b, c = [await House(street).join() for _ in range(3)]
        session_id = new_session_id()
        await street.store.create(session_id, a.node, LIFE)
        await street.store.follow(session_id, b.node)
        await street.store.follow(session_id, c.node)
        await street.store.unfollow(session_id, b.node)

        await street.store.submit(session_id, asked(), START)
        await c.listener.until(lambda: session_id in c.listener.news)
        assert b.listener.news == []

    async def test_a_wish_reaches_the_owner(self, street: Street) -> None:
        a, b = [await House(street).join() for _ in range(2)]
        session_id = new_session_id()
        await b.cluster.wish(a.node, session_id)

        await a.listener.until(lambda: a.listener.wishes == [(session_id, b.node)])
        assert b.listener.wishes == []

    async def test_a_node_that_is_killed_is_found_dead_by_all_others_once(self, street: Street) -> None:
        a, b, c = [await House(street).join() for _ in range(3)]
        await street.kill(a.cluster)

        for house in (b, c):
            await house.listener.until(lambda house=house: house.listener.lost == [a.node])  # type: ignore[misc]
            assert house.cluster.is_lost(a.node)
            assert not house.cluster.is_lost(b.node)
            assert not house.cluster.is_lost(c.node)

    async def test_a_node_that_leaves_is_not_taken_for_dead(self, street: Street) -> None:
        a, b, c = [await House(street).join() for _ in range(3)]
        await b.cluster.watch(a.node)
        await a.cluster.leave()
        await a.cluster.leave()
        await street.kill(c.cluster)

        await b.listener.until(lambda: c.node in b.listener.lost)
        assert b.listener.lost == [c.node]

    async def test_leaving_without_having_joined_is_harmless(self, street: Street) -> None:
        await street.cluster().leave()

    async def test_it_is_known_whether_there_are_others(self, street: Street) -> None:
        a = await House(street).join()
        assert not a.cluster.has_others
        b = await House(street).join()
        assert b.cluster.has_others
