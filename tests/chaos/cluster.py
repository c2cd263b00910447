"""A cluster under test: a store, nodes, an upstream, and what is left in the store in the end."""

from __future__ import annotations

import asyncio
import random
import secrets
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

from tests.chaos.bills import Bill, bills_in
from tests.chaos.client import Place
from tests.chaos.logs import Log
from tests.chaos.nodes import NodeProcess
from tests.chaos.upstream import KeepingUpstream
from tests.chaos.words import JOURNAL
from tests.fakes.valkey import Server
from unbroken.sessions.backends.redis.connection import Address, connect
from unbroken.sessions.backends.redis.keys import Bounds, Keys
from unbroken.sessions.backends.redis.store import RedisStore
from unbroken.sessions.entries import Entry
from unbroken.sessions.errors import LostTail
from unbroken.sessions.event_log import Position
from unbroken.sessions.ids import SessionId
from unbroken.sessions.items import Message
from unbroken.sessions.response import Ongoing
from unbroken.sessions.session import Session, SessionLimits

__all__ = ["AgentKind", "Cluster", "begun_in", "cluster_of", "environment", "logs_in", "started"]

AgentKind = Literal["words", "upstream"]
"""What answers: a function in each node, or an upstream that keeps its answers, whatever becomes of nodes."""

_SETTINGS: Final = {
    "UNBROKEN_CONCURRENCY": "queue",
    "UNBROKEN_DRAIN_TIMEOUT": "4",
    "UNBROKEN_TURN_ATTEMPTS": "2",
    "UNBROKEN_REDIS_TIMEOUT": "1",
    "UNBROKEN_RELEASE_AFTER": "2",
    "UNBROKEN_LEAKS": "on",
    "UNBROKEN_LEAK_ACTIONS": "email=redact,secret=ignore,card=ignore,iban=ignore,national_id=ignore,"
    "ip=ignore,coordinates=ignore,phone=ignore",
    "UNBROKEN_QUOTAS": '{"default": {"tokens_per_day": 1000000000000}}',
}


@dataclass(eq=False)
class Cluster:
    """Nodes over one store."""

    valkey: Server
    folder: Path
    nodes: list[NodeProcess]
    upstream: KeepingUpstream | None
    journal: Path

    def place(self, draw: random.Random) -> Place:
        """Return what names a node by chance, as a load balancer does that knows nothing of sessions."""

        def choose() -> tuple[str, int]:
            node = draw.choice(self.nodes)
            return node.name, node.port

        return choose

    def begun(self) -> list[tuple[str, str]]:
        """Return, for each answer that an agent began, its response and its turn's key."""
        if self.upstream is not None:
            return self.upstream.begun
        return begun_in(self.journal)

    async def logs(self) -> dict[str, Log]:
        """Return the logs of all sessions that the store holds."""
        return await logs_in(self.valkey.url)

    async def bills(self) -> list[Bill]:
        """Return what was counted of what people used."""
        return await bills_in(self.valkey.url)


def begun_in(journal: Path) -> list[tuple[str, str]]:
    """Return, for each answer that *journal* says to have begun, its response and its turn's key."""
    if not journal.exists():
        return []
    return [(response_id, key) for response_id, key in map(str.split, journal.read_text().splitlines())]


async def logs_in(url: str) -> dict[str, Log]:
    """Return the logs of all sessions that the store at *url* holds."""
    address = Address(url)
    client: Any = connect(address, name="chaos")
    store = RedisStore(client, Keys("unbroken"), Bounds(), is_cluster=address.kind == "cluster")
    try:
        names = [key async for key in client.scan_iter(match="unbroken:{*}:*:m", count=1000)]
        logs = [await _log(store, client, key) for key in names]
        return {log.session: log for log in logs}
    finally:
        await store.aclose()
        await client.aclose()


async def _log(store: RedisStore, client: Any, key: bytes) -> Log:
    session = SessionId(key.decode().split(":")[2])
    opened = await store.inspect(session)
    incarnation = opened.fence.incarnation
    place, entries = Position(incarnation, opened.floor, opened.floor_nonce), list[Entry]()
    is_whole = True
    try:
        while page := (await store.read(session, place, 4096)).entries:
            entries += page
            place = Position(incarnation, page[-1].last, page[-1].nonce)
    except LostTail:  # what the session's head says doesn't fit its entries
        is_whole = False
    standing: list[tuple[str, str, str]] = []
    if opened.snapshot is not None:
        for item in Session.restore(session, SessionLimits(), opened.snapshot.data).standing():
            if isinstance(item, Message):
                standing.append((item.id, item.role, item.text))
            elif isinstance(item, Ongoing) and item.item_id is not None:
                standing.append((item.item_id, "assistant", ""))
    seen = opened.floor if opened.snapshot is None else opened.snapshot.seq
    _, log, names, snapshot, _ = Keys("unbroken").session(session)
    return Log(
        session,
        incarnation,
        opened.floor,
        entries,
        opened.fence.node,
        tuple(standing),
        seen,
        is_whole,
        await client.hlen(names),
        sum([await client.memory_usage(each) or 0 for each in (log, snapshot)]),
    )


@asynccontextmanager
async def cluster_of(
    folder: Path,
    *,
    nodes: int = 3,
    agent: AgentKind = "words",
    settings: Mapping[str, str] | None = None,
    program: str | None = None,
    has_proxies: bool = True,
) -> AsyncIterator[Cluster]:
    """Run *nodes* over a Valkey that writes down what it is told.

    Args:
        folder: For all that is written.
        nodes: How many.
        agent: What answers.
        settings: More of the nodes' environment.
        program: What the nodes run, in place of the server's command.
        has_proxies: Whether something can be done to the nodes' ways to clients and to the store.

    """
    data, journal = folder / "valkey", folder / "journal"
    valkey = Server(data, None, "--appendonly", "yes", "--appendfsync", "no")
    async with AsyncExitStack() as stack:
        upstream = None
        chosen = dict(settings or {})
        if agent == "upstream":
            upstream = await stack.enter_async_context(KeepingUpstream())
            chosen = {
                "UNBROKEN_AGENT": "openai",
                "UNBROKEN_OPENAI_API": "responses",
                "UNBROKEN_OPENAI_BACKGROUND": "true",
                "UNBROKEN_OPENAI_BASE_URL": upstream.base_url,
                "UNBROKEN_OPENAI_API_KEY": "none",
                "UNBROKEN_MODEL": "fake",
                "UNBROKEN_STALL_TIMEOUT": "5",  # shorter than a freeze: who wakes up has everything overdue
                **chosen,
            }
        chosen = environment(journal, chosen)
        await asyncio.to_thread(valkey.start)
        stack.callback(valkey.stop)
        running = [
            NodeProcess(
                f"node{number}",
                valkey.port,
                folder,
                chosen,
                program=program,
                has_proxies=has_proxies,
            )
            for number in range(nodes)
        ]
        await stack.enter_async_context(started(running))
        yield Cluster(valkey, data, running, upstream, journal)


def environment(journal: Path, settings: Mapping[str, str]) -> dict[str, str]:
    """Return what all nodes are set to, with *settings*.

    A function in each node answers, unless these say what does.
    """
    chosen = {**_SETTINGS, JOURNAL: str(journal), "UNBROKEN_SECRET": secrets.token_hex(32)}
    if "UNBROKEN_AGENT" not in settings:
        chosen |= {"UNBROKEN_AGENT": "python", "UNBROKEN_PYTHON_AGENT": "tests.chaos.words:answer"}
    return {**chosen, **settings}


@asynccontextmanager
async def started(nodes: Sequence[NodeProcess]) -> AsyncIterator[None]:
    """Start *nodes*, and end them in the end, wherever they are."""
    async with AsyncExitStack() as stack:
        for node in nodes:
            stack.push_async_callback(node.close)
        await asyncio.gather(*[node.open() for node in nodes])
        yield
