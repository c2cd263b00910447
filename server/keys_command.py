"""``unbroken keys``: makes, lists and revokes API keys where the servers look them up.

::

    Exception
    +-- KeysFailed      it can't be done: one line, with what to do
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

from unbroken.server.auth.key_request import KeyRequest
from unbroken.server.auth.key_store import KeyRecord, KeyStore, KeyStoreFull, KeyStoreUnusable
from unbroken.server.auth_selection import key_store, shared_redis
from unbroken.server.config import Settings, StartupError
from unbroken.server.plan_tables import DEFAULT_PLAN
from unbroken.server.setting_hints import plans_with_rows
from unbroken.server.store_selection import build_store
from unbroken.sessions.errors import StoreUnavailable

__all__ = ["KeysFailed", "create", "listed", "revoke"]

_T = TypeVar("_T")


class KeysFailed(Exception):
    """It can't be done."""


def create(settings: Settings, request: KeyRequest) -> tuple[str, str]:
    """Make a key, and return it and a line about it: also where it is on a plan that settings don't know.

    Raises:
        BadKeyRequest: It can't be had.
        KeysFailed: It can't be kept.

    """
    key, record = request.made(time.time())
    _run(settings, lambda store: store.add(record))
    line = f"It is {record.id}: revoke it with `unbroken keys revoke {record.id}`."
    if record.plan != DEFAULT_PLAN and record.plan not in plans_with_rows(settings):
        line += (
            f" No table of the settings here has a row for the plan {record.plan}: it is as {DEFAULT_PLAN}."
        )
    return key, line


def listed(settings: Settings) -> list[str]:
    """Return a line for each key, under a heading.

    Raises:
        KeysFailed: They can't be read.

    """
    keys = _run(settings, lambda store: store.all())
    rows: list[tuple[str, ...]] = [("ID", "NAME", "TENANT", "USER", "PLAN", "SCOPES", "EXPIRES", "LAST USED")]
    rows += [_row(record, used) for record, used in keys]
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    ]


def revoke(settings: Settings, key_id: str) -> str:
    """Revoke a key, and return a line that says so.

    Raises:
        KeysFailed: There is none, or it can't be.

    """
    if not _run(settings, lambda store: store.revoke(key_id)):
        raise KeysFailed(f"There is no key {key_id[:64]}. `unbroken keys list` shows all.")
    return f"{key_id} is revoked."


def _row(record: KeyRecord, used: float | None) -> tuple[str, ...]:
    return (
        record.id,
        record.name,
        record.tenant,
        record.user or "-",
        record.plan,
        ",".join(record.scopes),
        _moment(record.expires_at, "never"),
        _moment(used, "never"),
    )


def _moment(at: float | None, none: str) -> str:
    return none if at is None else time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(at))


def _run(settings: Settings, act: Callable[[KeyStore], Awaitable[_T]]) -> _T:
    if settings.key_store not in ("file", "redis"):
        raise KeysFailed(
            f"Keys are kept in: {settings.key_store}, where no command finds them. "
            "Set UNBROKEN_KEY_STORE to file or redis, here as for the server."
        )

    async def run() -> _T:
        stored = build_store(settings)
        async with stored.opened():
            redis = None if stored.redis is None else shared_redis(settings, stored.redis)
            store = key_store(settings, redis)
            if store is None:
                raise AssertionError("can't happen: looked at above")
            return await act(store)

    try:
        return asyncio.run(run())
    except (StartupError, StoreUnavailable, KeyStoreUnusable, KeyStoreFull) as exc:
        raise KeysFailed(str(exc)) from None
