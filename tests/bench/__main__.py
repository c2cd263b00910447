"""``python -m tests.bench [--quick] [--only SUITE ...]``: measure the server beside a bare peer.

The server runs on one core and the load on another; both sides take turns in
one run, and what counts is their ratio, round by round: absolute figures say
more about the machine and its hour than about the code. Writes
``build/bench.json`` with the rounds in ``build/bench-raw.json``, and a table on
the standard output. Ends with 0 also when a target is missed; with 1 when
something could not be measured, or a server answered wrongly.
"""

from __future__ import annotations

import argparse
import gc
import os
import resource
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Final

from tests.bench.frames import record
from tests.bench.load import LoadError
from tests.bench.machine import Cores, Machine, busy_seconds, raise_file_limit
from tests.bench.report import Report
from tests.bench.server import Launcher
from tests.bench.suites import SUITES, Bench
from tests.bench.suites.burst import WORDS

_FILES: Final = 4096
_BUILD: Final = Path(__file__).resolve().parents[2] / "build"


def main(arguments: list[str] | None = None) -> int:
    """Run the benchmark, and return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description=__doc__.partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="fewer and shorter rounds, in under a minute")
    parser.add_argument("--only", nargs="+", choices=SUITES, metavar="SUITE", help="of: " + ", ".join(SUITES))
    parser.add_argument("--build", type=Path, default=_BUILD, metavar="DIR", help="where results go")
    parser.add_argument(
        "--pii", type=Path, metavar="FILE", help="texts with labelled personal data, for leaks"
    )
    parser.add_argument(
        "--litellm", type=Path, metavar="FILE", default=shutil.which("litellm"), help="a LiteLLM proxy"
    )
    options = parser.parse_args(arguments)

    build: Path = options.build
    build.mkdir(parents=True, exist_ok=True)
    report = Report()
    cores = Cores.choose()
    launcher = Launcher(cores, build / "bench-frames.json", build)
    bench = Bench(launcher, options.quick, say=_say, pii=options.pii, litellm=options.litellm)
    begun, busy, load_before = time.monotonic(), busy_seconds(), os.getloadavg()
    os.sched_setaffinity(0, {cores.load})
    gc.disable()  # the load makes no cycles, and must not pause
    try:
        raise_file_limit(_FILES)
        with launcher.start("ours") as server:
            record(server.port, WORDS).save(launcher.frames)
    except (LoadError, OSError, RuntimeError) as error:
        report.failures["preparation"] = f"{type(error).__name__}: {error}"
    for name in [] if report.failures else options.only or SUITES:
        try:
            report.results += SUITES[name](bench)
        except (LoadError, OSError, RuntimeError) as error:
            report.failures[name] = f"{type(error).__name__}: {error}"
            _say(f"{name} FAILED: {error}")
        gc.collect()

    seconds = time.monotonic() - begun
    own = sum(sum(resource.getrusage(who)[:2]) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    others = max(0.0, busy_seconds() - busy - own) / seconds
    machine, shares = Machine.here(), bench.load_shares
    report.about = {
        "machine": f"{machine.model}, {machine.cores} cores, {machine.memory_mib} MiB",
        "software": f"Linux {machine.kernel}, {machine.python}, {_versions()}",
        "commit": _commit(),
        "cores": _placement(cores),
        "run": f"{'quick' if options.quick else 'full'}, {seconds:.0f} s",
        "load": f"average {load_before[0]:.2f} before, {os.getloadavg()[0]:.2f} after; "
        f"other processes used {others:.2f} cores meanwhile",
        "generator": f"median {_median(shares):.0%}, at most {max(shares, default=0):.0%} of its core; "
        "waits by 1 ms ticks in burst, eagerly elsewhere",
        "spread": "highest less lowest round, by the median: the noise of this run",
    }
    if slow := bench.slow_shares:
        report.about["slow spells"] = (
            f"median {_median(slow):.0%}, at most {max(slow):.0%} of the time, where looked at, the server's "
            "core ran at less than half its speed, or caught up with that; 'calm' figures are without"
        )
    if bench.notes:
        report.about["notes"] = "; ".join(bench.notes)
    report.save(build)
    sys.stdout.write(report.table())
    return 1 if report.failures else 0


def _say(text: str) -> None:
    sys.stderr.write(f"  {text}\n")
    sys.stderr.flush()


def _placement(cores: Cores) -> str:
    if cores.are_apart:
        return f"server on {cores.server}, load on {cores.load}"
    return f"server and load SHARE core {cores.server}: latencies are not to be trusted"


def _median(values: list[float]) -> float:
    return sorted(values)[len(values) // 2] if values else 0.0


def _versions() -> str:
    from importlib.metadata import version

    return ", ".join(f"{name} {version(name)}" for name in ("starlette", "uvicorn", "uvloop", "websockets"))


def _commit() -> str:
    command = ["git", "describe", "--always", "--dirty", "--abbrev=12"]
    done = subprocess.run(command, cwd=_BUILD.parent, capture_output=True, text=True, check=False)
    return done.stdout.strip() or "unknown"


if __name__ == "__main__":
    sys.exit(main())
