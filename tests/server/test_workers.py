"""Several nodes on one machine: real processes over a real Valkey, as ``serve --workers`` starts them."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import random
import re
import resource
import select
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr
from structlog.testing import capture_logs
from websockets.asyncio.client import connect as connect_async
from websockets.sync.client import ClientConnection, connect

from tests.fakes.surroundings import NO_MODEL, free_port, neutral_environment
from tests.fakes.valkey import Server
from tests.server.test_process import HANG, REPOSITORY, ServerProcess, asked, until
from unbroken.server import worker
from unbroken.server import workers as module
from unbroken.server.config import Settings, StartupError
from unbroken.server.drain_command import ask_to_drain
from unbroken.server.process import bind
from unbroken.server.supervisor import Supervisor
from unbroken.server.workers import WorkerProcess, settings_of
from unbroken.sessions.clock import SystemClock

SECRET = "s" * 32
KEY = "k" * 32


def test_each_worker_has_an_admin_listener_and_a_folder_of_its_own() -> None:
    settings = Settings(workers=3, admin_port=9001, files_dir=Path("/srv/files"))

    own = [settings_of(number, settings) for number in (1, 3)]
    assert [(each.workers, each.admin_port, str(each.files_dir)) for each in own] == [
        (1, 9001, "/srv/files/worker-1"),
        (1, 9003, "/srv/files/worker-3"),
    ]
    assert settings_of(2, Settings(workers=3, admin_port=0)) == Settings(admin_port=0)


def test_a_port_is_shared_by_those_who_say_so_and_taken_for_all_others() -> None:
    """Nobody listens before it is served: the kernel would give connections to who doesn't take them."""
    with contextlib.closing(bind(Settings(port=0, admin_port=0), shares_port=True)) as reserved:
        port = reserved.public[0].getsockname()[1]
        with contextlib.suppress(ConnectionRefusedError), socket.create_connection(("127.0.0.1", port)):
            raise AssertionError("somebody listens")
        with contextlib.closing(bind(Settings(port=port, admin_port=0), shares_port=True)) as another:
            another.public[0].listen()
            with pytest.raises(StartupError, match="is in use"):
                bind(Settings(port=port, admin_port=0))


def descriptors() -> set[int]:
    """Return those that this process has open, without the one by which the folder is read."""
    opened = set()
    for each in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(OSError):
            os.fstat(int(each.name))
            opened.add(int(each.name))
    return opened


@contextlib.contextmanager
def spare_descriptors(count: int) -> Iterator[None]:
    """Inside, this process can open *count* more; in the end, it must have no other than before."""
    before, limit = descriptors(), 0
    while limit in before or count:
        count -= limit not in before
        limit += 1
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (limit, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert descriptors() == before


def assert_nobody_watches() -> None:
    for thread in threading.enumerate():
        if thread.name == "worker-7":
            thread.join(HANG)
            assert not thread.is_alive()


@pytest.mark.parametrize("count", range(5))
async def test_a_worker_that_lacks_descriptors_is_not_started_and_leaves_none(count: int) -> None:
    """Wherever they run out: two are a line's, three the new process's."""
    settings = Settings()
    with spare_descriptors(count), pytest.raises(StartupError, match=r" worker: Too many open files\. Run"):
        WorkerProcess(7, settings)
    assert_nobody_watches()


async def test_a_worker_that_nobody_could_watch_is_not_started(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", refuse)
    with (
        spare_descriptors(100),
        capture_logs() as logs,
        pytest.raises(StartupError, match="a worker: can't start new thread"),
    ):
        WorkerProcess(7, Settings())
    assert not logs


async def test_a_parent_that_does_not_read_holds_no_worker_up() -> None:
    """As one that is stopped: the line is full after some minutes."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        with contextlib.suppress(BlockingIOError):
            while True:
                theirs.send(b"\n", socket.MSG_DONTWAIT)
        worker._show_life(theirs, asyncio.get_running_loop())


async def test_a_worker_that_says_more_than_it_can_is_not_listened_to() -> None:
    loop = asyncio.get_running_loop()
    line = module._Line(loop)
    ours, theirs = socket.socketpair()
    with theirs:
        await loop.create_connection(lambda: line, sock=ours)
        theirs.setblocking(False)
        await loop.sock_sendall(theirs, b"\n" + (module._LONGEST_LINE + 1) * b"x")
        await line.over

    assert await line.about is None
    assert line.showed_life()
    assert not line.showed_life()


# Real processes.


class Workers(ServerProcess):
    """A server of several workers. All that it logs is JSON."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        super().__init__(process)
        self.logged: list[dict[str, Any]] = []

    def until_logged(self, event: str, **fields: object) -> dict[str, Any]:
        """Return the next line that says so; or fail, when the server has ended."""
        assert self.process.stderr is not None
        for text in self.process.stderr:
            line: dict[str, Any] = json.loads(text)
            self.logged.append(line)
            if line["event"] == event and fields.items() <= line.items():
                return line
        raise AssertionError(f"{event} was not logged")

    def pids(self) -> dict[int, int]:
        """Return the processes of the workers, from what was logged while they started."""
        for _ in range(2):
            self.until_logged("worker listens")
        return {line["worker"]: line["pid"] for line in self.logged if line["event"] == "worker started"}

    def finish(self) -> int:
        """Return the exit code, with everything logged."""
        assert self.process.stderr is not None
        self.logged += [json.loads(line) for line in self.process.stderr]
        return self.wait(HANG)


@pytest.fixture
def valkey(tmp_path: Path) -> Iterator[str]:
    with Server(tmp_path / "valkey").running() as server:
        yield server.url


@contextlib.contextmanager
def workers(directory: Path, url: str, **environment: str) -> Iterator[Workers]:
    """``unbroken serve --workers 2``."""
    settings = {
        "UNBROKEN_REDIS_URL": url,
        "UNBROKEN_SECRET": SECRET,
        "UNBROKEN_AGENT": "scripted",
        "UNBROKEN_ADMIN_KEY": KEY,
        "UNBROKEN_LOG_FORMAT": "json",
        **NO_MODEL,
        **environment,
    }
    with subprocess.Popen(
        [sys.executable, "-m", "unbroken", "serve", "--workers", "2", "--port", "0"],
        cwd=directory,
        env={**neutral_environment(), "PYTHONPATH": str(REPOSITORY), **settings},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            yield Workers(process)
        finally:
            process.kill()


def admin_port() -> int:
    """Return a port that is free, as is the next one; and below those that connections are made from."""
    while True:
        port = random.randrange(10_000, 32_000)
        with contextlib.suppress(OSError):
            for each in (port, port + 1):
                socket.create_server(("127.0.0.1", each)).close()
            return port


def running_on(running: Workers, port: int) -> int:
    """Return the number of the worker that runs a turn."""
    for number in (1, 2):
        _, metrics = running.get("/metrics", port + number - 1)
        if b"unbroken_sessions_running 1.0" in metrics:
            return number
    raise AssertionError("none runs a turn")


@contextlib.contextmanager
def gone(pids: Iterable[int]) -> Iterator[None]:
    """Inside, processes are ended; wait for that in the end."""
    with contextlib.ExitStack() as stack:
        opened = [os.pidfd_open(pid) for pid in pids]
        for each in opened:
            stack.callback(os.close, each)
        yield
        for each in opened:
            assert select.select([each], [], [], HANG)[0], "a process is still there"


@pytest.mark.slow
def test_one_that_dies_is_replaced_and_what_it_ran_is_another_s(tmp_path: Path, valkey: str) -> None:
    """Its client comes back to the same port."""
    admin = admin_port()
    headers = {"Authorization": "Bearer x"}
    with workers(tmp_path, valkey, UNBROKEN_ADMIN_PORT=str(admin)) as running:
        assert re.fullmatch(
            r"Unbroken is listening on http://127\.0\.0\.1:\d+ "
            r"\(2 workers, agent: scripted, model: scripted, store: redis\)\n",
            running.line,
        ), running.process.stderr and running.process.stderr.read()
        pids = running.pids()
        address = f"ws://127.0.0.1:{running.port}/v1/realtime"
        with connect(address, additional_headers=headers) as client:
            token = until(client, "session.created")["session"]["unbroken"]["resume"]
            ask(client, "/stall after 2")
            last = until(client, "response.output_text.delta")["event_id"]
            number = running_on(running, admin)
            with gone([pids[number]]):
                os.kill(pids[number], signal.SIGKILL)
        with connect(f"{address}?resume={token}&after={last}", additional_headers=headers) as client:
            assert until(client, "session.created")["session"]["unbroken"]["resumed"]
            response = until(client, "response.done")["response"]
        again = running.until_logged("worker listens")
        readiness = [running.get("/readyz", port)[0] for port in (admin, admin + 1)]
        running.terminate()
        code = running.finish()

    assert response["status_details"]["error"]["code"] == "interrupted"
    assert again["worker"] == number
    assert readiness == [200, 200]
    assert code == 0
    assert {line["worker"] for line in running.logged if line["event"] == "server stopped"} == {1, 2}


@pytest.mark.slow
def test_all_are_drained_by_one_command_and_end_with_their_parent(tmp_path: Path, valkey: str) -> None:
    admin = admin_port()
    with workers(tmp_path, valkey, UNBROKEN_ADMIN_PORT=str(admin)) as running:
        pids = running.pids()
        # How many there are, they tell: it was said on their command line, perhaps.
        settings = Settings(admin_port=admin, admin_key=SecretStr(KEY))
        drained = list(ask_to_drain(settings, url=None, wait=None, undo=False))
        unready = [running.get("/readyz", port)[0] for port in (running.port, admin, admin + 1)]
        back = list(ask_to_drain(settings, url=None, wait=None, undo=True))
        ready = [running.get("/readyz", port)[0] for port in (running.port, admin, admin + 1)]
        with gone(pids.values()):
            running.process.kill()

    assert drained[-1] == "drained: 0 connections, 0 responses, 0 sessions"
    assert unready == 3 * [404]
    assert back == ["serving: 0 connections, 0 responses, 0 sessions"]
    assert ready == 3 * [200]


@pytest.mark.slow
def test_only_a_second_signal_to_the_parent_ends_all_at_once(tmp_path: Path, valkey: str) -> None:
    """A service manager sends SIGTERM to each process, besides what the parent passes on."""
    admin = admin_port()
    environment = {"UNBROKEN_ADMIN_PORT": str(admin), "UNBROKEN_DRAIN_TIMEOUT": "3600"}
    with workers(tmp_path, valkey, **environment) as running:
        pids = running.pids()
        with asked(running, "/stall after 2"):
            number = running_on(running, admin)
            for pid in (running.process.pid, *pids.values()):
                os.kill(pid, signal.SIGTERM)
            running.until_logged("drain began", worker=number)
            os.kill(pids[number], signal.SIGTERM)
            os.kill(pids[number], signal.SIGINT)
            assert running.get("/readyz", admin + number - 1)[0] == 404
            assert running_on(running, admin) == number
            with gone([pids[number]]):
                running.terminate()
            code = running.finish()

    assert code == 128 + signal.SIGTERM


@pytest.mark.slow
def test_what_keeps_a_worker_from_starting_is_one_line(tmp_path: Path) -> None:
    """The first isn't waited for: nothing answers where its Redis should be."""
    admin = admin_port()
    nowhere = f"redis://127.0.0.1:{free_port()}/0"
    with (
        socket.create_server(("127.0.0.1", admin + 1)),
        workers(tmp_path, nowhere, UNBROKEN_ADMIN_PORT=str(admin)) as running,
    ):
        assert running.line == ""
        _, err = running.process.communicate(timeout=HANG)

    (line,) = [line for line in err.splitlines() if not line.startswith("{")]
    assert line.startswith(f"unbroken: Port {admin + 1} on 127.0.0.1 is in use.")
    assert running.process.returncode == 1


class Supervised:
    """One worker, and its supervisor in this process, which waits four seconds for a sign of life."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self.listening: asyncio.Queue[int] = asyncio.Queue()
        """The processes that listen, each once."""
        self.requested = asyncio.Event()
        self._supervisor = Supervisor(
            1,
            self._start,
            SystemClock(),
            drain_timeout=settings.drain_timeout,
            on_up=lambda _: None,
            patience=4,
        )

    def _start(self, number: int) -> WorkerProcess:
        listening = self.listening

        class Announced(WorkerProcess):
            async def ready(self) -> str | None:
                about = await super().ready()
                if about is not None:
                    listening.put_nowait(self._process.pid)
                return about

        return Announced(number, self._settings)

    async def run(self) -> None:
        await self._supervisor.run(self.requested, asyncio.Event())


@contextlib.asynccontextmanager
async def supervised(settings: Settings) -> AsyncIterator[Supervised]:
    running = Supervised(settings)
    task = asyncio.create_task(running.run())
    try:
        yield running
    finally:
        running.requested.set()
        await task


@pytest.mark.slow
async def test_one_that_hangs_is_killed_and_replaced() -> None:
    settings = Settings(port=free_port(), admin_port=0, agent="scripted")
    with capture_logs() as logs:
        async with supervised(settings) as running:
            stopped = await running.listening.get()
            with gone([stopped]):
                os.kill(stopped, signal.SIGSTOP)
                replaced_by = await running.listening.get()

    assert replaced_by != stopped
    assert [(line["event"], line.get("code")) for line in logs if line["log_level"] == "error"] == [
        ("worker hangs", None),
        ("worker ended", -signal.SIGKILL),
    ]


@pytest.mark.slow
async def test_one_that_drains_for_longer_than_one_may_be_silent_is_left_alone() -> None:
    """It has eight seconds, and says meanwhile that it lives."""
    settings = Settings(port=free_port(), admin_port=0, agent="scripted", drain_timeout=8)
    address = f"ws://127.0.0.1:{settings.port}/v1/realtime"
    with capture_logs() as logs:
        async with supervised(settings) as running:
            drained = await running.listening.get()
            async with connect_async(address, additional_headers={"Authorization": "Bearer x"}) as client:
                for frame in asking("/stall after 2"):
                    await client.send(frame)
                while json.loads(await client.recv())["type"] != "response.output_text.delta":
                    pass
                os.kill(drained, signal.SIGTERM)
                await running.listening.get()

    assert [line["code"] for line in logs if line["event"] == "worker ended"] == [0]
    assert "worker hangs" not in [line["event"] for line in logs]


def asking(text: str) -> tuple[str, str]:
    item = {"type": "message", "role": "user", "content": [{"type": "input_text", "text": text}]}
    return (
        json.dumps({"type": "conversation.item.create", "item": item}),
        json.dumps({"type": "response.create"}),
    )


def ask(client: ClientConnection, text: str) -> None:
    for frame in asking(text):
        client.send(frame)
