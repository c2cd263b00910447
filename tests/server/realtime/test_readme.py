"""What the README shows runs as it stands there."""

from __future__ import annotations

import asyncio
import functools
import io
import os
import re
import sys
from pathlib import Path

import pytest

from tests.server.realtime.serving import Served, serving
from unbroken.server.agents.python import PythonAgent
from unbroken.server.agents.scripted import ScriptedAgent

README = Path(__file__).parents[3] / "README.md"
BLOCKS = re.findall(r"```python\n(.*?)```", README.read_text(), re.DOTALL)
PROGRAMS = [block for block in BLOCKS if "asyncio.run" in block]


def test_there_are_two_programs() -> None:
    assert len(PROGRAMS) == 2


def program_for(port: int, number: int) -> str:
    """Return a program of the README, as it stands there but for the server's *port*."""
    program: str = PROGRAMS[number].replace("127.0.0.1:8000", f"127.0.0.1:{port}")
    assert program != PROGRAMS[number]
    return program


async def output_of(program: str) -> str:
    """Run *program* by itself."""
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
    return output.decode()


async def output_in_a_thread_of(program: str) -> str:
    """Run *program* in a loop of its own, here, where the client is imported: a process takes seconds to."""
    output = io.StringIO()
    names = {"__name__": "__main__", "print": functools.partial(print, file=output)}
    async with asyncio.timeout(30):
        await asyncio.to_thread(exec, compile(program, "README.md", "exec"), names)
    return output.getvalue()


@pytest.mark.slow
@pytest.mark.parametrize("number", [0, 1])
async def test_a_program_of_the_readme_runs(server: Served[ScriptedAgent], number: int) -> None:
    assert (await output_of(program_for(server.port, number))).startswith("You said: ")


@pytest.mark.slow
@pytest.mark.parametrize("frames", range(9))
async def test_the_program_that_resumes_does_so_wherever_it_is_cut(frames: int) -> None:
    """Nothing that it prints is lost, and nothing comes twice."""
    async with serving(ScriptedAgent()) as served:
        served.inspector.close_next(after=frames, code=1012)
        assert await output_in_a_thread_of(program_for(served.port, 1)) == "You said: Count to ten."


async def test_the_agent_in_the_readme_answers(tmp_path: Path) -> None:
    (tmp_path / "readme_agent.py").write_text(BLOCKS[2])
    agent = PythonAgent("readme_agent:answer", directory=tmp_path)
    async with serving(agent) as served:
        client = await served.client()
        await client.ask("hi")
        await client.done()
        assert client.answers() == [("completed", "You said 'hi', and I have no more to say.")]
