"""One channel for each node, on which it is told what is new.

On a single server they are plain channels. In a cluster they are sharded, and
have one hash tag: one server has all of them, so that who listens can be asked
in one place, and what is told isn't passed on to all servers.
"""

from __future__ import annotations

from contextlib import suppress
from typing import Any

from redis.asyncio import ConnectionPool, RedisCluster
from redis.asyncio.client import PubSub

from unbroken.sessions.backends.redis.connection import ERRORS, Client
from unbroken.sessions.backends.redis.keys import Keys
from unbroken.sessions.ids import NodeId

__all__ = ["Channels", "close"]


class Channels:
    """Tells nodes, listens for one, and finds out who listens. Raises what the client does."""

    def __init__(self, client: Client, keys: Keys) -> None:
        self._client = client
        self._keys = keys

    async def tell(self, node: NodeId, text: str) -> None:
        """Tell *node*, if it listens."""
        channel = self._keys.channel(node)
        if isinstance(self._client, RedisCluster):
            await self._client.execute_command("SPUBLISH", channel, text)
        else:
            await self._client.publish(channel, text)

    async def listen(self, node: NodeId) -> PubSub:
        """Return a subscription to *node*'s channel, which the server has confirmed."""
        channel = self._keys.channel(node)
        pubsub = await self._pubsub(channel)
        try:
            if isinstance(self._client, RedisCluster):
                await pubsub.ssubscribe(channel)
            else:
                await pubsub.subscribe(channel)
            message: Any = None
            while message is None or not message["type"].endswith("subscribe"):
                message = await pubsub.get_message(timeout=None)
        except BaseException:
            await close(pubsub)
            raise
        return pubsub

    async def _pubsub(self, channel: str) -> PubSub:
        if not isinstance(self._client, RedisCluster):
            return self._client.pubsub()
        await self._client.initialize()
        # Who has become a replica would take the subscription all the same, but says of keys where they are.
        await self._client.execute_command("EXISTS", self._keys.nodes)
        server = self._client.get_node_from_key(channel)
        if server is None:
            raise ConnectionError("no server of the cluster has the nodes' channels")
        pool = ConnectionPool(server.connection_class, max_connections=1, **server.connection_kwargs)
        return PubSub(pool)

    async def listeners(self, nodes: list[NodeId]) -> dict[NodeId, int]:
        """Return how many listen on the channel of each of *nodes*."""
        channels = {self._keys.channel(node): node for node in nodes}
        counted: Any
        if isinstance(self._client, RedisCluster):
            await self._client.initialize()
            server = self._client.get_node_from_key(self._keys.nodes)
            counted = await self._client.execute_command("PUBSUB SHARDNUMSUB", *channels, target_nodes=server)
        else:
            counted = await self._client.pubsub_numsub(*channels)
        found = dict.fromkeys(nodes, 0)
        for channel, count in counted:
            found[channels[channel.decode()]] = int(count)
        return found


async def close(pubsub: PubSub) -> None:
    """End a subscription, whatever state it is in."""
    with suppress(*ERRORS):
        await pubsub.aclose()  # type: ignore[no-untyped-call]
