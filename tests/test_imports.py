"""Importing does nothing: no work, no network, no settings read. Whoever starts something calls something."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path
from typing import Final

import pytest

ROOT: Final = Path(__file__).parent.parent

MODULES: Final = sorted(
    ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
    for part in ("server", "sessions", "client")
    for path in (ROOT / "unbroken" / part).rglob("*.py")
)

# What modules of others do when they are imported is theirs: it is let go by
# beforehand, so that only our own modules are watched.
WATCH: Final = """
import importlib, os, socket, sys, threading

ours = {modules!r}
theirs = {theirs!r}
for name in theirs:
    importlib.import_module(name)

faults = []

def watch(event, args):
    if event in ("socket.__new__", "socket.connect", "socket.bind", "subprocess.Popen", "os.system",
                 "os.fork", "os.putenv", "os.mkdir", "os.remove", "os.rename"):
        faults.append(f"{{importing}}: {{event}} {{args!r}}")
    if event == "open" and isinstance(args[1], str) and set(args[1]) & set("wax+"):
        faults.append(f"{{importing}}: wrote {{args[0]}}")

def is_ours(depth=2):
    frame = sys._getframe(depth)
    while frame.f_code.co_filename.startswith("<frozen"):  # os, _collections_abc
        frame = frame.f_back
    name = frame.f_code.co_filename
    return name.startswith({root!r}) and "site-packages" not in name

plain = os._Environ.__getitem__

def getitem(self, key):
    if is_ours():
        faults.append(f"{{importing}}: read the environment, {{key}}")
    return plain(self, key)

importing = ""
sys.addaudithook(watch)
os._Environ.__getitem__ = getitem
threads = threading.active_count()
for importing in ours:
    importlib.import_module(importing)
    if threading.active_count() != threads:
        faults.append(f"{{importing}}: started a thread")
        threads = threading.active_count()
if "asyncio" in sys.modules:
    import asyncio
    policy = asyncio.get_event_loop_policy()
    if getattr(policy._local, "_loop", None) is not None:
        faults.append("an event loop was made")
print("\\n".join(faults))
"""

THEIRS: Final = [
    "anyio",
    "asyncio",
    "click",
    "msgspec",
    "numpy",
    "openai",
    "orjson",
    "prometheus_client",
    "pydantic",
    "pydantic_settings",
    "starlette.applications",
    "starlette.websockets",
    "structlog",
    "uvicorn",
    "uvicorn.protocols.websockets.websockets_sansio_impl",
    "uvloop",
    "websockets",
    "xllamacpp",
]


def run(code: str) -> str:
    done = subprocess.run(
        [sys.executable, "-B", "-c", code],
        cwd=ROOT,
        env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def installed(names: list[str]) -> list[str]:
    return [name for name in names if importlib.util.find_spec(name.split(".")[0]) is not None]


def test_importing_any_module_does_nothing() -> None:
    code = WATCH.format(modules=MODULES, theirs=installed(THEIRS), root=str(ROOT))

    assert run(code) == ""


def test_what_is_watched_for_would_be_seen(tmp_path: Path) -> None:
    """A watch that sees nothing proves nothing."""
    (tmp_path / "naughty.py").write_text(
        "import os, socket, threading\n"
        "os.environ.get('HOME')\n"
        "socket.socket().close()\n"
        "open('/dev/null', 'w').close()\n"
        "threading.Thread(target=threading.Event().wait, daemon=True).start()\n"
    )
    code = WATCH.format(modules=["naughty"], theirs=[], root=str(tmp_path))
    found = run(f"import sys; sys.path.insert(0, {str(tmp_path)!r})\n{code}")

    for word in ("read the environment", "socket.__new__", "wrote /dev/null", "started a thread"):
        assert word in found


@pytest.mark.parametrize(
    ("module", "heavy"),
    [
        ("unbroken", ["asyncio", "unbroken.server", "unbroken.sessions"]),
        (
            "unbroken.server.cli",
            ["openai", "uvicorn", "starlette", "pydantic", "asyncio", "xllamacpp", "prometheus_client"],
        ),
        ("unbroken.sessions.node", ["openai", "uvicorn", "starlette", "pydantic", "orjson", "websockets"]),
        ("unbroken.server.app", ["openai", "xllamacpp", "strawberry", "graphql"]),
        ("unbroken.server.protocols.realtime.connection", ["asyncio", "starlette", "uvicorn", "openai"]),
        ("unbroken.sessions.session", ["asyncio", "socket"]),
        ("unbroken.client", ["openai", "uvicorn", "starlette", "pydantic", "structlog", "unbroken.server"]),
    ],
)
def test_what_is_not_needed_is_not_loaded(module: str, heavy: list[str]) -> None:
    """``unbroken --help`` answers at once, and an agent's libraries cost only whoever uses it."""
    loaded = run(f"import sys, {module}; print(*sorted(sys.modules))").split()

    assert sorted(set(loaded) & set(heavy)) == []
