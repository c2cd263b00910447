from __future__ import annotations

from collections.abc import Awaitable, Callable

import pytest

from tests.fakes.clock import FakeClock
from tests.server.realtime.serving import eventually
from unbroken.server.auth.base import Credentials, Grant, Unauthenticated
from unbroken.server.auth.key_store import KeyRecord, MemoryKeyStore, new_key
from unbroken.server.auth.keyring import Keyring
from unbroken.server.auth.lapse import Lapse, Lapses
from unbroken.sessions.errors import StoreUnavailable


class FlakyStore(MemoryKeyStore):
    """A store in memory. Fault verbs: :meth:`go`, :meth:`come_back`, :meth:`delay_next_answer`."""

    def __init__(self) -> None:
        super().__init__()
        self.is_gone = False
        self.finds = 0
        self._meanwhile: Callable[[], Awaitable[None]] | None = None
        self.notes = 0

    def go(self) -> None:
        self.is_gone = True

    def come_back(self) -> None:
        self.is_gone = False

    def delay_next_answer(self, meanwhile: Callable[[], Awaitable[None]]) -> None:
        """Have this be done between finding a key and saying so."""
        self._meanwhile = meanwhile

    def _check(self) -> None:
        if self.is_gone:
            raise StoreUnavailable("gone")

    async def find(self, digest: str) -> KeyRecord | None:
        self._check()
        self.finds += 1
        found = await super().find(digest)
        if (meanwhile := self._meanwhile) is not None:
            self._meanwhile = None
            await meanwhile()
        return found

    async def version(self) -> str:
        self._check()
        return await super().version()

    async def note_uses(self, uses: object) -> None:
        self._check()
        self.notes += 1
        await super().note_uses(uses)  # type: ignore[arg-type]


class Bench:
    """A keyring with one key."""

    def __init__(self) -> None:
        self.clock = FakeClock()
        self.store = FlakyStore()
        self.lapses = Lapses(self.clock)
        self.ring = Keyring(self.store, self.lapses, self.clock)
        self.told: list[Lapse] = []

    async def add(self, seconds: float | None = None) -> tuple[str, KeyRecord]:
        expires_at = None if seconds is None else self.clock.time() + seconds
        key, record = new_key("ci", now=self.clock.time(), expires_at=expires_at)
        await self.store.add(record)
        return key, record

    async def present(self, key: str | None) -> Grant:
        return await self.ring.authenticate(Credentials(key, is_browser=False))

    async def refused(self, key: str | None) -> None:
        with pytest.raises(Unauthenticated):
            await self.present(key)


@pytest.fixture
def bench() -> Bench:
    return Bench()


async def test_a_key_is_its_record(bench: Bench) -> None:
    key, record = await bench.add()

    assert await bench.present(key) == Grant(record.principal, record.id)
    for wrong in (None, "", key + "x", key.upper(), record.id, record.digest, "\ud800", "x" * 10**6):
        await bench.refused(wrong)


async def test_an_expired_key_proves_nothing(bench: Bench) -> None:
    key, _ = await bench.add(10)
    await bench.present(key)
    bench.clock.advance(10)

    await bench.refused(key)


async def test_a_key_is_not_looked_up_each_time(bench: Bench) -> None:
    key, _ = await bench.add()
    await bench.ring.look()
    for _ in range(5):
        await bench.present(key)

    assert bench.store.finds == 1


async def test_a_revoked_key_ends_connections_at_the_next_look_and_lets_nobody_in(bench: Bench) -> None:
    key, record = await bench.add()
    await bench.ring.look()
    bench.lapses.stay(await bench.present(key), bench.told.append)
    await bench.store.revoke(record.id)
    await bench.ring.look()

    assert bench.told == [Lapse.REVOKED]
    await bench.refused(key)
    assert not await bench.ring.stands(record.id)


async def test_a_key_that_is_revoked_while_it_is_looked_up_lets_nobody_in_after_that(bench: Bench) -> None:
    """What was found before the change is not what is known after it."""
    key, record = await bench.add()
    await bench.ring.look()

    async def revoke() -> None:
        await bench.store.revoke(record.id)
        await bench.ring.look()

    bench.store.delay_next_answer(revoke)
    await bench.present(key)  # who came before

    await bench.refused(key)


async def test_a_key_that_came_and_went_between_two_looks_ends_connections_too(bench: Bench) -> None:
    await bench.ring.look()
    key, record = await bench.add()
    bench.lapses.stay(await bench.present(key), bench.told.append)
    await bench.store.revoke(record.id)
    await bench.ring.look()

    assert bench.told == [Lapse.REVOKED]


async def test_a_key_that_was_just_added_counts_at_once(bench: Bench) -> None:
    await bench.ring.look()
    key, record = await bench.add()

    await bench.present(key)
    assert await bench.ring.stands(record.id)


async def test_what_is_used_is_written_at_most_once_a_minute(bench: Bench) -> None:
    key, _ = await bench.add()
    for _ in range(130):
        await bench.present(key)
        await bench.ring.look()
        bench.clock.advance(1)

    assert bench.store.notes == 2
    ((_, used),) = await bench.store.all()
    assert used == bench.clock.time() - 10


async def test_while_nobody_can_be_asked_known_keys_count_for_a_minute(bench: Bench) -> None:
    key, _ = await bench.add()
    other, _ = await bench.add()
    await bench.ring.look()
    await bench.present(key)
    bench.store.go()
    bench.clock.advance(59)

    await bench.present(key)
    with pytest.raises(StoreUnavailable):
        await bench.present(other)
    bench.clock.advance(2)
    with pytest.raises(StoreUnavailable):
        await bench.present(key)
    bench.store.come_back()
    await bench.present(key)


async def test_nobody_is_revoked_because_nobody_can_be_asked(bench: Bench) -> None:
    key, _ = await bench.add()
    await bench.ring.look()
    bench.lapses.stay(await bench.present(key), bench.told.append)
    bench.store.go()
    with pytest.raises(StoreUnavailable):
        await bench.ring.look()

    assert bench.told == []


async def test_it_goes_on_looking_whatever_happens(bench: Bench) -> None:
    """Until it is stopped: then it notes what was used, and has no timer left."""
    key, record = await bench.add()
    await bench.ring.start()
    bench.lapses.stay(await bench.present(key), bench.told.append)

    async def passes(holds: Callable[[], bool]) -> None:
        def moved() -> bool:
            if not holds() and bench.clock.pending:
                bench.clock.advance(1)
            return holds()

        await eventually(moved)

    bench.store.go()
    began = bench.clock.now
    await passes(lambda: bench.clock.now >= began + 3)
    bench.store.come_back()
    await bench.store.revoke(record.id)
    await passes(lambda: bool(bench.told))
    await bench.ring.stop()
    await bench.ring.stop()

    assert bench.told == [Lapse.REVOKED]
    assert bench.clock.pending == 0


async def test_what_was_used_is_noted_in_the_end(bench: Bench) -> None:
    key, _ = await bench.add()
    await bench.ring.start()
    await bench.present(key)
    await bench.ring.stop()

    ((_, used),) = await bench.store.all()
    assert used == bench.clock.time()
