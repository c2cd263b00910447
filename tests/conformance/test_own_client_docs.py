"""What docs/typescript-client.md shows is run as it stands, on Node.js; its page is, with all others."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path
from typing import Final

import pytest

from tests.conformance.node import node_path, program
from tests.server.realtime.serving import Served
from unbroken.server.agents.scripted import ScriptedAgent

pytestmark = pytest.mark.slow

ROOT: Final = Path(__file__).parents[2]
CLIENT: Final = ROOT / "server" / "page" / "client"
DOCUMENT: Final = (ROOT / "docs" / "typescript-client.md").read_text()
BLOCKS: Final[list[tuple[str, str]]] = re.findall(r"```(js|html)\n(.*?)```", DOCUMENT, re.DOTALL)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Somebody's own project, with the package installed as npm does it from a folder."""
    (tmp_path / "node_modules").mkdir()
    (tmp_path / "node_modules" / "unbroken-client").symlink_to(CLIENT)
    return tmp_path


async def test_the_first_screen_runs(server: Served[ScriptedAgent], folder: Path) -> None:
    kind, code = BLOCKS[0]
    assert kind == "js"
    assert DOCUMENT[: DOCUMENT.index(code)].count("\n") < 10
    script = folder / "hello.mjs"
    script.write_text(code.replace("127.0.0.1:8000", f"127.0.0.1:{server.port}"))

    assert await program(folder, "--experimental-websocket", script) == "You said: Hello\ncompleted\n"


@pytest.mark.parametrize("code", [code for kind, code in BLOCKS if kind == "js"])
def test_what_is_shown_is_javascript(folder: Path, code: str) -> None:
    script = folder / "shown.mjs"
    script.write_text(code)
    done = subprocess.run([node_path(), "--check", script], capture_output=True, text=True, timeout=30)

    assert done.stderr == ""


def test_every_event_and_option_is_documented() -> None:
    sources = "".join((CLIENT / name).read_text() for name in ("client.ts", "effects.ts"))
    options = re.search(r"export interface ConnectOptions \{(.*?)\n\}", sources, re.DOTALL)
    events = re.search(r"export interface Happenings \{(.*?)\n\}", sources, re.DOTALL)
    assert options and events
    names = re.findall(r"^  readonly (\w+)", options[1], re.MULTILINE) + re.findall(
        r"^  (\w+):", events[1], re.M
    )

    assert len(names) > 12
    assert [name for name in names if not re.search(rf"\b{name}\b", DOCUMENT)] == []
