"""Principals' numbers on a real Valkey; for a cluster's, see ``test_servers``."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from tests.fakes.valkey import Server
from tests.sessions.backends.cluster_contract import Listener
from tests.sessions.backends.redis.test_membership import PACE, RedisStreet
from tests.sessions.backends.tally_contract import ANN, TallyContract, claim
from unbroken.sessions.backends.redis.connection import Address, connect
from unbroken.sessions.backends.redis.keys import TALLY_LIFETIME, Keys
from unbroken.sessions.backends.redis.membership import RedisMembership
from unbroken.sessions.backends.redis.tally import RedisTally
from unbroken.sessions.backends.tally import Tally
from unbroken.sessions.errors import StoreUnavailable
from unbroken.sessions.ids import NodeId, new_node_id


class RedisBooks:
    """Nodes that have joined, each with its tally."""

    def __init__(self, address: Address) -> None:
        self.street = RedisStreet(address, PACE)
        self.is_cluster = address.kind == "cluster"
        self._nodes: dict[RedisTally, tuple[RedisMembership, Listener]] = {}

    async def node(self) -> RedisTally:
        membership, listener = self.street.cluster(), Listener()
        await membership.join(new_node_id(), listener)
        client = self.street._clusters[membership]
        tally = RedisTally(client, Keys("test"), membership, patience=10, is_cluster=self.is_cluster)
        self._nodes[tally] = membership, listener
        return tally

    def name(self, tally: Tally) -> NodeId:
        assert isinstance(tally, RedisTally)
        return self._nodes[tally][0].node

    async def kill(self, tally: Tally) -> None:
        assert isinstance(tally, RedisTally)
        membership, _ = self._nodes.pop(tally)
        await self.street.kill(membership)
        for _, listener in self._nodes.values():
            await listener.until(lambda listener=listener: membership.node in listener.lost)  # type: ignore[misc]

    async def lose(self) -> None:
        await self.street._clients[0].flushall()


class TestTallyOnRedis7(TallyContract):
    @pytest_asyncio.fixture
    async def books(self, redis7: Server) -> AsyncIterator[RedisBooks]:
        redis7.command("FLUSHALL")
        books = RedisBooks(Address(redis7.url))
        yield books
        await books.street.aclose()


class TestTallyOnValkey(TallyContract):
    @pytest_asyncio.fixture
    async def books(self, valkey: Server) -> AsyncIterator[RedisBooks]:
        valkey.command("FLUSHALL")
        books = RedisBooks(Address(valkey.url))
        yield books
        await books.street.aclose()

    async def test_what_is_left_of_a_node_that_nobody_knows_goes_when_it_is_found_dead(
        self, books: RedisBooks, valkey: Server
    ) -> None:
        """All nodes died at once, and others were started: none of these has seen them live."""
        ghost = NodeId("node_ghost")
        valkey.command("HSET", Keys("test").tally(ANN), f"connection:{ghost}", "3")
        a = await books.node()
        assert await a.settle([claim(wanted=1)]) == [0], "it might be alive"
        listener = books._nodes[a][1]
        await listener.until(lambda: ghost in listener.lost)

        assert await a.settle([claim(wanted=2)]) == [2]
        found = valkey.command("HKEYS", Keys("test").tally(ANN))
        assert ghost.encode() not in found
        assert books.name(a).encode() in found

    async def test_a_node_that_left_counts_no_more(self, books: RedisBooks) -> None:
        a, b = await books.node(), await books.node()
        await a.settle([claim(wanted=3)])
        assert await b.settle([claim(wanted=1)]) == [0]
        await books._nodes[a][0].leave()
        membership, listener = books._nodes[b]
        await listener.until(lambda: membership.is_lost(books.name(a)))

        assert await b.settle([claim(wanted=1)]) == [1]
        assert listener.lost == []

    async def test_nothing_is_left_in_the_end(self, books: RedisBooks, valkey: Server) -> None:
        a = await books.node()
        await a.settle([claim(wanted=2)])
        key = Keys("test").tally(ANN)
        left = int(valkey.command("TTL", key)[1:])
        assert 0 < left <= TALLY_LIFETIME

        await a.settle([claim(held=0)])
        assert valkey.command("EXISTS", key) == b":0\r\n"

    async def test_a_server_that_does_not_answer_is_waited_for_so_long(
        self, books: RedisBooks, valkey: Server
    ) -> None:
        await books.node()
        ((membership, _),) = books._nodes.values()
        client = connect(Address(valkey.url), name="test")
        tally = RedisTally(client, Keys("test"), membership, patience=0.05)
        valkey.freeze()
        try:
            with pytest.raises(StoreUnavailable):
                await tally.settle([claim(wanted=1)])
        finally:
            valkey.thaw()
            await client.aclose()

    async def test_a_server_that_is_not_there_is_told_as_such(self, books: RedisBooks) -> None:
        await books.node()
        ((membership, _),) = books._nodes.values()
        client = connect(Address("redis://127.0.0.1:1/0"), name="test")
        with pytest.raises(StoreUnavailable):
            await RedisTally(client, Keys("test"), membership).settle([claim(wanted=1)])
        await client.aclose()
