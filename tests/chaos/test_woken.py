"""A node that wakes when it has been replaced, and whose time-outs are due before it has heard of that."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import Final

import pytest

from tests.chaos.cluster import cluster_of
from tests.chaos.words import prompt
from tests.server.realtime.client import Client

pytestmark = [pytest.mark.slow, pytest.mark.timeout(120)]

_SETTINGS: Final = {"UNBROKEN_STALL_TIMEOUT": "5", "UNBROKEN_LEAKS": "off"}
"""Shorter than it takes until a frozen node is replaced."""


async def test_a_node_that_wakes_leaves_the_answer_to_whoever_goes_on_with_it(tmp_path: Path) -> None:
    async with cluster_of(
        tmp_path, nodes=2, agent="upstream", settings=_SETTINGS, has_proxies=False
    ) as cluster:
        one, two = cluster.nodes
        client = Client(one.port, "alice", None)
        await client.connect(headers=None)
        await client.ask(prompt("woken", 180, 0.1))
        await client.until("response.output_text.delta")
        one.signal(signal.SIGSTOP)
        await client.drop()
        client.port = two.port
        await client.resume()
        while "woken.110." not in client.text():  # far behind what the log held
            await client.next()
        one.signal(signal.SIGCONT)
        done = await client.done()
        await client.close()

        assert done["status"] == "completed"
        assert cluster.upstream is not None
        assert cluster.upstream.cancelled == []
