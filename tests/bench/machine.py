"""The machine: its cores, its load, and what processes use of it. Linux only."""

from __future__ import annotations

import os
import platform
import resource
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Self

__all__ = [
    "Cores",
    "Machine",
    "busy_seconds",
    "cpu_seconds",
    "raise_file_limit",
    "resident_bytes",
    "start_on",
]

_TICKS: Final = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, slots=True)
class Cores:
    """Where the server and the load run."""

    server: int
    load: int

    @classmethod
    def choose(cls) -> Self:
        allowed = sorted(os.sched_getaffinity(0))
        return cls(allowed[0], allowed[-1])

    @property
    def are_apart(self) -> bool:
        return self.server != self.load


@dataclass(frozen=True, slots=True)
class Machine:
    """What a reader has to know of the machine."""

    model: str
    cores: int
    memory_mib: int
    kernel: str
    python: str

    @classmethod
    def here(cls) -> Self:
        model = "unknown CPU"
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                model = line.partition(":")[2].strip()
                break
        memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") >> 20
        python = f"{platform.python_implementation()} {platform.python_version()}"
        return cls(model, os.cpu_count() or 1, memory, platform.release(), python)


def start_on(core: int, module: str, *arguments: str, stdin: int | None = None) -> subprocess.Popen[str]:
    """Start a Python program on *core*, with pipes. A child is born on its parent's core."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {core})
    try:
        return subprocess.Popen(
            [sys.executable, "-m", module, *arguments], stdin=stdin, stdout=subprocess.PIPE, text=True
        )
    finally:
        os.sched_setaffinity(0, before)


def cpu_seconds(pid: int) -> float:
    """Return the CPU time of all threads of a process, to the nanosecond."""
    return time.clock_gettime((~pid << 3) | 2)  # what clock_getcpuclockid(3) makes of a pid


def resident_bytes(pid: int) -> int:
    """Return the resident memory of a process, exactly: the figure in ``status`` lags behind."""
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith("Rss:"):
            return int(line.split()[1]) * 1024
    raise RuntimeError(f"/proc/{pid}/smaps_rollup has no Rss")


def busy_seconds(core: int | None = None) -> float:
    """Return the time that a core, or all together, has been busy since the start of the system."""
    name = "cpu" if core is None else f"cpu{core}"
    for line in Path("/proc/stat").read_text().splitlines():
        if line.startswith(f"{name} "):
            user, nice, system, _idle, _wait, irq, softirq, steal = map(int, line.split()[1:9])
            return (user + nice + system + irq + softirq + steal) / _TICKS
    raise RuntimeError(f"/proc/stat has no {name}")


def raise_file_limit(files: int) -> None:
    """Let this process and its children open so many files.

    Raises:
        RuntimeError: The system doesn't allow it.

    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft >= files:
        return
    if hard < files:
        raise RuntimeError(f"{files} open files are needed, {hard} allowed: raise `ulimit -Hn`")
    resource.setrlimit(resource.RLIMIT_NOFILE, (files, hard))
