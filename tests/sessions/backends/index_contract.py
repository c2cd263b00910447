"""What every index of sessions must do. Subclass, and provide ``index``, which lists eight of anybody's."""

from __future__ import annotations

import asyncio

from unbroken.sessions.backends.index import Asked, Search, SessionIndex
from unbroken.sessions.ids import PrincipalId, SessionId

ANN = PrincipalId("0123456789abcdef")
BEN = PrincipalId("strange: {name} *")
LISTED = 8


def named(number: int) -> SessionId:
    return SessionId(f"sess_{number:032x}")


async def ids_of(index: SessionIndex, principal: PrincipalId, limit: int = 99) -> list[SessionId]:
    return [each.session_id for each in await index.page(principal, limit) or []]


class IndexContract:
    """Run over each implementation."""

    async def test_sessions_are_listed_by_when_they_began(self, index: SessionIndex) -> None:
        await index.note(ANN, {named(1): 100, named(2): 300})
        await index.note(ANN, {named(3): 200})

        assert await index.page(ANN, 9) == [(named(2), 300), (named(3), 200), (named(1), 100)]
        assert await index.page(ANN, 9, oldest_first=True) == [
            (named(1), 100),
            (named(3), 200),
            (named(2), 300),
        ]
        assert await index.page(BEN, 9) == []
        assert (await index.count(ANN), await index.count(BEN)) == (3, 0)

    async def test_pages_follow_each_other_also_where_many_began_at_once(self, index: SessionIndex) -> None:
        await index.note(ANN, {named(number): 100 for number in range(7)})
        for oldest_first in (False, True):
            seen: list[SessionId] = []
            after = None
            while page := await index.page(ANN, 3, after=after, oldest_first=oldest_first):
                assert len(page) <= 3
                seen += [each.session_id for each in page]
                after = seen[-1]
            assert sorted(seen) == [named(number) for number in range(7)]

    async def test_what_follows_something_that_is_not_listed_is_not_known(self, index: SessionIndex) -> None:
        await index.note(ANN, {named(1): 100})
        assert await index.page(ANN, 3, after=named(9)) is None
        assert await index.page(BEN, 3, after=named(1)) is None

    async def test_to_note_one_again_changes_nothing(self, index: SessionIndex) -> None:
        for _ in range(3):
            await index.note(ANN, {named(1): 100})
        await index.note(
            ANN, {named(1): 700}
        )  # as of an earlier release's session, of which nobody knows when

        assert await index.page(ANN, 9) == [(named(1), 100)]

    async def test_there_is_a_bound_and_the_oldest_go(self, index: SessionIndex) -> None:
        for number in range(20):
            await index.note(ANN, {named(number): 100 + number})

        assert await ids_of(index, ANN) == [named(number) for number in range(19, 19 - LISTED, -1)]
        assert await index.count(ANN) == LISTED

    async def test_as_many_are_admitted_as_may_be(self, index: SessionIndex) -> None:
        await index.note(ANN, {named(1): 100})
        counts = await asyncio.gather(*(index.admit(ANN, named(number), 200, 3) for number in range(2, 7)))
        assert sorted(counts) == [1, 2, 3, 3, 3]
        listed = await ids_of(index, ANN)
        assert len(listed) == 3
        for each in listed:
            assert await index.admit(ANN, each, 900, 3) == 2
        assert await index.page(ANN, 1, oldest_first=True) == [(named(1), 100)]
        await index.drop(ANN, listed[:1])
        assert await index.admit(ANN, named(9), 900, 3) == 2
        assert await index.admit(BEN, named(9), 900, 3) == 0

    async def test_what_is_dropped_is_listed_no_more(self, index: SessionIndex) -> None:
        await index.note(ANN, {named(1): 100, named(2): 200})
        for _ in range(2):
            await index.drop(ANN, [named(1), named(7)])
        await index.drop(BEN, [named(2)])
        await index.drop(ANN, [])

        assert await ids_of(index, ANN) == [named(2)]

    async def test_whoever_notes_a_session_is_told_what_was_erased(self, index: SessionIndex) -> None:
        assert await index.note(ANN, {named(1): 100}) == 0
        await index.note_erased(ANN, 500)
        await index.note_erased(ANN, 400)  # late

        assert await index.note(ANN, {named(2): 450}) == 500
        assert await index.note(BEN, {named(3): 450}) == 0
        assert await ids_of(index, ANN) == [named(2), named(1)]

    async def test_what_is_asked_for_and_not_over_stays_known(self, index: SessionIndex) -> None:
        assert await index.asked(ANN, is_thorough=True) is None
        asked, again = Asked(at=500, noted_at=500), Asked(at=500, noted_at=700)
        for each in (asked, again):
            await index.note_asked(ANN, each, is_thorough=True)
            assert await index.asked(ANN, is_thorough=True) == each
        assert await index.asked(ANN, is_thorough=False) is None
        assert await index.asked(BEN, is_thorough=True) is None

        for is_thorough in (False, True, True):
            await index.note_asked(ANN, None, is_thorough=is_thorough)
        assert await index.asked(ANN, is_thorough=True) is None

    async def test_how_far_a_search_is_stays_known(self, index: SessionIndex) -> None:
        assert await index.search(ANN) is None
        begun = Search(at=500, noted_at=500)
        far = Search(at=500, noted_at=700, place='{"a": 1}', looked_at=9, is_whole=False, is_over=True)
        for search in (begun, far):
            await index.note_search(ANN, search)
            assert await index.search(ANN) == search
        assert await index.search(BEN) is None
