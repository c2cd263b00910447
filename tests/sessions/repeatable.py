"""Makes what is drawn, minted and timed the same each time, so that a walk at random can be made again."""

from __future__ import annotations

import asyncio
import random
import secrets
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch

__all__ = ["StillLoop", "run_still"]


class StillLoop(asyncio.SelectorEventLoop):
    """A loop whose time stands still: until it is moved, or nothing is left to do but wait for it."""

    def __init__(self) -> None:
        self._now = 0.0
        super().__init__()
        select: Callable[[float | None], Any] = self._selector.select  # type: ignore[attr-defined]

        def skip(timeout: float | None = None) -> Any:
            assert timeout is not None, "everything waits, and for nothing that could come"
            self._now += timeout
            return select(0)

        self._selector.select = skip  # type: ignore[attr-defined]

    def time(self) -> float:
        return self._now

    def advance(self, seconds: float) -> None:
        """Move its time on. What is due then is called when the loop has its turn."""
        self._now += seconds


@contextmanager
def _drawn(seed: int) -> Iterator[None]:
    """Have ids, and whatever draws without a seed of its own, follow from *seed*."""
    draw = random.Random(seed)

    class Drawn(random.Random):
        def __init__(self, seed: Any = None) -> None:
            super().__init__(draw.getrandbits(64) if seed is None else seed)

    def token_hex(count: int) -> str:
        return f"{draw.getrandbits(8 * count):0{2 * count}x}"

    with patch.object(secrets, "token_hex", token_hex), patch.object(random, "Random", Drawn):
        yield


def run_still(work: Callable[[], Coroutine[Any, Any, None]], seed: int) -> None:
    """Run *work* on a :class:`StillLoop`, with all that is drawn in it following from *seed*."""
    with _drawn(seed), asyncio.Runner(loop_factory=StillLoop) as runner:
        runner.run(work())
