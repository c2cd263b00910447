"""The store is a Valkey Cluster: a primary dies, and slots move from server to server, under answers."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import pytest

from tests.chaos.bills import bills_in, check_bills, endings_of
from tests.chaos.checker import Violation, check_generations
from tests.chaos.cluster import begun_in, environment, logs_in, started
from tests.chaos.crowd import Crowd
from tests.chaos.history import History, Witness
from tests.chaos.nodes import NodeProcess
from tests.chaos.run import check_all, told_of
from tests.chaos.speaker import Manner
from tests.chaos.words import key_of
from tests.fakes.valkey_cluster import ValkeyCluster
from tests.sessions.backends.redis.acl import allow
from unbroken.sessions.backends.redis.keys import Keys

pytestmark = [pytest.mark.slow, pytest.mark.timeout(120)]

PEOPLE: Final = 24
MANNER: Final = Manner(words=10, pause=0.05)


@dataclass(slots=True)
class Talks:
    """People who talk over two nodes; what they saw, once that is over."""

    crowd: Crowd
    folder: Path
    url: str
    nodes: list[NodeProcess]
    people: list[Witness] = field(default_factory=list)

    async def violations(self, *, may_lose: bool) -> list[Violation]:
        """Let everybody come to the end, and return which rules were broken."""
        self.people = await self.crowd.finish()
        for node in self.nodes:  # not at once: what one passes on, the other still takes
            await node.terminate()
        logs = await logs_in(self.url)
        turns, _ = told_of(self.people, logs)
        shown = {response: key_of(turn) for response, turn in turns.items() if turn}
        left = {node.node_id() for node in self.nodes}
        return [
            *check_all(self.people, logs, left=left, may_lose=may_lose),
            *check_bills(
                await bills_in(self.url),
                endings_of(self.people, logs),
                may_drop=may_lose,
                may_miss=may_lose,
            ),
            *check_generations(begun_in(self.folder / "journal"), shown, may_drop=may_lose),
            *(Violation("log", node.name, problem) for node in self.nodes for problem in node.problems()),
        ]

    def outages(self) -> list[list[bool]]:
        """Return for each history what it was told, one after another, of whether what it sees is saved."""
        return [told for person in self.people for each in person.histories if (told := list(_durable(each)))]

    def turns(self) -> set[str]:
        """Return how turns have ended."""
        return {how for person in self.people for how in person.ended}


def _durable(history: History) -> Iterator[bool]:
    for frame in history.frames():
        if frame["type"] == "session.updated" and "durable" in frame["session"]["unbroken"]:
            yield frame["session"]["unbroken"]["durable"]


@asynccontextmanager
async def talks(folder: Path, servers: ValkeyCluster) -> AsyncIterator[Talks]:
    """Have people be answered by two nodes, which are over *servers* the user of few rights of the docs."""
    for server in [*servers.servers, *servers.replicas]:
        allow(server, "unbroken", in_cluster=True)
    url = servers.url.replace("://", "://unbroken:password@")
    # The patience is less than a failover takes: whose sessions these are is told for sure.
    settings = environment(folder / "journal", {"UNBROKEN_REDIS_URL": url, "UNBROKEN_STORE_PATIENCE": "0.2"})
    async with AsyncExitStack() as stack:
        nodes = [NodeProcess(f"node{number}", 0, folder, settings, has_proxies=False) for number in range(2)]
        await stack.enter_async_context(started(nodes))
        ports = {node.name: node.port for node in nodes}
        crowd = Crowd([f"s{number}" for number in range(PEOPLE)], ports, MANNER, seed=0, folder=folder)
        stack.push_async_callback(crowd.close)
        await crowd.start()
        await crowd.all_answered()
        yield Talks(crowd, folder, servers.url, nodes)


def forbidden(servers: ValkeyCluster, *dead: object) -> list[bytes]:
    """Return what servers have refused the user."""
    living = [each for each in [*servers.servers, *servers.replicas] if each not in dead]
    return [log for server in living if (log := server.command("ACL", "LOG")) != b"*0\r\n"]


async def test_a_failover_costs_no_word_and_is_told(tmp_path: Path) -> None:
    """The primary that dies has sessions, and all that nodes tell each other."""
    cluster = ValkeyCluster(tmp_path / "servers", "--cluster-require-full-coverage", "no", replicas=2)
    with cluster.running() as servers:
        primary = servers.server_of(Keys("unbroken").nodes)
        async with talks(tmp_path, servers) as seen:
            primary.kill()
            await asyncio.to_thread(servers.wait_until_promoted, servers.replica_of(primary))
            await seen.crowd.all_answered()
            assert await seen.violations(may_lose=True) == []

        assert seen.outages(), "those whose server it was were told"
        assert all(told[-1] for told in seen.outages()), "and that it was over"
        assert len(seen.outages()) < PEOPLE, "those of the other servers weren't"
        assert seen.turns() == {"completed"}
        assert forbidden(servers, primary) == []


async def test_slots_that_move_under_answers_cost_no_word(tmp_path: Path) -> None:
    with ValkeyCluster(tmp_path / "servers").running() as servers:
        source = servers.server_of(Keys("unbroken").nodes)
        (target, _) = [server for server in servers.servers if server is not source]
        async with talks(tmp_path, servers) as seen:
            slots = servers.slots_in_use(source)
            halfway = asyncio.run_coroutine_threadsafe
            loop = asyncio.get_running_loop()
            moved = await asyncio.to_thread(
                servers.move,
                slots,
                source,
                target,
                halfway=lambda: halfway(seen.crowd.all_answered(), loop).result(),
            )
            await seen.crowd.all_answered()
            assert moved > 0
            assert servers.slots_in_use(source) == []
            await asyncio.to_thread(servers.move_whole, slots, target, source)
            await seen.crowd.all_answered()
            assert await seen.violations(may_lose=False) == []

        assert seen.outages(), "those whose slots were half moved for so long were told"
        assert all(told[-1] for told in seen.outages())
        assert seen.turns() == {"completed"}
        assert forbidden(servers) == []
