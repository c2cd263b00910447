"""What the archive and its queue must do over every database. Subclass, and provide ``database``."""

from __future__ import annotations

import asyncio

import orjson
import pytest
from msgspec.structs import replace

from tests.fakes.database import WatchedDatabase
from tests.server.archive.turns import ALICE, BOB, new, session_of, turn
from unbroken.server.archive.base import ArchiveUnavailable, Delivery, Due, Owned
from unbroken.server.archive.database import Database
from unbroken.server.archive.migrating import migrate
from unbroken.server.archive.queue import SqlQueue
from unbroken.server.archive.sql import SqlArchive
from unbroken.server.archive.transcript import content_fields, turn_fields
from unbroken.sessions.finished import FinishedTurn
from unbroken.sessions.ids import SessionId

__all__ = ["ArchiveContract"]

ANYBODY = Owned()


def hook(name: str, endpoint: str = "crm") -> Delivery:
    return Delivery(name, endpoint, "turn.completed", f'{{"id":"{name}"}}')


def told(turn: FinishedTurn) -> Delivery:
    """Return a webhook that says all of a turn."""
    body = {"type": "turn.completed", "data": turn_fields(turn) | content_fields(turn)}
    return Delivery(f"w{turn.place}", "crm", "turn.completed", orjson.dumps(body).decode())


async def names(archive: SqlArchive, owned: Owned = ANYBODY) -> list[str]:
    return [each.id for each in await archive.sessions(owned, 100)]


async def due(queue: SqlQueue, now: float = 5000.0, *, endpoint: str = "crm", limit: int = 10) -> list[Due]:
    return await queue.due(endpoint, now, limit, until=now + 60)


class ArchiveContract:
    """Run over each database."""

    @pytest.fixture
    async def archive(self, database: Database) -> SqlArchive:
        archive = SqlArchive(database)
        await archive.open()
        return archive

    @pytest.fixture
    def queue(self, archive: SqlArchive, database: Database) -> SqlQueue:
        return SqlQueue(database)

    # Turns.

    async def test_a_turn_is_read_as_it_was_written_and_once(self, archive: SqlArchive) -> None:
        session_id = session_of(ALICE)
        first, second = turn(session_id, 1), turn(session_id, 2)
        assert await archive.write([new(second)], 0.0) == 1
        assert await archive.write([new(first), new(second)], 0.0) == 1  # late, and again

        assert await archive.turns(session_id, 10) == [first, second]
        (session,) = await archive.sessions(ANYBODY, 10)
        assert (session.id, session.principal, session.tenant, session.user, session.model) == (
            session_id,
            ALICE.id,
            "acme",
            "alice",
            "m",
        )
        assert (session.began_at, session.active_at, session.ended_at, session.turns) == (
            1001,
            1002.5,
            None,
            2,
        )

    async def test_turns_come_page_by_page(self, archive: SqlArchive) -> None:
        session_id = session_of(ALICE)
        turns = [turn(session_id, number) for number in range(10)]  # by place: 10 before 9 by name
        await archive.write([new(each) for each in reversed(turns)], 0.0)

        assert await archive.turns(session_id, 4) == turns[:4]
        assert await archive.turns(session_id, 4, after=turns[3].response_id) == turns[4:8]
        assert await archive.turns(session_id, 4, after=turns[9].response_id) == []
        assert await archive.turns(session_id, 4, after="resp_unknown") == []
        assert await archive.turns(SessionId("sess_unknown"), 4) == []

    async def test_sessions_come_page_by_page_and_for_whom_they_are(self, archive: SqlArchive) -> None:
        hers = [session_of(ALICE) for _ in range(5)]
        his = session_of(BOB)
        for number, session_id in enumerate(hers):
            await archive.write([new(turn(session_id, number))], 0.0)
        await archive.write([new(turn(his, 9), whose=BOB)], 0.0)

        mine = Owned(principal=ALICE.id)
        page = await archive.sessions(mine, 3)
        assert [each.id for each in page] == hers[:1:-1]
        assert [each.id for each in await archive.sessions(mine, 3, after=page[-1].id)] == hers[1::-1]
        assert await archive.sessions(mine, 3, after=SessionId("sess_gone")) == []
        assert await archive.sessions(mine, 9, after=his) == [], "behind another's there is nothing"
        assert await archive.sessions(Owned(tenant="acme", user="bob"), 9, after=hers[0]) == []
        assert len(await archive.sessions(ANYBODY, 9, after=his)) == 5
        assert len(await names(archive)) == 6
        assert await names(archive, Owned(tenant="acme", user="bob")) == [his]
        assert await names(archive, Owned(tenant="other")) == []
        assert await archive.session(his, ALICE.id) is None
        assert (await archive.session(his, BOB.id)) == (await archive.session(his))

    async def test_many_may_write_at_once(self, archive: SqlArchive) -> None:
        session_id = session_of(ALICE)
        turns = [turn(session_id, number) for number in range(8)]
        written = await asyncio.gather(*(archive.write([new(each) for each in turns], 0.0) for _ in range(4)))

        assert sum(written) == 8
        assert await archive.turns(session_id, 10) == turns

    async def test_tables_may_be_made_by_several_at_once(self, database: Database) -> None:
        await database.open()
        await asyncio.gather(*(migrate(database) for _ in range(4)))

        assert await names(SqlArchive(database)) == []

    async def test_a_later_release_may_have_gone_on(self, archive: SqlArchive, database: Database) -> None:
        async with database.transaction() as transaction:
            await transaction.execute("INSERT INTO archive_migrations (number) VALUES ($1)", 99)
            await transaction.execute("ALTER TABLE archive_turns ADD COLUMN more TEXT")
            await transaction.execute(
                "INSERT INTO archive_turns (session_id, response_id, principal, plan, place, ended_at, turn) "
                "VALUES ($1, $2, $3, $4, 1, 1, $5)",
                *("sess_x", "resp_x", "p", "default", '{"v":2}'),
            )
        await migrate(database)

        session_id = session_of(ALICE)
        await archive.write([new(turn(session_id, 1))], 0.0)
        assert len(await archive.turns(session_id, 10)) == 1
        assert await archive.turns(SessionId("sess_x"), 10) == [], "what can't be read is left alone"

    async def test_nothing_is_there_of_what_failed_halfway(
        self, archive: SqlArchive, database: Database
    ) -> None:
        with pytest.raises(RuntimeError):
            async with database.transaction() as transaction:
                await transaction.execute("INSERT INTO archive_erased (name, at) VALUES ($1, $2)", "x", 1.0)
                raise RuntimeError
        async with database.transaction() as transaction:
            assert await transaction.fetch("SELECT name FROM archive_erased") == []

    async def test_who_is_cut_off_leaves_it_usable(self, archive: SqlArchive) -> None:
        session_id = session_of(ALICE)
        turns = [new(turn(session_id, number)) for number in range(50)]
        for rounds in range(12):
            writing = asyncio.create_task(archive.write(turns, 0.0))
            for _ in range(rounds):
                await asyncio.sleep(0)
            writing.cancel()
            await asyncio.wait((writing,))

        await archive.write(turns, 0.0)
        assert len(await archive.turns(session_id, 100)) == 50

    # Erasing.

    async def test_what_is_erased_does_not_come_back(self, archive: SqlArchive, queue: SqlQueue) -> None:
        session_id, his = session_of(ALICE), session_of(BOB)
        await archive.write([new(turn(session_id, 1), deliveries=[hook("a")])], 5.0)
        await archive.write([new(turn(his, 1), whose=BOB, deliveries=[hook("b")])], 5.0)

        assert await archive.erase(ALICE.id, 1010.0) == 1
        assert await archive.erase(ALICE.id, 1009.0) == 0
        assert await names(archive) == [his]
        assert [each.delivery.message_id for each in await due(queue)] == ["b"]
        assert await archive.write([new(turn(session_id, 2), deliveries=[hook("c")])], 0.0) == 0  # late
        assert await archive.write([new(turn(session_id, 20))], 0.0) == 1  # said since
        assert [each.response_id for each in await archive.turns(session_id, 10)] == ["resp_20"]

    async def test_a_session_that_is_erased_is_so_for_good(
        self, archive: SqlArchive, queue: SqlQueue
    ) -> None:
        session_id, other = session_of(ALICE), session_of(ALICE)
        await archive.write([new(turn(session_id, 1), deliveries=[hook("a")]), new(turn(other, 1))], 0.0)

        assert await archive.erase_session(session_id, 2000.5) == 1
        ran_still = turn(session_id, 9, at=2000.0 + 86_400)
        assert await archive.write([new(ran_still, deliveries=[hook("b")])], 0.0) == 0
        assert await archive.write([new(turn(session_id, 1003))], 0.0) == 0, "by a clock that is ahead"
        assert await names(archive) == [other]
        assert await due(queue) == []

    async def test_an_answer_is_erased_and_nothing_else(self, archive: SqlArchive, queue: SqlQueue) -> None:
        """Also that of a turn which comes later. What was said to it, and what it cost, stays."""
        session_id = session_of(ALICE)
        first, second = [replace(turn(session_id, each), metadata={"a": "b"}) for each in (1, 2)]
        lone = replace(turn(session_id, 3), in_conversation=False)
        await archive.write([new(each, deliveries=[told(each)]) for each in (first, second)], 0.0)
        await archive.erase_answer(session_id, lone.response_id, 1500.0)
        for _ in range(2):
            await archive.erase_answer(session_id, first.response_id, 1500.0)
        assert await archive.write([new(lone, deliveries=[told(lone)])], 0.0) == 1

        kept = [replace(first, output=(), metadata=None), second, replace(lone, output=(), input=())]
        assert await archive.turns(session_id, 9) == kept
        found = await archive.session(session_id)
        assert found is not None
        assert found.turns == 3
        bodies = {each.delivery.message_id: each.delivery.body for each in await due(queue)}
        assert bodies == {
            "w1": told(kept[0]).body,
            "w2": told(second).body,
            "w3": told(kept[2]).body,
        }
        await archive.write([new(first)], 0.0)  # as after a failover
        assert await archive.turns(session_id, 9) == kept

    async def test_a_webhook_that_only_names_an_erased_answer_stays(
        self, archive: SqlArchive, queue: SqlQueue
    ) -> None:
        session_id = session_of(ALICE)
        first = turn(session_id, 1)
        naming = replace(turn(session_id, 2), metadata={"after": first.response_id})
        await archive.write([new(each, deliveries=[told(each)]) for each in (first, naming)], 0.0)
        await archive.erase_answer(session_id, first.response_id, 1500.0)

        bodies = {each.delivery.message_id: each.delivery.body for each in await due(queue)}
        assert bodies["w2"] == told(naming).body
        assert bodies["w1"] != told(first).body

    async def test_one_turn_is_had_by_whose_it_is(self, archive: SqlArchive) -> None:
        session_id = session_of(ALICE)
        only, later = turn(session_id, 1), replace(turn(session_id, 2), v=9)
        await archive.write([new(only), new(later)], 0.0)

        assert await archive.turn(session_id, only.response_id, ALICE.id) == only
        assert await archive.turn(session_id, only.response_id, BOB.id) is None
        assert await archive.turn(session_of(ALICE), only.response_id, ALICE.id) is None
        assert await archive.turn(session_id, later.response_id, ALICE.id) is None, "nobody can read it"

    async def test_an_answer_that_can_t_be_read_goes_as_a_whole(
        self, archive: SqlArchive, database: Database
    ) -> None:
        session_id = session_of(ALICE)
        later, other = replace(turn(session_id, 1), v=9), turn(session_id, 2)
        await archive.write([new(later), new(other)], 0.0)
        await archive.erase_answer(session_id, later.response_id, 1500.0)
        async with database.transaction() as transaction:
            assert await transaction.fetch("SELECT response_id FROM archive_turns") == [(other.response_id,)]

    async def test_a_name_that_is_used_again_is_archived_again(self, archive: SqlArchive) -> None:
        session_id, day = session_of(ALICE), 86_400
        await archive.write([new(turn(session_id, 1))], 0.0)
        await archive.erase_session(session_id, 2000.0)

        anew = turn(session_id, 1000 + day)
        assert await archive.write([new(turn(session_id, 2)), new(anew)], 0.0) == 1
        assert await archive.turns(session_id, 10) == [anew]
        await archive.erase_session(session_of(ALICE), 2000.0 + 7 * day)
        assert await archive.write([new(turn(session_id, 3))], 0.0) == 0, "late by days, and erased still"
        assert await archive.erase_session(session_id, 2000.0 + 2 * day) == 1
        assert await archive.write([new(anew)], 0.0) == 0

    @pytest.mark.parametrize("what", ["user", "session"])
    async def test_much_is_erased_in_parts_and_who_is_cut_off_asks_again(
        self, database: Database, monkeypatch: pytest.MonkeyPatch, what: str
    ) -> None:
        monkeypatch.setattr("unbroken.server.archive.erasing._AT_ONCE", 2)
        watched = WatchedDatabase(database)
        archive, queue, session_id = SqlArchive(watched), SqlQueue(watched), session_of(ALICE)
        await archive.open()
        for number in range(5):
            made = new(turn(session_id, number), deliveries=[hook(f"{number}")])
            await archive.write([made, new(turn(session_of(ALICE), number))], 5.0)

        async def erase() -> int:
            if what == "user":
                return await archive.erase(ALICE.id, 2000.0)
            return await archive.erase_session(session_id, 2000.0)

        watched.fails_at, watched.passes = "DELETE FROM archive_turns", 2
        with pytest.raises(ArchiveUnavailable):
            await erase()
        watched.fails_at = None
        assert await archive.write([new(turn(session_id, 9))], 0.0) == 0, "it is erased, whatever is left"
        assert await erase() == (6 if what == "user" else 1)
        assert await archive.turns(session_id, 10) == []
        assert await archive.session(session_id) is None
        assert len(await names(archive)) == (0 if what == "user" else 5)
        assert await due(queue) == []

    async def test_erasing_and_writing_at_once_leaves_nothing(self, archive: SqlArchive) -> None:
        session_id = session_of(ALICE)
        turns = [new(turn(session_id, number)) for number in range(30)]
        await asyncio.gather(
            *(archive.write([each], 0.0) for each in turns[:15]),
            archive.erase(ALICE.id, 2000.0),
            *(archive.write([each], 0.0) for each in turns[15:]),
        )
        assert await archive.turns(session_id, 100) == []

    # Retention.

    async def test_turns_are_forgotten_by_plan_and_in_batches(self, archive: SqlArchive) -> None:
        free, paid, other = (session_of(ALICE) for _ in range(3))
        for session_id, plan in ((free, "free"), (paid, "paid"), (other, "gold")):
            await archive.write([new(turn(session_id, number), plan=plan) for number in range(4)], 0.0)
        cutoffs = {"free": 1003.0, "paid": None}

        assert await archive.expire(cutoffs, 2, default=1001.0) == 2
        assert await archive.expire(cutoffs, 10, default=1001.0) == 2  # one of free, one of gold
        assert await archive.expire(cutoffs, 10, default=1001.0) == 0
        left = {each: len(await archive.turns(each, 10)) for each in (free, paid, other)}
        assert left == {free: 1, paid: 4, other: 3}
        assert await archive.expire({}, 100, default=None) == 0
        assert await archive.expire({}, 100, default=9999.0) == 8

    async def test_a_session_stays_until_it_has_ended_and_nothing_of_it_is_left(
        self, archive: SqlArchive
    ) -> None:
        session_id = session_of(ALICE)
        await archive.write([new(turn(session_id, 1))], 0.0)
        await archive.expire({}, 10, default=9999.0)
        (session,) = await archive.sessions(ANYBODY, 10)
        assert session.turns == 0

        assert await archive.ended(session, 5000.0, [])
        assert await names(archive) == []

        await archive.write([new(turn(session_id, number)) for number in (1, 2)], 0.0)
        (session,) = await archive.unchecked(9999.0, 10)
        assert await archive.ended(session, 5000.0, [])
        assert await archive.expire({}, 1, default=9999.0) == 1
        assert await names(archive) == [session_id]
        assert await archive.expire({}, 1, default=9999.0) == 1
        assert await names(archive) == []

    # Sessions end.

    async def test_a_session_ends_once(self, archive: SqlArchive, queue: SqlQueue) -> None:
        session_id = session_of(ALICE)
        await archive.write([new(turn(session_id, 1))], 0.0)
        assert await archive.unchecked(1101.0, 10) == []
        (session,) = await archive.unchecked(1101.5, 10)
        await archive.still_there([session_id], 1200.0)
        assert await archive.unchecked(1199.0, 10) == []
        assert [each.id for each in await archive.unchecked(1200.0, 10)] == [session_id]

        ends = await asyncio.gather(*(archive.ended(session, 1200.0, [hook("end")]) for _ in range(3)))
        assert sorted(ends) == [False, False, True]
        assert len(await due(queue)) == 1
        assert await archive.unchecked(9999.0, 10) == []
        found = await archive.session(session_id)
        assert found is not None
        assert found.ended_at == 1200.0

    async def test_a_session_in_which_something_is_said_goes_on(self, archive: SqlArchive) -> None:
        session_id = session_of(ALICE)
        await archive.write([new(turn(session_id, 1))], 0.0)
        (session,) = await archive.unchecked(9999.0, 10)
        await archive.write([new(turn(session_id, 2))], 0.0)
        assert not await archive.ended(session, 1200.0, []), "more was said since it was looked at"

        (session,) = await archive.unchecked(9999.0, 10)
        assert await archive.ended(session, 1200.0, [])
        await archive.write([new(turn(session_id, 3))], 0.0)  # late: it ended before
        assert await archive.unchecked(9999.0, 10) == []
        await archive.write([new(turn(session_id, 4, at=1300.0))], 0.0)  # the same name, begun anew
        (session,) = await archive.unchecked(9999.0, 10)
        assert session.ended_at is None

    # What is to be sent.

    async def test_what_is_sent_is_queued_with_the_turn_and_once(
        self, archive: SqlArchive, queue: SqlQueue
    ) -> None:
        session_id = session_of(ALICE)
        both = [hook("a"), hook("a", "audit")]
        for _ in range(2):
            await archive.write([new(turn(session_id, 1), deliveries=both)], 5.0)
        await archive.write([new(turn(session_id, 2), is_kept=False, deliveries=[hook("b")])], 6.0)

        assert await due(queue, 4.9) == []
        assert await archive.turns(session_id, 10) == [turn(session_id, 1)]
        assert await queue.waiting() == {"crm": 2, "audit": 1}
        found = await due(queue, 10.0)
        assert [(each.delivery, each.tries, each.made_at) for each in found] == [
            (hook("a"), 0, 5.0),
            (hook("b"), 0, 6.0),
        ]
        await queue.sent(found[0])
        assert await queue.waiting() == {"crm": 1, "audit": 1}

    async def test_nobody_else_is_given_what_somebody_has(self, archive: SqlArchive, queue: SqlQueue) -> None:
        session_id = session_of(ALICE)
        await archive.write(
            [new(turn(session_id, number), deliveries=[hook(f"m{number}")]) for number in range(12)], 0.0
        )
        shares = await asyncio.gather(*(due(queue, 10.0, limit=4) for _ in range(4)))

        taken = [each.delivery.message_id for share in shares for each in share]
        assert len(taken) == len(set(taken))
        # Who comes at the same moment may be given fewer, never the same.
        rest = await due(queue, 10.0, limit=12)
        assert len(taken) + len(rest) == 12
        assert await due(queue, 69.0) == []
        assert len(await due(queue, 71.0, limit=100)) == 12, "whoever had it is dead"

    async def test_what_fails_is_tried_later_and_buried_in_the_end(
        self, archive: SqlArchive, queue: SqlQueue
    ) -> None:
        await archive.write([new(turn(session_of(ALICE), 1), deliveries=[hook("a")])], 0.0)
        (found,) = await due(queue, 10.0)
        await queue.put_off(found, 40.0)
        assert await due(queue, 39.0) == []
        (found,) = await due(queue, 41.0)
        assert found.tries == 1

        await queue.bury(found, 50.0)
        assert await due(queue, 9999.0) == []
        assert await queue.waiting() == {}
        assert await queue.forget(50.0, ["crm"], 10) == 0
        assert await queue.forget(51.0, ["crm"], 10) == 1

    async def test_what_waits_for_an_endpoint_that_is_gone_is_forgotten(
        self, archive: SqlArchive, queue: SqlQueue
    ) -> None:
        both = [hook("a"), hook("a", "gone")]
        await archive.write([new(turn(session_of(ALICE), 1), deliveries=both)], 5.0)

        assert await queue.forget(4.0, ["crm"], 10) == 0
        assert await queue.forget(6.0, ["crm"], 10) == 1
        assert await queue.waiting() == {"crm": 1}

    async def test_what_is_forgotten_is_so_in_parts(self, archive: SqlArchive, queue: SqlQueue) -> None:
        hooks = [hook(name, endpoint) for name in "abcd" for endpoint in ("crm", "gone", "left")]
        await archive.write([new(turn(session_of(ALICE), 1), deliveries=hooks)], 5.0)
        for each in (await due(queue))[:3]:
            await queue.bury(each, 5.0)

        counts = [await queue.forget(6.0, ["crm"], 4) for _ in range(4)]
        assert counts == [4, 4, 3, 0], "three that were buried, and four of each that nobody waits for"
        assert await queue.waiting() == {"crm": 1}
        assert await queue.forget(6.0, [], 10) == 1
