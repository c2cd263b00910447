"""The parent of workers, with workers that do what the test says."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import pytest
from structlog.testing import capture_logs

from tests.fakes.clock import FakeClock
from tests.sessions.conversation import settle
from unbroken.server import supervisor as module
from unbroken.server.config import StartupError
from unbroken.server.restarts import MOST_CRASHES
from unbroken.server.supervisor import Left, Supervisor

PATIENCE = 5


class FakeWorker:
    """A worker that says and does what it is told. *heeds*: which of what its parent asks ends it."""

    def __init__(self, number: int, heeds: tuple[str, ...]) -> None:
        self.number = number
        self.asked: list[str] = []
        self.hangs = False
        self._heeds = heeds
        loop = asyncio.get_running_loop()
        self._about: asyncio.Future[str | None] = loop.create_future()
        self._left: asyncio.Future[Left] = loop.create_future()

    def listen(self) -> None:
        self._about.set_result(f"agent {self.number}")

    def end(self, code: int, refusal: str = "") -> None:
        if not self._about.done():
            self._about.set_result(None)
        if not self._left.done():
            self._left.set_result(Left(code, refusal))

    async def ready(self) -> str | None:
        return await asyncio.shield(self._about)

    def showed_life(self) -> bool:
        return not self.hangs

    async def ended(self) -> Left:
        return await asyncio.shield(self._left)

    @property
    def is_over(self) -> bool:
        return self._left.done()

    def drain(self) -> None:
        self._ask("drain", 0)

    def cut(self) -> None:
        self._ask("cut", 128 + signal.SIGQUIT)

    def kill(self) -> None:
        self._ask("kill", -signal.SIGKILL)

    def _ask(self, what: str, code: int) -> None:
        if not self.is_over:
            self.asked.append(what)
            if what in self._heeds:
                self.end(code)


class House:
    """A supervisor at work, and its workers."""

    def __init__(self, count: int, heeds: tuple[str, ...]) -> None:
        self.clock = FakeClock()
        self.started: list[FakeWorker] = []
        self.up: list[str] = []
        self.requested, self.forced = asyncio.Event(), asyncio.Event()
        self._heeds = heeds
        self.has_processes = True
        supervisor = Supervisor(
            count, self._start, self.clock, drain_timeout=0, on_up=self.up.append, patience=PATIENCE
        )
        self.task = asyncio.create_task(supervisor.run(self.requested, self.forced))

    def _start(self, number: int) -> FakeWorker:
        if not self.has_processes:
            raise StartupError("No more processes.")
        self.started.append(FakeWorker(number, self._heeds))
        return self.started[-1]

    def last(self, number: int) -> FakeWorker:
        """Return the newest worker of a number."""
        return [worker for worker in self.started if worker.number == number][-1]

    async def all_listen(self) -> None:
        await settle()
        for worker in self.started:
            worker.listen()
        await settle()

    async def pass_seconds(self, seconds: int) -> None:
        """Let time pass as it does: whatever comes due is done before the next second."""
        for _ in range(seconds):
            self.clock.advance(1)
            await settle()


@asynccontextmanager
async def open_house(
    count: int = 2, heeds: tuple[str, ...] = ("drain", "cut", "kill")
) -> AsyncIterator[House]:
    """Start workers. In the end all must be gone, with every task and timer."""
    before = asyncio.all_tasks()
    house = House(count, heeds)
    await settle()
    try:
        yield house
        house.requested.set()
        with suppress(StartupError):
            await house.task
        assert all(worker.is_over for worker in house.started)
        assert asyncio.all_tasks() == before
        assert house.clock.pending == 0
    finally:
        house.task.cancel()


async def test_it_is_up_when_all_listen_and_once() -> None:
    async with open_house() as house:
        assert [worker.number for worker in house.started] == [1, 2]
        house.last(1).listen()
        await settle()
        assert house.up == []
        house.last(2).listen()
        await settle()
        assert house.up == ["agent 2"]
        house.last(1).end(1)
        await settle()
        house.clock.advance(1)
        await settle()
        house.last(1).listen()
        await settle()
        assert house.up == ["agent 2"]


async def test_a_worker_that_dies_is_started_again_after_a_while() -> None:
    async with open_house() as house:
        await house.all_listen()
        with capture_logs() as logs:
            house.last(2).end(-signal.SIGKILL)
            await settle()
        assert len(house.started) == 2
        house.clock.advance(0.5)
        await settle()

        assert [worker.number for worker in house.started] == [1, 2, 2]
        assert not house.last(1).asked
        assert [(entry["event"], entry["worker"], entry["code"]) for entry in logs] == [
            ("worker ended", 2, -signal.SIGKILL)
        ]


async def test_one_that_was_told_to_leave_by_somebody_else_is_replaced_at_once() -> None:
    async with open_house() as house:
        await house.all_listen()
        house.last(1).end(0)
        await settle()
        house.clock.advance(0)
        await settle()

        assert [worker.number for worker in house.started] == [1, 2, 1]


async def test_a_crash_loop_ends_the_server_and_drains_the_others() -> None:
    async with open_house() as house:
        await house.all_listen()
        for _ in range(MOST_CRASHES):
            house.last(1).end(3)
            await settle()
            house.clock.advance(30)
            await settle()
        assert not house.task.done()
        house.last(1).end(3)
        with pytest.raises(
            StartupError, match=r"^Worker 1 has crashed 9 times in a row, last with exit code 3"
        ):
            await house.task

        assert house.last(2).asked == ["drain"]


@pytest.mark.parametrize(
    ("code", "refusal", "message"),
    [
        (1, "Redis can't be reached.", r"^Redis can't be reached\.$"),
        (1, "", r"^Worker 1 ended while it started \(exit code 1\)"),
        (-signal.SIGSEGV, "", r"^Worker 1 ended while it started \(signal 11\)"),
    ],
)
async def test_a_worker_that_can_t_start_is_a_server_that_can_t(
    code: int, refusal: str, message: str
) -> None:
    async with open_house() as house:
        house.last(2).listen()
        house.last(1).end(code, refusal)
        with pytest.raises(StartupError, match=message):
            await house.task

        assert house.last(2).asked == ["drain"]


async def test_later_one_that_lacks_something_is_tried_again_while_others_listen() -> None:
    async with open_house() as house:
        await house.all_listen()
        house.last(1).end(-signal.SIGKILL)
        for _ in range(3 * MOST_CRASHES):
            await settle()
            house.clock.advance(30)
            await settle()
            house.last(1).end(1, "Redis can't be reached.")
        await settle()
        assert not house.task.done()
        house.last(2).end(1, "The model is gone.")
        with pytest.raises(StartupError, match=r"^The model is gone\.$"):
            await house.task


async def test_a_system_without_another_process_is_asked_again() -> None:
    async with open_house() as house:
        await house.all_listen()
        house.has_processes = False
        house.last(1).end(1)
        for _ in range(3):
            await settle()
            house.clock.advance(30)
        await settle()
        house.has_processes = True
        house.clock.advance(30)
        await settle()

        assert [worker.number for worker in house.started] == [1, 2, 1]


async def test_a_signal_drains_all_and_nothing_is_started_again() -> None:
    async with open_house(3) as house:
        await house.all_listen()
        house.last(1).end(1)
        await settle()
        house.requested.set()
        await house.task
        house.clock.advance(100)
        await settle()

        assert [worker.asked for worker in house.started] == [[], ["drain"], ["drain"]]


async def test_a_signal_while_they_start_ends_them_too() -> None:
    async with open_house() as house:
        house.requested.set()
        await house.task

        assert [worker.asked for worker in house.started] == [["drain"], ["drain"]]
        assert house.up == []


async def test_a_second_signal_cuts_the_drain_short() -> None:
    async with open_house(heeds=("cut",)) as house:
        await house.all_listen()
        house.requested.set()
        await settle()
        assert [worker.asked for worker in house.started] == [["drain"], ["drain"]]
        house.forced.set()
        await house.task

        assert [worker.asked for worker in house.started] == [["drain", "cut"], ["drain", "cut"]]


async def test_what_heeds_nothing_is_killed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_DRAIN_SLACK", 0.01)
    monkeypatch.setattr(module, "_CUT_TIMEOUT", 0.01)
    async with open_house(heeds=("kill",)) as house:
        await house.all_listen()
        house.requested.set()
        await house.task

        assert [worker.asked for worker in house.started] == 2 * [["drain", "cut", "kill"]]


async def test_one_that_hangs_is_killed_and_started_again() -> None:
    async with open_house() as house:
        await house.all_listen()
        hung = house.last(1)
        hung.hangs = True
        await house.pass_seconds(PATIENCE - 1)
        assert not hung.asked
        with capture_logs() as logs:
            await house.pass_seconds(1)
        assert hung.asked == ["kill"]
        await house.pass_seconds(1)

        assert [worker.number for worker in house.started] == [1, 2, 1]
        assert not house.last(2).asked
        assert [(entry["event"], entry["log_level"], entry["worker"]) for entry in logs] == [
            ("worker hangs", "error", 1),
            ("worker ended", "error", 1),
        ]


async def test_a_sign_of_life_ends_a_silence() -> None:
    async with open_house() as house:
        await house.all_listen()
        for _ in range(3):
            house.last(1).hangs = True
            await house.pass_seconds(PATIENCE - 1)
            house.last(1).hangs = False
            await house.pass_seconds(1)

        assert not house.last(1).asked


async def test_one_that_does_not_listen_yet_may_be_silent() -> None:
    async with open_house() as house:
        house.last(1).hangs = True
        await house.pass_seconds(10 * PATIENCE)

        assert not house.last(1).asked


async def test_time_in_which_the_parent_stood_still_too_is_no_silence() -> None:
    """As when a container is frozen: its workers say something only after that."""
    async with open_house() as house:
        await house.all_listen()
        house.last(1).hangs = True
        house.clock.block(100 * PATIENCE)
        await settle()
        assert not house.last(1).asked
        house.last(1).hangs = False
        await house.pass_seconds(2 * PATIENCE)

        assert not house.last(1).asked


async def test_one_that_hangs_again_and_again_is_a_crash_loop() -> None:
    async with open_house() as house:
        await house.all_listen()
        for _ in range(MOST_CRASHES):
            house.last(1).hangs = True
            await house.pass_seconds(PATIENCE)
            house.clock.advance(30)
            await settle()
            house.last(1).listen()
            await settle()
        house.last(1).hangs = True
        await house.pass_seconds(PATIENCE)
        with pytest.raises(StartupError, match=r"^Worker 1 has crashed 9 times in a row, last with signal 9"):
            await house.task


async def test_what_drains_all_no_longer_looks_for_signs() -> None:
    """A drain has its own deadline."""
    async with open_house(heeds=("cut",)) as house:
        await house.all_listen()
        house.requested.set()
        await settle()
        house.last(1).hangs = True
        await house.pass_seconds(2 * PATIENCE)
        assert house.last(1).asked == ["drain"]
        house.forced.set()
        await house.task
