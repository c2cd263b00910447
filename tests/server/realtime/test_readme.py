"""What the README shows runs as it stands there."""

from __future__ import annotations

import asyncio
import os
import re
import sys
from pathlib import Path

import pytest

from tests.server.realtime.serving import Served
from unbroken.server.agents.scripted import ScriptedAgent

README = Path(__file__).parents[3] / "README.md"
PROGRAMS = [
    block
    for block in re.findall(r"```python\n(.*?)```", README.read_text(), re.DOTALL)
    if "asyncio.run" in block
]


def test_there_are_two_programs() -> None:
    assert len(PROGRAMS) == 2


@pytest.mark.parametrize("number", [0, 1])
async def test_a_program_of_the_readme_runs(server: Served[ScriptedAgent], number: int) -> None:
    program = PROGRAMS[number].replace("127.0.0.1:8000", f"127.0.0.1:{server.port}")
    assert program != PROGRAMS[number]
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", program),
        env={"PATH": os.environ["PATH"]},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        async with asyncio.timeout(30):
            output, errors = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()

    assert process.returncode == 0, errors.decode()
    assert output.decode().startswith("You said: ")
