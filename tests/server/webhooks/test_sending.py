"""How webhooks are sent: signed, again and again, and each endpoint apart from the others."""

from __future__ import annotations

import asyncio
import base64
import contextlib
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import httpx2
import pytest

from tests.fakes.archive import MemoryQueue
from tests.fakes.clock import FakeClock
from tests.server.realtime.serving import eventually
from tests.sessions.conversation import settle
from unbroken.server.archive.base import Delivery
from unbroken.server.webhooks.sending import Sender, SendingLimits, Target, delay_of

SECRET = "whsec_" + base64.b64encode(b"s" * 32).decode()
Answer = Callable[[httpx2.Request], Awaitable[int]]


def hook(name: str, endpoint: str = "crm") -> Delivery:
    return Delivery(name, endpoint, "turn.completed", "{}")


class Post(httpx2.AsyncBaseTransport):
    """Takes what is sent, and answers as each endpoint does."""

    def __init__(self) -> None:
        self.answers: dict[str, Answer] = {}
        self.taken: list[tuple[str, str]] = []
        self.requests: list[httpx2.Request] = []
        self.at_once = self.most_at_once = 0

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        name = request.url.host
        self.taken.append((name, request.headers["webhook-id"]))
        self.requests.append(request)
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        try:
            status = await self.answers[name](request) if name in self.answers else 204
        finally:
            self.at_once -= 1
        return httpx2.Response(status, headers={"location": "http://elsewhere/"} if status == 307 else {})


class Desk:
    def __init__(self, names: tuple[str, ...], limits: SendingLimits) -> None:
        self.clock = FakeClock()
        self.queue = MemoryQueue()
        self.post = Post()
        self.outcomes: Counter[tuple[str, str]] = Counter()
        self.passed_over: dict[str, bool] = {}
        self.sender = Sender(
            [Target(name, f"http://{name}/hook", [SECRET]) for name in names],
            self.queue,
            limits,
            self.clock,
            on_outcome=self._note,
            on_passed_over=self.passed_over.__setitem__,
            transport=self.post,
        )

    def _note(self, endpoint: str, outcome: str) -> None:
        self.outcomes[endpoint, outcome] += 1

    async def put(self, *deliveries: Delivery) -> None:
        self.queue.put(*deliveries, at=self.clock.time())
        self.sender.wake()
        await settle()

    async def pass_time(self, seconds: float) -> None:
        """Let time pass, in steps in which everything is looked at."""
        for _ in range(int(seconds / 5)):
            self.clock.advance(5)
            await settle()


@contextlib.asynccontextmanager
async def open_desk(*names: str, **limits: Any) -> AsyncIterator[Desk]:
    desk = Desk(names or ("crm",), SendingLimits(**limits))
    await desk.sender.start()
    await settle()
    yield desk
    await desk.sender.aclose()


async def refused(_: httpx2.Request) -> int:
    return 500


async def test_what_is_queued_is_sent_signed_and_forgotten() -> None:
    async with open_desk() as desk:
        await desk.put(hook("msg_1"))

        (request,) = desk.post.requests
        assert request.method == "POST"
        assert request.headers["content-type"] == "application/json"
        assert request.headers["user-agent"].startswith("unbroken/")
        assert request.headers["webhook-signature"].startswith("v1,")
        assert request.headers["webhook-timestamp"] == str(int(desk.clock.time()))
        assert desk.queue.waiting_for == {}
        assert desk.outcomes == {("crm", "delivered"): 1}


async def test_what_fails_is_tried_again_and_given_up_in_the_end() -> None:
    async with open_desk(tries=3) as desk:
        desk.post.answers["crm"] = refused
        await desk.put(hook("msg_1"))
        assert len(desk.post.taken) == 1
        await desk.pass_time(10)
        assert len(desk.post.taken) == 2
        await desk.pass_time(60)

        assert len(desk.post.taken) == 3
        assert desk.queue.buried == [hook("msg_1")]
        assert desk.outcomes == {("crm", "failed"): 3, ("crm", "dead"): 1}


@pytest.mark.parametrize("status", [301, 307, 400, 410, 429, 503])
async def test_only_a_status_of_success_counts_and_nobody_is_sent_elsewhere(status: int) -> None:
    async def answer(_: httpx2.Request) -> int:
        return status

    async with open_desk() as desk:
        desk.post.answers["crm"] = answer
        await desk.put(hook("msg_1"))

        assert desk.post.taken == [("crm", "msg_1")]
        assert desk.outcomes == {("crm", "failed"): 1}


async def test_a_connection_that_fails_is_a_try() -> None:
    async def broken(_: httpx2.Request) -> int:
        raise httpx2.ConnectError("planted")

    async with open_desk() as desk:
        desk.post.answers["crm"] = broken
        await desk.put(hook("msg_1"))
        assert desk.outcomes == {("crm", "failed"): 1}
        del desk.post.answers["crm"]
        await desk.pass_time(10)
        assert desk.outcomes["crm", "delivered"] == 1


async def test_one_that_hangs_or_fails_keeps_no_other_waiting() -> None:
    never = asyncio.Event()

    async def hangs(_: httpx2.Request) -> int:
        await never.wait()
        return 204

    async with open_desk("hangs", "fails", "works", at_once=2, timeout=60) as desk:
        desk.post.answers |= {"hangs": hangs, "fails": refused}
        names = ("hangs", "fails", "works")
        await desk.put(*(hook(f"msg_{number}", name) for name in names for number in range(20)))

        assert desk.outcomes["works", "delivered"] == 20
        assert desk.post.at_once == 2, "of one endpoint so many at once, and the rest waits"


async def test_one_that_does_not_answer_in_time_has_failed() -> None:
    never = asyncio.Event()

    async def hangs(_: httpx2.Request) -> int:
        await never.wait()
        return 204

    async with open_desk(timeout=0.01) as desk:
        desk.post.answers["crm"] = hangs
        await desk.put(hook("msg_1"))
        await eventually(lambda: desk.outcomes["crm", "failed"] == 1)


async def test_an_endpoint_that_fails_is_left_alone_and_then_tried_once() -> None:
    async with open_desk(at_once=4) as desk:
        desk.post.answers["crm"] = refused
        await desk.put(*(hook(f"msg_{number}") for number in range(40)))
        tried = len(desk.post.taken)
        assert 5 <= tried <= 8
        assert desk.passed_over == {"crm": True}
        await desk.pass_time(25)
        assert len(desk.post.taken) == tried
        await desk.pass_time(10)
        assert len(desk.post.taken) == tried + 1

        del desk.post.answers["crm"]
        await desk.pass_time(600)
        assert desk.passed_over == {"crm": False}
        assert desk.queue.waiting_for == {}
        assert desk.queue.buried == []


async def test_what_is_too_old_is_given_up() -> None:
    async with open_desk() as desk:
        desk.post.answers["crm"] = refused
        desk.queue.put(hook("msg_1"), at=desk.clock.time() - 4 * 86_400)
        desk.sender.wake()
        await settle()

        assert desk.queue.buried == [hook("msg_1")]


async def test_what_is_on_its_way_when_the_node_ends_is_sent_by_the_next() -> None:
    never = asyncio.Event()

    async def hangs(_: httpx2.Request) -> int:
        await never.wait()
        return 204

    async with open_desk() as desk:
        desk.post.answers["crm"] = hangs
        await desk.put(hook("msg_1"))
        await desk.sender.aclose()
        assert list(desk.queue.waiting_for) == [("msg_1", "crm")]
        assert desk.outcomes == {}


async def test_while_the_archive_is_out_nothing_is_lost() -> None:
    async with open_desk() as desk:
        desk.queue.is_out = True
        await desk.put(hook("msg_1"))
        await desk.pass_time(20)
        assert desk.post.taken == []
        desk.queue.is_out = False
        await desk.pass_time(5)
        assert desk.post.taken == [("crm", "msg_1")]


def test_each_delay_is_longer_up_to_a_bound() -> None:
    delays = [delay_of(tries, lambda: 0.5) for tries in range(1, 12)]

    assert delays[:4] == [5, 20, 80, 320]
    assert delays == sorted(delays)
    assert delays[-1] == 6 * 3600
    assert delay_of(1, lambda: 0.0) == pytest.approx(4)
    assert delay_of(1, lambda: 1.0) == pytest.approx(6)


async def test_one_that_is_refused_for_itself_keeps_no_other_waiting() -> None:
    async def takes_short_ones(request: httpx2.Request) -> int:
        return 413 if b"long" in await request.aread() else 204

    async with open_desk(at_once=4) as desk:
        desk.post.answers["crm"] = takes_short_ones
        bodies = ("long" if number % 2 else "short" for number in range(40))
        await desk.put(
            *(Delivery(f"msg_{number}", "crm", "x", f'"{body}"') for number, body in enumerate(bodies))
        )

        assert desk.outcomes["crm", "delivered"] == 20
        assert desk.outcomes["crm", "failed"] == 20
        assert desk.passed_over.get("crm", False) is False
