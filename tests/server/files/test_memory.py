from __future__ import annotations

from tests.fakes.clock import FakeClock
from tests.server.files.file_store_contract import FileStoreContract
from unbroken.server.files.base import FileLimits, FileStore
from unbroken.server.files.memory import MemoryFiles


class TestMemoryFilesContract(FileStoreContract):
    def make(self, limits: FileLimits, clock: FakeClock) -> FileStore:
        return MemoryFiles(limits, clock)
