"""What counts, as the settings say: by itself, or with all nodes that share a Redis."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence

from unbroken.server.auth.directory import Directory
from unbroken.server.config import Settings, StartupError
from unbroken.server.metrics import Metrics
from unbroken.server.plan_tables import modes_of
from unbroken.server.quota.base import Ledger
from unbroken.server.quota.gate import Gate
from unbroken.server.quota.memory import MemoryLedger
from unbroken.server.quota.plans import Plans
from unbroken.server.quota.prices import Price, Prices, shipped
from unbroken.server.quota.sheltered import ShelteredLedger
from unbroken.sessions.clock import Clock
from unbroken.sessions.ids import ResponseId, SessionId

__all__ = ["build_gate"]


def build_gate(
    settings: Settings,
    shared: Ledger | None,
    directory: Directory,
    models: Iterable[str],
    clock: Clock,
    metrics: Metrics,
    waiting: Callable[[SessionId], Sequence[ResponseId]],
) -> Gate | None:
    """Return what holds the quotas of *settings*. None: there are none.

    *shared*: what all nodes count in; None: there is but this one. *waiting*: as the gate takes it.

    Raises:
        StartupError: A plan bounds cost, and one of *models* has no price.

    """
    modes = modes_of(settings.quota_mode)
    if set(modes.values()) == {"off"} or not settings.quotas:
        return None
    own = {name: Price.of(row.input, row.output, row.cached) for name, row in settings.prices.items()}
    prices, plans = Prices(shipped() | own), Plans(settings.quotas, modes)
    unpriced = [name for name in models if prices.find(name) is None]
    if plans.count_money and unpriced:
        raise StartupError(
            f"A plan in UNBROKEN_QUOTAS bounds cost, and {unpriced[0]} has no price. Give it one in "
            f"unbroken.toml: [prices.{json.dumps(unpriced[0])}] with input and output, "
            "what a million tokens cost."
        )
    alone = metrics.quota_decisions.labels("alone").inc
    ledger: Ledger
    if shared is None:
        ledger = MemoryLedger(clock)
    else:
        ledger = ShelteredLedger(shared, clock, alone, is_strict=settings.quota_strict)
    return Gate(
        ledger,
        plans,
        prices,
        directory,
        clock,
        metrics,
        is_strict=settings.quota_strict,
        waiting=waiting,
    )
