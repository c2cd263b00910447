"""Whether those who share a Redis belong together: they must have the same secret.

Else a node would take sessions over that its clients can't resume, and that aren't its own: two
deployments may have been given the same server, and the same prefix, by mistake.

A node compares before it is let in, and while it runs: the server may have been restarted empty, or have
failed in that very moment. A node that runs isn't stopped then, as neither side knows which of them is
the wrong one; both say so.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
from typing import Any, Final

import structlog

from unbroken.sessions.backends.redis.connection import ERRORS, Client
from unbroken.sessions.backends.redis.keys import Keys

__all__ = ["ForeignNodes", "Kinship"]

_KEPT: Final = 60
"""Seconds after the last node has ended in which its secret is known still."""

_RENEWED: Final = 15.0

_FORGOTTEN: Final = 4
"""Looks without another sign after which those who left one are taken to be gone. Their own come as often."""

_HINT: Final = (
    "Nodes with another UNBROKEN_SECRET are in this Redis, and take sessions of this one's. Give all of them "
    "the same secret; or, if they aren't to share sessions, another UNBROKEN_REDIS_PREFIX."
)


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
        self._looks_left = 0  # until those who left another sign are taken to be gone

    async def check(self) -> None:
        """Compare the sign with that of the nodes that are there; leave it, if there are none.

        Raises:
            ForeignNodes: It is another one.
            RedisError, OSError: As the client does.

        """
        if await self._client.set(self._key, self._sign, nx=True, ex=_KEPT):
            return
        found: bytes | None = await self._client.get(self._key)
        if not self._is_own(found):
            raise ForeignNodes

    async def run(self) -> None:
        """Look, and leave the sign, again and again, as long as the node lives."""
        task = asyncio.current_task()
        assert task is not None
        while True:
            await asyncio.sleep(_RENEWED)
            await self.look()
            if task.cancelling():  # the client may take a cancellation for its own, and go on
                return

    async def look(self) -> None:
        """Leave the sign, and compare it with the one that was there. What can't be told stays as it was.

        It takes the other's place, so that the other side finds out too.
        """
        try:
            found: bytes | None = await self._client.set(self._key, self._sign, ex=_KEPT, get=True)
        except ERRORS:
            return
        log, had_foreign = structlog.get_logger(), self.has_foreign
        if not self._is_own(found):
            self._looks_left = _FORGOTTEN
            if not had_foreign:
                log.error("foreign nodes in redis", hint=_HINT)
        elif had_foreign:
            self._looks_left -= 1
            if not self.has_foreign:
                log.info("no foreign nodes in redis any more")

    @property
    def has_foreign(self) -> bool:
        """Whether nodes with another secret were there a moment ago."""
        return self._looks_left > 0

    def _is_own(self, found: bytes | None) -> bool:
        return found is None or hmac.compare_digest(found, self._sign.encode())
