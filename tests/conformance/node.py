"""Programs for Node.js: where it is, where its packages are, and how to run one."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any, Final

from tests.fakes.tls import Certificate

__all__ = ["FOLDER", "bundled", "compiled", "node", "node_path", "node_tests", "program"]

FOLDER: Final = Path(__file__).with_name("node")
_PACKAGES: Final = FOLDER / "node_modules"
_ALL_OF_IT: Final = 50.0
"""Seconds that a program may take."""


def node_path() -> str:
    """Return where Node.js is, or fail saying how to get it, or its packages."""
    path = shutil.which("node")
    assert path, "These tests need Node.js 20 or newer. Install it: apt-get install nodejs npm"
    assert _PACKAGES.exists(), f"There is no {_PACKAGES}. Create it with: make node"
    return path


async def node(
    script: str, *arguments: str, certificate: Certificate | None = None, **environment: str
) -> Any:
    """Run one of the scripts in the folder, and return what it printed, which is JSON."""
    trusted = {} if certificate is None else {"NODE_EXTRA_CA_CERTS": str(certificate.chain)}
    output = await _run(
        [node_path(), script, *arguments], {"PATH": os.environ["PATH"], **trusted, **environment}
    )
    return json.loads(output)


def bundled(script: str, target: Path) -> Path:
    """Bundle one of the scripts with all it imports for a browser, as *target*."""
    node_path()
    esbuild = _PACKAGES / ".bin" / "esbuild"
    options = ["--bundle", "--format=esm", "--platform=browser", "--log-level=warning"]
    done = subprocess.run(
        [esbuild, script, *options, f"--outfile={target}"], cwd=FOLDER, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return target


def compiled(project: Path, *options: str) -> str:
    """Have TypeScript's compiler read *project*, and return what it complains of; empty: nothing."""
    node_path()
    command = [str(_PACKAGES / ".bin" / "tsc"), "--project", str(project), "--pretty", "false", *options]
    done = subprocess.run(command, cwd=FOLDER, capture_output=True, text=True, timeout=_ALL_OF_IT)
    assert done.returncode == 0 or done.stdout, done.stderr
    return done.stdout


async def program(folder: Path, *arguments: str | Path) -> str:
    """Run Node.js in *folder*, and return what it printed."""
    command = [node_path(), *map(str, arguments)]
    return (await _run(command, {"PATH": os.environ["PATH"]}, folder=folder)).decode()


async def node_tests(script: str, *, seconds: float = _ALL_OF_IT, **environment: str) -> None:
    """Run one of the scripts in the folder that is tests for Node.js's own runner. All have to pass."""
    command = [node_path(), "--test", "--test-reporter=spec", script]
    await _run(command, {"PATH": os.environ["PATH"], **environment}, seconds)


async def _run(
    command: list[str], environment: dict[str, str], seconds: float = _ALL_OF_IT, folder: Path = FOLDER
) -> bytes:
    process = await asyncio.create_subprocess_exec(
        *command,
        cwd=folder,
        env=environment,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        async with asyncio.timeout(seconds):
            output, complaints = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    assert process.returncode == 0, f"{command}\n{complaints.decode()}\n{output.decode()[-8000:]}"
    return output
