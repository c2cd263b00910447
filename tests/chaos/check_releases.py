"""Nodes of two releases, as processes: forwards, and all the way back, while people are being answered."""

from __future__ import annotations

import asyncio
import random
from pathlib import Path
from typing import Any, Final

import pytest
from redis.asyncio import Redis

from tests.chaos.cluster import Cluster, cluster_of
from tests.chaos.run import check_all
from tests.chaos.speaker import Manner, Speaker
from unbroken.sessions.backends.redis.keys import Keys

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

NEXT: Final = "tests.chaos.next_release"
CLIENTS: Final = 8
PATIENCE: Final = 60


async def until_range(cluster: Cluster, *expected: int) -> None:
    """Return when so is written: the format, and from which to which something may be there."""
    client: Any = Redis.from_url(cluster.valkey.url)
    try:
        async with asyncio.timeout(PATIENCE):
            found: list[int] = []
            while found != list(expected):
                found = [
                    int(each or 0) for each in await client.hmget(Keys("unbroken").formats, "w", "l", "h")
                ]
    finally:
        await client.aclose()


async def all_answered(speakers: list[Speaker]) -> None:
    for speaker in speakers:
        speaker.answered.clear()
    async with asyncio.timeout(PATIENCE):
        for speaker in speakers:
            await speaker.answered.wait()


async def roll(cluster: Cluster, speakers: list[Speaker]) -> None:
    """Go to the next release, and back to this one."""
    one, two = cluster.nodes
    await one.replace(NEXT)
    await all_answered(speakers)
    await until_range(cluster, 1, 1, 1)
    await two.replace(NEXT)
    await until_range(cluster, 2, 2, 2)
    await all_answered(speakers)
    await one.replace(NEXT, UNBROKEN_STORE_FORMAT="1")
    await until_range(cluster, 1, 1, 1)
    await two.replace(None)
    await all_answered(speakers)
    await one.replace(None)
    await all_answered(speakers)


async def test_a_release_comes_and_goes_and_no_word_is_lost(tmp_path: Path) -> None:
    draw = random.Random(0)
    settings = {"UNBROKEN_DRAIN_TIMEOUT": "20"}
    async with cluster_of(tmp_path, nodes=2, settings=settings) as cluster:
        speakers = [
            Speaker(f"s{number}", cluster.place(random.Random(number)), draw, Manner(words=20, pause=0.02))
            for number in range(CLIENTS)
        ]
        talking = [asyncio.create_task(speaker.speak()) for speaker in speakers]
        try:
            await all_answered(speakers)
            await roll(cluster, speakers)
            for speaker in speakers:
                speaker.is_over = True
                speaker.may_leave.set()
            async with asyncio.timeout(PATIENCE):
                await asyncio.gather(*talking)
        finally:
            for task in talking:
                task.cancel()
            await asyncio.gather(*talking, return_exceptions=True)
        for node in cluster.nodes:  # not at once: what one passes on, the other still takes
            await node.terminate()
        logs = await cluster.logs()
        left = {node.node_id() for node in cluster.nodes} - {""}
        said = "".join(node.log.read_text() for node in cluster.nodes)

    assert check_all([each.witness() for each in speakers], logs, left=left, may_lose=False) == []
    assert {status for speaker in speakers for status in speaker.ended} == {"completed"}
    assert {code for speaker in speakers for history in speaker.histories for code in history.codes()} == {
        1012
    }
    assert said.count('"sessions are in one format"') >= 2
    for trouble in (
        "can't be read",
        "format not read",
        "session lost",
        "session crashed",
        "membership failed",
    ):
        assert trouble not in said
