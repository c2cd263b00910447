"""A rolling restart: each node in turn is asked to end, and replaced, while people are being answered.

``python -m tests.chaos.rolling --clients 200`` prints for how long each client was without a connection.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import shutil
import statistics
import sys
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from tests.chaos.checker import Violation
from tests.chaos.cluster import AgentKind, Cluster, cluster_of
from tests.chaos.run import check_all
from tests.chaos.speaker import Manner, Speaker

__all__ = ["Restarted", "restart_all"]

_PATIENCE = 120.0


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
    """Restart all nodes, one after another, under *clients*, each of which is always being answered."""
    draw = random.Random(seed)
    report = Restarted(clients)
    settings = {"UNBROKEN_DRAIN_TIMEOUT": "20"}
    async with cluster_of(folder, nodes=nodes, agent=agent, settings=settings) as cluster:
        speakers = [_speaker(number, cluster, random.Random(draw.random())) for number in range(clients)]
        talking = [asyncio.create_task(speaker.speak()) for speaker in speakers]
        try:
            await _all_answered(speakers)
            for node in cluster.nodes:
                await node.terminate()
                await node.start()
                await _all_answered(speakers)
            for speaker in speakers:
                speaker.is_over = True
            async with asyncio.timeout(_PATIENCE):
                await asyncio.gather(*talking)
        finally:
            for task in talking:
                task.cancel()
            await asyncio.gather(*talking, return_exceptions=True)
        await asyncio.gather(*[node.terminate() for node in cluster.nodes])
        report.exits = [code for node in cluster.nodes for code in node.exits]
        logs = await cluster.logs()
        report.violations = check_all(
            speakers, logs, left={node.node_id() for node in cluster.nodes} - {""}, may_lose=False
        )
    _count(report, speakers)
    return report


def _speaker(number: int, cluster: Cluster, draw: random.Random) -> Speaker:
    manner = Manner(words=30, pause=0.05)
    return Speaker(f"s{number}", cluster.place(random.Random(draw.random())), draw, manner)


async def _all_answered(speakers: list[Speaker]) -> None:
    """Wait until everybody has had another answer: so that each restart meets answers that run."""
    for speaker in speakers:
        speaker.answered.clear()
    async with asyncio.timeout(_PATIENCE):
        for speaker in speakers:
            await speaker.answered.wait()


def _count(report: Restarted, speakers: list[Speaker]) -> None:
    for speaker in speakers:
        report.turns.update(speaker.ended)
        gaps = 0.0
        for history in speaker.histories:
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
