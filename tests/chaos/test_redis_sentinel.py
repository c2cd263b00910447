"""The store is the server that Sentinels name: it dies under answers, and its replica takes its place."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from tests.chaos.talks import talks
from tests.fakes.valkey import Watchtower
from tests.sessions.backends.redis.acl import allow

pytestmark = [pytest.mark.slow, pytest.mark.timeout(120)]


async def test_a_failover_without_the_tail_costs_no_word_and_is_told(tmp_path: Path) -> None:
    """The replica lacks what everybody was answered last: their nodes give it back."""
    with Watchtower(tmp_path / "servers").running() as watchtower:
        for server in (watchtower.primary, watchtower.replica):
            allow(server, "unbroken", is_redis7=True)
        async with talks(tmp_path, watchtower.url) as seen:
            watchtower.cut_replication()
            await seen.crowd.all_answered()
            watchtower.primary.kill()
            watchtower.replica.thaw()
            await asyncio.to_thread(watchtower.wait_until_promoted)
            await seen.crowd.all_answered()
            assert await seen.violations(may_lose=True) == []

        assert seen.outages(), "those who were being answered were told"
        assert all(told[-1] for told in seen.outages()), "and that it was over"
        assert seen.turns() <= {"completed", "completed when told to start over"}
        assert "log begun anew" in "".join(node.log.read_text() for node in seen.nodes)
        assert watchtower.replica.command("ACL", "LOG") == b"*0\r\n"


async def test_a_primary_that_was_frozen_and_is_back_costs_no_word_and_no_node(tmp_path: Path) -> None:
    """What it takes after that is lost: nodes leave it as soon as the Sentinels say so."""
    with Watchtower(tmp_path / "servers").running() as watchtower:
        for server in (watchtower.primary, watchtower.replica):
            allow(server, "unbroken", is_redis7=True)
        async with talks(tmp_path, watchtower.url) as seen:
            watchtower.primary.freeze()
            await asyncio.to_thread(watchtower.wait_until_promoted)
            watchtower.primary.thaw()
            for _ in range(8):  # by then all have judged who is dead
                await seen.crowd.all_answered()
            assert await seen.violations(may_lose=True) == []

        assert all(told[-1] for told in seen.outages())
        # Unknown: its session changed its owner on the server that was left. The other's word is that of the
        # owner before, so what was asked in between is lost, and whoever asked was told to start over.
        assert seen.turns() <= {"completed", "completed when told to start over", "unknown"}
        assert seen.deaths() == []
