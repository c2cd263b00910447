"""What docs/python-client.md shows runs as it stands there."""

from __future__ import annotations

import ast
import asyncio
import functools
import io
import json
import re
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any, Final

import pytest

import unbroken.client as package
from tests.client.conftest import Connect, Serve
from tests.server.realtime.serving import Served
from tests.server.realtime.test_readme import output_of
from unbroken.client import Restarted
from unbroken.server.agents.base import AgentOutput, FunctionCallPiece, TurnInput
from unbroken.server.agents.scripted import ScriptedAgent

DOCUMENT: Final = (Path(__file__).parents[2] / "docs" / "python-client.md").read_text()
PROGRAM, SHOWN, FUNCTIONS, STATE = re.findall(r"```python\n(.*?)```", DOCUMENT, re.DOTALL)


class WeatherAgent(ScriptedAgent):
    """Calls the function that is documented, and repeats what it returns."""

    async def _respond(self, turn: TurnInput) -> AsyncGenerator[AgentOutput, None]:
        if "weather" in turn.messages[-1].text and len(turn.items) == len(turn.messages):
            yield FunctionCallPiece(0, '{"city": "Ulm"}', "k", "get_weather")
            return
        async for output in super()._respond(turn):
            yield output


async def run(block: str, port: int) -> str:
    """Run a block, as it stands there but for the server's port, and return what it prints."""
    output = io.StringIO()
    names: dict[str, Any] = {"print": functools.partial(print, file=output), "json": json}
    names |= {name: getattr(package, name) for name in package.__all__}
    text = block.replace("127.0.0.1:8000", f"127.0.0.1:{port}")
    code = compile(text, "python-client.md", "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
    async with asyncio.timeout(30):
        await eval(code, names)
    return output.getvalue()


@pytest.mark.slow
async def test_the_program_of_the_first_screen(server: Served[ScriptedAgent]) -> None:
    output = await output_of(PROGRAM.replace("127.0.0.1:8000", f"127.0.0.1:{server.port}"))
    said, status = output.splitlines()

    assert said == "You said: What is a WebSocket?"
    assert status.startswith("completed, Usage(")
    assert DOCUMENT.index(PROGRAM) + len(PROGRAM) < 1200


async def test_functions(serve: Serve) -> None:
    server: Served[WeatherAgent] = await serve(WeatherAgent())
    assert await run(FUNCTIONS, server.port) == 'Returned: {"city":"Ulm","weather":"rain"}\n'


async def test_state(server: Served[ScriptedAgent]) -> None:
    assert await run(STATE, server.port) == "You said: Count to ten.\n"
    assert server.agent.calls == 1


async def test_showing_a_turn(server: Served[ScriptedAgent], clients: Connect) -> None:
    names: dict[str, Any] = {"Restarted": Restarted}
    exec(compile(SHOWN, "python-client.md", "exec"), names)
    shown: list[str] = []
    await names["shown"]((await clients(server.port)).send("hi"), shown.append)

    assert shown[-1] == "You said: hi"


def test_every_error_and_default_is_documented() -> None:
    errors = [
        each for each in vars(package).values() if isinstance(each, type) and issubclass(each, Exception)
    ]
    assert [kind.__name__ for kind in errors if f"`{kind.__name__}`" not in DOCUMENT] == []
    assert f"({package.Limits().turns})" in DOCUMENT
    assert package.Timing().give_up_after == 15 * 60
