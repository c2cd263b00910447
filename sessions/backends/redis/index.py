"""The index of sessions in Redis: one sorted set for each principal, in a bucket of their own."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from contextlib import suppress
from functools import partial
from typing import Any, Final, cast

import msgspec

from unbroken.sessions.backends.index import LISTED, Asked, Listed, Search
from unbroken.sessions.backends.redis.connection import Client, server_of, unavailable
from unbroken.sessions.backends.redis.keys import Bounds, Keys
from unbroken.sessions.backends.redis.scripts import Caller, Scripts
from unbroken.sessions.backends.redis.trouble import Trouble
from unbroken.sessions.ids import PrincipalId, SessionId

__all__ = ["RedisIndex"]

_AT_ONCE: Final = 2
"""Calls under way, to each server: of the connections that are beside those for sessions' calls."""

_CALL: Final = 256
"""Sessions in one call."""

_SEARCH_KEPT: Final = 3600
"""Seconds for which it is known what is still to be erased, and how far a store was looked through for it,
unless it is noted again."""


class RedisIndex:
    """A :class:`~unbroken.sessions.backends.index.SessionIndex` in Redis.

    Args:
        client: How it is reached. The caller's, to close.
        keys: What things are called there.
        bounds: How long sessions last, and what was deleted is known.
        trouble: Told of calls that fail.
        patience: Seconds that a call waits for its turn.
        listed: Sessions of one principal that are listed.

    """

    def __init__(
        self,
        client: Client,
        keys: Keys,
        bounds: Bounds,
        *,
        trouble: Trouble | None = None,
        patience: float = 2.0,
        listed: int = LISTED,
    ) -> None:
        self._trouble = trouble or Trouble()
        # Its methods are of both worlds, says redis-py.
        self._client: Any = client
        self._scripts = Scripts(
            cast(Caller, client), _AT_ONCE, patience, server_of=partial(server_of, client)
        )
        self._keys = keys
        self._known_for = max(bounds.deleted, bounds.lifetime)
        # What is noted again while its session lasts, a few times, doesn't go before that does.
        self._listed_for = 2 * bounds.lifetime
        self._listed = listed

    async def _call(self, name: str, keys: list[str], *args: Any) -> Any:
        try:
            return await self._scripts.call(name, keys, *args)
        except Exception as exc:
            error = unavailable(exc)
            if error is None:
                raise
            self._trouble.note(error)
            raise error from None  # what it quotes may be an address with a password

    async def note(self, principal: PrincipalId, sessions: Mapping[SessionId, int]) -> int:
        """See :meth:`SessionIndex.note`."""
        keys = [self._keys.listed(principal), self._keys.erased(principal)]
        known, erased = list(sessions.items()), 0
        for first in range(0, len(known), _CALL):
            args = [each for name, at in known[first : first + _CALL] for each in (at, name)]
            erased = int(await self._call("list", keys, self._listed_for, self._listed, *args))
        return erased

    async def page(
        self,
        principal: PrincipalId,
        limit: int,
        *,
        after: SessionId | None = None,
        oldest_first: bool = False,
    ) -> list[Listed] | None:
        """See :meth:`SessionIndex.page`."""
        found = await self._call(
            "listed", [self._keys.listed(principal)], limit, int(oldest_first), after or ""
        )
        if found is None:
            return None
        pairs = zip(found[::2], found[1::2], strict=True)
        return [Listed(SessionId(name.decode()), int(float(at))) for name, at in pairs]

    async def count(self, principal: PrincipalId) -> int:
        """See :meth:`SessionIndex.count`."""
        return int(await self._command("ZCARD", self._keys.listed(principal)))

    async def admit(self, principal: PrincipalId, session_id: SessionId, at: int, most: int) -> int:
        """See :meth:`SessionIndex.admit`."""
        keys = [self._keys.listed(principal)]
        return int(await self._call("admit", keys, self._listed_for, most, at, session_id))

    async def drop(self, principal: PrincipalId, session_ids: Collection[SessionId]) -> None:
        """See :meth:`SessionIndex.drop`."""
        if session_ids:
            await self._command("ZREM", self._keys.listed(principal), *session_ids)

    async def note_erased(self, principal: PrincipalId, at: int) -> None:
        """See :meth:`SessionIndex.note_erased`."""
        await self._call("erased", [self._keys.erased(principal)], at, self._known_for)

    async def asked(self, principal: PrincipalId, *, is_thorough: bool) -> Asked | None:
        """See :meth:`SessionIndex.asked`."""
        found = await self._command("GET", self._keys.asked(principal, is_thorough=is_thorough))
        with suppress(msgspec.DecodeError):  # another release's: it is asked for anew
            return None if found is None else msgspec.json.decode(found, type=Asked)
        return None

    async def note_asked(self, principal: PrincipalId, asked: Asked | None, *, is_thorough: bool) -> None:
        """See :meth:`SessionIndex.note_asked`."""
        key = self._keys.asked(principal, is_thorough=is_thorough)
        if asked is None:
            await self._command("DEL", key)
        else:
            await self._command("SET", key, msgspec.json.encode(asked), "EX", _SEARCH_KEPT)

    async def search(self, principal: PrincipalId) -> Search | None:
        """See :meth:`SessionIndex.search`."""
        found = await self._command("GET", self._keys.search(principal))
        with suppress(msgspec.DecodeError):  # another release's: it is begun anew
            return None if found is None else msgspec.json.decode(found, type=Search)
        return None

    async def note_search(self, principal: PrincipalId, search: Search) -> None:
        """See :meth:`SessionIndex.note_search`."""
        noted = msgspec.json.encode(search)
        await self._command("SET", self._keys.search(principal), noted, "EX", _SEARCH_KEPT)

    async def _command(self, *words: Any) -> Any:
        try:
            return await self._client.execute_command(*words)
        except Exception as exc:
            error = unavailable(exc)
            if error is None:
                raise
            self._trouble.note(error)
            raise error from None  # as above
