"""How this package asks Redis: bounded in time and number, with one kind of error."""

from __future__ import annotations

import asyncio
import builtins
from collections import defaultdict
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any, Final, TypeVar, cast

from unbroken.sessions.backends.redis.connection import Client, server_of, unavailable
from unbroken.sessions.backends.redis.scripts import Caller, Scripts
from unbroken.sessions.errors import StoreUnavailable

__all__ = ["Redis"]

_AT_ONCE: Final = 2
"""Calls under way, to each server: of the connections that are beside those for sessions' calls."""

_NAMES: Final = (
    "key_add",
    "key_revoke",
    "key_uses",
    "secret_apart",
    "secret_keep",
    "secret_leave",
    "secret_look",
    "secret_put",
    "secret_room",
    "secret_spend",
)

_T = TypeVar("_T")


class Redis:
    """A client, for this package's calls.

    Args:
        client: How it is reached. The caller's, to close.
        prefix: What all keys begin with.
        patience: Seconds after which it counts as out of reach.

    """

    def __init__(self, client: Client, prefix: str, patience: float = 2.0) -> None:
        # Its methods are of both worlds, says redis-py.
        self._client: Any = client
        self.prefix = prefix
        self._patience = patience
        self._places: defaultdict[str, asyncio.Semaphore] = defaultdict(partial(asyncio.Semaphore, _AT_ONCE))
        self.server_of = partial(server_of, client)
        """Names the server that has a key now, of several: one that is gone is no outage of the others."""
        self._scripts = Scripts(
            cast(Caller, client),
            _AT_ONCE,
            patience,
            package="unbroken.server.auth.redis",
            names=_NAMES,
            server_of=self.server_of,
        )

    async def script(self, name: str, keys: list[str], *args: Any) -> Any:
        """Call the script of that name.

        Raises:
            StoreUnavailable: It can't be reached.

        """
        return await self._within(keys[0], lambda: self._scripts.call(name, keys, *args))

    async def command(self, *words: Any) -> Any:
        """Send a command whose first key is its second word.

        Raises:
            StoreUnavailable: It can't be reached.

        """
        return await self._within(words[1], lambda: self._client.execute_command(*words))

    async def _within(self, key: str, call: Callable[[], Awaitable[_T]]) -> _T:
        try:
            async with asyncio.timeout(self._patience), self._places[self.server_of(key)]:
                return await call()
        except builtins.TimeoutError:
            raise StoreUnavailable("no answer in time") from None
        except Exception as exc:
            error = unavailable(exc)
            if error is None:
                raise
            raise error from None  # what it quotes may be an address with a password
