"""A rolling restart: each node in turn is asked to end, and replaced, while people are being answered.

``python -m tests.chaos.rolling --clients 200`` prints for how long each client was without a connection.
"""

from __future__ import annotations

import argparse
import asyncio
import shutil
import statistics
import sys
from collections import Counter
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from tests.chaos.bills import check_bills, endings_of
from tests.chaos.checker import Violation
from tests.chaos.cluster import AgentKind, cluster_of
from tests.chaos.crowd import Crowd
from tests.chaos.history import Witness
from tests.chaos.run import check_all
from tests.chaos.speaker import Manner

__all__ = ["Restarted", "restart_all"]

_MANNER: Final = Manner(words=8, pause=0.15)

_MOST_IN_ONE: Final = 50
"""People in a process."""


@dataclass(slots=True)
class Restarted:
    """What came of it."""

    clients: int
    turns: Counter[str] = field(default_factory=Counter)
    words: int = 0
    connections: int = 0
    gaps: list[float] = field(default_factory=list)
    """For each client, the seconds that it was without a connection, together."""
    codes: Counter[int] = field(default_factory=Counter)
    """How connections ended that their clients didn't end."""
    exits: list[int] = field(default_factory=list)
    violations: list[Violation] = field(default_factory=list)

    def must_be_whole(self) -> None:
        """Fail unless nothing was lost, and everybody was sent from node to node in order."""
        assert self.violations == []
        assert set(self.turns) == {"completed"}
        assert set(self.codes) == {1012}
        assert set(self.exits) == {0}
        assert self.connections > self.clients

    def table(self) -> str:
        """Return it as lines for a person."""
        gaps = sorted(self.gaps)
        lines = [
            f"clients {self.clients}, connections {self.connections}, closed with {dict(self.codes)}",
            f"turns {dict(self.turns)}, words {self.words}, nodes' exit codes {self.exits}",
            f"without a connection, a client in all: median {statistics.median(gaps):.3f} s, "
            f"p99 {gaps[int(0.99 * (len(gaps) - 1))]:.3f} s, most {gaps[-1]:.3f} s",
            f"violations {len(self.violations)}",
            *map(str, self.violations[:40]),
        ]
        return "\n".join(lines)


async def restart_all(
    folder: Path, *, clients: int, nodes: int = 3, agent: AgentKind = "words", seed: int = 0
) -> Restarted:
    """Restart all nodes, one after another, under *clients*, each of which is always being answered.

    They live in processes of their own, and nothing stands between them, the nodes and the store.
    """
    report = Restarted(clients)
    settings = {"UNBROKEN_DRAIN_TIMEOUT": "20", "UNBROKEN_REDIS_TIMEOUT": "5"}
    async with AsyncExitStack() as stack:
        cluster = await stack.enter_async_context(
            cluster_of(folder, nodes=nodes, agent=agent, settings=settings, has_proxies=False)
        )
        ports = {node.name: node.port for node in cluster.nodes}
        crowds = [
            Crowd(names, ports, _MANNER, seed=seed + number, folder=folder)
            for number, names in enumerate(_shares([f"s{number}" for number in range(clients)]))
        ]
        for crowd in crowds:
            stack.push_async_callback(crowd.close)
            await crowd.start()
        await asyncio.gather(*[crowd.all_answered() for crowd in crowds])
        left: set[str] = set()
        for node in cluster.nodes:
            left.add(node.node_id())
            await node.terminate()
            await node.start()
            await asyncio.gather(*[crowd.all_answered() for crowd in crowds])
        people = [
            each for seen in await asyncio.gather(*[crowd.finish() for crowd in crowds]) for each in seen
        ]
        left |= {node.node_id() for node in cluster.nodes}
        for node in cluster.nodes:  # not at once: what one passes on, the other still takes
            await node.terminate()
        report.exits = [code for node in cluster.nodes for code in node.exits]
        logs = await cluster.logs()
        report.violations = check_all(people, logs, left=left, may_lose=False)
        report.violations += check_bills(await cluster.bills(), endings_of(people, logs))
    _count(report, people)
    return report


def _shares(names: list[str]) -> list[list[str]]:
    count = -(-len(names) // _MOST_IN_ONE)
    return [names[number::count] for number in range(count)]


def _count(report: Restarted, people: list[Witness]) -> None:
    for person in people:
        report.turns.update(person.ended)
        gaps = 0.0
        for history in person.histories:
            gaps += sum(history.gaps())
            report.codes.update(history.codes())
            report.connections += len(history.codes())
            for frame in history.frames():
                if frame["type"] == "response.output_text.delta":
                    report.words += frame["delta"].count(" ")
        report.gaps.append(gaps)


def main() -> int:
    """Run what the command line says."""
    parser = argparse.ArgumentParser(prog="python -m tests.chaos.rolling", description=__doc__)
    parser.add_argument("--clients", type=int, default=200)
    parser.add_argument("--nodes", type=int, default=3)
    parser.add_argument("--agent", choices=("words", "upstream"), default="words")
    asked = parser.parse_args()
    folder = Path(__file__).parents[2] / "build" / "rolling"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    report = asyncio.run(restart_all(folder, clients=asked.clients, nodes=asked.nodes, agent=asked.agent))
    print(report.table())  # noqa: T201 - for a person
    return 1 if report.violations or set(report.turns) - {"completed"} else 0


if __name__ == "__main__":
    sys.exit(main())
