"""What every ledger does, over whatever it keeps its counts in. Nodes are ledgers over the same counts."""

from __future__ import annotations

import asyncio
import math

from tests.fakes.clock import FakeClock
from unbroken.server.quota.base import (
    KEPT,
    MOST,
    Amount,
    Decision,
    Ledger,
    Limits,
    Scope,
    UsageRecord,
    bounded,
)

USER, TENANT, ADDRESS = Scope("u", "alice"), Scope("t"), Scope("a", "7f000001")
SCOPES = (TENANT, USER)
LIFETIME = 300.0


def record(turn: str, tokens: int, user: str = "alice", cost: int = 0) -> UsageRecord:
    return UsageRecord(
        at=1.0,
        user=user,
        session_id="s",
        response_id=turn,
        model="m",
        status="completed",
        input_tokens=0,
        output_tokens=tokens,
        cached_tokens=0,
        cost=cost,
    )


class LedgerContract:
    """Fixtures: *nodes*, four ledgers that share their counts, and the *clock* that they go by."""

    async def reserve(
        self,
        ledger: Ledger,
        turn: str,
        limits: Limits,
        tokens: int = 0,
        cost: int = 0,
        *,
        scopes: tuple[Scope, ...] = SCOPES,
        tenant: str = "acme",
        enforce: bool = True,
    ) -> Decision:
        amount = Amount(tokens, cost)
        return await ledger.reserve(tenant, turn, scopes, limits, amount, lifetime=LIFETIME, enforce=enforce)

    async def hold(
        self,
        ledger: Ledger,
        turn: str,
        limits: Limits,
        tokens: int = 0,
        cost: int = 0,
        *,
        as_new: bool = False,
    ) -> Decision:
        amount = Amount(tokens, cost)
        return await ledger.hold("acme", turn, SCOPES, limits, amount, lifetime=LIFETIME, as_new=as_new)

    async def used(self, ledger: Ledger, code: str, scope: Scope = USER) -> int:
        return (await ledger.look("acme", [scope]))[0][code]

    async def test_exactly_the_limit_is_granted_of_a_race_at_four_nodes(self, nodes: list[Ledger]) -> None:
        """F1: 200 at once, twenty times in a row."""
        for attempt in range(20):
            limits = {"t": {"rm": 37}}
            decisions = await asyncio.gather(
                *(
                    self.reserve(nodes[n % 4], f"{attempt}:{n}", limits, tenant=f"tenant {attempt}")
                    for n in range(200)
                )
            )
            assert sum(decision.denied is None for decision in decisions) == 37

    async def test_tokens_are_granted_to_the_limit_and_not_beyond(self, nodes: list[Ledger]) -> None:
        decisions = await asyncio.gather(
            *(self.reserve(nodes[n % 4], str(n), {"u": {"tm": 1000}}, 30) for n in range(100))
        )

        assert sum(decision.denied is None for decision in decisions) == 33
        assert await self.used(nodes[0], "tm") == 990

    async def test_what_alone_is_more_than_the_limit_is_refused_up_front(self, nodes: list[Ledger]) -> None:
        """F3."""
        decision = await self.reserve(nodes[0], "a", {"u": {"td": 100}}, 101)

        assert decision.is_never
        assert decision.denied is not None
        assert decision.denied.code == "td"
        assert await self.used(nodes[0], "td") == await self.used(nodes[0], "rd") == 0

    async def test_a_window_slides(self, nodes: list[Ledger], clock: FakeClock) -> None:
        limits = {"u": {"rm": 1}}
        assert (await self.reserve(nodes[0], "a", limits)).denied is None
        denied = await self.reserve(nodes[1], "b", limits)
        assert 60 <= denied.wait <= 65

        clock.advance(denied.wait - 0.01)
        assert (await self.reserve(nodes[1], "b", limits)).denied is not None
        clock.advance(0.02)
        assert (await self.reserve(nodes[1], "b", limits)).denied is None

    async def test_standings_say_what_is_left(self, nodes: list[Ledger]) -> None:
        decision = await self.reserve(nodes[0], "a", {"u": {"rm": 3, "tm": 100}}, 40)

        assert {s.code: (s.limit, s.remaining) for s in decision.standings} == {"rm": (3, 2), "tm": (100, 60)}
        assert all(60 <= s.reset <= 65 for s in decision.standings)

    async def test_standings_are_told_to_whoever_asks_for_nothing(
        self, nodes: list[Ledger], clock: FakeClock
    ) -> None:
        """The same as to whoever asks for a turn, on whichever node; and nothing is taken."""
        limits = {"u": {"rm": 3, "tm": 100, "turns": 2}, "t": {"td": 1000}}
        before = await nodes[1].standings("acme", [USER, TENANT], limits)
        assert [(s.scope, s.code, s.used, s.reset) for s in before] == [
            (USER, "rm", 0, 0.0),
            (USER, "tm", 0, 0.0),
            (USER, "turns", 0, 0.0),
            (TENANT, "td", 0, 0.0),
        ]
        decision = await self.reserve(nodes[0], "a", limits, 40)
        told = await nodes[1].standings("acme", [TENANT, USER], limits)
        assert told == decision.standings
        resets = {s.code: s.reset for s in told}
        assert 60 <= resets["rm"] == resets["tm"] <= 65
        assert 86_400 <= resets["td"] <= 90_000

        clock.advance(resets["tm"])
        later = {s.code: (s.used, s.reset) for s in await nodes[2].standings("acme", [USER], limits)}
        assert later["tm"] == (0, 0.0)

    async def test_the_same_turn_is_reserved_once(self, nodes: list[Ledger]) -> None:
        """F10."""
        limits = {"u": {"rm": 1, "tm": 100}}
        assert (await self.reserve(nodes[0], "a", limits, 60)).is_new
        again = await self.reserve(nodes[1], "a", limits, 60)

        assert again.denied is None
        assert not again.is_new
        assert await self.used(nodes[0], "tm") == 60

    async def test_settling_counts_what_was_used_once(self, nodes: list[Ledger]) -> None:
        """F6, F10: whoever settles, and however often."""
        await self.reserve(nodes[0], "a", {}, 1000, 500)
        used = Amount(120, 60)
        firsts = await asyncio.gather(
            *(node.settle("acme", "a", SCOPES, used, record("a", 120)) for node in nodes)
        )

        assert sorted(firsts) == [False, False, False, True]
        looked = (await nodes[0].look("acme", [USER]))[0]
        assert looked == {"rm": 1, "rd": 1, "tm": 120, "td": 120, "cd": 60, "turns": 0}
        assert len(await nodes[0].records("acme", 10)) == 1

    async def test_more_than_was_reserved_counts_in_full(self, nodes: list[Ledger]) -> None:
        await self.reserve(nodes[0], "a", {"u": {"tm": 100}}, 100)
        await nodes[1].settle("acme", "a", SCOPES, Amount(150), None)

        assert await self.used(nodes[0], "tm") == 150
        assert (await self.reserve(nodes[0], "b", {"u": {"tm": 100}}, 1)).denied is not None

    async def test_a_turn_that_never_was_gives_its_request_back(self, nodes: list[Ledger]) -> None:
        await self.reserve(nodes[0], "a", {}, 100, 7)
        await nodes[1].release("acme", "a")
        await nodes[1].release("acme", "a")

        assert set((await nodes[0].look("acme", [USER]))[0].values()) == {0}

    async def test_what_was_settled_is_not_released(self, nodes: list[Ledger]) -> None:
        await self.reserve(nodes[0], "a", {}, 100)
        await nodes[0].settle("acme", "a", SCOPES, Amount(10), None)
        await nodes[1].release("acme", "a")

        assert await self.used(nodes[0], "tm") == 10
        assert await self.used(nodes[0], "rm") == 1

    async def test_holding_tops_up_until_nothing_is_left(self, nodes: list[Ledger]) -> None:
        """F4."""
        limits = {"u": {"tm": 100}}
        await self.reserve(nodes[0], "a", limits, 50)
        assert (await self.hold(nodes[1], "a", limits, 90)).denied is None
        assert (await self.hold(nodes[1], "a", limits, 90)).denied is None, "it is the whole, not more"
        assert (await self.hold(nodes[1], "a", limits, 110)).denied is not None

        assert await self.used(nodes[0], "tm") == 90

    async def test_what_nobody_holds_lapses(self, nodes: list[Ledger], clock: FakeClock) -> None:
        """F9: its node was killed."""
        limits = {"u": {"td": 100, "turns": 1}}
        await self.reserve(nodes[0], "a", limits, 100)
        assert (await self.reserve(nodes[1], "b", limits, 100)).denied is not None
        clock.advance(LIFETIME + 1)

        assert (await self.reserve(nodes[1], "b", limits, 100)).denied is None
        looked = (await nodes[1].look("acme", [USER]))[0]
        assert (looked["td"], looked["turns"], looked["rd"]) == (100, 1, 2)

    async def test_what_is_held_does_not_lapse(self, nodes: list[Ledger], clock: FakeClock) -> None:
        limits = {"u": {"td": 100}}
        await self.reserve(nodes[0], "a", limits, 100)
        for _ in range(4):
            clock.advance(LIFETIME - 1)
            await self.hold(nodes[1], "a", limits, 100)

        assert (await self.reserve(nodes[1], "b", limits, 1)).denied is not None

    async def test_what_is_kept_lapses_as_late_or_as_soon_as_it_says(
        self, nodes: list[Ledger], clock: FakeClock
    ) -> None:
        limits = {"u": {"td": 200, "turns": 2}}
        for turn in ("a", "b"):
            await self.reserve(nodes[0], turn, limits, 100)
        await nodes[1].keep("acme", "a", lifetime=2 * LIFETIME)
        await nodes[2].keep("acme", "b", lifetime=LIFETIME / 5)
        clock.advance(LIFETIME / 5 + 1)
        assert await self.used(nodes[3], "turns") == 1
        clock.advance(LIFETIME)
        assert await self.used(nodes[3], "td") == 100
        clock.advance(LIFETIME)
        looked = (await nodes[3].look("acme", [USER]))[0]
        assert (looked["td"], looked["turns"], looked["rd"]) == (0, 0, 2)

    async def test_keeping_makes_nothing_of_what_is_not_there(
        self, nodes: list[Ledger], clock: FakeClock
    ) -> None:
        """It was given back, has lapsed or was settled while the call was under way; or never was."""
        for turn in ("released", "lapsed", "settled"):
            await self.reserve(nodes[0], turn, {}, 100)
        await nodes[0].release("acme", "released")
        await nodes[0].settle("acme", "settled", SCOPES, Amount(10), None)
        clock.advance(LIFETIME + 1)
        for turn in ("released", "lapsed", "settled", "unheard of"):
            await nodes[1].keep("acme", turn, lifetime=LIFETIME)

        looked = (await nodes[2].look("acme", [USER]))[0]
        assert (looked["td"], looked["turns"], looked["rd"]) == (10, 0, 2)
        assert not await nodes[1].settle("acme", "settled", SCOPES, Amount(10), None)
        assert (await self.reserve(nodes[1], "lapsed", {}, 5)).is_new

    async def test_a_turn_that_lapsed_gets_its_budget_again_if_there_is_any(
        self, nodes: list[Ledger], clock: FakeClock
    ) -> None:
        """It had waited for long. Its request has been counted."""
        limits = {"u": {"td": 100}}
        await self.reserve(nodes[0], "a", limits, 60)
        clock.advance(LIFETIME + 1)
        assert (await self.hold(nodes[1], "a", limits, 60)).denied is None
        looked = (await nodes[1].look("acme", [USER]))[0]
        assert (looked["td"], looked["turns"], looked["rd"]) == (60, 1, 1)

        clock.advance(LIFETIME + 1)
        await self.reserve(nodes[0], "b", limits, 60)
        assert (await self.hold(nodes[1], "a", limits, 60)).denied is not None

    async def test_a_turn_that_lapsed_before_it_began_needs_its_place_again(
        self, nodes: list[Ledger], clock: FakeClock
    ) -> None:
        """It had waited for long, and others have come meanwhile: then there are as many as there may be."""
        limits = {"u": {"turns": 2}}
        for turn in ("a", "b"):
            await self.reserve(nodes[0], turn, limits)
        clock.advance(LIFETIME + 1)
        for turn in ("c", "d"):
            assert (await self.reserve(nodes[1], turn, limits)).denied is None

        denied = (await self.hold(nodes[0], "a", limits, as_new=True)).denied
        assert denied is not None
        assert (denied.scope, denied.code) == (USER, "turns")
        assert await self.used(nodes[1], "turns") == 2
        await nodes[1].release("acme", "c")
        assert (await self.hold(nodes[0], "a", limits, as_new=True)).denied is None
        assert (await self.hold(nodes[0], "a", limits, as_new=True)).denied is None, "it has one"
        assert await self.used(nodes[1], "turns") == 2

    async def test_one_that_goes_on_is_counted_whether_there_is_a_place_or_not(
        self, nodes: list[Ledger]
    ) -> None:
        """A second attempt: the first one's place may not have been given back yet."""
        limits = {"u": {"turns": 1}}
        await self.reserve(nodes[0], "first", limits)

        assert (await self.hold(nodes[1], "second", limits)).denied is None
        assert await self.used(nodes[0], "turns") == 2

    async def test_a_turn_that_was_settled_is_held_no_more(self, nodes: list[Ledger]) -> None:
        """A call that was under way when it ended comes late."""
        await self.reserve(nodes[0], "a", {}, 60)
        await nodes[0].settle("acme", "a", SCOPES, Amount(10), None)
        await self.hold(nodes[0], "a", {}, 90)

        looked = (await nodes[1].look("acme", [USER]))[0]
        assert (looked["td"], looked["turns"]) == (10, 0)

    async def test_turns_at_once_are_counted_at_all_nodes(self, nodes: list[Ledger]) -> None:
        """F8."""
        limits = {"u": {"turns": 2}, "t": {"turns": 3}}
        assert (await self.reserve(nodes[0], "a", limits)).denied is None
        assert (await self.reserve(nodes[1], "b", limits)).denied is None
        denied = (await self.reserve(nodes[2], "c", limits)).denied
        assert denied is not None
        assert (denied.scope, denied.code) == (USER, "turns")

        bob = (TENANT, Scope("u", "bob"))
        assert (await self.reserve(nodes[2], "c", limits, scopes=bob)).denied is None
        denied = (await self.reserve(nodes[2], "d", limits, scopes=bob)).denied
        assert denied is not None
        assert denied.scope == TENANT
        await nodes[3].settle("acme", "a", SCOPES, Amount(), None)
        assert (await self.reserve(nodes[2], "d", limits, scopes=bob)).denied is None

    async def test_an_address_is_counted_for_what_began_there(self, nodes: list[Ledger]) -> None:
        limits = {"a": {"td": 100}}
        await self.reserve(nodes[0], "a", limits, 50, scopes=(*SCOPES, ADDRESS))
        # Whoever holds and settles doesn't know where it began.
        assert (await self.hold(nodes[1], "a", limits, 101)).denied is not None
        await nodes[1].settle("acme", "a", SCOPES, Amount(30), None)

        assert await self.used(nodes[0], "td", ADDRESS) == 30

    async def test_tenants_have_nothing_in_common(self, nodes: list[Ledger]) -> None:
        limits = {"t": {"rm": 1}}
        for tenant in ("one", "two", "one}{two", "", "q:one"):
            assert (await self.reserve(nodes[0], "a", limits, tenant=tenant)).denied is None
            assert (await self.reserve(nodes[0], "b", limits, tenant=tenant)).denied is not None

    async def test_money_is_counted_exactly(self, nodes: list[Ledger]) -> None:
        """However large: it is never rounded to what a float holds."""
        most = MOST
        limits = {"u": {"cd": most}}
        await self.reserve(nodes[0], "a", limits, 0, most - 1)
        assert (await self.reserve(nodes[0], "b", limits, 0, 2)).denied is not None
        assert (await self.reserve(nodes[0], "b", limits, 0, 1)).denied is None
        assert await self.used(nodes[0], "cd") == most

    async def test_whatever_a_provider_says_is_counted(self, nodes: list[Ledger]) -> None:
        """Again and again, and what is beyond the bounds is beyond the limits."""
        for number in range(20):
            await self.reserve(nodes[0], str(number), {})
            assert await nodes[1].settle("acme", str(number), SCOPES, bounded(2**70, 2**90), None)

        looked = (await nodes[2].look("acme", [USER]))[0]
        assert (looked["td"], looked["cd"], looked["turns"]) == (20 * MOST, 20 * MOST, 0)
        for code in ("tm", "td", "cd"):
            denied = (await self.reserve(nodes[3], "next", {"u": {code: 2**50}}, 2**40, 2**40)).denied
            assert (denied is None) is (20 * MOST + 2**40 <= 2**50)
            await nodes[3].release("acme", "next")
        assert (await self.reserve(nodes[3], "next", {"u": {"td": 20 * MOST}}, 1)).denied is not None

    async def test_what_lapsed_is_settled_in_full_and_once(
        self, nodes: list[Ledger], clock: FakeClock
    ) -> None:
        """Its node was away for long, and is back."""
        await self.reserve(nodes[0], "a", {}, 100, 10)
        clock.advance(LIFETIME + 1)
        assert await self.used(nodes[1], "td") == 0
        assert await nodes[0].settle("acme", "a", SCOPES, Amount(60, 6), None)
        assert not await nodes[1].settle("acme", "a", SCOPES, Amount(60, 6), None)

        looked = (await nodes[1].look("acme", [USER]))[0]
        assert (looked["td"], looked["cd"], looked["rd"], looked["turns"]) == (60, 6, 1, 0)

    async def test_what_lapsed_is_given_back_once(self, nodes: list[Ledger], clock: FakeClock) -> None:
        await self.reserve(nodes[0], "a", {}, 100, 10)
        await self.reserve(nodes[0], "b", {}, 7)
        clock.advance(LIFETIME / 2)
        await self.hold(nodes[0], "b", {}, 7)
        clock.advance(LIFETIME / 2 + 1)
        await nodes[1].release("acme", "a")
        await nodes[2].release("acme", "a")

        looked = (await nodes[1].look("acme", [USER]))[0]
        assert (looked["td"], looked["cd"], looked["turns"]) == (7, 0, 1)

    async def test_a_second_attempt_has_a_budget_of_its_own(self, nodes: list[Ledger]) -> None:
        """The first one's node died: whoever took over settles it with nothing, and holds for the second."""
        limits = {"u": {"td": 100, "rd": 1, "turns": 1}}
        await self.reserve(nodes[0], "first", limits, 80)
        assert await nodes[1].settle("acme", "first", SCOPES, Amount(), record("first", 0))
        assert (await self.hold(nodes[1], "second", limits, 80)).denied is None
        await self.hold(nodes[0], "first", limits, 90)  # it was but frozen
        assert not await nodes[0].settle("acme", "first", SCOPES, Amount(90), None)
        assert await nodes[1].settle("acme", "second", SCOPES, Amount(85), record("second", 85))

        looked = (await nodes[2].look("acme", [USER]))[0]
        assert (looked["td"], looked["rd"], looked["turns"]) == (85, 1, 0)

    async def test_a_clock_that_goes_back_grants_nothing_anew(
        self, nodes: list[Ledger], clock: FakeClock
    ) -> None:
        """Redis has failed over to a server whose clock is behind."""
        limits = {"u": {"rm": 2, "rd": 2}}
        await self.reserve(nodes[0], "a", limits)
        await self.reserve(nodes[0], "b", limits)
        for back in (4, 8, 30):
            clock.now -= back
            assert (await self.reserve(nodes[1], f"c{back}", limits)).denied is not None
        await nodes[0].release("acme", "a")
        assert (await self.reserve(nodes[1], "d", limits)).denied is None
        assert await self.used(nodes[1], "rd") == 2

    async def test_nothing_counts_from_the_moment_it_has_left_all_windows(
        self, nodes: list[Ledger], clock: FakeClock
    ) -> None:
        """Wherever in a slice it was; and until its window is over, it counts."""
        limits = {"u": {"rm": 1}}
        for number, begun in enumerate((0.0, 0.001, 2.5, 4.999)):
            clock.now = 10_000.0 + 200 * number + begun
            assert (await self.reserve(nodes[0], f"{number}", limits)).denied is None
            clock.now += 59.999
            assert (await self.reserve(nodes[1], f"{number}b", limits)).denied is not None
            clock.now += 5.001
            assert (await self.reserve(nodes[1], f"{number}c", limits)).denied is None

    async def test_in_the_shadow_nothing_is_refused_and_everything_counted(self, nodes: list[Ledger]) -> None:
        limits = {"u": {"rm": 1}}
        await self.reserve(nodes[0], "a", limits, 10)
        decision = await self.reserve(nodes[0], "b", limits, 10, enforce=False)

        assert decision.denied is not None
        assert await self.used(nodes[0], "rm") == 2

    async def test_records_come_latest_first(self, nodes: list[Ledger]) -> None:
        for number, user in enumerate(("alice", "bob", "alice")):
            await nodes[number].settle("acme", str(number), SCOPES, Amount(5), record(str(number), 5, user))

        assert [each.response_id for each in await nodes[3].records("acme", 10)] == ["2", "1", "0"]
        assert [each.response_id for each in await nodes[3].records("acme", 10, "alice")] == ["2", "0"]
        assert [each.response_id for each in await nodes[3].records("acme", 1)] == ["2"]
        assert await nodes[3].records("other", 10) == []
        assert await nodes[3].records("acme", 10, "nobody") == []
        assert await nodes[3].records("acme", 0, "alice") == []

    async def test_a_users_records_are_found_behind_any_number_of_others(self, nodes: list[Ledger]) -> None:
        """The latest of them, and no other is looked at."""
        await nodes[0].settle("acme", "a", SCOPES, Amount(5), record("a", 5))
        for number in range(2_100):
            turn = f"b{number}"
            await nodes[number % 4].settle("acme", turn, (TENANT,), Amount(5), record(turn, 5, "bob"))

        assert [each.response_id for each in await nodes[1].records("acme", 20, "alice")] == ["a"]
        latest = [each.response_id for each in await nodes[1].records("acme", 1_000, "bob")]
        assert latest == [f"b{number}" for number in reversed(range(2_000, 2_100))], "a hundred of a user"
        assert len(await nodes[1].records("acme", 3_000)) == 2_101

    async def test_what_was_settled_is_forgotten_some_time_later(
        self, nodes: list[Ledger], clock: FakeClock
    ) -> None:
        await self.reserve(nodes[0], "a", {}, 10)
        await nodes[0].settle("acme", "a", SCOPES, Amount(10), None)
        clock.advance(KEPT - 1)
        assert not await nodes[0].settle("acme", "a", SCOPES, Amount(10), None)
        clock.advance(2 * 86_400)

        assert set((await nodes[0].look("acme", [USER]))[0].values()) == {0}
        assert math.isclose((await self.reserve(nodes[0], "b", {"u": {"rd": 1}})).wait, 0)
