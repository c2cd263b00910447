"""Log lines without what nobody has to read there. Pure."""

from __future__ import annotations

from typing import Final

from unbroken.server.guards.leaks.entities import Actions
from unbroken.server.guards.leaks.scanner import Scanner
from unbroken.server.guards.leaks.stream import LeakFilter
from unbroken.server.leak_settings import Entity

__all__ = ["LineFilter"]

_ACTIONS: Final[Actions] = {
    "secret": "redact",
    "card": "redact",
    "iban": "redact",
    "national_id": "redact",
    "email": "redact",
    "phone": "redact",
    # Whoever runs a server has to see where requests come from.
    "ip": "ignore",
}


class LineFilter:
    """Takes secrets and personal data out of a text. It never fails, and takes linear time.

    Whatever the settings say of answers: a line in a log is read by others, and kept for longer.
    """

    def __init__(self) -> None:
        self._scanner = Scanner(_ACTIONS)

    def __call__(self, text: str) -> str:
        """Return *text* with the kind of what was found in its place."""
        stream = LeakFilter(self._scanner, _ACTIONS, _named)
        return stream.feed(text) + stream.flush()


def _named(entity: Entity, known_by: str) -> str:  # noqa: ARG001 - lines of several sessions aren't to be linked by it
    return f"[{entity.replace('_', ' ')}]"
