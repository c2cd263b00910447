from __future__ import annotations

import asyncio
from typing import cast

from tests.sessions.conversation import settle
from unbroken.sessions.backends.redis.channels import Channels
from unbroken.sessions.backends.redis.news import MESSAGE_SESSIONS, MOST_WAITING, News
from unbroken.sessions.ids import NodeId, SessionId, new_session_id


class Heard:
    """Stands in for :class:`Channels`. Fault verb: :attr:`goes_on`."""

    def __init__(self) -> None:
        self.messages: list[tuple[NodeId, str]] = []
        self.goes_on = asyncio.Event()
        """Cleared while nothing gets through."""
        self.goes_on.set()

    async def tell(self, node: NodeId, text: str) -> None:
        await self.goes_on.wait()
        self.messages.append((node, text))

    def named(self) -> list[str]:
        """Return which sessions were named, each as often as it was."""
        return [name for _, text in self.messages for name in text.split()]


async def test_of_many_sessions_a_node_is_told_in_messages_of_bounded_size() -> None:
    heard = Heard()
    news = News(cast(Channels, heard))
    sessions: set[SessionId] = {new_session_id() for _ in range(2 * MESSAGE_SESSIONS + 1)}
    for session_id in sessions:
        news.tell(["a", "b"], session_id)
    await settle()

    for node in (NodeId("a"), NodeId("b")):
        told = [text.split() for to, text in heard.messages if to == node]
        assert [len(each) for each in told] == [MESSAGE_SESSIONS, MESSAGE_SESSIONS, 1]
        assert {SessionId(each) for message in told for each in message} == sessions
    await news.aclose()


async def test_what_is_told_of_often_takes_one_place_of_those_that_wait() -> None:
    """A message doesn't get through, and a few sessions go on streaming: whatever else happens is told of."""
    heard = Heard()
    heard.goes_on.clear()
    news = News(cast(Channels, heard))
    news.tell(["a"], SessionId("first"))
    await settle()
    for _ in range(2 * MOST_WAITING):
        news.tell(["a"], SessionId("busy"))
    news.tell(["a"], SessionId("late"))
    heard.goes_on.set()
    await settle()

    assert sorted(heard.named()) == ["busy", "first", "late"]
    await news.aclose()


async def test_what_waits_is_bounded() -> None:
    heard = Heard()
    heard.goes_on.clear()
    news = News(cast(Channels, heard))
    for number in range(MOST_WAITING + 10):
        news.tell(["a"], SessionId(f"s{number}"))
    heard.goes_on.set()
    await settle()

    assert len(heard.named()) == MOST_WAITING
    await news.aclose()
