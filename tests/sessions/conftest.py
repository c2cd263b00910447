"""What tests of the sessions share."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from tests.sessions.running import Bench


@pytest.fixture
async def bench() -> AsyncIterator[Bench]:
    """A run without an actor, that ends with the test."""
    bench = Bench()
    yield bench
    await bench.close()
