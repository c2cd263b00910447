"""This project's own client for JavaScript: it is as its sources say, and its core holds whatever happens."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import pytest
from hypothesis import settings

from tests.conformance.node import FOLDER, compiled, node_tests

pytestmark = pytest.mark.slow

CLIENT: Final = Path(__file__).parents[2] / "server" / "page" / "client"
SEEDS: Final = 50 if settings.default is None else settings.default.max_examples


def contents(folder: Path) -> dict[str, str]:
    return {path.name: path.read_text() for path in folder.iterdir()}


def test_what_is_served_is_what_the_sources_say(tmp_path: Path) -> None:
    complaints = compiled(CLIENT, "--outDir", str(tmp_path))

    assert complaints == ""
    assert contents(tmp_path) == contents(CLIENT / "lib"), "build it: make client"


def test_its_types_are_those_that_programs_need() -> None:
    assert compiled(FOLDER / "types") == ""


def test_the_page_uses_it_as_its_types_say() -> None:
    assert compiled(FOLDER / "types" / "page.json") == ""


def test_the_core_needs_no_socket_and_no_clock() -> None:
    """Nothing that it is made of speaks of what a browser or Node.js has."""
    shell = {"client", "socket", "tool", "turn", "index"}
    banned = (
        "WebSocket(",
        "setTimeout",
        "setInterval",
        "Date.",
        "Math.random",
        "crypto",
        "fetch(",
        "document",
        "process",
    )
    for path in CLIENT.glob("*.ts"):
        code = [
            line for line in path.read_text().splitlines() if not line.lstrip().startswith(("*", "/*", "//"))
        ]
        found = [word for word in banned if any(word in line for line in code)]
        assert path.stem in shell or found == [], path.name


def test_a_source_can_be_read_in_one_go() -> None:
    assert {path.name for path in CLIENT.glob("*.ts") if len(path.read_text().splitlines()) > 600} == set()


async def test_the_core_decides_as_it_should() -> None:
    await node_tests("client/decisions.test.mjs")


async def test_the_shell_does_what_the_core_wants_done() -> None:
    await node_tests("client/shell.test.mjs")


@pytest.mark.timeout(600)
async def test_nothing_is_lost_or_doubled_whatever_a_network_does() -> None:
    await node_tests("client/core.test.mjs", seconds=550, SEEDS=str(SEEDS))
