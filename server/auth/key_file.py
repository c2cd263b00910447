"""API keys in a file of one machine: what the command writes, a running server sees within a second.

Every change holds a lock beside the file and replaces the file whole, so that
nobody ever reads half of it. It has digests only, and is its owner's alone all the same.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Final, TypeVar

import msgspec
from msgspec import Struct

from unbroken.server.auth.key_store import MOST_KEYS, KeyRecord, KeyStoreFull, KeyStoreUnusable

__all__ = ["FileKeyStore"]

_MOST_BYTES: Final = 16 << 20

_T = TypeVar("_T")


class _Content(Struct, frozen=True):
    keys: list[KeyRecord]
    used: dict[str, float]


class FileKeyStore:
    """A :class:`~unbroken.server.auth.key_store.KeyStore` in a file, which need not be there yet."""

    def __init__(self, path: Path) -> None:
        self._path = path
        # What the file looked like when it was read, and what was in it: one value, as threads read it.
        self._known: tuple[tuple[int, ...] | None, _Content] = None, _Content([], {})

    async def add(self, record: KeyRecord) -> None:
        """See :meth:`KeyStore.add`."""

        def added(content: _Content) -> _Content:
            if len(content.keys) >= MOST_KEYS:
                raise KeyStoreFull
            return _Content([*content.keys, record], content.used)

        await asyncio.to_thread(self._change, added)

    async def revoke(self, key_id: str) -> bool:
        """See :meth:`KeyStore.revoke`."""
        found = False

        def without(content: _Content) -> _Content:
            nonlocal found
            found = any(record.id == key_id for record in content.keys)
            used = {name: at for name, at in content.used.items() if name != key_id}
            return _Content([record for record in content.keys if record.id != key_id], used)

        await asyncio.to_thread(self._change, without)
        return found

    async def find(self, digest: str) -> KeyRecord | None:
        """See :meth:`KeyStore.find`."""
        content = await asyncio.to_thread(self._read)
        return next((record for record in content.keys if record.digest == digest), None)

    async def all(self) -> list[tuple[KeyRecord, float | None]]:
        """See :meth:`KeyStore.all`."""
        content = await asyncio.to_thread(self._read)
        records = sorted(content.keys, key=lambda record: record.created_at)
        return [(record, content.used.get(record.id)) for record in records]

    async def note_uses(self, uses: Mapping[str, float]) -> None:
        """See :meth:`KeyStore.note_uses`."""

        def noted(content: _Content) -> _Content:
            known = {record.id for record in content.keys}
            return _Content(
                content.keys, content.used | {name: at for name, at in uses.items() if name in known}
            )

        await asyncio.to_thread(self._change, noted)

    async def version(self) -> str:
        """See :meth:`KeyStore.version`. That a key was used changes it too: it is the file's."""
        return str(await asyncio.to_thread(self._look))

    # In a thread: a disk may take its time.

    def _look(self) -> tuple[int, ...] | None:
        try:
            status = self._path.stat()
        except FileNotFoundError:
            return None
        except OSError as exc:
            raise self._unusable(exc.strerror) from None
        return status.st_ino, status.st_mtime_ns, status.st_size

    def _read(self) -> _Content:
        look = self._look()
        known_look, content = self._known
        if look is None:
            return _Content([], {})
        if look != known_look:
            if look[2] > _MOST_BYTES:
                raise self._unusable(f"it has more than {_MOST_BYTES >> 20} MiB")
            try:
                content = msgspec.json.decode(self._path.read_bytes(), type=_Content)
            except OSError as exc:
                raise self._unusable(exc.strerror) from None
            except msgspec.DecodeError:
                raise self._unusable("it is no file of keys") from None
            self._known = look, content
        return content

    def _change(self, changed: Callable[[_Content], _Content]) -> None:
        try:
            with self._locked():
                data = msgspec.json.format(msgspec.json.encode(changed(self._read())))
                self._replace(data)
        except OSError as exc:
            raise self._unusable(exc.strerror) from None

    @contextmanager
    def _locked(self) -> Iterator[None]:
        # Not the file itself: that one is replaced.
        lock = os.open(self._path.with_name(self._path.name + ".lock"), os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield
        finally:
            os.close(lock)

    def _replace(self, data: bytes) -> None:
        handle, name = tempfile.mkstemp(dir=self._path.parent, prefix=self._path.name)  # 0600
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            Path(name).replace(self._path)
        except BaseException:
            Path(name).unlink(missing_ok=True)
            raise

    def _unusable(self, reason: str | None) -> KeyStoreUnusable:
        return KeyStoreUnusable(f"The file of keys, {self._path}, can't be used: {reason}. Correct that.")
