"""What a suite gets, and what it is."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeAlias

from tests.bench.machine import busy_seconds
from tests.bench.pulse import Taking, taken
from tests.bench.report import Result
from tests.bench.server import Kind, Launcher, Server

__all__ = ["KINDS", "Bench", "Suite", "Watch"]

KINDS: tuple[Kind, Kind] = ("ours", "bare")


@dataclass
class Bench:
    """A run of the benchmark."""

    launcher: Launcher
    is_quick: bool
    say: Callable[[str], None]
    """Tells a waiting person what goes on."""
    pii: Path | None = None
    """A file of texts in which personal data is labelled."""
    litellm: Path | None = None
    """A LiteLLM proxy. None: there is none."""
    load_shares: list[float] = field(default_factory=list)
    """How busy the load's own core was in each measurement: near 1, the load would be the limit."""
    slow_shares: list[float] = field(default_factory=list)
    """For which part of the time the server's core was slow by itself, where that was looked at."""
    notes: list[str] = field(default_factory=list)
    """What a reader has to know to judge the results."""

    def start(self, kind: Kind, settings: Mapping[str, str] = {}) -> Server:
        """Start a server: see :meth:`Launcher.start`."""
        return self.launcher.start(kind, settings)

    @contextmanager
    def pulse(self) -> Iterator[Taking]:
        """Take the pulse of the server's core while inside."""
        with taken(self.launcher.cores.server) as taking:
            yield taking
        self.slow_shares.append(taking.pulse.slow_share)

    @contextmanager
    def measured(self, server: Server) -> Iterator[Watch]:
        """Watch the clocks while inside."""
        watch = Watch(server)
        yield watch
        watch.stop()
        self.load_shares.append(watch.load_cpu / watch.seconds)


class Watch:
    """The clocks of one measurement: seconds passed, and CPU seconds of the server and of the load.

    *others* is what anything else used of their cores: time that they may have
    had to wait for.
    """

    def __init__(self, server: Server) -> None:
        self._server = server
        self._begun = time.monotonic(), server.cpu(), time.process_time(), self._busy()
        self.seconds = self.cpu = self.load_cpu = self.others = 0.0

    def stop(self) -> None:
        """Take the time. The first stop counts."""
        if not self.seconds:
            begun, cpu, load_cpu, busy = self._begun
            self.seconds = time.monotonic() - begun
            self.cpu = self._server.cpu() - cpu
            self.load_cpu = time.process_time() - load_cpu
            self.others = max(0.0, self._busy() - busy - self.cpu - self.load_cpu)

    def _busy(self) -> float:
        cores = self._server.cores
        return sum(map(busy_seconds, {cores.server, cores.load}))


Suite: TypeAlias = Callable[[Bench], list[Result]]
"""Measures, and returns what it found.

Raises LoadError, OSError or RuntimeError if it can't, or if a server answered wrongly.
"""
