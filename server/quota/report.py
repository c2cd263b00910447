"""What was used, as HTTP and the command tell it."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any, Final

from unbroken.server.auth.principal import Principal
from unbroken.server.quota.base import (
    CODES,
    TURNS,
    Decision,
    Ledger,
    Scope,
    record_fields,
)
from unbroken.server.quota.gate import Gate
from unbroken.server.quota.refusal import rate_limits
from unbroken.server.quota.reservations import scopes_of

__all__ = ["own_report", "tenant_report"]

_NAMES: Final = {
    "rm": "requests_per_minute",
    "rd": "requests_per_day",
    "tm": "tokens_per_minute",
    "td": "tokens_per_day",
    "cd": "cost_per_day",
    TURNS: "turns",
}


async def own_report(
    gate: Gate, principal: Principal, address: bytes | None, most: int
) -> tuple[dict[str, Any], Decision]:
    """Return what a principal has used, with up to *most* of their turns; and how they stand.

    That is as with a response that they ask for from *address*: with all limits that hold for one.

    Raises:
        StoreUnavailable: It can't be told for the moment.

    """
    limits = gate.plans.holding(principal.plan)
    looked, standings, records = await asyncio.gather(
        gate.ledger.look(principal.tenant, [Scope("u", principal.id)]),
        gate.ledger.standings(principal.tenant, scopes_of(principal, address), limits),
        gate.ledger.records(principal.tenant, most, principal.user),
    )
    standing = Decision(standings)
    body = {
        "object": "usage",
        "plan": principal.plan,
        "usage": _rows(looked[0], limits.get("u", {})),
        "rate_limits": rate_limits(standing),
        "data": [_shown(record_fields(record)) for record in records],
    }
    return body, standing


async def tenant_report(ledger: Ledger, tenant: str, most: int, user: str | None = None) -> dict[str, Any]:
    """Return what a tenant has used, with up to *most* of its turns; or what *user* of it has, with theirs.

    Of somebody whom nobody knows, that is nothing.

    Raises:
        StoreUnavailable: It can't be told for the moment.

    """
    scope = Scope("t") if user is None else Scope("u", Principal(user, tenant).id)
    looked, records = await asyncio.gather(ledger.look(tenant, [scope]), ledger.records(tenant, most, user))
    return {
        "object": "usage",
        "tenant": tenant,
        **({} if user is None else {"user": user}),
        "usage": _rows(looked[0], {}),
        "data": [record_fields(record) for record in records],
    }


def _rows(looked: Mapping[str, int], limits: Mapping[str, int]) -> dict[str, dict[str, int]]:
    """Return used and limit by name. Money is in millionths."""
    return {
        _NAMES[code]: {"used": looked[code]} | ({"limit": limits[code]} if code in limits else {})
        for code in (*CODES, TURNS)
    }


def _shown(fields: dict[str, Any]) -> dict[str, Any]:
    """Leave out what everybody knows of themselves."""
    return {name: value for name, value in fields.items() if name != "user"}
