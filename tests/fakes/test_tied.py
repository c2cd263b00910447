"""What is tied to a process ends with it, however that ends."""

from __future__ import annotations

import os
import select
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

_STARTER = """
import subprocess, sys, time
from tests.fakes.tied import tied
subprocess.Popen(tied([sys.executable, "-c", "import time; print('up', flush=True); time.sleep(600)"]))
time.sleep(600)
"""


def test_what_is_tied_ends_when_its_starter_is_killed() -> None:
    """The pipe that both write to is closed when both have gone."""
    reader, writer = os.pipe()
    starter = subprocess.Popen([sys.executable, "-c", _STARTER], stdout=writer, cwd=Path(__file__).parents[2])
    os.close(writer)
    with os.fdopen(reader, "rb") as said:
        try:
            assert said.readline() == b"up\n"
        finally:
            starter.kill()
            starter.wait()
        assert select.select([said], [], [], 30)[0]
        assert said.read() == b""
