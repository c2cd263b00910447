"""What the server's processes are given of the machine that tests run on."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable
from typing import Final

__all__ = ["NO_MODEL", "free_port", "neutral_environment", "wait_until"]

NO_MODEL: Final = {"UNBROKEN_FIREWALL_MODEL": "off"}
"""For servers whose firewall is not what a test is about. To load its model takes as long as half of all else
that a start takes. Packages, processes and what goes wrong at random are tested with it."""

_SETTINGS: Final = ("UNBROKEN_", "OPENAI_", "UVICORN_")
_BELOW: Final = 55_000  # a cluster's bus has the port 10,000 above its server's


def free_port() -> int:
    """Return a port that nobody listens on now, and that is below those of a cluster's bus."""
    while True:
        with socket.socket() as sock:
            sock.bind(("127.0.0.1", 0))
            port: int = sock.getsockname()[1]
        if port < _BELOW:
            return port


def neutral_environment() -> dict[str, str]:
    """Return the environment without what the server, or a bare one, would take for a setting."""
    return {name: value for name, value in os.environ.items() if not name.startswith(_SETTINGS)}


def wait_until(holds: Callable[[], bool], problem: str) -> None:
    """Return when *holds* does, of something that can only be looked at.

    Raises:
        RuntimeError: It doesn't, for twenty seconds. Says what the problem is.

    """
    end = time.monotonic() + 20
    while not holds():
        if time.monotonic() > end:
            raise RuntimeError(problem)
        time.sleep(0.02)
