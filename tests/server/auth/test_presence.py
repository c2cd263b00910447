"""Whoever is here is known, though the directory has forgotten them, or can't be asked."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.fakes.clock import FakeClock
from tests.server.auth.directory_contract import ANN, BEN, DirectoryContract
from unbroken.server.auth.directory import Directory, MemoryDirectory
from unbroken.server.auth.presence import Presence
from unbroken.server.auth.principal import Principal
from unbroken.server.auth.redis.connection import Redis
from unbroken.server.auth.redis.directory import RedisDirectory
from unbroken.sessions.errors import StoreUnavailable


class TestInMemory(DirectoryContract):
    @pytest.fixture
    def nodes(self) -> tuple[Directory, Directory]:
        directory = MemoryDirectory(FakeClock())
        return Presence(directory), Presence(directory)


class TestRedis(DirectoryContract):
    @pytest.fixture
    def nodes(self, redis: Redis) -> tuple[Directory, Directory]:
        return Presence(RedisDirectory(redis, FakeClock())), Presence(RedisDirectory(redis, FakeClock()))


async def crowd(presence: Presence) -> None:
    for number in range(3):
        await presence.note(Principal(f"user:{number}"))


async def test_who_is_here_is_not_pushed_out_by_others() -> None:
    presence = Presence(MemoryDirectory(FakeClock(), remembered=2))
    await presence.note(ANN)
    await presence.note(BEN)
    with presence.stay(ANN):
        await crowd(presence)
        assert await presence.find(ANN.id) == ANN
        assert await presence.known(BEN.id) is None, "who isn't, is"


async def test_who_is_here_for_weeks_is_known() -> None:
    clock = FakeClock()
    presence = Presence(MemoryDirectory(clock))
    await presence.note(ANN)
    with presence.stay(ANN):
        clock.advance(30 * 86_400)
        assert await presence.find(ANN.id) == ANN


async def test_who_has_just_left_is_known_for_what_they_asked_for() -> None:
    """A response of theirs waits behind another, and is still to begin."""
    presence = Presence(MemoryDirectory(FakeClock(), remembered=2))
    with presence.stay(ANN):
        await crowd(presence)
    assert await presence.find(ANN.id) == ANN
    assert presence.present == 0


async def test_those_who_have_left_are_forgotten_among_many(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("unbroken.server.auth.presence._LEFT", 2)
    presence = Presence(MemoryDirectory(FakeClock(), remembered=1))
    for each in (ANN, BEN, Principal("user:1"), Principal("user:2")):
        with presence.stay(each):
            pass

    assert await presence.find(ANN.id) is None


async def test_who_has_several_connections_is_here_until_the_last_one_ends() -> None:
    presence = Presence(MemoryDirectory(FakeClock()))
    with presence.stay(ANN):
        with presence.stay(ANN):
            assert presence.present == 1
        assert presence.present == 1
    assert presence.present == 0


async def test_who_was_noted_last_counts_wherever_that_is_known() -> None:
    inner = MemoryDirectory(FakeClock(), remembered=2)
    presence = Presence(inner)
    later, latest = replace(ANN, plan="later"), replace(ANN, plan="latest")
    with presence.stay(ANN):
        await presence.note(later)
        await crowd(presence)
        assert await presence.find(ANN.id) == later
        await inner.note(latest)  # by another node
        assert await presence.find(ANN.id) == latest


async def test_without_the_others_a_node_knows_whoever_is_here(nobody: Redis) -> None:
    presence = Presence(RedisDirectory(nobody, FakeClock(), remembered=1))
    with presence.stay(ANN):
        await crowd(presence)
        assert await presence.find(ANN.id) == ANN
        with pytest.raises(StoreUnavailable):
            await presence.find(BEN.id)
