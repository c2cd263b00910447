from __future__ import annotations

import os
import time
from pathlib import Path

from prometheus_client import CollectorRegistry

from unbroken.server.process_figures import ProcessFigures


def figures() -> dict[str, float]:
    registry = CollectorRegistry()
    registry.register(ProcessFigures())
    return {sample.name: sample.value for family in registry.collect() for sample in family.samples}


def test_they_are_what_the_system_says() -> None:
    found = figures()
    now, pages = time.time(), int(Path("/proc/self/statm").read_text().split()[1])

    assert 0 < found["process_cpu_seconds_total"] <= time.process_time()
    assert 0 < found["process_start_time_seconds"] <= now
    assert found["process_resident_memory_bytes"] / 2 < pages * os.sysconf("SC_PAGE_SIZE")
    assert found["process_max_fds"] >= 256


def test_files_are_counted_without_being_listed() -> None:
    """On kernels that tell; others leave it out."""
    before = figures().get("process_open_fds")
    files = [os.open(os.devnull, os.O_RDONLY) for _ in range(50)]
    try:
        after = figures().get("process_open_fds")
    finally:
        for file in files:
            os.close(file)

    told = Path("/proc/self/fd").stat().st_size > 0
    assert (before is not None) is told
    assert (after or 0) - (before or 0) == (50 if told else 0)
