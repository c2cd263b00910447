from __future__ import annotations

from tests.fakes.clock import FakeClock
from unbroken.server.auth.base import Grant
from unbroken.server.auth.lapse import Lapse, Lapses
from unbroken.server.auth.principal import Principal


def grant(clock: FakeClock, seconds: float | None = None, key_id: str | None = None) -> Grant:
    expires_at = None if seconds is None else clock.time() + seconds
    return Grant(Principal("user:ann", expires_at=expires_at), key_id)


def test_what_never_ends_costs_nothing() -> None:
    clock = FakeClock()

    assert Lapses(clock).stay(grant(clock), lambda _: None) is None
    assert clock.pending == 0


def test_what_expires_is_told_once_then() -> None:
    clock, told = FakeClock(), list[Lapse]()
    Lapses(clock).stay(grant(clock, 10_000), told.append)
    clock.advance(9_999)
    assert told == []
    clock.advance(2)

    assert told == [Lapse.EXPIRED]
    assert clock.pending == 0


def test_what_has_expired_already_is_told_in_a_moment() -> None:
    clock, told = FakeClock(), list[Lapse]()
    Lapses(clock).stay(grant(clock, -1), told.append)
    assert told == [], "not from within the call"
    clock.advance(0)

    assert told == [Lapse.EXPIRED]


def test_a_revoked_key_ends_all_that_it_let_in_and_nobody_else() -> None:
    clock, told = FakeClock(), list[str]()
    lapses = Lapses(clock)
    for name, key_id in (("a", "k1"), ("b", "k1"), ("c", "k2")):
        lapses.stay(grant(clock, 100, key_id), lambda reason, name=name: told.append(name + reason.value))  # type: ignore[misc]
    assert lapses.key_ids == {"k1", "k2"}
    lapses.revoke(["k1"])

    assert sorted(told) == ["acredential_revoked", "bcredential_revoked"]
    assert lapses.key_ids == {"k2"}
    clock.advance(1000)
    assert len(told) == 3, "the third expires, and nobody is told twice"


def test_whoever_is_just_being_let_in_by_a_revoked_key_is_told_too() -> None:
    clock, told = FakeClock(), list[Lapse]()
    lapses = Lapses(clock)
    lapses.revoke(["k1"])
    lapses.stay(grant(clock, None, "k1"), told.append)
    clock.advance(0)

    assert told == [Lapse.REVOKED]


def test_a_key_that_its_store_has_again_counts_again() -> None:
    clock, told = FakeClock(), list[Lapse]()
    lapses = Lapses(clock)
    lapses.revoke(["k1"])
    lapses.reinstate(["k1", "k2"])
    lapses.stay(grant(clock, None, "k1"), told.append)
    clock.advance(0)

    assert told == []


def test_a_connection_that_has_ended_is_not_told() -> None:
    clock, told = FakeClock(), list[Lapse]()
    lapses = Lapses(clock)
    stay = lapses.stay(grant(clock, 10, "k1"), told.append)
    assert stay is not None
    stay.close()
    stay.close()
    lapses.revoke(["k1"])
    clock.advance(100)

    assert told == []
    assert lapses.key_ids == frozenset()
    assert clock.pending == 0


def test_the_revoked_are_remembered_within_bounds() -> None:
    lapses = Lapses(FakeClock())
    lapses.revoke([f"k{number}" for number in range(5000)])

    assert len(lapses._revoked) == 1024
