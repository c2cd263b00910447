"""Crash: what becomes of a hundred answers whose node is killed when half of each has come.

Three upstreams: one that forgets an answer with its connection (Chat Completions), as it is by default;
the same where nodes attempt a turn twice; and one that keeps responses (Responses, in the background).
*Completed*: the same answer went on, at the very character. *Regenerated*: a second attempt completed.
*Interrupted*: it ended with what there was. And how often the upstream was asked: each *call* is for
an answer, and is billed; a *rereading* goes on with one that was billed already.
"""

from __future__ import annotations

import asyncio
import signal
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field

from tests.bench.load import LoadError
from tests.bench.nodes import nodes_of
from tests.bench.report import Result, median_of
from tests.bench.roaming import Ask, Attempt, Roamer, living, wait_for
from tests.bench.suites.base import Bench
from tests.chaos.upstream import KeepingUpstream
from tests.chaos.words import answer_to, digest, pause_of, prompt, words_of
from tests.fakes.upstream import FakeUpstream, RecordedRequest, Script

__all__ = ["ForgetfulUpstream", "fate", "run"]

_STREAMS = 100
_WORDS = 60
_PAUSE = 0.05
_PATIENCE = 60.0
_FATES = ("completed", "regenerated", "interrupted")


@dataclass(frozen=True, slots=True)
class _Case:
    name: str
    api: str
    attempts: int = 1
    settings: Mapping[str, str] = field(default_factory=dict)


_CASES = (
    _Case("chat", "chat"),
    _Case("chat_twice", "chat", attempts=2),
    _Case("background", "responses", settings={"UNBROKEN_OPENAI_BACKGROUND": "true"}),
)


class ForgetfulUpstream(FakeUpstream):
    """Answers by Chat Completions what :func:`~tests.chaos.words.prompt` asks, to whoever stays."""

    def _script_for(self, request: RecordedRequest) -> Script:
        asked = request.json["messages"][-1]["content"]
        self.answer(*words_of(asked, _past(asked)), delay=pause_of(asked))
        return self._scripts.pop()


def _past(asked: str) -> str:
    """Return what an answer knows of a conversation in which nothing else was said."""
    return digest([("user", asked)])


def run(bench: Bench) -> list[Result]:
    """See the module's text."""
    streams = 30 if bench.is_quick else _STREAMS
    results: list[Result] = []
    for case in _CASES:
        found = asyncio.run(_measured(bench, case, streams))
        bench.say(f"crash: {case.name}: {dict(found)}")
        unit = f"for {streams} answers"
        counted = (*_FATES, "calls", "rereadings")
        results += [median_of(f"crash.{case.name}.{name}", unit, [found[name]]) for name in counted]
    return results


async def _measured(bench: Bench, case: _Case, streams: int) -> Counter[str]:
    """Return how many answers had which fate, and how often the upstream was asked."""
    upstream = KeepingUpstream() if case.api == "responses" else ForgetfulUpstream()
    async with upstream:
        settings = {
            "UNBROKEN_TURN_ATTEMPTS": str(case.attempts),
            "UNBROKEN_AGENT": "openai",
            "UNBROKEN_OPENAI_API": case.api,
            "UNBROKEN_OPENAI_BASE_URL": upstream.base_url,
            "UNBROKEN_OPENAI_API_KEY": "none",
            "UNBROKEN_MODEL": "fake",
            **case.settings,
        }
        async with nodes_of(bench.launcher, 3, settings) as nodes:
            owner, *others = nodes.servers
            roamers = [Roamer(number, [owner.port]) for number in range(streams)]
            async with living(roamers):
                await wait_for((each.welcome for each in roamers), "connected", _PATIENCE)
                for number, roamer in enumerate(roamers):
                    asked = prompt(f"turn{number}", _WORDS, _PAUSE)
                    roamer.ask(Ask(asked, answer_to(asked, _past(asked)), case.attempts))
                await wait_for((each.halfway for each in roamers), "halfway", _PATIENCE)
                for number, roamer in enumerate(roamers):
                    roamer.ports = [others[number % 2].port, others[1 - number % 2].port]
                owner.signal(signal.SIGKILL)
                await wait_for((each.answered for each in roamers), "answered", _PATIENCE)
        found = Counter(fate(roamer.attempts) for roamer in roamers)
        found["calls"] = sum(request.method == "POST" for request in upstream.requests)
        found["rereadings"] = sum(request.method == "GET" for request in upstream.requests)
    return found


def fate(attempts: Mapping[str, Attempt]) -> str:
    """Return what became of a turn.

    Raises:
        LoadError: Nothing that may be.

    """
    match [attempt.status for attempt in attempts.values()]:
        case ["completed"]:
            return "completed"
        case ["interrupted", *_, "completed"]:
            return "regenerated"
        case [*statuses] if statuses and set(statuses) == {"interrupted"}:
            return "interrupted"
        case statuses:
            raise LoadError(f"a turn ended with {statuses}")
