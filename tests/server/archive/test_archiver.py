"""How turns come from the outbox into the archive, whatever becomes of calls and of archivers."""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from typing import Any, cast

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from structlog.testing import capture_logs

from tests.fakes.archive import MemoryArchive
from tests.fakes.clock import FakeClock
from tests.server.archive.turns import ALICE, BOB, session_of, turn
from tests.sessions.conversation import settle
from unbroken.server.archive.archiver import Archiver
from unbroken.server.archive.base import Archive, Delivery
from unbroken.server.archive.housekeeping import Retention
from unbroken.server.auth.directory import MemoryDirectory
from unbroken.server.auth.principal import Principal
from unbroken.sessions.backends.memory_outbox import MemoryOutbox
from unbroken.sessions.backends.outbox import OutboxLimits, Parcel
from unbroken.sessions.errors import StoreUnavailable
from unbroken.sessions.finished import FinishedTurn

SESSION = session_of(ALICE)


class Bench:
    """An outbox, an archive, and archivers between them."""

    def __init__(self, retention: Retention | None = None) -> None:
        self.clock = FakeClock()
        self.outbox = MemoryOutbox(OutboxLimits(), self.clock.time)
        self.archive = MemoryArchive()
        self.directory = MemoryDirectory(self.clock)
        self.retention = retention or Retention({"default": None}, 100.0)
        self.outcomes: Counter[str] = Counter()
        self.failures = 0
        self.waiting: tuple[int, float] = (0, 0.0)
        self.announced: list[tuple[FinishedTurn, Principal | None, bool]] = []
        self.archivers: list[Archiver] = []
        self.written = 0

    def begin(self) -> Archiver:
        """Start one more archiver, as another node's is."""
        archiver = Archiver(
            self.outbox,
            cast(Archive, self.archive),
            self.directory,
            self.retention,
            self._announce,
            self.clock,
            on_outcome=self._note,
            on_failure=self._failed,
            on_waiting=self._wait,
            on_written=self._wrote,
            on_lost=self._lose,
        )
        archiver.start()
        self.archivers.append(archiver)
        return archiver

    def _announce(
        self, turn: FinishedTurn, whose: Principal | None, *, is_attended: bool
    ) -> Sequence[Delivery]:
        self.announced.append((turn, whose, is_attended))
        return [Delivery(f"msg_{turn.response_id}", "crm", "turn.completed", "{}")]

    def _note(self, outcome: str, count: int) -> None:
        self.outcomes[outcome] += count

    def _failed(self) -> None:
        self.failures += 1

    def _wait(self, count: int, oldest: float) -> None:
        self.waiting = count, oldest

    def _lose(self, count: int) -> None:
        self.outcomes["lost"] += count

    def _wrote(self) -> None:
        self.written += 1

    def put(self, *turns: FinishedTurn, is_attended: bool = True) -> None:
        self.outbox.put(turns, is_attended=is_attended)

    async def pass_time(self, seconds: float) -> None:
        self.clock.advance(seconds)
        await settle()

    @property
    def kept(self) -> list[str]:
        return sorted(response_id for _, response_id in self.archive.kept)


@contextlib.asynccontextmanager
async def open_bench(*, archivers: int = 1, **options: Any) -> AsyncIterator[Bench]:
    bench = Bench(**options)
    for _ in range(archivers):
        bench.begin()
    await settle()
    yield bench
    for archiver in bench.archivers:
        await archiver.aclose()


async def test_a_turn_is_brought_at_once_and_settled() -> None:
    async with open_bench() as bench:
        await bench.directory.note(ALICE)
        bench.put(turn(SESSION, 1))
        await settle()

        assert bench.kept == ["resp_1"]
        assert len(bench.outbox) == 0
        assert bench.announced == [(turn(SESSION, 1), ALICE, True)]
        assert [each.message_id for each in bench.archive.queued] == ["msg_resp_1"]
        assert (bench.outcomes, bench.written) == ({"written": 1, "known": 0}, 1)


async def test_what_somebody_left_there_who_died_is_found() -> None:
    async with open_bench(archivers=0) as bench:
        bench.put(turn(SESSION, 1), is_attended=False)
        bench.begin()
        await settle()
        assert bench.kept == ["resp_1"]

        bench.outbox.on_news = lambda _: None  # of others nobody hears
        await bench.pass_time(1)
        bench.put(turn(SESSION, 2))
        await bench.pass_time(13)
        assert bench.kept == ["resp_1"]
        await bench.pass_time(2)
        assert bench.kept == ["resp_1", "resp_2"]
        assert bench.waiting == (1, 15.0)


async def test_what_is_left_there_is_found_however_much_there_is_to_do() -> None:
    async with open_bench() as bench:
        bench.outbox.put([], is_attended=True)
        heard, bench.outbox.on_news = bench.outbox.on_news, lambda _: None
        bench.put(turn(SESSION, 1))  # by another node
        for _ in range(16):
            heard(7)  # of its own, again and again
            await bench.pass_time(1)

        assert bench.kept == ["resp_1"]


async def test_while_the_archive_is_out_it_is_known_for_how_long_turns_have_waited() -> None:
    async with open_bench() as bench:
        bench.archive.is_out = True
        bench.put(turn(SESSION, 1))
        for _ in range(30):
            await bench.pass_time(10)

        count, oldest = bench.waiting
        assert count == 1
        assert oldest > 200


async def test_an_archive_that_is_out_is_tried_again_and_nothing_is_lost() -> None:
    async with open_bench() as bench:
        bench.archive.is_out = True
        for number in range(200):
            bench.put(turn(SESSION, number))
        await settle()
        for _ in range(20):
            await bench.pass_time(10)
        assert len(bench.outbox) == 200
        assert 5 < bench.failures < 15, "it is tried less and less often"

        bench.archive.is_out = False
        await bench.pass_time(30)
        assert len(bench.archive.kept) == 200
        assert len(bench.outbox) == 0


async def test_an_answer_that_was_lost_makes_nothing_twice() -> None:
    async with open_bench() as bench:
        bench.archive.loses_answers = True
        bench.put(turn(SESSION, 1))
        await settle()
        assert len(bench.outbox) == 1
        bench.archive.loses_answers = False
        await bench.pass_time(2)

        assert len(bench.outbox) == 0
        assert len(bench.archive.queued) == 1
        assert bench.outcomes == {"written": 0, "known": 1}


async def test_a_part_that_cannot_be_reached_keeps_no_other_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    async with open_bench() as bench:
        taken: list[int] = []
        take = bench.outbox.take

        async def some(part: int, limit: int, *, after: str = "") -> list[Parcel]:
            taken.append(part)
            if part >= 5:
                raise StoreUnavailable
            return await take(part, limit, after=after)

        monkeypatch.setattr(bench.outbox, "take", some)
        for part in (9, 8, 7, 6, 5, 4):
            bench.outbox.on_news(part)
        bench.put(turn(SESSION, 1))  # in part 0
        await settle()
        assert taken == [9, 8, 7], "of those that fail, few are waited for"
        await bench.pass_time(2)
        assert bench.kept == ["resp_1"]
        assert sorted(bench.archivers[0]._parts) == [5, 6, 7, 8, 9]


async def test_one_that_cannot_be_written_keeps_no_other_waiting() -> None:
    async with open_bench() as bench:
        bench.archive.refuses = {"resp_1"}
        bench.put(turn(SESSION, 0), turn(SESSION, 1), turn(SESSION, 2))
        await settle()
        assert bench.kept == ["resp_0", "resp_2"]
        assert len(bench.outbox) == 1
        assert bench.outcomes["failed"] == 1

        bench.archive.refuses = set()
        await bench.pass_time(16)
        assert bench.kept == ["resp_0", "resp_1", "resp_2"]


async def test_what_a_later_release_wrote_stays_for_its_nodes() -> None:
    async with open_bench() as bench:
        bench.put(msgspec.structs.replace(turn(SESSION, 1), v=2), turn(SESSION, 2))
        await settle()

        assert bench.kept == ["resp_2"]
        assert len(bench.outbox) == 1
        assert bench.outcomes["unreadable"] == 1


async def test_what_nobody_could_bring_for_long_goes_and_is_counted() -> None:
    """Though the outbox is used meanwhile, so that none of it expires."""
    async with open_bench() as bench:
        bench.archive.refuses = {"resp_1"}
        bench.put(msgspec.structs.replace(turn(SESSION, 0), v=2), turn(SESSION, 1))
        await settle()
        for day in range(7):
            await bench.pass_time(86_400)
            bench.put(turn(SESSION, 2 + day))
            await settle()
            assert (len(bench.outbox), bench.outcomes["lost"]) == (2, 0)
        bench.archive.is_out = True
        await bench.pass_time(16)
        assert len(bench.outbox) == 2
        assert bench.outcomes["lost"] == 0, "those that are read with it wait for the archive"

        bench.archive.is_out = False
        with capture_logs() as logs:
            await bench.pass_time(31)
            await bench.pass_time(16)
        assert (len(bench.outbox), bench.outcomes["lost"]) == (0, 2)
        assert bench.kept == [f"resp_{number}" for number in range(2, 9)]
        told = [each["outcome"] for each in logs if each["event"] == "turn given up"]
        assert sorted(told) == ["failed", "unreadable"]


async def test_whose_plan_keeps_nothing_is_announced_all_the_same() -> None:
    retention = Retention({"default": None, "free": 0.0}, 100.0)
    async with open_bench(retention=retention) as bench:
        await bench.directory.note(Principal("bob", "acme", "free"))
        bench.put(turn(SESSION, 1), turn(SESSION, 2, principal=BOB.id))
        await settle()

        assert bench.kept == ["resp_1"]
        assert len(bench.archive.queued) == 2


async def test_what_the_outbox_has_no_room_for_is_counted() -> None:
    async with open_bench() as bench:
        bench.archive.is_out = True
        bench.outbox._most = 2000
        for number in range(10):
            bench.put(turn(SESSION, number))
        await settle()

        assert 0 < len(bench.outbox) < 10
        assert bench.outcomes["lost"] == 10 - len(bench.outbox)


async def test_a_node_that_ends_brings_what_there_is() -> None:
    async with open_bench() as bench:
        bench.put(turn(SESSION, 1))
        await bench.archivers[0].aclose()

        assert bench.kept == ["resp_1"]
        await bench.archivers[0].aclose()  # once more is harmless


async def test_a_node_that_ends_waits_for_no_archive_that_is_out() -> None:
    async with open_bench() as bench:
        bench.archive.is_out = True
        bench.put(turn(SESSION, 1))
        await bench.archivers[0].aclose()

        assert len(bench.outbox) == 1


STEPS = st.lists(
    st.sampled_from(["put", "again", "out", "lost", "time", "search", "kill", "begin", "round", "round"]),
    max_size=40,
)


@given(STEPS)
def test_every_turn_is_there_once_however_steps_interleave(steps: list[str]) -> None:
    """Against a model: what was put there. Archivers race and die; the archive is out, or says nothing."""
    asyncio.run(interleave(steps))


async def interleave(steps: list[str]) -> None:
    async with open_bench(archivers=2) as bench:
        put: list[FinishedTurn] = []
        for step in steps:
            match step:
                case "put":
                    put.append(turn(SESSION, len(put)))
                    bench.put(put[-1])
                case "again" if put:
                    bench.put(put[len(put) // 2])
                case "out":
                    bench.archive.is_out = not bench.archive.is_out
                case "lost":
                    bench.archive.loses_answers = not bench.archive.loses_answers
                case "time":
                    bench.clock.advance(3)
                case "search":
                    bench.clock.advance(16)
                case "kill" if len(bench.archivers) > 1:
                    task = bench.archivers.pop(0)._task
                    assert task is not None
                    task.cancel()  # it says nothing more to anybody
                case "begin" if len(bench.archivers) < 4:
                    bench.begin()
                case _:
                    await asyncio.sleep(0)
            in_outbox = {parcel.data for parcel in await bench.outbox.take(0, 1000)}
            lost = [
                each
                for each in put
                if (each.session_id, each.response_id) not in bench.archive.kept
                and msgspec.json.encode(each) not in in_outbox
            ]
            assert lost == []
        bench.archive.is_out = bench.archive.loses_answers = False
        for _ in range(4):
            await bench.pass_time(31)

        assert {(each.session_id, each.response_id): each for each in put} == bench.archive.kept
        assert len(bench.outbox) == 0
        assert len(bench.archive.queued) == len(put)
