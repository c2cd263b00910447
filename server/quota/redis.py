"""Quotas that nodes share in Redis: one script takes one decision, on keys of one hash slot."""

from __future__ import annotations

import asyncio
import builtins
import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, Final, cast

from unbroken.server.quota.base import (
    CODES,
    KEPT,
    LAPSES,
    RECORDS,
    RECORDS_KEPT,
    RECORDS_OF_USER,
    TURNS,
    Amount,
    Decision,
    Limits,
    Scope,
    Standing,
    UsageRecord,
    record_fields,
)
from unbroken.sessions.backends.redis.connection import Client, server_of, unavailable
from unbroken.sessions.backends.redis.parts import Parts
from unbroken.sessions.backends.redis.scripts import Caller, Scripts
from unbroken.sessions.errors import StoreUnavailable

__all__ = ["RedisLedger"]

_AT_ONCE: Final = 4
"""Calls under way, to each server. The client's pool is shared with sessions: whoever asks for a turn waits
for its place."""

_LONGER: Final = 1.25
"""Times as long as for an answer is waited for one's turn, so that who waits behind calls that nobody answers
gets to know of that, not that this node asked too much."""

_PAGE: Final = 500


class _Patient:
    """A caller whose answers are waited for so long. Not one's turn: that says nothing of the server."""

    def __init__(self, caller: Caller, patience: float) -> None:
        self._caller = caller
        self._patience = patience

    async def evalsha(self, sha: str, numkeys: int, *keys_and_args: Any) -> Any:
        async with asyncio.timeout(self._patience):
            return await self._caller.evalsha(sha, numkeys, *keys_and_args)

    async def eval(self, script: str, numkeys: int, *keys_and_args: Any) -> Any:
        async with asyncio.timeout(self._patience):
            return await self._caller.eval(script, numkeys, *keys_and_args)


class RedisLedger:
    """A :class:`~unbroken.server.quota.base.Ledger` in Redis.

    Args:
        client: How it is reached. The caller's, to close.
        prefix: What all keys begin with.
        patience: Seconds without an answer after which it counts as out of reach.
        turn_patience: Seconds that a call waits for its turn behind others of this node. None: a fourth more.
        now: Where time comes from, for tests. None: the server's own clock, one for all nodes.

    """

    def __init__(
        self,
        client: Client,
        prefix: str,
        *,
        patience: float = 2.0,
        turn_patience: float | None = None,
        now: Any = None,
    ) -> None:
        self._client: Any = client
        self._scripts = Scripts(
            _Patient(cast(Caller, client), patience),
            _AT_ONCE,
            _LONGER * patience if turn_patience is None else turn_patience,
            package="unbroken.server.quota",
            names=("ledger",),
            server_of=partial(server_of, client),
        )
        self._parts = Parts(client)
        self._prefix = prefix
        self._patience = patience
        self._now = now

    def _base(self, tenant: str) -> str:
        return f"{self._prefix}:{{q:{_digest(tenant)}}}:"

    def part_of(self, tenant: str) -> str:
        """See :meth:`Ledger.part_of`."""
        return self._parts.of(self._base(tenant) + "o")

    async def reserve(
        self,
        tenant: str,
        turn: str,
        scopes: Sequence[Scope],
        limits: Limits,
        amount: Amount,
        *,
        lifetime: float,
        enforce: bool = True,
    ) -> Decision:
        """See :meth:`Ledger.reserve`."""
        given = _asked(turn, scopes, limits, amount, lifetime, enforce=enforce)
        return _decision(await self._call("reserve", tenant, given))

    async def hold(
        self,
        tenant: str,
        turn: str,
        scopes: Sequence[Scope],
        limits: Limits,
        amount: Amount,
        *,
        lifetime: float,
        enforce: bool = True,
        as_new: bool = False,
    ) -> Decision:
        """See :meth:`Ledger.hold`."""
        given = _asked(turn, scopes, limits, amount, lifetime, enforce=enforce) | {"as_new": as_new}
        return _decision(await self._call("hold", tenant, given))

    async def keep(self, tenant: str, turn: str, *, lifetime: float) -> None:
        """See :meth:`Ledger.keep`."""
        await self._call("keep", tenant, {"turn": turn, "lifetime": lifetime})

    async def settle(
        self, tenant: str, turn: str, scopes: Sequence[Scope], used: Amount, record: UsageRecord | None
    ) -> bool:
        """See :meth:`Ledger.settle`."""
        given = _asked(turn, scopes, {}, used, 0, enforce=False)
        if record is not None:
            given |= {"record": json.dumps(record_fields(record)), "user": _digest(record.user)}
        given |= {"kept": KEPT, "records": RECORDS, "records_of_user": RECORDS_OF_USER}
        given["record_lifetime"] = RECORDS_KEPT
        return bool(await self._call("settle", tenant, given))

    async def release(self, tenant: str, turn: str) -> None:
        """See :meth:`Ledger.release`."""
        await self._call("release", tenant, {"turn": turn})

    async def look(self, tenant: str, scopes: Sequence[Scope]) -> list[Mapping[str, int]]:
        """See :meth:`Ledger.look`."""
        flat = await self._call("look", tenant, {"scopes": [scope.key for scope in scopes]})
        width = len(CODES) + 1
        rows = [flat[at : at + width] for at in range(0, len(flat), width)]
        return [dict(zip((*CODES, TURNS), map(int, row), strict=True)) for row in rows]

    async def standings(self, tenant: str, scopes: Sequence[Scope], limits: Limits) -> tuple[Standing, ...]:
        """See :meth:`Ledger.standings`."""
        given = _asked("", scopes, limits, Amount(), 0, enforce=False)
        return _decision(await self._call("standings", tenant, given)).standings

    async def records(self, tenant: str, most: int, user: str | None = None) -> list[UsageRecord]:
        """See :meth:`Ledger.records`."""
        if user is not None:
            given = {"user": _digest(user), "most": min(most, RECORDS_OF_USER)}
            return [_record(data) for data in await self._call("records", tenant, given)]
        found: list[UsageRecord] = []
        latest = "+"
        while wanted := min(_PAGE, most - len(found)):
            page = await self._read(self._base(tenant) + "l", latest, wanted)
            found += (_record(fields[b"r"]) for _, fields in page)
            if len(page) < wanted:
                break
            latest = "(" + page[-1][0].decode()
        return found

    async def aclose(self) -> None:
        """See :meth:`Ledger.aclose`. The client is its caller's."""

    async def _read(self, key: str, latest: str, most: int) -> list[tuple[bytes, dict[bytes, bytes]]]:
        try:
            async with asyncio.timeout(self._patience):
                page: list[tuple[bytes, dict[bytes, bytes]]] = await self._client.xrevrange(
                    key, latest, "-", count=most
                )
        except Exception as exc:  # noqa: BLE001 - the boundary: what it is decides what it becomes
            raise self._failure(key, exc) from None
        return page

    async def _call(self, op: str, tenant: str, given: dict[str, Any]) -> Any:
        base = self._base(tenant)
        given |= {"prefix": base, "lapses": LAPSES}
        if self._now is not None:
            given["now"] = self._now()
        try:
            return await self._scripts.call("ledger", [base + "o", base + "l"], op, json.dumps(given))
        except Exception as exc:  # noqa: BLE001 - the boundary: what it is decides what it becomes
            raise self._failure(base + "o", exc) from None  # what it quotes may be an address with a password

    def _failure(self, key: str, exc: Exception) -> Exception:
        self._parts.note(key, exc)
        if isinstance(exc, builtins.TimeoutError):
            return StoreUnavailable("no answer in time")
        return unavailable(exc) or exc


def _digest(name: str) -> str:
    """Return one word for a tenant or a user, whatever they are called: of tenants, it is the hash tag."""
    return hashlib.sha256(name.encode("utf-8", "surrogatepass")).hexdigest()[:32]


def _asked(
    turn: str, scopes: Sequence[Scope], limits: Limits, amount: Amount, lifetime: float, *, enforce: bool
) -> dict[str, Any]:
    return {
        "turn": turn,
        "scopes": [scope.key for scope in scopes],
        "limits": {kind: list(row.items()) for kind, row in limits.items()},
        "tokens": amount.tokens,
        "cost": amount.cost,
        "lifetime": lifetime,
        "enforce": enforce,
    }


def _record(data: bytes) -> UsageRecord:
    """Read a record, which a node of another release may have written: what isn't known here is left out."""
    given = json.loads(data)
    return UsageRecord(**{name: given[name] for name in UsageRecord.__slots__ if name in given})


def _decision(answer: list[Any]) -> Decision:
    state, denied, milliseconds, *flat = answer
    standings = tuple(
        Standing(
            Scope(kind.decode(), key.decode()[2:]), code.decode(), int(limit), int(used), max(0, reset) / 1000
        )
        for kind, key, code, limit, used, reset in zip(*(flat[at::6] for at in range(6)), strict=True)
    )
    return Decision(
        standings,
        standings[denied - 1] if denied else None,
        math.inf if milliseconds < 0 else milliseconds / 1000,
        is_new=state != b"known",
    )
