"""People who talk over two nodes, whatever the store consists of, and what must hold of what they saw."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from tests.chaos.bills import bills_in, check_bills, endings_of
from tests.chaos.checker import Violation, check_generations
from tests.chaos.cluster import begun_in, environment, logs_in, started
from tests.chaos.crowd import Crowd
from tests.chaos.history import History, Witness
from tests.chaos.nodes import NodeProcess
from tests.chaos.run import check_all, told_of
from tests.chaos.speaker import Manner
from tests.chaos.words import key_of

__all__ = ["PEOPLE", "Talks", "talks"]

PEOPLE: Final = 24
_MANNER: Final = Manner(words=10, pause=0.05)


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
        """Return for each history what it was told, one after another, of whether what it sees is saved.

        Of those that were told at any time that it isn't.
        """
        told = [list(_durable(each)) for person in self.people for each in person.histories]
        return [each for each in told if not all(each)]

    def deaths(self) -> list[str]:
        """Return what nodes logged of others that they took for dead."""
        lines = (line for node in self.nodes for line in node.log.read_text().splitlines())
        return [line for line in lines if "node lost" in line]

    def turns(self) -> set[str]:
        """Return how turns have ended."""
        return {how for person in self.people for how in person.ended}


def _durable(history: History) -> Iterator[bool]:
    for frame in history.frames():
        said = frame["session"]["unbroken"] if "session" in frame else {}
        if frame["type"] == "session.updated" and "durable" in said:
            yield said["durable"]
        elif frame["type"] == "session.created" and said.get("resumed") is False:
            yield said.get("durable", True)  # what it starts over with is saved, unless that is said


@asynccontextmanager
async def talks(folder: Path, url: str) -> AsyncIterator[Talks]:
    """Have people be answered by two nodes, which are over *url* the user ``unbroken``."""
    # The patience is less than a failover takes: whose sessions these are is told for sure.
    settings = environment(
        folder / "journal",
        {
            "UNBROKEN_REDIS_URL": url.replace("://", "://unbroken:password@"),
            "UNBROKEN_STORE_PATIENCE": "0.2",
        },
    )
    async with AsyncExitStack() as stack:
        nodes = [NodeProcess(f"node{number}", 0, folder, settings, has_proxies=False) for number in range(2)]
        await stack.enter_async_context(started(nodes))
        ports = {node.name: node.port for node in nodes}
        crowd = Crowd([f"s{number}" for number in range(PEOPLE)], ports, _MANNER, seed=0, folder=folder)
        stack.push_async_callback(crowd.close)
        await crowd.start()
        await crowd.all_answered()
        yield Talks(crowd, folder, url, nodes)
