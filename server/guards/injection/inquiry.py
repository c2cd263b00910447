"""What came in at once, to be looked at together."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from unbroken.server.guards.injection.base import Origin, Passage
from unbroken.server.guards.injection.policy import Policy
from unbroken.server.guards.injection.windows import PART
from unbroken.sessions.ids import SessionId

__all__ = ["Inquiry", "bundled"]

_MOST_PASSAGES: Final = 8
"""Passages of one input that are looked at each by itself."""


@dataclass(frozen=True, slots=True)
class Inquiry:
    """Passages of one input, and what matters for a verdict on them."""

    passages: Sequence[Passage]
    """At least one."""
    before: str
    """What the same speaker said that stands in front of it."""
    policy: Policy
    session_id: SessionId
    after: str = ""
    """What the same speaker said that stands behind it."""

    def parts(self) -> int:
        """Return in how many parts it is looked at, at least: what it costs."""
        return sum(1 + len(each.text) // PART for each in self.passages)

    def digest(self) -> bytes:
        """Return what tells it from any other, but not what was said: the policy does, too."""
        digest = hashlib.blake2b(self.session_id.encode(), digest_size=16)
        digest.update(repr(self.policy).encode())
        for said in (self.before, self.after):
            digest.update(f"\0{len(said)}\0{said}".encode("utf-8", "surrogatepass"))
        for passage in self.passages:
            text = passage.text.encode("utf-8", "surrogatepass")
            digest.update(f"\0{passage.origin.value}\0{len(text)}\0".encode())
            digest.update(text)
        return digest.digest()


def bundled(passages: list[Passage]) -> list[Passage]:
    """Return *passages*, or where they are many, those of each origin as one: each by itself has its cost."""
    if len(passages) <= _MOST_PASSAGES:
        return passages
    together: dict[Origin, list[Passage]] = {}
    for passage in passages:
        together.setdefault(passage.origin, []).append(passage)
    return [
        Passage(origin, "\n".join(each.text for each in those), (those[0].param or "").partition("[")[0])
        for origin, those in together.items()
    ]
