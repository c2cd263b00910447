"""A run: people talk while everything goes wrong; then it is put right, and what was seen is checked."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from tests.chaos.bills import check_bills, endings_of
from tests.chaos.checker import Violation, check_generations, check_history
from tests.chaos.cluster import AgentKind, Cluster, cluster_of
from tests.chaos.faults import FAULTS, OUTAGES, STANDSTILLS, World
from tests.chaos.history import History, Witness
from tests.chaos.leaks import check_kept, check_told
from tests.chaos.logs import Log, check_acknowledged, check_log, check_shown
from tests.chaos.nodes import NodeProcess
from tests.chaos.resets import check_resets
from tests.chaos.speaker import Manner, Speaker
from tests.chaos.words import key_of

__all__ = ["Plan", "Report", "carry_out", "check_all"]

_AT_ONCE: Final = 3
"""Faults that are under way at a time."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What a run is."""

    seconds: float
    """For which faults begin."""
    seed: int
    speakers: int = 12
    nodes: int = 3
    agent: AgentKind = "words"
    faults: tuple[str, ...] = tuple(FAULTS)
    pause: float = 0.8
    """Seconds between the beginnings of two faults, on average."""
    least: int = 10
    """How many faults there have to be."""
    quiet: float = 75.0
    """Seconds after which, with everything put right, each turn that was asked for has ended (I12)."""
    program: str | None = None


@dataclass(slots=True)
class Report:
    """What came of it."""

    plan: Plan
    faults: Counter[str] = field(default_factory=Counter)
    """Those that had an effect."""
    idle: Counter[str] = field(default_factory=Counter)
    """Those that had none: what they would have been done to was not there."""
    turns: Counter[str] = field(default_factory=Counter)
    """How they ended."""
    sessions: int = 0
    connections: int = 0
    resumed: int = 0
    """Connections that went on exactly where the one before had ended."""
    resets: int = 0
    """Connections that were told to start over."""
    knew: bool = False
    """Whether every node could tell what each log held, all the time: then none of them was for nothing."""
    gone: int = 0
    """Sessions of which clients were told that they have ended."""
    attempts: int = 0
    """Turns that were attempted again."""
    begun: int = 0
    """Answers that the agent was asked for."""
    unseen: int = 0
    """Of these, those that nobody was shown."""
    charges: int = 0
    """Turns that were counted when they had ended."""
    words: int = 0
    withheld: int = 0
    """What the leak filter put something else in the place of, as often as it was shown."""
    refusals: Counter[str] = field(default_factory=Counter)
    violations: list[Violation] = field(default_factory=list)

    def must_be_sound(self) -> None:
        """Fail unless people were answered, things went wrong, and no rule was broken."""
        assert self.turns["completed"] > 0
        assert self.charges > 0
        assert self.withheld > 0
        assert self.faults.total() >= self.plan.least
        assert self.violations == []

    def table(self) -> str:
        """Return it as lines for a person."""
        plan = self.plan
        rows: list[tuple[str, object]] = [
            ("seed", f"{plan.seed} ({plan.agent}, {plan.nodes} nodes, {plan.speakers} speakers)"),
            ("faults", self.faults.total()),
            *((f"  {name}", count) for name, count in sorted(self.faults.items())),
            ("faults without effect, not counted", self.idle.total()),
            *((f"  {name}", count) for name, count in sorted(self.idle.items())),
            ("turns", self.turns.total()),
            *((f"  {name}", count) for name, count in sorted(self.turns.items())),
            ("  attempted again", self.attempts),
            ("answers that the agent began", self.begun),
            ("  and nobody was shown", self.unseen),
            ("turns that were counted", self.charges),
            ("words shown", self.words),
            ("  kept back", self.withheld),
            ("sessions", self.sessions),
            ("connections", self.connections),
            ("  resumed", self.resumed),
            ("  told to start over", self.resets),
            ("  and each of these could be judged", self.knew),
            ("  told that the session has ended", self.gone),
            ("refusals", self.refusals.total()),
            *((f"  {name}", count) for name, count in sorted(self.refusals.items())),
            ("violations", len(self.violations)),
            *((f"  {violation}", "") for violation in self.violations[:40]),
        ]
        return "\n".join(f"{name:<42} {value}".rstrip() for name, value in rows)


async def carry_out(plan: Plan, folder: Path) -> Report:
    """Do what *plan* says. The folder gets logs and data."""
    draw = random.Random(plan.seed)
    report = Report(plan)
    async with cluster_of(folder, nodes=plan.nodes, agent=plan.agent, program=plan.program) as cluster:
        speakers = [
            _speaker(number, cluster, random.Random(draw.random())) for number in range(plan.speakers)
        ]
        talking = [asyncio.create_task(speaker.speak()) for speaker in speakers]
        world = World(cluster.nodes, cluster.valkey, cluster.folder, draw)
        try:
            await _trouble(world, plan, report)
            await _quiet(speakers, report)
            await _part(world, speakers, talking, report)
        finally:
            for task in talking:
                task.cancel()
            await asyncio.gather(*talking, return_exceptions=True)
        left = world.left | {node.node_id() for node in cluster.nodes}
        for node in cluster.nodes:  # not at once: what one passes on, the other still takes
            await _end(node, report)
        report.violations += [
            Violation("log", node.name, problem) for node in cluster.nodes for problem in node.problems()
        ]
        people = [speaker.witness() for speaker in speakers]
        _count(report, people)
        logs = await cluster.logs()
        report.begun = len(cluster.begun())
        report.violations += check_all(people, logs, left=left, may_lose=world.lost > 0)
        report.knew = not any(node.was_cut_off() for node in cluster.nodes) and not any(
            report.faults[name] + report.idle[name] for name in STANDSTILLS
        )
        if report.knew:
            held = [(each, logs.get(each.session)) for person in people for each in person.histories]
            report.violations += [found for each, log in held if log for found in check_resets(each, log)]
        turns, _ = told_of(people, logs)
        shown = {response: key_of(turn) for response, turn in turns.items() if turn}
        is_outage = any(report.faults[name] + report.idle[name] for name in OUTAGES)
        may_drop = is_outage or any(node.went_alone() for node in cluster.nodes)
        report.violations += check_generations(cluster.begun(), shown, may_drop=may_drop)
        bills = await cluster.bills()
        report.charges = sum(len(bill.charges) for bill in bills)
        may_miss = may_drop or report.faults["kill -9"] + report.idle["kill -9"] > 0
        report.violations += check_bills(
            bills,
            endings_of(people, logs),
            told=set().union(*(node.ended() for node in cluster.nodes)),
            may_drop=may_drop,
            may_miss=may_miss,
        )
        report.unseen = len({response for response, _ in cluster.begun()} - shown.keys())
        if report.violations:
            keep(folder, people, logs)
    return report


def _speaker(number: int, cluster: Cluster, draw: random.Random) -> Speaker:
    manner = Manner(
        has_second_tab=number % 3 == 1,
        is_slow=number % 4 == 2,
        wanders=number % 2 == 0,
        cancels=number % 5 == 3,
        meets_failures=True,
        words=draw.choice((5, 30, 60)),
        pause=draw.choice((0.01, 0.05, 0.1)),
    )
    return Speaker(f"s{number}", cluster.place(random.Random(draw.random())), draw, manner)


async def _trouble(world: World, plan: Plan, report: Report) -> None:
    """Let faults begin at random, several at once, and wait until each is put right."""
    names = list(plan.faults)
    weights = [FAULTS[name][1] for name in names]
    places = asyncio.Semaphore(_AT_ONCE)
    loop = asyncio.get_running_loop()
    end = loop.time() + plan.seconds

    async def do(name: str, node: NodeProcess) -> None:
        try:
            async with world.alone(node.name) as is_free:
                if is_free:
                    counted = report.faults if await FAULTS[name][0](world, node) else report.idle
                    counted[name] += 1
        finally:
            places.release()

    async with asyncio.TaskGroup() as group:
        while loop.time() < end:
            await places.acquire()
            (name,) = world.draw.choices(names, weights)
            free = [node for node in world.nodes if node.name not in world.busy]
            group.create_task(do(name, world.draw.choice(free or world.nodes)))
            await asyncio.sleep(world.draw.expovariate(1 / plan.pause))


async def _quiet(speakers: list[Speaker], report: Report) -> None:
    """Let what was asked come to its end, and note what doesn't."""
    for speaker in speakers:
        speaker.is_over = True
    resting = [asyncio.create_task(speaker.rests.wait()) for speaker in speakers]
    await asyncio.wait(resting, timeout=report.plan.quiet)
    for speaker, task in zip(speakers, resting, strict=True):
        task.cancel()
        if not speaker.rests.is_set():
            waited = speaker.waits_for or "its tabs to see the end"
            where = speaker.histories[-1].session
            report.violations.append(
                Violation("I12", f"{where} {speaker.name}", f"still waits for {waited!r}")
            )


async def _part(
    world: World, speakers: list[Speaker], talking: list[asyncio.Task[None]], report: Report
) -> None:
    """Replace all nodes under those who rest: whatever only a node knew, clients are told by the next one."""
    for node in world.nodes:
        world.left.add(node.node_id())
        await _end(node, report)
        await node.start()
    for speaker in speakers:
        speaker.may_leave.set()
    done, late = await asyncio.wait(talking, timeout=report.plan.quiet)
    for task in done:
        task.result()
    for speaker, task in zip(speakers, talking, strict=True):
        if task in late and speaker.rests.is_set():
            report.violations.append(Violation("I12", speaker.name, "can't come back to see the end"))


async def _end(node: NodeProcess, report: Report) -> None:
    try:
        await node.terminate()
    except TimeoutError:
        report.violations.append(Violation("I11", node.name, "SIGTERM doesn't end it"))
        await node.kill()
    if any(node.exits):
        report.violations.append(Violation("I11", node.name, f"ended with {node.exits}"))


def check_all(
    people: list[Witness], logs: dict[str, Log], *, left: set[str], may_lose: bool
) -> list[Violation]:
    """Check everything that was seen, and that is left.

    *left* are the nodes that were asked to end while the store was there. *may_lose*: it has lost something,
    such as that a node had let an idle session go. Nobody knows then, and whoever comes for it takes it.
    """
    found: list[Violation] = []
    turns, answers = told_of(people, logs)
    asked = {item: turns.get(response, "") for item, response in answers.items()}
    for log in logs.values():
        found += check_log(log)
        found += check_kept(log)
        if log.owner in left and not may_lose:
            found.append(Violation("I11", log.session, f"is still {log.owner}'s, which has ended in order"))
    for person in people:
        was_alone = any(history.was_alone for history in person.histories)  # known to one node alone
        if "session_not_found" in person.refusals and not (may_lose or was_alone):
            found.append(Violation("I9", person.name, "a session has ended that nobody has lost"))
        for history in person.histories:
            found += check_history(history, is_over=history.is_open, answers=asked)
            found += check_told(history)
            held = logs.get(history.session)
            if not history.is_open:
                continue
            found += check_acknowledged(history, held)
            if held is not None:
                found += check_shown(history, held)
    return found


def told_of(people: Iterable[Witness], logs: dict[str, Log]) -> tuple[dict[str, str], dict[str, str]]:
    """Return for each response that is known what it was asked, and for each answer's item its response."""
    sources: list[Log | History] = [
        *logs.values(),
        *(history for person in people for history in person.histories),
    ]
    turns = {response: turn for source in sources for response, turn in source.turns().items()}
    return turns, {item: response for source in sources for item, response in source.answers()}


def keep(folder: Path, people: Iterable[Witness], logs: dict[str, Log]) -> None:
    """Write down what was seen and what is left, for whoever looks for the cause."""
    with (folder / "histories.txt").open("w") as out:
        for person in people:
            for history in person.histories:
                print(f"# {history.tab} {history.session}", file=out)
                for event in history.events:
                    print(event, file=out)
    with (folder / "logs.txt").open("w") as out:
        for log in logs.values():
            print(f"# {log.session} {log.incarnation} floor {log.floor} owner {log.owner}", file=out)
            for entry in log.entries:
                print(entry, file=out)


def _count(report: Report, people: list[Witness]) -> None:
    histories: list[History] = []
    for person in people:
        report.turns.update(person.ended)
        report.refusals.update(person.refusals)
        histories += person.histories
    report.sessions = len({history.session for history in histories} - {""})
    report.gone = report.refusals["session_not_found"]
    seen: dict[str, set[str]] = {}
    for history in histories:
        for frame in history.frames():
            if frame["type"] == "session.created":
                report.connections += 1
                resumed = frame["session"]["unbroken"].get("resumed")
                report.resumed += resumed is True
                report.resets += resumed is False
            elif frame["type"] == "response.created":
                turn = frame["response"]["metadata"]["turn"]
                seen.setdefault(turn, set()).add(frame["response"]["id"])
            elif frame["type"] == "response.output_text.delta":
                report.words += frame["delta"].count(" ")
                report.withheld += frame["delta"].count("[email ")
    report.attempts = sum(len(responses) > 1 for responses in seen.values())
