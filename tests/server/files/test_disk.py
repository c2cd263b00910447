"""Files on a disk: what lies there, who may read it, and what is left of it when."""

from __future__ import annotations

import fcntl
import os
import stat
import tempfile
from pathlib import Path

import pytest

from tests.fakes.clock import FakeClock
from tests.server.files.file_store_contract import (
    ALICE,
    LIMITS,
    FileStoreContract,
    content_of,
    put,
)
from tests.server.realtime.serving import eventually
from unbroken.server.files.base import FileLimits, FileNotFound, FileStore, FilesUnavailable
from unbroken.server.files.disk import DiskFiles


class TestDiskFilesContract(FileStoreContract):
    @pytest.fixture(autouse=True)
    def folder(self, tmp_path: Path) -> None:
        self.path = tmp_path / "files"

    def make(self, limits: FileLimits, clock: FakeClock) -> FileStore:
        return DiskFiles(limits, clock, self.path)


class TestDiskFilesThatStayContract(TestDiskFilesContract):
    def make(self, limits: FileLimits, clock: FakeClock) -> FileStore:
        return DiskFiles(limits, clock, self.path, is_kept=True)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if path.name != "lock")


def mode_of(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


async def test_nobody_else_can_read_them_and_their_names_are_ours(tmp_path: Path) -> None:
    folder = tmp_path / "deep" / "files"
    async with DiskFiles(LIMITS, FakeClock(), folder, is_kept=True) as store:
        file = await put(store, name="../../etc/passwd")
        async with store.upload(ALICE) as upload:
            await upload.write(b"half")
            modes = {path.name: mode_of(path) for path in folder.iterdir()}

        assert names(folder) == [file.id, f"{file.id}.json"]
    assert mode_of(folder) == 0o700
    assert set(modes.values()) == {0o600}
    assert len(modes) == 4


async def test_a_folder_that_is_there_is_made_private(tmp_path: Path) -> None:
    folder = tmp_path / "files"
    folder.mkdir(0o755)
    async with DiskFiles(LIMITS, FakeClock(), folder):
        assert mode_of(folder) == 0o700


async def test_a_folder_with_things_of_others_in_it_stays_theirs_too(tmp_path: Path) -> None:
    """Somebody may name /tmp, or their home."""
    folder = tmp_path / "shared"
    folder.mkdir()
    folder.chmod(0o777)
    (folder / "theirs").write_text("theirs")
    async with DiskFiles(LIMITS, FakeClock(), folder):
        assert mode_of(folder) == 0o777


async def test_all_are_removed_at_the_end_and_nothing_else(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("mine")
    async with DiskFiles(LIMITS, FakeClock(), tmp_path) as store:
        await put(store)

    assert names(tmp_path) == ["mine.txt"]


async def test_without_a_folder_of_ones_own_nothing_is_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    async with DiskFiles(LIMITS, FakeClock(), is_kept=True) as store:
        await put(store)
        (name,) = names(tmp_path)
        assert mode_of(tmp_path / name) == 0o700

    assert names(tmp_path) == []


async def test_the_temporary_folder_of_a_server_that_was_killed_is_removed_by_the_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not that of one that runs, nor one that was made just now, nor what only has such a name."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    clock = FakeClock()
    async with DiskFiles(LIMITS, clock) as running:
        file = await put(running)
        (own,) = names(tmp_path)
        dead = abandoned(tmp_path / "unbroken-files-dead", clock.time() - 61)
        new = abandoned(tmp_path / "unbroken-files-new", clock.time() - 59)
        set_age(tmp_path / own, clock.time() - 61)
        (tmp_path / "unbroken-files-link").symlink_to(new)
        (tmp_path / "unbroken-files-file").write_text("")
        async with DiskFiles(LIMITS, clock):
            assert dead.name not in names(tmp_path)
            assert {own, new.name, "unbroken-files-link", "unbroken-files-file"} < set(names(tmp_path))
        assert await content_of(running, file.id) == b"hello"


async def test_a_temporary_folder_that_another_server_takes_for_abandoned_is_left_to_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its clock goes wrong: it has the lock of one that was made just now, and has removed another."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    make, made = tempfile.mkdtemp, []

    def taken(**options: str) -> str:
        made.append(folder := make(**options))
        if len(made) == 1:
            locks.append(os.open(Path(folder) / "lock", os.O_RDWR | os.O_CREAT))
            fcntl.flock(locks[0], fcntl.LOCK_EX)
        elif len(made) == 2:
            Path(folder).rmdir()
        return folder

    locks: list[int] = []
    monkeypatch.setattr(tempfile, "mkdtemp", taken)
    async with DiskFiles(LIMITS, FakeClock()) as store:
        file = await put(store)
        assert await content_of(store, file.id) == b"hello"
    os.close(locks[0])
    assert len(made) == 3


def abandoned(folder: Path, made_at: float) -> Path:
    folder.mkdir(0o700)
    (folder / "lock").touch()
    (folder / f"file-{0:032x}").write_bytes(b"old")
    set_age(folder, made_at)
    return folder


def set_age(path: Path, made_at: float) -> None:
    os.utime(path, (made_at, made_at))


async def test_expired_and_deleted_ones_are_removed_from_the_disk(tmp_path: Path) -> None:
    clock = FakeClock()
    async with DiskFiles(LIMITS, clock, tmp_path, is_kept=True) as store:
        await put(store)
        await store.delete((await put(store)).id, ALICE)
        clock.advance(62)
        await eventually(lambda: names(tmp_path) == [])


async def test_those_that_stay_are_found_by_the_next_store(tmp_path: Path) -> None:
    clock = FakeClock()
    async with DiskFiles(LIMITS, clock, tmp_path, is_kept=True) as store:
        file = await put(store, lifetime=100.0)
        gone = await put(store, lifetime=10.0)
    clock.advance(50)
    async with DiskFiles(LIMITS, clock, tmp_path, is_kept=True) as store:
        assert await store.of(ALICE) == [file]
        assert await content_of(store, file.id) == b"hello"
        with pytest.raises(FileNotFound):
            await store.stat(gone.id, ALICE)
        clock.advance(60)
        await eventually(lambda: names(tmp_path) == [])


@pytest.mark.parametrize("is_kept", [True, False])
async def test_what_a_crash_has_left_is_removed_at_the_start(tmp_path: Path, is_kept: bool) -> None:
    """A half-written file, one without description, a description without its file, one of another length."""
    ids = [f"file-{number:032x}" for number in range(4)]
    clock = FakeClock()
    async with DiskFiles(LIMITS, clock, tmp_path, is_kept=True) as store:
        short = await put(store)
    (tmp_path / short.id).write_bytes(b"hell")
    (tmp_path / f"{ids[0]}.part").write_bytes(b"half")
    (tmp_path / ids[1]).write_bytes(b"whole")
    (tmp_path / f"{ids[2]}.json").write_bytes(b"{}")
    (tmp_path / ids[3]).write_bytes(b"whole")
    (tmp_path / f"{ids[3]}.json").write_bytes(b"{}")
    async with DiskFiles(LIMITS, clock, tmp_path, is_kept=is_kept) as store:
        assert store.count == 0
        assert names(tmp_path) == []


async def test_two_stores_do_not_share_a_folder(tmp_path: Path) -> None:
    async with DiskFiles(LIMITS, FakeClock(), tmp_path) as store:
        file = await put(store)
        with pytest.raises(FilesUnavailable, match="another server uses the folder"):
            async with DiskFiles(LIMITS, FakeClock(), tmp_path):
                pass
        assert await content_of(store, file.id) == b"hello"


async def test_a_folder_that_cannot_be_made_is_told_of(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(FilesUnavailable, match="Set UNBROKEN_FILES_DIR"):
        async with DiskFiles(LIMITS, FakeClock(), tmp_path / "file" / "folder"):
            pass


async def test_a_disk_without_room_fails_one_upload_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with DiskFiles(LIMITS, FakeClock(), tmp_path) as store:
        real = os.open
        with monkeypatch.context() as patch:
            patch.setattr(os, "open", _full)
            with pytest.raises(FilesUnavailable, match="Try again later"):
                await put(store)
        assert os.open is real
        assert (store.count, store.size, names(tmp_path)) == (0, 0, [])
        await put(store)


def _full(*_: object) -> int:
    raise OSError(28, "No space left on device")


async def test_a_content_that_is_gone_from_the_disk_is_not_found(tmp_path: Path) -> None:
    async with DiskFiles(LIMITS, FakeClock(), tmp_path) as store:
        file = await put(store)
        (tmp_path / file.id).unlink()
        with pytest.raises(FileNotFound):
            await content_of(store, file.id)


async def test_a_link_in_the_folder_is_not_followed(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("secret")
    folder = tmp_path / "files"
    async with DiskFiles(LIMITS, FakeClock(), folder) as store:
        file = await put(store)
        (folder / file.id).unlink()
        (folder / file.id).symlink_to(secret)
        with pytest.raises(FilesUnavailable):
            await content_of(store, file.id)
    assert secret.read_text() == "secret"


async def test_outside_its_time_it_keeps_nothing(tmp_path: Path) -> None:
    store = DiskFiles(LIMITS, FakeClock(), tmp_path)
    async with store:
        pass
    with pytest.raises(FilesUnavailable):
        async with store.upload(ALICE) as upload:
            await upload.write(b"x")
