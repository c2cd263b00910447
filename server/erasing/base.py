"""What it means to erase a user's data, whatever keeps it.

All that had begun by the moment in which it is asked for goes; what begins later is theirs anew, and stays.
It may be repeated, and is to be until nothing is left: something may be out of reach, or too much for once.
Whoever asks again has it gone on with where it has got to, and as of the moment in which it was asked for
first: the index keeps that until nothing is left.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Final, Protocol

import structlog

from unbroken.server.auth.principal import Principal
from unbroken.sessions.backends.index import Asked, SessionIndex
from unbroken.sessions.clock import Clock
from unbroken.sessions.errors import StoreUnavailable

__all__ = ["Eraser", "Erasure", "Progress", "Report", "Unerased"]

_PATIENCE: Final = 30.0
"""Seconds that one call takes at most: proxies cut what is silent for a minute."""

_ASKED_AGAIN: Final = 3600_000
"""Milliseconds after which who asks again means another moment, though something was left."""


class Unerased(Exception):
    """Something is out of reach, or too much for once, and maybe still there: ask again."""


@dataclass(slots=True)
class Progress:
    """How far one eraser has got. It says so while it is at it, as it may be cut off at any time."""

    erased: int = 0
    """How many, in this call."""
    looked_at: int | None = None
    """How many there are of which it is known by now whose they are, in this call and those before; None:
    all of what is the user's is listed.
    """


class Eraser(Protocol):
    """Erases what one part of the server keeps of users."""

    @property
    def what(self) -> str:
        """What it erases, in the plural, as reports say it."""

    async def erase(self, whose: Principal, at: int, progress: Progress, *, is_thorough: bool) -> None:
        """Erase what of *whose* had begun by then, in milliseconds since 1970, and say so in *progress*.

        May be cancelled, and repeated. *is_thorough*: an operator asks, so that it may look through all that
        there is; else only where it knows that something of theirs is.

        Raises:
            Unerased: Something may be left.

        """


@dataclass(frozen=True, slots=True)
class Report:
    """What was erased."""

    erased: dict[str, int]
    """How many of what."""
    left: tuple[str, ...]
    """Of what something may be left: ask again."""
    looked_at: int | None = None
    """Where all sessions are looked through, and not all were yet: how many were, by those who asked before
    too.
    """


class Erasure:
    """Has everything of a user's erased by all that keep something.

    Args:
        erasers: These, in the order in which they are asked.
        index: Where it is kept what is asked for and isn't over.
        clock: Where time comes from.

    """

    def __init__(self, erasers: Sequence[Eraser], index: SessionIndex, clock: Clock) -> None:
        self._erasers = tuple(erasers)
        self._index = index
        self._clock = clock

    async def erase(self, whose: Principal, *, is_thorough: bool = False) -> Report:
        """Erase what of *whose* there is, and say what was, and what may be left. Never fails otherwise.

        Who asks again after something was left, within an hour, means what had begun when it was first asked
        for: what began since stays.
        """
        try:
            at = await self._asked_at(whose, is_thorough=is_thorough)
        except StoreUnavailable:  # nobody knows which moment is meant, so that nothing is touched
            return Report({}, tuple(eraser.what for eraser in self._erasers))
        report = await self._erase(whose, at, is_thorough=is_thorough)
        if not report.left:
            with suppress(StoreUnavailable):  # then it is forgotten by itself
                await self._index.note_asked(whose.id, None, is_thorough=is_thorough)
        structlog.get_logger().info("data erased", principal=whose.id, left=report.left, **report.erased)
        return report

    async def _asked_at(self, whose: Principal, *, is_thorough: bool) -> int:
        """Return the moment that is meant, in milliseconds since 1970, and keep it for who asks again."""
        now = at = int(1000 * self._clock.time())
        asked = await self._index.asked(whose.id, is_thorough=is_thorough)
        if asked is not None and now - asked.noted_at <= _ASKED_AGAIN:
            at = asked.at
        await self._index.note_asked(whose.id, Asked(at=at, noted_at=now), is_thorough=is_thorough)
        return at

    async def _erase(self, whose: Principal, at: int, *, is_thorough: bool) -> Report:
        erased: dict[str, int] = {}
        left: list[str] = []
        looked_at: int | None = None
        loop = asyncio.get_running_loop()
        end = loop.time() + _PATIENCE
        for waiting, eraser in zip(range(len(self._erasers), 0, -1), self._erasers, strict=True):
            progress = Progress()
            try:
                # What one leaves of its share, those behind it have.
                async with asyncio.timeout((end - loop.time()) / waiting):
                    await eraser.erase(whose, at, progress, is_thorough=is_thorough)
                erased[eraser.what] = progress.erased
            except (TimeoutError, Unerased):
                left.append(eraser.what)
                if progress.erased:
                    erased[eraser.what] = progress.erased
                looked_at = looked_at if progress.looked_at is None else progress.looked_at
        return Report(erased, tuple(left), looked_at)
