"""A real PostgreSQL for tests: the distribution's, in a folder of its own, as a user that isn't root."""

from __future__ import annotations

import contextlib
import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from tests.fakes.surroundings import free_port
from tests.fakes.tied import tied

__all__ = ["PostgresServer", "postgres_binaries"]

_PATIENCE = 60.0


def postgres_binaries() -> Path:
    """Return the folder of PostgreSQL's programs.

    Raises:
        RuntimeError: They aren't there; says what installs them.

    """
    places = [path.parent for path in sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), reverse=True)]
    if (found := shutil.which("initdb")) is not None:
        places.append(Path(found).resolve().parent)
    for place in places:
        if (place / "postgres").exists():
            return place
    raise RuntimeError("The archive is tested on PostgreSQL: sudo apt-get install postgresql")


class PostgresServer:
    """One server. Fault verbs: :meth:`kill`, :meth:`stop`, :meth:`freeze`, :meth:`start` again."""

    def __init__(self) -> None:
        self.port = free_port()
        self._binaries = postgres_binaries()
        self._folder: Path | None = None
        self._process: subprocess.Popen[bytes] | None = None
        # It refuses to run as root, and the distribution's package has made a user for it.
        self._user = pwd.getpwnam("postgres") if os.geteuid() == 0 else None

    def url(self, database: str) -> str:
        """Return the address of a database there."""
        return f"postgresql://tester:secret-word@127.0.0.1:{self.port}/{database}"

    def _command(self, *words: str) -> list[str]:
        if self._user is None:
            return list(words)
        ids = [f"--reuid={self._user.pw_uid}", f"--regid={self._user.pw_gid}", "--clear-groups"]
        return ["setpriv", *ids, "--pdeathsig=QUIT", *words]  # who becomes another isn't tied any more

    @contextlib.contextmanager
    def running(self) -> Iterator[PostgresServer]:
        """Make a cluster, start it, and end it in the end."""
        with tempfile.TemporaryDirectory(prefix="postgres") as name:
            self._folder = Path(name) / "data"
            if self._user is not None:
                os.chown(name, self._user.pw_uid, self._user.pw_gid)
            initdb = [
                str(self._binaries / "initdb"),
                "-D",
                str(self._folder),
                "-A",
                "trust",
                "-U",
                "tester",
                "-N",
            ]
            subprocess.run(
                self._command(*initdb), check=True, cwd=name, capture_output=True, env={"LC_ALL": "C.UTF-8"}
            )
            self.start()
            try:
                yield self
            finally:
                self.stop()

    def start(self) -> None:
        """Start it, and return when it answers."""
        assert self._folder is not None
        options = {
            "port": str(self.port),
            "listen_addresses": "127.0.0.1",
            "unix_socket_directories": "",
            "fsync": "off",
            "max_connections": "40",
        }
        words = [str(self._binaries / "postgres"), "-D", str(self._folder)]
        for key, value in options.items():
            words += ["-c", f"{key}={value}"]
        self._process = subprocess.Popen(
            tied(words) if self._user is None else self._command(*words),
            cwd=self._folder,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        end = time.monotonic() + _PATIENCE
        while not self._answers():
            if self._process.poll() is not None or time.monotonic() > end:
                raise RuntimeError(f"PostgreSQL does not start on port {self.port}")
            time.sleep(0.02)

    def _answers(self) -> bool:
        ready = [str(self._binaries / "pg_isready"), "-h", "127.0.0.1", "-p", str(self.port), "-q"]
        return subprocess.run(ready, check=False).returncode == 0

    def sql(self, statement: str, database: str = "postgres") -> str:
        """Run a statement, and return what it says."""
        psql = [str(self._binaries / "psql"), "-h", "127.0.0.1", "-p", str(self.port), "-U", "tester"]
        done = subprocess.run(
            [*psql, "-d", database, "-At", "-c", statement], check=True, capture_output=True, text=True
        )
        return done.stdout

    def kill(self) -> None:
        """End it as a crash does, and its children with it."""
        self._end(signal.SIGQUIT)

    def stop(self) -> None:
        """End it, and all that is connected. Harmless if it has ended."""
        self._end(signal.SIGINT)

    def _end(self, number: int) -> None:
        process, self._process = self._process, None
        if process is not None:
            process.send_signal(number)
            process.wait(_PATIENCE)
