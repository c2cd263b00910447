from __future__ import annotations

from contextlib import suppress
from typing import Final, NoReturn

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from unbroken.server.fair_names import FairNames
from unbroken.server.files.base import (
    FileDetails,
    FileError,
    FileId,
    FileLimits,
    FileNotFound,
    FilesFull,
    StoredFile,
    TooManyFiles,
    new_file_id,
)
from unbroken.server.files.ledger import OVERHEAD, Ledger, Reservation
from unbroken.sessions.ids import PrincipalId

NAMES: Final = st.sampled_from([PrincipalId("a"), PrincipalId("b"), PrincipalId("c")])
LIMITS: Final = FileLimits(
    file_bytes=50,
    principal_bytes=3 * OVERHEAD + 100,
    node_bytes=6 * OVERHEAD + 160,
    principal_files=3,
)


class LedgerMachine(RuleBasedStateMachine):
    """Whatever is reserved, grown, kept, given back and expires: the sums are right, and the bounds hold."""

    def __init__(self) -> None:
        super().__init__()
        self.ledger = Ledger(LIMITS)
        self.open: list[Reservation] = []
        self.files: list[StoredFile] = []
        self.now = 0.0

    @rule(name=NAMES)
    def reserve(self, name: PrincipalId) -> None:
        with suppress(FileError):
            self.open.append(self.ledger.reserve(name))

    @precondition(lambda self: self.open)
    @rule(index=st.integers(0, 9), size=st.integers(0, 60))
    def grow(self, index: int, size: int) -> None:
        reservation = self.open[index % len(self.open)]
        before = self.ledger.size
        try:
            reservation.grow(size)
        except FileError:
            assert self.ledger.size == before

    @precondition(lambda self: self.open)
    @rule(index=st.integers(0, 9), lifetime=st.integers(1, 5))
    def add(self, index: int, lifetime: int) -> None:
        reservation = self.open.pop(index % len(self.open))
        file = StoredFile(
            id=new_file_id(),
            principal=reservation.principal,
            name="",
            media_type="",
            bytes=reservation.bytes,
            purpose="",
            created_at=self.now,
            expires_at=self.now + lifetime,
        )
        self.ledger.add(file, reservation)
        reservation.release()  # harmless
        self.files.append(file)

    @precondition(lambda self: self.open)
    @rule(index=st.integers(0, 9), again=st.booleans())
    def release(self, index: int, again: bool) -> None:
        reservation = self.open.pop(index % len(self.open))
        reservation.release()
        if again:
            reservation.release()

    @rule()
    def expire(self) -> None:
        self.now += 1
        gone = self.ledger.expire(self.now)
        assert {file.id for file in gone} == {file.id for file in self.files if file.expires_at <= self.now}
        assert [file.expires_at for file in gone] == sorted(file.expires_at for file in gone)
        for file in gone:
            self.ledger.remove(file)  # harmless
        self.files = [file for file in self.files if file.expires_at > self.now]

    @precondition(lambda self: self.files)
    @rule(index=st.integers(0, 9))
    def remove(self, index: int) -> None:
        self.ledger.remove(self.files.pop(index % len(self.files)))

    @invariant()
    def sums_are_right_and_bounds_hold(self) -> None:
        by_name: dict[PrincipalId, list[int]] = {}
        held = [(each.principal, each.bytes) for each in self.files]
        for name, size in held + [(each.principal, each.bytes) for each in self.open]:
            by_name.setdefault(name, []).append(size + OVERHEAD)

        assert self.ledger.size == sum(map(sum, by_name.values())) <= LIMITS.node_bytes
        assert len(self.ledger) == len(self.files)
        assert all(sum(sizes) <= LIMITS.principal_bytes for sizes in by_name.values())
        assert all(len(sizes) <= LIMITS.principal_files for sizes in by_name.values())
        for file in self.files:
            assert self.ledger.find(file.id, file.principal, self.now) is file
            for other in {"a", "b", "c"} - {file.principal}:
                with pytest.raises(FileNotFound):
                    self.ledger.find(file.id, PrincipalId(other), self.now)
        assert self.ledger.next_expiry == min((file.expires_at for file in self.files), default=None)


TestLedger = LedgerMachine.TestCase


def stored(ledger: Ledger, size: int, *, expires_at: float, name: str = "a") -> StoredFile:
    reservation = ledger.reserve(PrincipalId(name))
    reservation.grow(size)
    details = FileDetails(name="", media_type="", purpose="", lifetime=expires_at)
    file = reservation.file(details, new_file_id(), 0.0)
    ledger.add(file, reservation)
    return file


def test_a_bound_has_room_for_a_file_as_large_as_one_may_be() -> None:
    """What a file counts for beside its content kept it out."""
    ledger = Ledger(FileLimits(file_bytes=9000, principal_bytes=9000, node_bytes=9000, principal_files=9))

    file = stored(ledger, 9000, expires_at=1)

    with pytest.raises(TooManyFiles):
        ledger.reserve(PrincipalId("a"))
    with pytest.raises(FilesFull):
        ledger.reserve(PrincipalId("b"))
    ledger.remove(file)
    stored(ledger, 9000, expires_at=1)


def test_strangers_count_by_address_and_together() -> None:
    """Also those whose files are there from before, and wherever one of them has come from since."""
    names = FairNames()
    for name, address in (("a", b"1"), ("b", b"1"), ("c", b"2"), ("d", None)):
        names.note_stranger(name, address)
    limits = FileLimits(principal_bytes=2 * OVERHEAD, strangers_bytes=3 * OVERHEAD, file_bytes=1)
    ledger = Ledger(limits, names.of)
    kept = [stored(ledger, 0, expires_at=1, name=name) for name in ("a", "b")]
    with pytest.raises(TooManyFiles):
        ledger.reserve(PrincipalId("a"))
    names.note_stranger("a", b"2")
    kept.append(stored(ledger, 0, expires_at=1, name="a"))
    for name in ("c", "d"):
        with pytest.raises(FilesFull):
            ledger.reserve(PrincipalId(name))
    stored(ledger, 0, expires_at=1, name="known")

    later = Ledger(limits)
    for file in kept:
        later.restore(file)

    assert later.of(PrincipalId("a"), 0) == ledger.of(PrincipalId("a"), 0) == [kept[0], kept[2]]
    for each in (ledger, later):
        for file in kept:
            each.remove(file)
        assert each._strangers_bytes == 0
        assert each.of(PrincipalId("a"), 0) == []


def test_what_has_not_expired_is_not_looked_at() -> None:
    """It runs as often as every second, and there may be hundreds of thousands."""
    ledger = Ledger(FileLimits())
    looks = 0

    class Watched(dict[FileId, StoredFile]):
        def __contains__(self, key: object) -> bool:
            nonlocal looks
            looks += 1
            return super().__contains__(key)

        def values(self) -> NoReturn:
            raise AssertionError("walks through all files")

    kept = [stored(ledger, 1, expires_at=100 + n) for n in range(900)]
    gone = [stored(ledger, 1, expires_at=n) for n in range(10)]
    ledger._files = Watched(ledger._files)

    assert ledger.expire(50) == gone
    assert ledger.next_expiry == kept[0].expires_at
    assert looks < 2 * (len(gone) + 2)


def test_files_that_come_and_go_leave_nothing() -> None:
    ledger = Ledger(FileLimits())
    kept = [stored(ledger, 1, expires_at=1e6 + n) for n in range(10)]

    for n in range(1000):
        ledger.remove(stored(ledger, 1, expires_at=1e5 + n))

    assert len(ledger._dates) < 100
    assert ledger.next_expiry == kept[0].expires_at
