"""Whether those who share a Redis belong together: they must have the same secret.

Else a node would take sessions over that its clients can't resume, and that aren't its own: two
deployments may have been given the same server, and the same prefix, by mistake.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
from contextlib import suppress
from typing import Any, Final

from unbroken.sessions.backends.redis.connection import ERRORS, Client
from unbroken.sessions.backends.redis.keys import Keys

__all__ = ["ForeignNodes", "Kinship"]

_KEPT: Final = 60
"""Seconds after the last node has ended in which its secret is known still."""

_RENEWED: Final = 15.0


class ForeignNodes(Exception):
    """Nodes with another secret are there."""


class Kinship:
    """A node's sign for the secret that it has.

    Args:
        client: How Redis is reached.
        keys: What things are called there.
        secret: What all nodes have. It can't be found out from the sign.

    """

    def __init__(self, client: Client, keys: Keys, secret: bytes) -> None:
        self._client: Any = client  # its methods are of both worlds, says redis-py
        self._key = keys.secret
        self._sign = hmac.digest(secret, b"kinship", hashlib.sha256).hex()[:32]

    async def check(self) -> None:
        """Compare the sign with that of the nodes that are there; leave it, if there are none.

        Raises:
            ForeignNodes: It is another one.
            RedisError, OSError: As the client does.

        """
        if await self._client.set(self._key, self._sign, nx=True, ex=_KEPT):
            return
        found: bytes | None = await self._client.get(self._key)
        if found is not None and not hmac.compare_digest(found, self._sign.encode()):
            raise ForeignNodes

    async def run(self) -> None:
        """Leave the sign again and again, as long as the node lives."""
        while True:
            await asyncio.sleep(_RENEWED)
            with suppress(*ERRORS):
                await self._client.set(self._key, self._sign, ex=_KEPT)
