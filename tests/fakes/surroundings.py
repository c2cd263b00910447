"""What the server's processes are given of the machine that tests run on."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable, Iterator
from functools import cache
from itertools import cycle
from random import SystemRandom
from typing import Final

__all__ = ["NO_MODEL", "free_port", "neutral_environment", "wait_until"]

NO_MODEL: Final = {"UNBROKEN_FIREWALL_MODEL": "off"}
"""For servers whose firewall is not what a test is about. To load its model takes as long as half of all else
that a start takes. Packages, processes and what goes wrong at random are tested with it."""

_SETTINGS: Final = ("UNBROKEN_", "OPENAI_", "UVICORN_")
_PORTS: Final = range(12_000, 22_000)
_BUS: Final = 10_000  # a cluster's servers talk to each other on the port that much above their own


@cache
def _candidates() -> Iterator[int]:
    """Return ports without end, beginning with one at random: each again when all others were."""
    first = SystemRandom().randrange(len(_PORTS))
    return cycle([*_PORTS[first:], *_PORTS[:first]])


def free_port() -> int:
    """Return a port that nobody listens on now, nor on its bus, and that isn't returned again for long.

    Both are below those that the kernel gives to whoever connects, or asks for any: between this and the
    start of a server nobody takes them who doesn't ask here, in another process.
    """
    return next(port for port in _candidates() if _is_free(port) and _is_free(port + _BUS))


def _is_free(port: int) -> bool:
    with socket.socket() as sock:
        try:
            sock.bind(("127.0.0.1", port))
        except OSError:
            return False
        return True


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
