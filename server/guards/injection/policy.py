"""What is done about a score: by plan, with the row ``default`` for all that have none of their own."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from unbroken.server.guards.injection.base import Action
from unbroken.server.guards.plan import DEFAULT_PLAN

__all__ = ["Mode", "Policies", "Policy"]

Mode = Literal["off", "shadow", "on"]


@dataclass(frozen=True, slots=True)
class Policy:
    """What holds for one plan."""

    mode: Mode = "on"
    """off: nothing is looked at. shadow: it is, and counted, and everything passes. on: it is acted upon."""
    flag: float = 0.5
    """The least score that is flagged. Up to :attr:`block` is where a heavier detector is asked."""
    block: float = 0.8
    """The least score that is blocked."""

    def action(self, score: float) -> Action:
        """Return what *score* comes to."""
        if score >= self.block:
            return Action.BLOCK
        return Action.FLAG if score >= self.flag else Action.ALLOW


class Policies:
    """Policies by plan."""

    def __init__(self, rows: Mapping[str, Policy] | None = None) -> None:
        self._rows = dict(rows or {})
        self._default = self._rows.get(DEFAULT_PLAN, Policy())

    @property
    def is_off(self) -> bool:
        """Whether nobody's messages are looked at."""
        return self._default.mode == "off" and all(row.mode == "off" for row in self._rows.values())

    @property
    def least(self) -> float:
        """The least score that is flagged by any plan: what is below comes to the same for all."""
        return min(row.flag for row in (self._default, *self._rows.values()))

    def of(self, plan: str) -> Policy:
        """Return what holds for *plan*."""
        return self._rows.get(plan, self._default)
