"""How many connections and responses everybody has: one hash each, with a field for each node.

Hashes are forgotten some minutes after the last write, so that nothing is left
of nodes that nobody knows; nodes write what they have more often than that.
"""

from __future__ import annotations

import asyncio
import builtins
from collections.abc import Iterable, Sequence
from functools import partial
from typing import Any, Final, cast

from unbroken.sessions.backends.redis.connection import Client, server_of, unavailable
from unbroken.sessions.backends.redis.keys import TALLY_LIFETIME, Keys
from unbroken.sessions.backends.redis.membership import RedisMembership
from unbroken.sessions.backends.redis.parts import Parts
from unbroken.sessions.backends.redis.scripts import Caller, Scripts
from unbroken.sessions.backends.tally import Claim
from unbroken.sessions.errors import StoreUnavailable
from unbroken.sessions.ids import NodeId

__all__ = ["RedisTally"]

_AT_ONCE: Final = 2
"""Calls under way, to each server: of the connections that are beside those for sessions' calls."""


class RedisTally:
    """A node's :class:`~unbroken.sessions.backends.tally.Tally` in Redis.

    A node that is new here is counted from its first word on; whether one that has left its numbers behind
    is dead, its *membership* finds out.

    Args:
        client: How it is reached. The caller's, to close.
        keys: What things are called there.
        membership: This node's, which it has joined. Who is dead is its word.
        patience: Seconds after which it counts as out of reach.
        is_cluster: Whether only keys of one bucket may be written in one call.

    """

    def __init__(
        self,
        client: Client,
        keys: Keys,
        membership: RedisMembership,
        *,
        patience: float = 2.0,
        is_cluster: bool = False,
    ) -> None:
        # Its methods are of both worlds, says redis-py.
        self._scripts = Scripts(
            cast(Caller, client), _AT_ONCE, patience, server_of=partial(server_of, client)
        )
        self._parts = Parts(client)
        self._keys = keys
        self._membership = membership
        self._patience = patience
        self._is_cluster = is_cluster

    def part_of(self, whose: str) -> str:
        """See :meth:`Tally.part_of`."""
        return self._parts.of(self._keys.tally(whose))

    async def settle(self, claims: Sequence[Claim]) -> list[int]:
        """See :meth:`Tally.settle`."""
        given: dict[int, int] = {}
        failures: list[StoreUnavailable] = []

        async def settle(group: list[int]) -> None:
            try:
                given.update(zip(group, await self._settle([claims[i] for i in group]), strict=True))
            except StoreUnavailable as exc:
                failures.append(exc)

        try:
            async with asyncio.timeout(self._patience):
                groups = self._groups(claims)
                if len(groups) == 1:
                    await settle(groups[0])
                else:
                    async with asyncio.TaskGroup() as tasks:
                        for group in groups:
                            tasks.create_task(settle(group))
        except builtins.TimeoutError:
            raise StoreUnavailable("no answer in time") from None
        if failures:
            raise failures[0]
        return [given[i] for i in range(len(claims))]

    def _groups(self, claims: Sequence[Claim]) -> list[list[int]]:
        """Return which of *claims* go into one call."""
        if not self._is_cluster:
            return [list(range(len(claims)))]
        groups: dict[int, list[int]] = {}
        for index, claim in enumerate(claims):
            groups.setdefault(self._keys.bucket(claim.whose), []).append(index)
        return list(groups.values())

    async def _settle(self, claims: Sequence[Claim]) -> list[int]:
        given, others = await self._call(claims, ())
        dead = [node for node in others if self._membership.is_lost(node)]
        for node in others:
            await self._membership.watch(node)  # it may have died before this one was there
        if dead:
            given, _ = await self._call(
                claims, dead
            )  # the numbers are whole: the same once more does no harm
        return given

    async def _call(self, claims: Sequence[Claim], dead: Iterable[NodeId]) -> tuple[list[int], list[NodeId]]:
        keys = [self._keys.tally(claim.whose) for claim in claims]
        known = tuple(dead)
        args: list[Any] = [self._membership.node, TALLY_LIFETIME, len(known), *known]
        for claim in claims:
            args += (claim.kind, claim.held, claim.wanted, claim.most)
        try:
            given, others = await self._scripts.call("tally", keys, *args)
        except Exception as exc:
            error = unavailable(exc)
            if error is None:
                raise
            self._parts.note(keys[0], exc)
            raise error from None  # what it quotes may be an address with a password
        return given, [NodeId(node.decode()) for node in others]
