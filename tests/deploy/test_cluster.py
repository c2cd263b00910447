"""``make cluster`` as a person uses it: a question, a killed node, the same conversation."""

from __future__ import annotations

import asyncio
import contextlib
import os
import pty
import signal
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from tests.deploy.balanced import Talk
from tests.fakes.surroundings import free_port

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
PATIENCE = 60.0


class Running:
    """The script, started."""

    def __init__(self, process: asyncio.subprocess.Process, port: int) -> None:
        self.process = process
        self.port = port

    async def line(self, beginning: str) -> str:
        """Return the next line that begins so."""
        assert self.process.stdout is not None
        async with asyncio.timeout(PATIENCE):
            while line := (await self.process.stdout.readline()).decode():
                if line.startswith(beginning):
                    return line
        raise AssertionError(f"it ended without saying {beginning!r}")

    async def press(self, key: str) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(key.encode() + b"\n")
        await self.process.stdin.drain()


@pytest_asyncio.fixture
async def cluster() -> AsyncIterator[Running]:
    port = free_port()
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        str(ROOT / "deploy" / "cluster.py"),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        env={**os.environ, "PORT": str(port), "UNBROKEN_AGENT": "scripted", "PYTHONPATH": str(ROOT)},
    )
    running = Running(process, port)
    try:
        await running.line("Unbroken is listening on")
        yield running
    finally:
        process.send_signal(signal.SIGTERM)
        async with asyncio.timeout(PATIENCE):
            assert await process.wait() == 0


@pytest.mark.timeout(180)
async def test_a_conversation_outlives_the_node_that_answers(cluster: Running) -> None:
    talk = Talk(cluster.port)
    await talk.connect()
    await talk.ask("/tokens 600 50")
    await talk.until(lambda: len(talk.text.split()) >= 20)
    await cluster.press("k")
    said = await cluster.line("Killed node")
    assert "in mid-answer" in said
    await talk.until(lambda: len(talk.endings) == 2)

    assert talk.endings == ["failed", "completed"]  # a script's answer is kept by no upstream, and begun anew
    words = [int(word.removeprefix("word")) for word in talk.text.split()]
    again = words.index(1, 1)
    assert words[:again] == list(range(1, again + 1)), "what was said before, as far as it went"
    assert words[again:] == list(range(1, 601)), "all of it, once"
    await talk.ask("/say still here")
    await talk.until(lambda: len(talk.endings) == 3)
    assert talk.text.endswith("still here")
    assert talk.endings[-1] == "completed"


def test_a_port_in_use_is_said_and_nothing_is_started() -> None:
    """Else the address of whoever has it would be printed."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        sock.listen()
        port = str(sock.getsockname()[1])
        ended = subprocess.run(
            [sys.executable, str(ROOT / "deploy" / "cluster.py")],
            env={**os.environ, "PORT": port, "PYTHONPATH": str(ROOT)},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            check=False,
        )
    assert ended.returncode == 1
    assert ended.stderr == f"Port {port} is in use: PORT=<another> make cluster\n"
    assert ended.stdout == ""


@pytest.mark.parametrize(
    ("settings", "says"),
    [({"PORT": "abc"}, "PORT=abc is no port"), ({"PORT": "0", "UNBROKEN_NO_SUCH": "1"}, "UNBROKEN_NO_SUCH")],
)
def test_why_it_can_t_start_is_said(settings: dict[str, str], says: str) -> None:
    ended = subprocess.run(
        [sys.executable, str(ROOT / "deploy" / "cluster.py")],
        env={**os.environ, "PYTHONPATH": str(ROOT), **settings},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert ended.returncode == 1
    assert says in ended.stderr
    assert "Traceback" not in ended.stderr


@pytest.mark.timeout(180)
def test_a_closed_terminal_leaves_nothing_behind() -> None:
    """Neither Valkey nor HAProxy ends by a hang-up, which comes while the keyboard fails, too."""
    pid, terminal = pty.fork()
    if pid == 0:
        settings = {"PORT": "0", "UNBROKEN_AGENT": "scripted", "PYTHONPATH": str(ROOT)}
        command = [sys.executable, str(ROOT / "deploy" / "cluster.py")]
        os.execve(command[0], command, {**os.environ, **settings})
    said = b""
    while b"Ctrl-C ends everything" not in said:
        said += os.read(terminal, 4096)
    started = children_of(pid)
    assert len(started) == 5
    try:
        os.close(terminal)
        assert os.waitpid(pid, 0)[1] == 0
        deadline = time.monotonic() + PATIENCE
        while (left := {each for each in started if is_alive(each)}) and time.monotonic() < deadline:
            time.sleep(0.05)
        assert left == set()
    finally:
        for each in started:
            with contextlib.suppress(ProcessLookupError):
                os.kill(each, signal.SIGKILL)


def children_of(pid: int) -> set[int]:
    """Return the processes that *pid* started."""
    found = Path(f"/proc/{pid}/task/{pid}/children").read_text()
    return {int(each) for each in found.split()}


def is_alive(pid: int) -> bool:
    """Return whether a process still runs; one that nobody has waited for doesn't."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False
