"""Whatever the document allows, and whatever it doesn't, is answered as it says: drawn by schemathesis."""

from __future__ import annotations

import asyncio
import hashlib
import os
import sys
from pathlib import Path
from typing import Any, Final

import pytest

from tests.server.realtime.serving import Served, serving
from unbroken.server.agents.scripted import ScriptedAgent

pytestmark = pytest.mark.slow

CONFIG: Final = Path(__file__).with_name("schemathesis.toml")
KEY: Final = "a key of forty letters that nobody guesses"
LONGEST: Final = 240
"""Seconds, on a machine that has other things to do."""


async def drawn(served: Served[Any], folder: Path, key: str, *options: str) -> None:
    """Have all operations be asked for as the document has it, and otherwise."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *("-m", "schemathesis.cli", "--config-file", str(CONFIG)),
        *("run", f"http://127.0.0.1:{served.port}/openapi.json", "--header", f"Authorization: Bearer {key}"),
        *(
            "--seed",
            "1",
            "--request-timeout",
            "10",
            "--no-color",
            "--continue-on-failure",
            "--warnings",
            "off",
        ),
        *options,
        cwd=folder,
        env={"PATH": os.environ["PATH"], "HOME": str(folder)},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    try:
        async with asyncio.timeout(LONGEST):
            output, _ = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    assert process.returncode == 0, output.decode()
    assert b"Operations:" in output


@pytest.mark.timeout(LONGEST + 30)
async def test_each_bound_and_type_of_the_document_is_the_servers(tmp_path: Path) -> None:
    """Each value at its bound and beyond, each field left out, each method that isn't there; with keys."""
    keys = f"alice:{hashlib.sha256(KEY.encode()).hexdigest()}"
    async with serving(
        ScriptedAgent(),
        openapi=True,
        files="memory",
        api_keys=keys,
        quotas='{"default": {"requests_per_day": 200, "tokens_per_minute": 100000}}',
    ) as served:
        await drawn(served, tmp_path, KEY, "--phases", "coverage")


@pytest.mark.timeout(LONGEST + 30)
async def test_what_is_made_of_it_by_chance_is_answered_as_it_says(tmp_path: Path) -> None:
    """In any order, too: what is begun is looked at, stopped and deleted."""
    async with serving(ScriptedAgent(), openapi=True, files="memory") as served:
        # Without keys in the settings, any key is one.
        options = ("--phases", "fuzzing,stateful", "--max-examples", "10", "--exclude-checks", "ignored_auth")
        await drawn(served, tmp_path, "alice", *options)
