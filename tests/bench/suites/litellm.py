"""LiteLLM: a gateway's way to the first word, and what a word costs, beside a LiteLLM proxy in the same run.

Both stand before the same upstream, which answers at once with a few hundred events, and pass its words on:
LiteLLM as Chat Completions over HTTP, as it is installed, without a database or guardrails; ours as Realtime,
with the guards and quotas of the pipeline suite. One question after the other, in a connection of its own
each.

It isn't part of a run unless a LiteLLM proxy is there: ``--litellm FILE``, or ``litellm`` on the path.
"""

from __future__ import annotations

import http.client
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from itertools import count
from typing import Final

from tests.bench.answers import FirstWord
from tests.bench.load import Load, LoadError
from tests.bench.questions import asked
from tests.bench.report import Result, compared, percentile
from tests.bench.server import Server
from tests.bench.suites.base import Bench
from tests.bench.suites.pipeline import EVERYTHING
from tests.bench.wire import RESPONSE_DONE, create_message, create_response, request_of
from tests.bench.workload import Order

__all__ = ["KEY", "litellm_settings", "our_settings", "run"]

_EVENTS: Final = 300
_MODEL: Final = "bench"
_TIMEOUT: Final = 60.0
KEY: Final = "sk-" + 64 * "1"
_HEADERS: Final = {"Content-Type": "application/json", "Authorization": f"Bearer {KEY}"}


def run(bench: Bench) -> list[Result]:
    """See the module's text."""
    if bench.litellm is None:
        bench.notes.append("no LiteLLM proxy is there: pip install 'litellm[proxy]', or --litellm FILE")
        return []
    rounds, questions = (1, 30) if bench.is_quick else (3, 200)
    numbers = count()
    waits: list[tuple[list[float], list[float]]] = []
    costs: list[tuple[float, float]] = []
    with ExitStack() as stack:
        os.sched_setaffinity(0, {bench.launcher.cores.load})
        upstream = stack.enter_context(_upstream())
        ours = stack.enter_context(bench.launcher.start("ours", {**EVERYTHING, **our_settings(upstream)}))
        theirs = stack.enter_context(bench.launcher.start("litellm", litellm_settings(bench, upstream)))
        _through_ours(ours, 20, numbers)
        _through_litellm(theirs, 20, numbers)
        for number in range(rounds):
            mine, my_cost = _through_ours(ours, questions, numbers)
            other, other_cost = _through_litellm(theirs, questions, numbers)
            waits.append((mine, other))
            costs.append((my_cost, other_cost))
            shown = " to ".join(f"{percentile(side, 0.99):.0f}" for side in waits[-1])
            bench.say(f"litellm {number + 1}/{rounds}: first p99 {shown} us")
    results: list[Result] = []
    for name, share in (("p50", 0.5), ("p99", 0.99)):
        mine, other = ([percentile(pair[side], share) for pair in waits] for side in (0, 1))
        results += compared(f"litellm.first.{name}", "us", mine, other, peer="litellm")
    mine, other = ([pair[side] for pair in costs] for side in (0, 1))
    return results + compared("litellm.cpu", "us a word", mine, other, peer="litellm")


@contextmanager
def _upstream() -> Iterator[str]:
    """Run the upstream on this core, the load's, and give its address."""
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.bench.sse", str(_EVENTS)],
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        yield f"http://127.0.0.1:{process.stdout.readline().strip()}/v1"
    finally:
        process.terminate()
        process.communicate()


def our_settings(upstream: str) -> dict[str, str]:
    """Return what has ours pass on what that upstream says."""
    return {
        "UNBROKEN_AGENT": "openai",
        "UNBROKEN_OPENAI_BASE_URL": upstream,
        "UNBROKEN_OPENAI_API_KEY": "none",
        "UNBROKEN_MODEL": _MODEL,
    }


def litellm_settings(bench: Bench, upstream: str) -> dict[str, str]:
    """Likewise, of a LiteLLM proxy, which has to be there."""
    config = bench.launcher.logs / "litellm.yaml"
    config.write_text(_config(upstream))
    # Nothing is fetched: prices are those of the package.
    return {
        "LITELLM": str(bench.litellm),
        "CONFIG": str(config),
        "LITELLM_LOCAL_MODEL_COST_MAP": "True",
        "LITELLM_MASTER_KEY": KEY,
    }


def _config(upstream: str) -> str:
    parameters = {"model": f"openai/{_MODEL}", "api_base": upstream, "api_key": "none"}
    return json.dumps({"model_list": [{"model_name": _MODEL, "litellm_params": parameters}]})


def _question(numbers: count[int]) -> str:
    return asked(next(numbers), Order("burst", 1, _EVENTS))


def _through_ours(server: Server, questions: int, numbers: count[int]) -> tuple[list[float], float]:
    """Return the microseconds to each first word, sorted; and those of CPU time for a word."""
    waits: list[float] = []
    with Load(server.port) as load:
        load.open(questions)
        server.settle()
        before = server.cpu()
        for client in load.clients:
            answer = FirstWord()
            request = request_of([create_message(_question(numbers)), create_response()])
            begun = time.monotonic_ns()
            load.ask(client, request, RESPONSE_DONE, answer)
            load.drive(timeout=_TIMEOUT)
            assert answer.at is not None, "it is checked at the end"
            waits.append((answer.at - begun) / 1000)
        server.settle()
        return sorted(waits), (server.cpu() - before) / questions / _EVENTS * 1e6


def _through_litellm(server: Server, questions: int, numbers: count[int]) -> tuple[list[float], float]:
    """Likewise."""
    waits: list[float] = []
    server.settle()
    before = server.cpu()
    for _ in range(questions):
        connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=_TIMEOUT)
        connection.connect()
        messages = [{"role": "user", "content": _question(numbers)}]
        body = json.dumps({"model": _MODEL, "messages": messages, "stream": True})
        begun = time.monotonic_ns()
        connection.request("POST", "/v1/chat/completions", body, _HEADERS)
        response = connection.getresponse()
        first, words = 0, 0
        for line in response:
            if b'"content":"' in line.replace(b'": "', b'":"'):
                first = first or time.monotonic_ns()
                words += 1
        connection.close()
        if response.status != 200 or words < _EVENTS:
            raise LoadError(f"LiteLLM answers {response.status}, with {words} of {_EVENTS} words")
        waits.append((first - begun) / 1000)
    server.settle()
    return sorted(waits), (server.cpu() - before) / questions / _EVENTS * 1e6
