"""Nodes as real processes, each behind a proxy to its clients and one to its store, or behind none."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import signal
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from tests.fakes.proxy import Proxy
from tests.fakes.surroundings import free_port
from tests.fakes.tied import tied

__all__ = ["NodeProcess"]

_REPOSITORY: Final = Path(__file__).parents[2]
_STARTING: Final = 120.0
_STOPPING: Final = 40.0
_PAUSE: Final = 0.3

_TRACED: Final = 5
"""Lines of a traceback that are shown, from its end."""


class NodeProcess:
    """One place in the cluster: a node runs there, or another after it. Its door's port stays the same.

    Args:
        name: Of the place.
        store_port: Where Redis listens.
        folder: For its logs.
        settings: Its environment, beside what it needs to start at all.
        program: What Python runs. None: ``unbroken serve``.
        has_proxies: False: it listens itself, and reaches Redis itself. Nothing can be done to its ways.

    """

    def __init__(
        self,
        name: str,
        store_port: int,
        folder: Path,
        settings: Mapping[str, str],
        *,
        program: str | None = None,
        has_proxies: bool = True,
    ) -> None:
        self.name = name
        self.door = Proxy(0)
        """What clients connect to."""
        self.store = Proxy(store_port, mark=b"SUBSCRIBE")
        """What it reaches Redis by. The connection on which it hears news is the marked one."""
        self.log = folder / f"{name}.log"
        self.exits: list[int] = []
        """The codes of those that were asked to end."""
        self.pid = 0
        """Of the process that runs here, or did last."""
        self.own_port = 0 if has_proxies else free_port()
        self._store_port = store_port
        self._has_proxies = has_proxies
        self._settings = settings
        self._program = program
        self._process: asyncio.subprocess.Process | None = None
        self._reading: asyncio.Task[None] | None = None
        self._log_begin = 0  # where the log of the latest node begins

    @property
    def port(self) -> int:
        """Where clients reach it."""
        return self.door.port if self._has_proxies else self.own_port

    @property
    def is_up(self) -> bool:
        """Whether a process runs."""
        return self._process is not None and self._process.returncode is None

    @property
    def is_stopped(self) -> bool:
        """Whether the process stands still, by the kernel's word. Linux."""
        stat = Path(f"/proc/{self.pid}/stat")
        return self.is_up and stat.exists() and stat.read_text().rpartition(")")[2].split()[0] == "T"

    def node_id(self) -> str:
        """Return the id of the node that runs here, or did last.

        Raises:
            RuntimeError: Its log doesn't say.

        """
        said = self.log.read_bytes()[self._log_begin :].decode()
        for line in said.splitlines():
            if '"event":"node joined"' in line:
                return str(json.loads(line)["node_id"])
        raise RuntimeError(f"{self.log} doesn't say which node it is")

    def problems(self) -> list[str]:
        """Return what the log says that none may, whatever goes wrong around a node: a task of its failed."""
        said = [json.loads(line) for line in self.log.read_text().splitlines() if '"exception":' in line]
        return [f"{each['event']}: {_end_of(each['exception'])}" for each in said]

    def ended(self) -> set[str]:
        """Return the responses whose end the log tells. A session's own log may have lost it by the end."""
        lines = self.log.read_text().splitlines()
        return {str(json.loads(line)["response_id"]) for line in lines if '"event":"response ended"' in line}

    def was_cut_off(self) -> bool:
        """Return whether the log says that the store was ever out of reach."""
        return '"store out of reach"' in self.log.read_text()

    def went_alone(self) -> bool:
        """Return whether it says that it ever went on without the store, with any session."""
        return '"session not durable"' in self.log.read_text()

    async def open(self) -> None:
        """Open the proxies and start a node."""
        if self._has_proxies:
            await self.store.__aenter__()
            await self.door.__aenter__()
        await self.start()

    async def close(self) -> None:
        """End everything."""
        await self.kill()
        for proxy in (self.door, self.store) if self._has_proxies else ():
            await proxy.__aexit__(None, None, None)

    async def start(self) -> None:
        """Start a node, and wait until it listens. One that can't reach its store ends, and is started again.

        Raises:
            RuntimeError: It never listens. Says what it said last.

        """
        try:
            async with asyncio.timeout(_STARTING):
                while not await self._begin():  # noqa: ASYNC110 - another process is waited for
                    await asyncio.sleep(_PAUSE)
        except TimeoutError:
            said = self.log.read_text().splitlines()[-1:]
            raise RuntimeError(f"{self.name} does not start: {said}") from None

    async def _begin(self) -> bool:
        kept = {
            name: value for name, value in os.environ.items() if not name.startswith(("UNBROKEN_", "OPENAI_"))
        }
        command = ["-m", "unbroken"] if self._program is None else ["-m", self._program]
        ports = ("--port", str(self.own_port))
        store_port = self.store.port if self._has_proxies else self._store_port
        with self.log.open("ab") as log:
            self._log_begin = log.tell()
            process = await asyncio.create_subprocess_exec(
                *tied([sys.executable, *command, "serve", *ports, "--admin-port", "0"]),
                cwd=self.log.parent,
                env={
                    **kept,
                    "PYTHONPATH": str(_REPOSITORY),
                    "UNBROKEN_REDIS_URL": f"redis://127.0.0.1:{store_port}/0",
                    "UNBROKEN_LOG_FORMAT": "json",
                    **self._settings,
                },
                stdout=asyncio.subprocess.PIPE,
                stderr=log,
            )
        self._process, self.pid = process, process.pid
        try:
            assert process.stdout is not None
            line = await process.stdout.readline()
            address = re.search(rb"http://127\.0\.0\.1:(\d+)", line)
        except BaseException:
            await self.kill()
            raise
        if address is None:
            await process.wait()
            return False
        self.door.target = int(address[1])
        self._reading = asyncio.create_task(self._drain_output(process))
        return True

    @staticmethod
    async def _drain_output(process: asyncio.subprocess.Process) -> None:
        assert process.stdout is not None
        while await process.stdout.read(65536):
            pass

    def signal(self, number: int) -> None:
        """Send a signal. Harmless if nothing runs."""
        if self._process is not None and self.is_up:
            self._process.send_signal(number)

    async def replace(self, program: str | None, **settings: str) -> None:
        """Ask the node to end, and start one of another release in its place.

        Raises:
            TimeoutError: It doesn't end.

        """
        await self.terminate()
        self._program = program
        self._settings = {**self._settings, **settings}
        await self.start()

    async def kill(self) -> None:
        """End it as a crash does."""
        self.signal(signal.SIGKILL)
        await self._gone()

    async def terminate(self) -> None:
        """Ask it to end, and wait until it has.

        Raises:
            TimeoutError: It doesn't.

        """
        self.signal(signal.SIGCONT)
        self.signal(signal.SIGTERM)
        async with asyncio.timeout(_STOPPING):
            self.exits.append(await self._gone())

    async def _gone(self) -> int:
        process, reading = self._process, self._reading
        code = 0 if process is None else await process.wait()
        self._reading = None
        if reading is not None:
            reading.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await reading
        return code


def _end_of(traceback: str) -> str:
    return " | ".join(line.strip() for line in traceback.splitlines()[-_TRACED:])
