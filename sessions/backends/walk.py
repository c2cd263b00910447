"""All sessions that a store has, looked through from one end to the other, in stretches.

It may take long, and be cut off anywhere: whoever notes the place behind a stretch goes on there, also in
another process. A session that is there from the beginning to the end is in some stretch; it may be in more
than one, and one that was deleted may be, too.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable
from typing import NamedTuple, TypeAlias

from unbroken.sessions.ids import SessionId

__all__ = ["Stretch", "WalkThrough"]


class Stretch(NamedTuple):
    """Some sessions that are there."""

    session_ids: tuple[SessionId, ...]
    place: str
    """Behind them. It means something to the store alone."""


WalkThrough: TypeAlias = Callable[[str], AsyncGenerator[Stretch, None]]
"""Yields what is behind a place; an empty one is the beginning.

Raises:
    StoreUnavailable: A part of the store can't be looked through now. The others were.
"""
