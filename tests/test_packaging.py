"""The built distribution: what is in it, and that it runs where nothing else is."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tarfile
import time
import urllib.error
import urllib.request
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.fakes.surroundings import free_port, neutral_environment

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

ROOT = Path(__file__).parents[1]


def run(*command: str | Path, cwd: Path) -> str:
    """Run *command* with nothing of this environment that Python would look for modules by."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    done = subprocess.run(
        command, cwd=cwd, env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True
    )
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def build(source: Path, kind: str, target: Path) -> Path:
    """Build a *kind* of distribution with what is installed here: nothing is downloaded."""
    run(sys.executable, "-m", "hatchling", "build", "--target", kind, "--directory", target, cwd=source)
    [built] = target.iterdir()
    return built


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The files of the project as they are now, without what git doesn't hold."""
    copy = tmp_path_factory.mktemp("source") / "unbroken"
    copy.mkdir()
    for name in ("unbroken", "server", "sessions"):
        shutil.copytree(
            ROOT / name, copy / name, symlinks=True, ignore=shutil.ignore_patterns("__pycache__", ".*")
        )
    for name in ("pyproject.toml", "README.md", "CHANGELOG.md", "LICENSE"):
        shutil.copy(ROOT / name, copy)
    return copy


@pytest.fixture(scope="module")
def wheel(source: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(source, "wheel", tmp_path_factory.mktemp("wheel"))


@pytest.fixture(scope="module")
def sdist(source: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(source, "sdist", tmp_path_factory.mktemp("sdist"))


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of commands of an environment that holds the wheel and what it declares, no more."""
    environment = tmp_path_factory.mktemp("environment")
    python = environment / "bin" / "python"
    locked = ("--require-hashes", "-r", ROOT / "requirements" / "run.txt")
    if uv := shutil.which("uv"):
        run(uv, "venv", "--quiet", "--python", sys.executable, environment, cwd=environment)
        run(uv, "pip", "install", "--quiet", "--python", python, *locked, cwd=environment)
        run(uv, "pip", "install", "--quiet", "--python", python, "--no-deps", wheel, cwd=environment)
        run(uv, "pip", "check", "--python", python, cwd=environment)
    else:
        run(sys.executable, "-m", "venv", environment, cwd=environment)
        run(python, "-m", "pip", "install", "--quiet", *locked, cwd=environment)
        run(python, "-m", "pip", "install", "--quiet", "--no-deps", wheel, cwd=environment)
        run(python, "-m", "pip", "check", cwd=environment)
    return environment / "bin"


def expected_files() -> set[str]:
    """What has to be in a distribution: every file of the two halves and the client, by import names."""
    files = {
        path.relative_to(ROOT).as_posix()
        for part in ("server", "sessions", "client")
        for path in (ROOT / "unbroken" / part).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts and not path.name.startswith(".")
    }
    return files | {"unbroken/__init__.py", "unbroken/__main__.py", "unbroken/py.typed"}


def names_in_wheel(wheel: Path) -> set[str]:
    with zipfile.ZipFile(wheel) as archive:
        return {name for name in archive.namelist() if ".dist-info/" not in name}


def test_the_wheel_holds_every_file_and_nothing_else(wheel: Path) -> None:
    assert names_in_wheel(wheel) == expected_files()


def test_the_wheel_holds_the_page_and_the_licence(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        assert any(name.startswith("unbroken/server/page/") and name.endswith(".html") for name in names)
        assert any(name.endswith(".dist-info/licenses/LICENSE") for name in names)
        # A link in an archive would be a file that holds a path.
        assert not [info.filename for info in archive.infolist() if info.external_attr >> 28 == 0o12]


def test_the_sdist_holds_files_where_the_clone_has_links(sdist: Path) -> None:
    with tarfile.open(sdist) as archive:
        members = archive.getmembers()
    assert not [member.name for member in members if member.issym() or member.islnk()]
    names = {member.name.partition("/")[2] for member in members if member.isfile()}
    assert expected_files() <= names
    assert {name.split("/")[0] for name in names - expected_files()} <= {
        *("README.md", "CHANGELOG.md", "LICENSE", "pyproject.toml", "PKG-INFO", ".gitignore")
    }


def test_the_sdist_builds_the_same_wheel(sdist: Path, wheel: Path, tmp_path: Path) -> None:
    with tarfile.open(sdist) as archive:
        # Debian's Python 3.11 is from before there were filters; later ones warn where there is none.
        options: dict[str, Any] = {"filter": "data"} if hasattr(tarfile, "data_filter") else {}
        archive.extractall(tmp_path, **options)
    [unpacked] = tmp_path.iterdir()
    again = build(unpacked, "wheel", tmp_path / "wheel")
    with zipfile.ZipFile(again) as ours, zipfile.ZipFile(wheel) as theirs:
        assert {info.filename: info.CRC for info in ours.infolist()} == {
            info.filename: info.CRC for info in theirs.infolist()
        }


def test_it_owns_no_top_level_name_but_its_own(installed: Path) -> None:
    lookup = (
        "import importlib.util as u; "
        "print([name for name in ('server', 'sessions', 'tests') if u.find_spec(name)])"
    )
    assert run(installed / "python", "-c", lookup, cwd=Path("/")) == "[]\n"


def test_the_client_is_there_and_typed(installed: Path) -> None:
    lookup = (
        "from importlib.resources import files; from unbroken.client import connect; "
        "assert (files('unbroken') / 'py.typed').is_file(); connect('http://localhost')"
    )
    run(installed / "python", "-c", lookup, cwd=Path("/"))


def test_what_is_no_code_is_read_where_it_is_installed(installed: Path) -> None:
    """Prices, what Redis is told to do, and the archive's tables."""
    reads = (
        "from importlib.resources import files; from unbroken.server.quota.prices import shipped; "
        "assert shipped(); assert (files('unbroken.server.quota') / 'scripts' / 'ledger.lua').read_text(); "
        "assert (files('unbroken.server.archive') / 'migrations' / '0001_turns.sql').read_text()"
    )
    run(installed / "python", "-c", reads, cwd=Path("/"))


def test_it_tells_its_version_from_anywhere(installed: Path) -> None:
    version = run(
        installed / "python", "-c", "import unbroken; print(unbroken.__version__)", cwd=Path("/")
    ).strip()
    assert version in run(installed / "unbroken", "--version", cwd=Path("/"))
    assert version in run(installed / "python", "-m", "unbroken", "--version", cwd=Path("/"))


@pytest.fixture
def address(installed: Path) -> Iterator[tuple[str, subprocess.Popen[str]]]:
    port = free_port()
    command = (installed / "unbroken", "serve", "--agent", "scripted", "--host", "127.0.0.1")
    environment = {
        name: value for name, value in neutral_environment().items() if not name.startswith("PYTHON")
    }
    server = subprocess.Popen(
        (*command, "--port", str(port), "--admin-port", "0"),
        cwd="/",
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        yield f"http://127.0.0.1:{port}", server
    finally:
        server.kill()
        server.communicate()


def get(url: str) -> tuple[int, str]:
    """Ask until somebody listens, for up to twenty seconds."""
    deadline = time.monotonic() + 20
    while True:
        try:
            with urllib.request.urlopen(url, timeout=5) as response:
                return response.status, response.read().decode()
        except urllib.error.HTTPError as refused:
            return refused.code, refused.read().decode()
        except OSError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.1)


def test_it_serves_from_the_root_directory(address: tuple[str, subprocess.Popen[str]]) -> None:
    url, server = address
    assert get(f"{url}/healthz")[0] == 200
    status, page = get(f"{url}/")
    assert status == 200
    assert page.lower().startswith("<!doctype html")
    server.send_signal(signal.SIGTERM)
    output, _ = server.communicate(timeout=20)
    assert server.returncode == 0, output
    assert "Traceback" not in output
