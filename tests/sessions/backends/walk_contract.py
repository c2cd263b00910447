"""What every walk through a store must do. Subclass; provide ``store``, and ``walk`` through it."""

from __future__ import annotations

from contextlib import aclosing

from tests.sessions.backends.store_contract import LIFE, A
from unbroken.sessions.backends.base import SessionStore
from unbroken.sessions.backends.walk import WalkThrough
from unbroken.sessions.ids import SessionId, new_session_id

MANY = 3000
"""More than are in one stretch."""


async def begun(store: SessionStore, count: int = MANY) -> set[SessionId]:
    """Have sessions be there, and return which."""
    ids = {new_session_id() for _ in range(count)}
    for session_id in ids:
        await store.create(session_id, A, LIFE)
    return ids


async def seen(walk: WalkThrough, place: str = "", *, stretches: int = 10_000) -> tuple[list[SessionId], str]:
    """Return what is behind *place*, up to so many stretches, and where it goes on."""
    found: list[SessionId] = []
    async with aclosing(walk(place)) as walked:
        async for stretch in walked:
            found += stretch.session_ids
            place = stretch.place
            if (stretches := stretches - 1) == 0:
                break
    return found, place


class WalkContract:
    """Run over each implementation."""

    async def test_all_sessions_are_walked_through(self, store: SessionStore, walk: WalkThrough) -> None:
        ids = await begun(store)
        assert set((await seen(walk))[0]) == ids

    async def test_where_nothing_is_there_is_nothing(self, walk: WalkThrough) -> None:
        assert (await seen(walk))[0] == []

    async def test_it_goes_on_where_it_was_cut_off(self, store: SessionStore, walk: WalkThrough) -> None:
        """Also while what was seen is deleted, and more begins: nothing that stays is left out."""
        ids, found, place, calls = await begun(store), list[SessionId](), "", 0
        gone = set[SessionId]()
        while ids - gone - set(found):
            some, place = await seen(walk, place, stretches=1)
            found += some
            for session_id in some[::2]:
                await store.erase(session_id)
                gone.add(session_id)
            await begun(store, 10)
            calls += 1
            assert calls < MANY, "it doesn't get on"
        assert calls > 1
        assert len(set(found)) > 0.8 * len(found), "it begins again"
