"""The Makefile, with stand-ins for what it would install and start."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


def script(path: Path, *lines: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(("#!/bin/sh", *lines, "")))
    path.chmod(0o755)
    return path


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Holds the Makefile, and an environment in which everything is installed but the model."""
    shutil.copy(ROOT / "Makefile", tmp_path)
    venv = tmp_path / ".venv"
    (venv / "bin").mkdir(parents=True)
    (venv / "pyvenv.cfg").touch()
    (venv / "bin" / "python").symlink_to(sys.executable)
    script(
        venv / "bin" / "unbroken",
        '[ $1 = serve ] && echo "$@"',
        "case $2 in mcp_servers|jwt_jwks|leak_actions|graphql) ;; agent) printf '%s\\n' $AGENTS;; esac",
        '[ "$2" != mcp_servers ] || echo "${SERVERS:-not set}"',
        '[ "$2" != jwt_jwks ] || echo "${JWKS:-not set}"',
        '[ "$2" != graphql ] || echo "${GRAPHQL:-false}"',
        '[ "$2" != leak_actions ] || echo "${LEAKS:-not set}"',
    )
    return tmp_path


def make(folder: Path, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["make", "--old-file", ".venv/.project", *arguments],
        cwd=folder,
        env={"PATH": os.environ["PATH"], "UV": "", **variables},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


def test_the_port_is_the_servers_to_know_unless_one_is_given(folder: Path) -> None:
    """UNBROKEN_PORT, .env and unbroken.toml would lose against a flag."""
    assert make(folder, "run", AGENTS="scripted").stdout == "serve\n"
    assert make(folder, "run", AGENTS="scripted", PORT="81").stdout == "serve --port 81\n"
    assert make(folder, "run", "PORT=82", AGENTS="scripted").stdout == "serve --port 82\n"


def test_the_model_is_installed_where_the_settings_in_force_name_it(folder: Path) -> None:
    """There is nothing here to install it from, which is how it is seen to be tried."""
    assert make(folder, "run", AGENTS="scripted none").returncode == 0
    for agents in ("embedded none", "openai embedded"):
        tried = make(folder, "run", AGENTS=agents)
        assert tried.returncode != 0
        assert ".venv/.embedded" in tried.stderr


def test_what_speaks_to_mcp_servers_is_installed_where_there_are_some(folder: Path) -> None:
    assert make(folder, "run", AGENTS="scripted").returncode == 0
    tried = make(folder, "run", AGENTS="scripted", SERVERS="docs=http://127.0.0.1/mcp")
    assert tried.returncode != 0
    assert ".venv/.mcp" in tried.stderr


def test_what_graphql_is_spoken_with_is_installed_where_it_is_spoken(folder: Path) -> None:
    assert make(folder, "run", AGENTS="scripted").returncode == 0
    tried = make(folder, "run", AGENTS="scripted", GRAPHQL="true")
    assert tried.returncode != 0
    assert ".venv/.graphql" in tried.stderr


def test_what_reads_names_is_installed_where_they_are_looked_for(folder: Path) -> None:
    for leaks in ("email=redact", "name=ignore", "gold.phone=flag,address=ignore"):
        assert make(folder, "run", AGENTS="scripted", LEAKS=leaks).returncode == 0
    for leaks in ("email=flag,name=redact", "gold.address = block"):
        tried = make(folder, "run", AGENTS="scripted", LEAKS=leaks)
        assert tried.returncode != 0
        assert ".venv/.names" in tried.stderr


def test_what_checks_tokens_is_installed_where_there_are_some(folder: Path) -> None:
    tried = make(folder, "run", AGENTS="scripted", JWKS="https://id.example/jwks.json")
    assert tried.returncode != 0
    assert ".venv/.jwt" in tried.stderr


def test_a_python_that_is_too_old_makes_no_environment(folder: Path) -> None:
    shutil.rmtree(folder / ".venv")
    old = script(folder / "old-python", "exit 1")

    refused = make(folder, ".venv/bin/python", f"PYTHON={old}")

    assert refused.returncode != 0
    said, makes_own = refused.stderr.splitlines()
    assert said.startswith(f"{old} doesn't run as Python 3.11.5 or newer, which is needed.")
    assert makes_own.startswith("make: ***")
    assert not (folder / ".venv").exists()


def test_an_environment_of_a_python_that_is_too_old_does_not_stay(folder: Path) -> None:
    assert make(folder, "help").returncode == 0
    assert (folder / ".venv").exists()
    (folder / ".venv" / "bin" / "python").unlink()
    script(folder / ".venv" / "bin" / "python", "exit 1")
    make(folder, "help")
    assert not (folder / ".venv").exists()
