"""What every memory of suspicions must do. Subclass, and provide ``nodes``: two views of one."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import pytest

from unbroken.server.guards.injection.suspicion import HALF_LIFE, MOST, Suspicion
from unbroken.sessions.ids import SessionId

__all__ = ["ONE", "Nodes", "SuspicionContract"]

ONE, OTHER = SessionId("sess_one"), SessionId("sess_other")


@dataclass(frozen=True, slots=True)
class Nodes:
    here: Suspicion
    there: Suspicion
    advance: Callable[[SessionId, float], Awaitable[None]]
    """Have so many seconds go by for a session."""


class SuspicionContract:
    """Run over each implementation."""

    async def test_what_was_before_is_returned(self, nodes: Nodes) -> None:
        assert await nodes.here.add(ONE, 0.5) == 0
        assert await nodes.here.add(ONE, 0.25) == pytest.approx(0.5, abs=0.01)
        assert await nodes.here.add(ONE, 0.0) == pytest.approx(0.75, abs=0.01)

    async def test_it_goes_with_the_session_from_node_to_node(self, nodes: Nodes) -> None:
        await nodes.here.add(ONE, 0.5)

        assert await nodes.there.add(ONE, 0.5) == pytest.approx(0.5, abs=0.01)
        assert await nodes.here.add(ONE, 0.0) == pytest.approx(1.0, abs=0.01)

    async def test_sessions_are_told_apart(self, nodes: Nodes) -> None:
        await nodes.here.add(ONE, 1.0)

        assert await nodes.here.add(OTHER, 1.0) == 0

    async def test_half_of_it_is_forgotten_in_time(self, nodes: Nodes) -> None:
        await nodes.here.add(ONE, 1.0)
        await nodes.advance(ONE, HALF_LIFE)
        assert await nodes.there.add(ONE, 0.0) == pytest.approx(0.5, abs=0.01)
        await nodes.advance(ONE, 20 * HALF_LIFE)
        assert await nodes.here.add(ONE, 0.0) < 0.001

    async def test_it_is_bounded(self, nodes: Nodes) -> None:
        for _ in range(10):
            await nodes.here.add(ONE, 1.0)

        assert await nodes.there.add(ONE, 0.0) == pytest.approx(MOST, abs=0.01)
