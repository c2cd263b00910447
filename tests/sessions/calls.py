"""Calls of stores that a walk at random holds: some come late, some fail, and all of a node's stand still."""

from __future__ import annotations

import asyncio
import functools
import random
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from tests.fakes.store import DistantStore
from unbroken.sessions.errors import StoreUnavailable

__all__ = ["Calls"]


class Calls:
    """Calls of stores, of which some are held: before anything is done or when it is. Some of these fail.

    Args:
        draw: Decides which.
        names: What may be held. Writes always may be, and of the rest some, on each walk others.
        note: Told of each that is held.
        on_late: Called before something is done that is heard of late.

    """

    def __init__(
        self,
        draw: random.Random,
        names: Sequence[str],
        note: Callable[[str], None],
        on_late: Callable[[], None] = lambda: None,
    ) -> None:
        self._draw = draw
        self._note = note
        self._on_late = on_late
        self._share = draw.choice([0.05, 0.15, 0.3])
        self._known = names
        self._names = {"append", *(name for name in names if draw.random() < 0.5)}
        self._held: list[asyncio.Event] = []
        self._standing: dict[DistantStore, asyncio.Event] = {}
        self.is_calm = True
        """Whether none is held from now on."""

    def __len__(self) -> int:
        """How many are held."""
        return len(self._held)

    def may_hold(self, store: DistantStore) -> None:
        """Have calls of *store* be among them."""
        for name in self._known:
            setattr(store, name, functools.partial(self._call, store, name, getattr(store, name)))

    def let_go(self) -> None:
        """Let one go on."""
        self._held.pop(self._draw.randrange(len(self._held))).set()

    def let_all_go(self) -> None:
        while self._held:
            self.let_go()

    def stand_still(self, store: DistantStore) -> None:
        """Let no call of *store* begin, and none come back, as on a node that is frozen."""
        self._standing[store] = asyncio.Event()

    def go_on(self, store: DistantStore) -> None:
        """Let them again."""
        self._standing.pop(store).set()

    async def _call(
        self, store: DistantStore, name: str, call: Callable[..., Awaitable[Any]], *args: Any, **options: Any
    ) -> Any:
        await self._wait(store)
        try:
            return await self._held_call(name, call, *args, **options)
        finally:
            await self._wait(store)

    async def _wait(self, store: DistantStore) -> None:
        while (event := self._standing.get(store)) is not None:
            await event.wait()

    async def _held_call(
        self, name: str, call: Callable[..., Awaitable[Any]], *args: Any, **options: Any
    ) -> Any:
        if self.is_calm or name not in self._names or self._draw.random() >= self._share:
            return await call(*args, **options)
        is_early, fails = self._draw.random() < 0.3, self._draw.random() < 0.3
        self._note(f"hold {name}{' before it is done' if is_early else ''}{', to fail' if fails else ''}")
        go = asyncio.Event()
        self._held.append(go)
        if is_early:
            await go.wait()
            if fails:
                raise StoreUnavailable
            return await call(*args, **options)
        self._on_late()
        try:
            result = await call(*args, **options)
        finally:
            await go.wait()  # bad news are late too
        if fails:
            raise StoreUnavailable
        return result
