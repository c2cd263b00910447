"""What the documents have one type into a shell runs as it stands there."""

from __future__ import annotations

import asyncio
import os
import re
import shutil
from pathlib import Path
from typing import Any, Final

import pytest

from tests.server.realtime.serving import serving
from unbroken.server.agents.scripted import ScriptedAgent

ROOT: Final = Path(__file__).parents[2]
BLOCKS: Final = [
    pytest.param(block, id=f"{path.name}-{number}")
    for path in (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")))
    for number, block in enumerate(
        block
        for block in re.findall(r"```(?:sh|bash)\n(.*?)```", path.read_text(), re.DOTALL)
        if block.lstrip().startswith("curl")
        and ("/v1/" in block or "/graphql" in block)
        and "client_secrets" not in block
    )
]


def test_there_are_some() -> None:
    assert len(BLOCKS) >= 3
    assert shutil.which("curl"), "curl is needed: sudo apt-get install curl"


@pytest.mark.parametrize("block", BLOCKS)
async def test_a_line_for_the_shell_is_answered(block: str, tmp_path: Path) -> None:
    archive = f"sqlite:///{tmp_path / 'archive.db'}"
    async with serving(ScriptedAgent(), archive_url=archive, graphql=True) as served:
        key = re.search(r"Bearer (\w+)", block)
        assert key is not None, "it says with which key"
        client = await served.client(key[1])
        await client.ask("hello")
        await client.done()
        output = await asyncio.wait_for(_typed(block, served.port, client.session_id or ""), 30)
        assert re.search(
            r"You said|session\.created|\"object\"|\"finishReason\":\"stop\"|\"role\":\"ai\""
            r"|\"responseId\":\"resp_",
            output,
        ), output
        await client.close()


async def _typed(block: str, port: int, session_id: str) -> str:
    """Return what the first of it says; a stream without an end is left after a while."""
    program = block.strip().replace("127.0.0.1:8000", f"127.0.0.1:{port}")
    assert program.startswith("curl ")
    program = program.replace("curl ", "curl --silent --show-error --fail-with-body --max-time 2 ", 1)
    environment: dict[str, Any] = {"PATH": os.environ["PATH"], "SESSION": session_id}
    process = await asyncio.create_subprocess_shell(
        program, env=environment, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    output, errors = await process.communicate()
    is_stream = process.returncode == 28  # it was still being said
    assert process.returncode == 0 or is_stream, errors.decode() + output.decode()
    return output.decode()
