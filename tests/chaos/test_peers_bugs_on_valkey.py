"""What went wrong elsewhere with a real server of news, by name: as ``test_peers_bugs.py``, over sockets."""

from __future__ import annotations

from asyncio import create_task

import pytest
from redis.asyncio import Redis
from redis.asyncio.client import PubSub

from tests.fakes.proxy import Proxy
from tests.fakes.valkey import Server
from tests.fakes.valkey_fixtures import client, valkey
from tests.server.realtime.client import WAIT
from tests.server.realtime.serving import eventually
from tests.sessions.conversation import settle
from unbroken.sessions.backends.redis.channels import Channels, close
from unbroken.sessions.backends.redis.connection import Address, Client, connect
from unbroken.sessions.backends.redis.keys import Keys
from unbroken.sessions.ids import NodeId

__all__ = ["client", "valkey"]

KEYS, NODE = Keys("test"), NodeId("n")


async def librechat_11710_a_subscription_that_is_still_on_its_way(server: Server, others: Client) -> None:
    """There, SUBSCRIBE was sent and not awaited: what was published before it took effect was dropped.

    Here nobody listens before the server has said so. From then on, everything is heard.
    """
    async with Proxy(server.port, mark=b"SUBSCRIBE") as proxy:
        mine = connect(Address(f"redis://127.0.0.1:{proxy.port}/0"), name="test")
        await mine.ping()  # there is a connection to send it on
        proxy.hold("up")
        listening = create_task(Channels(mine, KEYS).listen(NODE))
        try:
            await eventually(lambda: proxy.strand("up", marked=True) == 1)
            await settle()
            assert not listening.done(), "it listens, as far as it knows, and the server doesn't know of it"
        finally:
            proxy.release()
            pubsub = await listening
            await Channels(others, KEYS).tell(NODE, "at once")
            message = await pubsub.get_message(ignore_subscribe_messages=True, timeout=WAIT)
            await close(pubsub)
            await mine.aclose()
        assert message is not None
        assert message["data"] == b"at once"


async def wait_for_no_confirmation(self: Channels, node: NodeId) -> PubSub:
    """Subscribe as whoever takes a command that was sent for one that was carried out."""
    assert isinstance(self._client, Redis)
    pubsub = self._client.pubsub()
    await pubsub.subscribe(self._keys.channel(node))
    return pubsub


async def test_librechat_11710_who_listens_is_known_to_the_server(client: Client, valkey: Server) -> None:
    await librechat_11710_a_subscription_that_is_still_on_its_way(valkey, client)


async def test_librechat_11710_is_noticed_where_it_is_planted(
    client: Client, valkey: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Channels, "listen", wait_for_no_confirmation)
    with pytest.raises(AssertionError, match="the server doesn't know of it"):
        await librechat_11710_a_subscription_that_is_still_on_its_way(valkey, client)
