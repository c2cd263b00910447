"""Peers: the burst of one frame for each word, beside npm ``ws`` and python-socketio.

They keep no session and log nothing, but encode each event, as an application
on top of them would. Those that aren't installed are named and left out.
"""

from __future__ import annotations

import subprocess
from contextlib import ExitStack
from importlib.util import find_spec
from pathlib import Path

from tests.bench.bursts import answers
from tests.bench.load import Load
from tests.bench.report import Result, median_of
from tests.bench.server import Kind, Server
from tests.bench.suites.base import Bench
from tests.bench.wire import REALTIME, SOCKET_IO, Dialect
from tests.bench.workload import Order

__all__ = ["run"]

_CONNECTIONS = 200
_DIALECTS: dict[Kind, Dialect] = {"ours": REALTIME, "ws": REALTIME, "socketio": SOCKET_IO}
_NODE_MODULES = Path(__file__).resolve().parents[2] / "conformance" / "node" / "node_modules"


def run(bench: Bench) -> list[Result]:
    """See the module's text."""
    rounds, words = (2, 60) if bench.is_quick else (5, 200)
    order = Order("burst", 1, words)
    rates: dict[Kind, list[float]] = {"ours": []}
    for kind, reason in (("ws", _no_ws()), ("socketio", _no_socketio())):
        if reason:
            bench.notes.append(reason)
        else:
            rates[kind] = []  # type: ignore[index]
    with ExitStack() as stack:
        servers: dict[Kind, Server] = {kind: stack.enter_context(bench.start(kind)) for kind in rates}
        for number in range(rounds):
            for kind, server in servers.items():
                # Opened anew: Socket.IO pings by its own means, which the load doesn't speak.
                with Load(server.port, _DIALECTS[kind]) as load:
                    load.open(_CONNECTIONS)
                    answers(load, order, 1, _DIALECTS[kind])
                    server.settle()
                    with bench.measured(server) as watch:
                        answers(load, order, 2, _DIALECTS[kind])
                rates[kind].append(2 * words * _CONNECTIONS / watch.cpu)
            shown = ", ".join(f"{kind} {rate[-1]:,.0f}" for kind, rate in rates.items())
            bench.say(f"peers {number + 1}/{rounds}: {shown}")
    results = [median_of(f"peers.{kind}", "tokens/CPU-s", rate) for kind, rate in rates.items()]
    for kind, rate in rates.items():
        if kind != "ours":
            ratios = [ours / peer for ours, peer in zip(rates["ours"], rate, strict=True)]
            results.append(median_of(f"peers.{kind}.ratio", f"x {kind}", ratios))
    return results


def _no_ws() -> str:
    try:
        subprocess.run(["node", "--version"], check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        return "npm ws was not measured: install Node.js 20 or newer, then `make node`"
    if not (_NODE_MODULES / "ws").is_dir():
        return "npm ws was not measured: install it with `make node`"
    return ""


def _no_socketio() -> str:
    return "" if find_spec("socketio") else "python-socketio was not measured: `make setup` installs it"
