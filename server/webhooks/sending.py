"""Sends webhooks: for each endpoint so many at once, apart from all others, until each is there or given up.

What is on its way when the process ends, however it ends, is sent again: by whichever node comes to it first.
"""

from __future__ import annotations

import asyncio
import random
import ssl
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Final, Literal

import httpx2
import structlog

from unbroken import __version__
from unbroken.server.agents.breaker import Breaker, BreakerLimits, BreakerState
from unbroken.server.archive.base import ArchiveUnavailable, Due, Queue
from unbroken.server.webhooks.signature import headers
from unbroken.sessions.clock import Clock

__all__ = ["Sender", "SendingLimits", "Target", "delay_of"]

_FIRST: Final = 5.0
_FACTOR: Final = 4.0
_LONGEST: Final = 6 * 3600.0
"""Seconds until the second try, by how much longer each next one waits, and at most."""

_POLL: Final = 5.0
"""Seconds after which the queue is looked at again: other nodes put something there, or something is due."""

_OLDEST: Final = 3 * 86_400.0
"""Seconds after which what wasn't delivered is given up, however few tries it had: its endpoint was down."""

_LEASE: Final = 30.0
"""Seconds, beyond what a try may take, for which nobody else tries the same."""

_BUSY: Final = (408, 429)
"""Statuses of an endpoint that takes nothing for the moment; others of 4xx are about what was sent."""


@dataclass(frozen=True, slots=True)
class Target:
    """An endpoint."""

    name: str
    url: str
    secrets: Sequence[str]


@dataclass(frozen=True, slots=True, kw_only=True)
class SendingLimits:
    """How persistently webhooks are sent. Times are in seconds."""

    timeout: float = 10.0
    tries: int = 10
    at_once: int = 4
    breaker: BreakerLimits = BreakerLimits()  # noqa: RUF009 - frozen


_Outcome = Literal["delivered", "failed", "dead"]


def delay_of(tries: int, draw: Callable[[], float] = random.random) -> float:
    """Return for how long to wait after so many tries: longer each time, up to a bound, never quite alike."""
    return min(_LONGEST, _FIRST * _FACTOR ** (tries - 1)) * (0.8 + 0.4 * draw())


class Sender:
    """Sends what is queued.

    Args:
        targets: To whom.
        queue: What is to be sent.
        limits: How persistently.
        clock: Where time comes from.
        on_outcome: Told what came of each try, with the endpoint's name.
        on_passed_over: Told when an endpoint is left alone because it fails, and when no longer.
        transport: For tests. None: the network.

    """

    def __init__(
        self,
        targets: Sequence[Target],
        queue: Queue,
        limits: SendingLimits,
        clock: Clock,
        *,
        on_outcome: Callable[[str, _Outcome], None],
        on_passed_over: Callable[[str, bool], None],
        transport: httpx2.AsyncBaseTransport | None = None,
    ) -> None:
        self._targets = targets
        self._queue = queue
        self._limits = limits
        self._clock = clock
        self._on_outcome = on_outcome
        self._on_passed_over = on_passed_over
        self._transport = transport
        self._client: httpx2.AsyncClient | None = None
        self._tasks: list[asyncio.Task[None]] = []
        self._news: Mapping[str, asyncio.Event] = {each.name: asyncio.Event() for each in targets}

    async def start(self) -> None:
        """Begin to send."""
        if not self._targets:
            return
        # Authorities' certificates are read from the disk.
        trusted = await asyncio.to_thread(ssl.create_default_context)
        self._client = httpx2.AsyncClient(
            verify=trusted,
            timeout=None,  # one holds for all of a try
            follow_redirects=False,
            trust_env=False,
            transport=self._transport,
            headers={"content-type": "application/json", "user-agent": f"unbroken/{__version__}"},
            limits=httpx2.Limits(max_connections=self._limits.at_once * len(self._targets)),
        )
        self._tasks = [asyncio.create_task(self._serve(target)) for target in self._targets]

    async def aclose(self) -> None:
        """Send nothing more. What is on its way is cut off, and sent again by whoever comes next."""
        tasks, self._tasks = self._tasks, []
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)
        if self._client is not None:
            await self._client.aclose()

    def wake(self) -> None:
        """Look at the queue soon: something was put there."""
        for each in self._news.values():
            each.set()

    async def _serve(self, target: Target) -> None:
        """Send what is for one endpoint, for ever. It waits for no other one."""

        def changed(state: BreakerState) -> None:
            self._on_passed_over(target.name, state is not BreakerState.CLOSED)

        breaker = Breaker(self._limits.breaker, self._clock, changed)
        news = self._news[target.name]
        log = structlog.get_logger()
        while True:
            news.clear()
            is_more = False
            try:
                is_more = await self._send_some(target, breaker)
            except ArchiveUnavailable:
                pass  # whoever writes to it says so
            except Exception as exc:  # the boundary: one endpoint's trouble isn't others'
                log.error("webhooks crashed", endpoint=target.name, exc_info=exc)
            if not is_more:
                await self._rested(news)

    async def _rested(self, news: asyncio.Event) -> None:
        """Return when something was put into the queue, or a while has passed."""
        timer = self._clock.call_later(_POLL, news.set)
        try:
            await news.wait()
        finally:
            timer.cancel()

    async def _send_some(self, target: Target, breaker: Breaker) -> bool:
        """Send as much as may be at once. Return whether there may be more."""
        limits = self._limits
        most = limits.at_once if breaker.state is BreakerState.CLOSED else 1
        if breaker.seconds_left:
            return False
        now = self._clock.time()
        due = await self._queue.due(target.name, now, most, until=now + limits.timeout + _LEASE)
        if not due:
            return False
        async with asyncio.TaskGroup() as group:
            for each in due:
                group.create_task(self._try(target, breaker, each))
        return len(due) == most

    async def _try(self, target: Target, breaker: Breaker, due: Due) -> None:
        admission = breaker.admit()
        if admission is None:
            return  # others have failed meanwhile: it comes again when its lease is over, as untried as now
        try:
            is_delivered, is_alive = await self._post(target, due)
        except BaseException:
            admission.release()
            raise
        (admission.succeed if is_alive else admission.fail)()
        self._on_outcome(target.name, "delivered" if is_delivered else "failed")
        with suppress(ArchiveUnavailable):  # then it comes again when its lease is over
            await self._note(target, due, is_delivered=is_delivered)

    async def _note(self, target: Target, due: Due, *, is_delivered: bool) -> None:
        """Have the queue know what came of a try."""
        if is_delivered:
            await self._queue.sent(due)
            return
        now = self._clock.time()
        if due.tries + 1 >= self._limits.tries or now - due.made_at > _OLDEST:
            self._on_outcome(target.name, "dead")
            structlog.get_logger().error(
                "webhook given up",
                endpoint=target.name,
                message_id=due.delivery.message_id,
                tries=due.tries + 1,
            )
            await self._queue.bury(due, now)
        else:
            await self._queue.put_off(due, now + delay_of(due.tries + 1))

    async def _post(self, target: Target, due: Due) -> tuple[bool, bool]:
        """Return whether the endpoint has taken a webhook, and whether it takes any, as far as that shows.

        It has, if it said so in time, with a status of 2xx. One that refuses this one alone takes others.
        """
        assert self._client is not None
        body = due.delivery.body.encode()
        signed = headers(target.secrets, due.delivery.message_id, int(self._clock.time()), body)
        reason, is_alive = "", False
        try:
            async with (
                asyncio.timeout(self._limits.timeout),
                self._client.stream("POST", target.url, content=body, headers=signed) as answer,
            ):
                if answer.is_success:
                    return True, True
                is_alive = answer.is_client_error and answer.status_code not in _BUSY
                reason = f"status {answer.status_code}"
        except TimeoutError:
            reason = "no answer in time"
        except (httpx2.HTTPError, httpx2.InvalidURL, OSError) as exc:
            reason = type(exc).__name__
        structlog.get_logger().info(
            "webhook not taken", endpoint=target.name, message_id=due.delivery.message_id, reason=reason
        )
        return False, is_alive
