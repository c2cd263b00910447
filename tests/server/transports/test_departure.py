"""What is done for a client ends when it leaves; and nothing else is taken for that."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest
from uvicorn.protocols.utils import ClientDisconnected

from unbroken.server.transports.departure import until_departure


class Someone:
    def __init__(self, *, is_gone: bool = False) -> None:
        self.is_gone = is_gone
        self.callback: Callable[[], None] | None = None

    def on_departure(self, callback: Callable[[], None] | None) -> None:
        self.callback = callback

    def leave(self) -> None:
        self.is_gone = True
        if self.callback is not None:
            self.callback()


class Work:
    """Something that is done for a client."""

    def __init__(self, client: Someone | None, *, is_stubborn: bool = False) -> None:
        self.is_cut = self.is_done = False
        self.requests = 0
        self._is_stubborn = is_stubborn
        self.task = asyncio.create_task(self._work(client))

    async def _work(self, client: Someone | None) -> None:
        with until_departure(client):
            try:
                await asyncio.get_running_loop().create_future()
            except asyncio.CancelledError:
                self.is_cut = True
                if not self._is_stubborn:
                    raise
        task = asyncio.current_task()
        assert task is not None
        self.requests = task.cancelling()
        await asyncio.sleep(0)
        self.is_done = True


async def settle() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


async def test_it_is_cut_off_as_the_client_leaves() -> None:
    client = Someone()
    work = Work(client)
    await settle()
    assert not work.is_cut
    client.leave()
    with pytest.raises(ClientDisconnected):
        await work.task

    assert work.is_cut
    assert client.callback is None, "nobody is told any more"


async def test_what_it_waited_for_comes_too_late_in_the_same_moment() -> None:
    client = Someone()
    waited_for: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    has_gone_on = False

    async def work() -> None:
        nonlocal has_gone_on
        with until_departure(client):
            await waited_for
            has_gone_on = True

    task = asyncio.create_task(work())
    await settle()
    waited_for.set_result(None)
    client.leave()
    with pytest.raises(ClientDisconnected):
        await task

    assert not has_gone_on


async def test_it_does_not_begin_where_the_client_has_left() -> None:
    work = Work(Someone(is_gone=True))
    with pytest.raises(ClientDisconnected):
        await work.task

    assert not work.is_cut


async def test_a_departure_behind_it_changes_nothing() -> None:
    client = Someone()
    with until_departure(client):
        pass
    client.leave()
    await settle()


@pytest.mark.parametrize("leaves", [False, True])
async def test_whoever_cancels_the_task_is_heard(leaves: bool) -> None:
    """Also as the client leaves in the same moment."""
    client = Someone()
    work = Work(client)
    await settle()
    if leaves:
        client.leave()
    work.task.cancel()
    await settle()

    assert work.task.cancelled()


async def test_what_takes_no_notice_is_done_to_its_end() -> None:
    """As the store's client may. Its task isn't taken for one that is to end, then."""
    client = Someone()
    work = Work(client, is_stubborn=True)
    await settle()
    client.leave()
    await work.task

    assert (work.is_cut, work.is_done, work.requests) == (True, True, 0)


async def test_what_takes_too_long_by_itself_is_no_departure() -> None:
    with pytest.raises(TimeoutError), until_departure(Someone()):
        raise TimeoutError


async def test_a_client_that_nobody_tells_of_is_there() -> None:
    work = Work(None)
    await settle()
    work.task.cancel()
    await settle()

    assert work.task.cancelled()
