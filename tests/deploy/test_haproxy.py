"""Nodes behind the HAProxy that deploy/haproxy/ configures."""

from __future__ import annotations

import re
import shutil
import signal
import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.deploy.balanced import ROOT, Balanced, Program
from tests.deploy.balancer_contract import CheckingBalancerContract

pytestmark = [pytest.mark.slow, pytest.mark.timeout(120)]

CONFIG = ROOT / "deploy" / "haproxy" / "haproxy.cfg"


def haproxy() -> str:
    found = shutil.which("haproxy")
    if found is None:
        raise RuntimeError("The configuration is tested with the real program: sudo apt-get install haproxy")
    return found


def settings_of(port: int, nodes: Sequence[int]) -> dict[str, str]:
    named = {f"UNBROKEN_NODE_{number + 1}": f"127.0.0.1:{nodes[number % len(nodes)]}" for number in range(3)}
    return {"UNBROKEN_BIND": f"127.0.0.1:{port}", **named}


class HAProxy(Program):
    config = CONFIG.name
    renewing = signal.SIGUSR2

    def prepare(self, folder: Path, port: int, nodes: Sequence[int]) -> tuple[list[str], dict[str, str]]:
        text = CONFIG.read_text()
        front = "    default_backend nodes\n"
        changes = {
            "timeout tunnel 120s": "timeout tunnel 2s",
            "timeout http-request 5s": "timeout http-request 1s",
            front: f"{front}    http-response set-header x-node %si:%sp\n",
        }
        for before, after in changes.items():
            assert text.count(before) == 1
            text = text.replace(before, after)
        config = folder / "haproxy.cfg"
        config.write_text(text)
        return [haproxy(), "-W", "-db", "-f", str(config)], settings_of(port, nodes)


def test_the_configuration_is_valid() -> None:
    command = [haproxy(), "-c", "-f", str(CONFIG)]
    checked = subprocess.run(
        command, env=settings_of(8080, [1, 2, 3]), capture_output=True, text=True, check=False
    )
    assert checked.returncode == 0, checked.stdout + checked.stderr
    assert "warning" not in (checked.stdout + checked.stderr).lower()


class TestHAProxy(CheckingBalancerContract):
    program = HAProxy()
    idle_timeouts = tuple(
        float(seconds)
        for seconds in re.findall(r"timeout (?:tunnel|client|server) (\d+)s", CONFIG.read_text())
    )

    async def test_a_frozen_node_is_left_and_comes_back_as_a_follower(self, balanced: Balanced) -> None:
        """The balancer cuts its connections; its sessions are taken when its lease has run out."""
        talk = await balanced.answering()
        first = balanced.number_of(talk)
        balanced.nodes.freeze(first)
        try:
            await talk.until(lambda: bool(talk.endings))
        finally:
            balanced.nodes.thaw(first)

        assert balanced.number_of(talk) != first
        assert talk.endings == ["failed"]
        assert talk.words_are_whole()
        await talk.ask("/say not twice")
        await talk.until(lambda: len(talk.endings) == 2)
        await talk.close()
        assert talk.text.endswith("not twice")
        assert talk.endings[1] == "completed"
