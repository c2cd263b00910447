"""Nodes behind the nginx that deploy/nginx/ configures."""

from __future__ import annotations

import asyncio
import contextlib
import re
import shutil
import signal
import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest
import websockets

from tests.deploy.balanced import PATIENCE, ROOT, Balanced, Program, Talk
from tests.deploy.balancer_contract import BalancerContract

pytestmark = [pytest.mark.slow, pytest.mark.timeout(120)]

CONFIG = ROOT / "deploy" / "nginx" / "nginx.conf"
PLACES = {f"10.0.0.{number + 5}:8000": number for number in range(3)}


def nginx() -> str:
    found = shutil.which("nginx", path="/usr/sbin:/usr/local/sbin:/usr/bin")
    if found is None:
        raise RuntimeError("The configuration is tested with the real program: sudo apt-get install nginx")
    return found


def configured(folder: Path, port: int, nodes: Sequence[int]) -> list[str]:
    """Write the configuration, at other addresses, and return the command that uses it."""
    text = CONFIG.read_text()
    changes = {
        "listen 80;": f"listen 127.0.0.1:{port};\n        add_header x-node $upstream_addr always;",
        "client_header_timeout 5s": "client_header_timeout 1s",
        "proxy_read_timeout 60s": "proxy_read_timeout 2s",
        "access_log /dev/stdout": f"access_log {folder}/access.log",
        **{place: f"127.0.0.1:{nodes[number % len(nodes)]}" for place, number in PLACES.items()},
    }
    for before, after in changes.items():
        assert text.count(before) == 1
        text = text.replace(before, after)
    kinds = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    temporary = "".join(f"{kind}_temp_path {folder};\n" for kind in kinds)
    (folder / "nginx.conf").write_text(text.replace("http {\n", "http {\n" + temporary))
    end = f"pid {folder}/pid; daemon off;"
    return [nginx(), "-p", str(folder), "-c", str(folder / "nginx.conf"), "-g", end]


class Nginx(Program):
    config = CONFIG.name
    renewing = signal.SIGHUP

    def prepare(self, folder: Path, port: int, nodes: Sequence[int]) -> tuple[list[str], dict[str, str]]:
        return configured(folder, port, nodes), {}


def test_the_configuration_is_valid(tmp_path: Path) -> None:
    command = [nginx(), "-t", "-p", str(tmp_path), "-c", str(CONFIG), "-g", f"pid {tmp_path}/pid;"]
    checked = subprocess.run(command, capture_output=True, text=True, check=False)
    assert checked.returncode == 0, checked.stderr
    assert "[warn]" not in checked.stderr


class TestNginx(BalancerContract):
    program = Nginx()
    idle_timeouts = tuple(
        float(seconds)
        for seconds in re.findall(r"(?:proxy_read|proxy_send|\bsend)_timeout (\d+)s;", CONFIG.read_text())
    )

    async def test_a_frozen_node_is_left_by_asking_for_another(self, balanced: Balanced) -> None:
        """The free nginx asks no node how it is: only what a client asks for can differ."""
        talk = Talk(balanced.port, {"affinity": "mine"})
        await talk.connect()
        first = balanced.number_of(talk)
        await talk.close()
        balanced.nodes.freeze(first)
        with pytest.raises(TimeoutError):
            await Talk(balanced.port, {"affinity": "mine"}).connect_once(patience=1)
        other = Talk(balanced.port, {"affinity": "mine"})
        for number in range(1, 12):
            other.query["try"] = str(number)
            with contextlib.suppress(TimeoutError):
                await other.connect_once(patience=1)
                break
        assert balanced.number_of(other) != first
        await other.ask("/say served")
        await other.until(lambda: bool(other.endings))
        await other.close()
        assert other.text == "served"

    async def test_a_frozen_node_s_connections_end(self, balanced: Balanced) -> None:
        """It pings no longer, so that the time-out comes."""
        talk = Talk(balanced.port)
        await talk.connect()
        balanced.nodes.freeze(balanced.number_of(talk))
        assert talk.socket is not None
        with pytest.raises(websockets.ConnectionClosedError) as closed:
            async with asyncio.timeout(PATIENCE):
                while True:
                    await talk.socket.recv()
        assert closed.value.rcvd is None
