"""The OpenAI Agents SDK validates every frame strictly, and reports what it doesn't know as an error."""

from __future__ import annotations

import asyncio
import json
import os
from pathlib import Path

import pytest

from tests.server.realtime.client import WAIT
from tests.server.realtime.serving import Served
from unbroken.server.agents.scripted import ScriptedAgent

REPOSITORY = Path(__file__).parents[3]
CLIENT = Path(__file__).with_name("agents_client.py")


def interpreter() -> str:
    """Return the Python of the SDK's venv: it needs an older websockets than the server has."""
    path = Path(os.environ.get("UNBROKEN_AGENTS_PYTHON", REPOSITORY / ".venv-agents" / "bin" / "python"))
    assert path.exists(), f"There is no {path}. Create it with: make .venv-agents/.installed"
    return str(path)


@pytest.mark.slow
@pytest.mark.client("agents-python", "conversation", "strict", "tools")
async def test_a_conversation_without_one_error_event(server: Served[ScriptedAgent]) -> None:
    url = f"ws://127.0.0.1:{server.port}/v1/realtime?model=default"
    messages = ["hi", "/tokens 50", '/call get_weather {"city": "Ulm"}', "and again"]
    process = await asyncio.create_subprocess_exec(
        interpreter(),
        str(CLIENT),
        url,
        *messages,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env={"PATH": os.environ["PATH"], "OPENAI_AGENTS_DISABLE_TRACING": "1"},
    )
    try:
        async with asyncio.timeout(2 * WAIT):
            out, err = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    assert process.returncode == 0, err.decode()
    result = json.loads(out)
    answers = ["You said: hi", " ".join(f"word{n}" for n in range(1, 51))]
    answers += ["Returned: rain in Ulm", "You said: and again"]

    assert result["errors"] == []
    assert result["answers"] == answers
    assert result["cities"] == ["Ulm"]
    assert server.agent.calls == 5
    told = [text for role, text in result["history"] if role == "user"]
    assert told == messages
    assert "history_added" in result["kinds"]
    assert "agent_end" in result["kinds"]
