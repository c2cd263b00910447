"""The server as a program of its own, and the memory that it takes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.page.browser import Server
from tests.server.realtime.client import Client

__all__ = ["Program"]


class Program(Server):
    """``unbroken serve``, whose memory can be watched."""

    @property
    def process_id(self) -> int:
        assert self._process is not None
        return self._process.pid

    def memory(self, name: str = "VmRSS") -> int:
        """Return how many bytes it holds now, or with ``VmHWM`` did at most."""
        status = Path(f"/proc/{self.process_id}/status").read_text()
        (line,) = [line for line in status.splitlines() if line.startswith(f"{name}:")]
        return int(line.split()[1]) * 1024

    def open_files(self) -> int:
        """Return how many files and sockets it has open."""
        return len(list(Path(f"/proc/{self.process_id}/fd").iterdir()))

    @contextmanager
    def taking_at_most(self, growth: int) -> Iterator[None]:
        """Check that it never holds *growth* bytes more than at the beginning."""
        Path(f"/proc/{self.process_id}/clear_refs").write_text("5")  # the peak begins anew: proc(5)
        before = self.memory()
        yield
        taken = self.memory("VmHWM") - before
        assert taken < growth, f"{taken:,} bytes more"

    def log(self) -> str:
        """Return all that it has logged."""
        return self._log.read_text()

    async def converses(self, key: str = "alice") -> None:
        """Hold a short conversation, as somebody who does no harm."""
        client = Client(self.port, key, None)
        await client.connect()
        await client.ask("hi")
        await client.done()
        assert client.answers() == [("completed", "You said: hi")]
        await client.close()
