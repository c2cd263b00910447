"""What is noted of sessions, beside their logs: written by the scripts that write those, and read alone."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

import msgspec

from unbroken.sessions.ids import SessionId

__all__ = ["noted", "noted_of"]


def noted(metadata: Mapping[str, str] | None) -> str | None:
    """Return what is noted of a session as the scripts take it; None: nothing is said of it."""
    return None if metadata is None else msgspec.json.encode(metadata).decode()


async def noted_of(
    calls: Sequence[Sequence[SessionId]], read: Callable[[Sequence[SessionId]], Awaitable[Sequence[Any]]]
) -> dict[SessionId, Mapping[str, str] | None]:
    """Return what *read* finds noted of the sessions of each of *calls*; None of those that have gone.

    Raises:
        StoreUnavailable: One of them can't be had. None is under way any more.

    """
    found: dict[SessionId, Mapping[str, str] | None] = {}
    answers = await asyncio.gather(*map(read, calls), return_exceptions=True)
    for call, answer in zip(calls, answers, strict=True):
        if isinstance(answer, BaseException):
            raise answer
        found.update(zip(call, map(_metadata, answer), strict=True))
    return found


def _metadata(answer: bytes | None) -> Mapping[str, str] | None:
    if answer is None:
        return None
    return msgspec.json.decode(answer, type=dict[str, str]) if answer else {}
