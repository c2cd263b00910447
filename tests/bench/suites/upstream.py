"""Upstream: events of a model's stream that are read in a CPU second, beside the SDK's typed iterator.

Our agent and the SDK read the same streams, ten at once, from the same process on the other
core, one event to each HTTP chunk.
"""

from __future__ import annotations

import json
import subprocess

from tests.bench.machine import start_on
from tests.bench.report import Goal, Result, median_of
from tests.bench.suites.base import Bench

__all__ = ["run"]

_STREAMS = 10
_EVENTS = 500
_TIMEOUT = 120.0
_ROUNDS = {"ours": 8, "sdk": 1}
"""Within one measurement: about as long for one as for the other."""


def run(bench: Bench) -> list[Result]:
    """See the module's text."""
    rounds = 2 if bench.is_quick else 5
    rates: dict[str, list[float]] = {"ours": [], "sdk": []}
    upstream = start_on(bench.launcher.cores.load, "tests.bench.sse", str(_EVENTS))
    try:
        assert upstream.stdout is not None
        port = upstream.stdout.readline().strip()
        for number in range(rounds):
            for kind, values in rates.items():
                values.append(_measure(bench, kind, port))
            ours, sdk = (values[-1] for values in rates.values())
            bench.say(f"upstream {number + 1}/{rounds}: {ours:,.0f} to {sdk:,.0f} per CPU second")
    finally:
        upstream.terminate()
        upstream.communicate()
    ratios = [ours / sdk for ours, sdk in zip(rates["ours"], rates["sdk"], strict=True)]
    return [
        median_of("upstream.ours", "events/CPU-s", rates["ours"]),
        median_of("upstream.sdk", "events/CPU-s", rates["sdk"]),
        median_of("upstream.ratio", "x SDK", ratios, Goal("at least", 8.0)),
    ]


def _measure(bench: Bench, kind: str, port: str) -> float:
    """Return the events that a reader of that *kind* takes in a CPU second."""
    numbers = map(str, (_STREAMS, _EVENTS, _ROUNDS[kind]))
    reader = start_on(bench.launcher.cores.server, "tests.bench.reading", kind, port, *numbers)
    try:
        output, _ = reader.communicate(timeout=_TIMEOUT)
    except subprocess.TimeoutExpired:
        reader.kill()
        reader.communicate()
        raise RuntimeError(f"the reader ({kind}) takes longer than {_TIMEOUT:g} seconds") from None
    if reader.returncode:
        raise RuntimeError(f"the reader ({kind}) failed")
    seconds: list[float] = json.loads(output)
    return _STREAMS * _EVENTS * len(seconds) / sum(seconds)
