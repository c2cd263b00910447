from __future__ import annotations

from typing import cast

from tests.sessions.conversation import settle
from unbroken.sessions.backends.redis.channels import Channels
from unbroken.sessions.backends.redis.news import MESSAGE_SESSIONS, News
from unbroken.sessions.ids import NodeId, SessionId, new_session_id


class Heard:
    """Stands in for :class:`Channels`."""

    def __init__(self) -> None:
        self.messages: list[tuple[NodeId, str]] = []

    async def tell(self, node: NodeId, text: str) -> None:
        self.messages.append((node, text))


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
