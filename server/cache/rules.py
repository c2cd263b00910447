"""What an operator wants of the cache, and who is told what it does."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

from unbroken.server.cache.base import Tier

__all__ = ["CacheObserver", "CacheRules", "Mode"]

Mode: TypeAlias = Literal["off", "shadow", "on"]
"""Shadow: look and compare, and have the agent answer all the same."""


def _off() -> Mapping[str, Mode]:
    return {"default": "off"}


class CacheObserver:
    """Told what the cache does. This one does nothing."""

    def hit(self, tier: Tier) -> None:
        """An asker was answered with what another had been."""

    def missed(self, reason: str) -> None:
        """The agent was asked, for this reason."""

    def kept(self, outcome: str) -> None:
        """An answer was ``kept``, or wasn't for this reason."""

    def compared(self, tier: Tier, *, agrees: bool) -> None:
        """What would have been given was compared with what the agent said."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CacheRules:
    """What the operator wants."""

    modes: Mapping[str, Mode] = field(default_factory=_off)
    """By plan; ``default`` is for all others."""
    semantic: Mapping[str, Mode] = field(default_factory=_off)
    """Likewise, of answers that were given to other words."""
    scope: Literal["user", "tenant"] = "user"
    """For whom an answer is good. Whose tenant isn't known is by himself."""
    threshold: float = 0.92
    """The least cosine of two questions that may be one."""
    version: str = ""
    """Another one, and nothing that was kept is found."""
    pace: float = 50.0
    """Pieces a second of an answer that was kept. 0: all at once."""
    is_free: bool = True
    """Whether an answer that was kept costs nothing, or what it cost then."""
    sample: float = 0.02
    """The share of hits whose question the agent is asked all the same, to compare."""
    patience: float = 0.05
    """Seconds that a turn waits for a store, and again for an embedder. Then it is a miss."""

    def mode_of(self, plan: str) -> Mode:
        """Return what the cache does for a plan."""
        return self.modes.get(plan, self.modes["default"])

    def semantic_mode_of(self, plan: str) -> Mode:
        """Return what is done with answers to other words. Never more than with those to the same."""
        mode = self.semantic.get(plan, self.semantic["default"])
        return "shadow" if mode == "on" and self.mode_of(plan) == "shadow" else mode
