"""Clients that come back: each has one session, over one connection after another, on whichever node.

What they are shown is checked as it comes: the pieces of an answer must be its text, whole and in order,
over all connections together. They are for what happens between nodes; those of
:mod:`tests.bench.load`, which are cheaper, for what one node carries.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import urlencode

from tests.bench.load import LoadError
from tests.bench.visit import Visit
from tests.bench.wire import API_KEY, DOOR, create_message, create_response, request_of
from unbroken.server.protocols.cursor import parse_cursor

__all__ = ["Ask", "Attempt", "Resumed", "Roamer", "living", "wait_for"]

_WELCOME: Final = 10.0
"""Seconds after which a node that doesn't show the session is left."""
_LEAST_PAUSE: Final = 0.05
_MOST_PAUSE: Final = 1.0


@dataclass(frozen=True, slots=True)
class Ask:
    """A question, and the answer that it must get."""

    text: str
    answer: str
    attempts: int = 1
    """How often nodes attempt it."""


@dataclass(frozen=True, slots=True)
class Resumed:
    """How long it took to come back, in seconds."""

    whole: float
    """From the beginning of the connection to the first event that was missed."""
    shown: float
    """From the end of the handshake on."""


@dataclass(slots=True)
class Attempt:
    """A response to what was asked."""

    length: int = 0
    """Characters that have come."""
    status: str = ""
    """How it ended: its status, or the code of what it failed with. Empty: it hasn't."""


class Roamer:
    """A client. Use :meth:`live` as a task: it stays connected until that is cancelled.

    Args:
        number: Each one's is another, and so is its key.
        ports: Nodes to come to, in this order, and then again from the first. May be changed at any time.

    """

    def __init__(self, number: int, ports: Sequence[int]) -> None:
        self.ports = ports
        self.arrivals: list[float] = []
        """When pieces of the answer to the latest question came, by `time.monotonic`."""
        self.resumed: list[Resumed] = []
        """Each time that it came back and had missed something."""
        self.refusals: list[str] = []
        """Why it wasn't let in, each time."""
        self.attempts: dict[str, Attempt] = {}
        """At the latest question, by response, in order."""
        self.welcome = asyncio.Event()
        """Set while it is shown its session."""
        self.caught_up = asyncio.Event()
        """Set when it has seen something new since it came back."""
        self.begun = asyncio.Event()
        """Set when some of the answer has come."""
        self.halfway = asyncio.Event()
        """Set when half of the answer has come."""
        self.answered = asyncio.Event()
        """Set when no more will come of the answer."""
        self._key = f"{API_KEY}-{number}"
        self._asked = Ask("", "")
        self._visit: Visit | None = None
        self._resume = self._after = ""
        self._next = 0
        self._may_come = asyncio.Event()
        self._may_come.set()

    async def live(self) -> None:
        """Be connected: at once again where a connection ends, after a growing pause where it isn't let in.

        Raises:
            LoadError: It was shown what it shouldn't have been.

        """
        failures = 0
        while True:
            await self._may_come.wait()
            port = self.ports[self._next % len(self.ports)]
            failures = 0 if await self._connected(port) else failures + 1
            self._next += 1
            if failures:
                most = min(_MOST_PAUSE, _LEAST_PAUSE * 2 ** min(failures, 10))
                await asyncio.sleep(random.uniform(most / 2, most))

    async def _connected(self, port: int) -> bool:
        """Connect to a node, to the connection's end. Return whether the session was shown."""
        visit = Visit(self._target(), self._key, self._received)
        try:
            async with asyncio.timeout(_WELCOME):
                await asyncio.get_running_loop().create_connection(lambda: visit, "127.0.0.1", port)
                self._visit = visit
                await asyncio.wait({visit.welcome, visit.ended}, return_when=asyncio.FIRST_COMPLETED)
            await visit.ended
        except (OSError, TimeoutError) as error:
            self.refusals.append(type(error).__name__)
        finally:
            visit.cut()
            self._visit = None
            self.welcome.clear()
            self.caught_up.clear()
        if visit.failure is not None:
            raise visit.failure
        if visit.refusal:
            self.refusals.append(visit.refusal)
        return visit.welcome.done()

    def _target(self) -> str:
        if not self._resume:
            return DOOR
        return f"{DOOR}?{urlencode({'resume': self._resume, 'after': self._after})}"

    def ask(self, asked: Ask) -> None:
        """Ask something. The session must be at rest, and shown."""
        assert self._visit is not None
        self._asked = asked
        self.attempts, self.arrivals = {}, []
        for event in (self.begun, self.halfway, self.answered):
            event.clear()
        self._visit.send(request_of([create_message(asked.text), create_response()]))

    def leave(self) -> None:
        """Cut the connection, as a network does, and come back when told to."""
        self._may_come.clear()
        self.drop()

    def drop(self) -> None:
        """Cut the connection, and come back at once."""
        if self._visit is not None:
            self._visit.cut()

    def come_back(self) -> None:
        """Come back after :meth:`leave`."""
        self._may_come.set()

    def _received(self, visit: Visit, event: dict[str, Any]) -> None:
        kind = event["type"]
        if kind == "error":
            if visit.welcome.done() or event["error"]["code"] == "session_not_found":
                raise LoadError(f"the server reported an error: {event['error']}")
            visit.refusal = event["error"]["code"]
            return
        if kind == "session.created":
            self._welcomed(visit, event["session"]["unbroken"])
            self._after = event["event_id"]
            return
        if parse_cursor(event["event_id"]) is not None:
            self._after = event["event_id"]
        self._note_return(visit)
        if kind == "response.created":
            self.attempts[event["response"]["id"]] = Attempt()
            self.answered.clear()
        elif kind == "response.output_text.delta":
            self._take(self.attempts[event["response_id"]], event["delta"], visit.now)
        elif kind == "response.done":
            self._finish(event["response"])

    def _welcomed(self, visit: Visit, shown: dict[str, Any]) -> None:
        if self._resume and shown.get("resumed") is not True:
            raise LoadError("a client was told to start over")
        visit.is_return = bool(self._resume)
        self._resume = shown["resume"]
        if not visit.welcome.done():
            visit.welcome.set_result(None)
        self.welcome.set()

    def _note_return(self, visit: Visit) -> None:
        self.caught_up.set()
        if visit.is_return:
            visit.is_return = False
            self.resumed.append(Resumed(visit.now - visit.begun_at, visit.now - visit.opened_at))

    def _take(self, attempt: Attempt, piece: str, now: float) -> None:
        answer = self._asked.answer
        if not piece or not answer.startswith(piece, attempt.length):
            place = slice(attempt.length, attempt.length + 40)
            raise LoadError(f"wrong text: {piece[:40]!r} in the place of {answer[place]!r}")
        attempt.length += len(piece)
        self.arrivals.append(now)
        self.begun.set()
        if 2 * attempt.length >= len(answer):
            self.halfway.set()

    def _finish(self, response: dict[str, Any]) -> None:
        attempt = self.attempts[response["id"]]
        answer = self._asked.answer
        said = "".join(part["text"] for item in response["output"] for part in item["content"])
        if said != answer[: attempt.length]:
            raise LoadError(f"an answer ended with other text: {said[-60:]!r}")
        attempt.status = response["status"]
        if attempt.status == "completed" and said != answer:
            raise LoadError(f"an answer completed with {len(said)} characters of {len(answer)}")
        if attempt.status == "failed":
            attempt.status = response["status_details"]["error"]["code"]
        if attempt.status not in ("completed", "interrupted"):
            raise LoadError(f"an answer ended as {attempt.status}")
        if attempt.status == "completed" or len(self.attempts) >= self._asked.attempts:
            self.answered.set()


@asynccontextmanager
async def living(roamers: Iterable[Roamer]) -> AsyncIterator[None]:
    """Have *roamers* connected while inside. The first error of theirs ends it."""
    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(roamer.live()) for roamer in roamers]
            yield
            for task in tasks:
                task.cancel()
    except ExceptionGroup as found:
        raise found.exceptions[0] from None


async def wait_for(events: Iterable[asyncio.Event], what: str, seconds: float) -> None:
    """Wait until all *events* are set.

    Raises:
        LoadError: They aren't within *seconds*; says how many, and *what* they mean.

    """
    waited = list(events)
    try:
        async with asyncio.timeout(seconds):
            for event in waited:
                await event.wait()
    except TimeoutError:
        late = sum(not event.is_set() for event in waited)
        raise LoadError(f"{late} of {len(waited)} clients aren't {what} within {seconds:g} s") from None
