"""Which models clients may name."""

from __future__ import annotations

from collections.abc import Sequence

__all__ = ["Models"]


class Models:
    """The configured model, under its own name and as ``default``, and others by an allow-list."""

    def __init__(self, configured: str, others: Sequence[str]) -> None:
        self._configured = configured
        self._offered = frozenset([configured, *others])
        self.names = tuple(dict.fromkeys([configured, "default", *others]))
        """What clients may name, the configured model first, then the name that always stands for it."""

    def resolve(self, wanted: str | None) -> str | None:
        """Return the model that *wanted* stands for; None: it isn't offered."""
        if wanted is None or wanted == "default":
            return self._configured
        return wanted if wanted in self._offered else None
