"""Who is counted, and that nobody is counted for ever."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Coroutine
from typing import Any

import pytest
import structlog
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from tests.fakes.clock import FakeClock
from tests.fakes.tally import SharedTally
from tests.sessions.conversation import settle
from unbroken.server.auth.principal import Principal
from unbroken.server.limits import ConnectionBounds, Rate
from unbroken.server.transports.address import Proxies
from unbroken.server.transports.admission import Admission, AdmissionLimits, Guest
from unbroken.server.transports.refusal import Refused
from unbroken.sessions.caps import Caps
from unbroken.sessions.ids import new_node_id

ADDRESSES = ["203.0.113.1", "203.0.113.2", "2001:db8::1", "127.0.0.1"]
PRINCIPALS = [Principal("ann", "acme"), Principal("ben", "acme"), Principal("eve", "ebay")]
LIMITS = AdmissionLimits(node=6, address=3, principal=2, tenant=3, failures=Rate(0.5, 4))


def admission(limits: AdmissionLimits = LIMITS, clock: FakeClock | None = None) -> Admission:
    clock = clock or FakeClock()
    return Admission(limits, clock, Proxies(), Caps(clock))


def entered(counted: Admission, address: str = "203.0.113.1") -> Guest:
    guest = counted.guest(address, "")
    guest.enter()
    return guest


def at_once(work: Coroutine[Any, Any, None]) -> None:
    """Do what never waits for anything, without a loop."""
    try:
        work.send(None)
    except StopIteration:
        return
    raise AssertionError("it waits, though there is nobody to ask")


def refused(guest: Guest) -> Refused:
    with pytest.raises(Refused) as caught:
        guest.enter()
    return caught.value


def test_an_address_has_a_limit_and_gets_its_place_back() -> None:
    counted = admission()
    first, *_ = [entered(counted) for _ in range(3)]
    late = counted.guest("203.0.113.1", "")

    assert (refused(late).status, refused(late).code) == (429, "too_many_connections_from_address")
    entered(counted, "203.0.113.2")
    late.leave()
    first.leave()
    first.leave()
    late.enter()
    assert refused(counted.guest("203.0.113.1", "")).status == 429


def test_this_machine_has_no_limit_but_the_node_s() -> None:
    counted = admission()
    for _ in range(6):
        entered(counted, "127.0.0.1")
    full = refused(counted.guest("127.0.0.1", ""))

    assert (full.status, full.code, full.close) == (503, "server_full", 1013)


def test_a_principal_has_a_limit() -> None:
    counted = admission()
    guests = [entered(counted, address) for address in ADDRESSES]
    for guest in guests[:2]:
        at_once(guest.admit(PRINCIPALS[0]))
    with pytest.raises(Refused) as caught:
        at_once(guests[2].admit(PRINCIPALS[0]))
    assert (caught.value.status, caught.value.code) == (429, "too_many_connections_of_key")
    at_once(guests[2].admit(PRINCIPALS[1]))
    guests[0].leave()
    at_once(guests[3].admit(PRINCIPALS[0]))


def test_a_tenant_has_a_limit_for_all_its_users() -> None:
    counted = admission()
    guests = [entered(counted, address) for address in [*ADDRESSES, "203.0.113.9"]]
    for guest, principal in zip(guests, [0, 0, 1], strict=False):
        at_once(guest.admit(PRINCIPALS[principal]))
    with pytest.raises(Refused) as caught:
        at_once(guests[3].admit(PRINCIPALS[1]))
    assert (caught.value.status, caught.value.code) == (429, "too_many_connections_of_tenant")
    assert caught.value.close == 1013
    at_once(guests[4].admit(PRINCIPALS[2]))
    guests[0].leave()
    at_once(guests[3].admit(PRINCIPALS[1]))


def test_who_is_refused_for_their_tenant_takes_no_place_of_their_own() -> None:
    counted = admission()
    guests = [entered(counted, address) for address in ADDRESSES]
    tight = ConnectionBounds(tenant=1)
    at_once(guests[0].admit(PRINCIPALS[0], tight))
    for _ in range(3):
        with pytest.raises(Refused):
            at_once(guests[1].admit(PRINCIPALS[1], tight))
    assert counted._caps.held("connection", PRINCIPALS[1].id) == 0
    at_once(guests[2].admit(PRINCIPALS[1]))


def test_a_plan_s_bound_on_a_tenant_counts_those_that_it_does_not_bind() -> None:
    """Its users may be on several plans, of which but one bounds it: it says "all keys of this tenant"."""
    counted = admission(AdmissionLimits(node=20, address=20, principal=20))
    unbound, tight = ConnectionBounds(counts_tenant=True), ConnectionBounds(tenant=2, counts_tenant=True)
    first, second = (entered(counted) for _ in range(2))
    at_once(first.admit(PRINCIPALS[0], unbound))
    at_once(second.admit(PRINCIPALS[0], unbound))
    with pytest.raises(Refused) as caught:
        at_once(entered(counted).admit(PRINCIPALS[1], tight))
    assert caught.value.code == "too_many_connections_of_tenant"
    at_once(entered(counted).admit(PRINCIPALS[0], unbound))
    at_once(entered(counted).admit(PRINCIPALS[2], tight))
    first.leave()
    second.leave()
    at_once(entered(counted).admit(PRINCIPALS[1], tight))


def test_tenants_are_counted_only_where_one_may_be_bound() -> None:
    counted = admission(AdmissionLimits(node=20, address=20, principal=20))
    at_once(entered(counted).admit(PRINCIPALS[0]))

    assert counted._caps.holders("tenant_connection") == 0


@pytest.mark.parametrize(
    ("bounds", "code"),
    [
        (ConnectionBounds(user=1), "too_many_connections_of_key"),
        (ConnectionBounds(tenant=1), "too_many_connections_of_tenant"),
        (ConnectionBounds(address=1), "too_many_connections_from_address"),
    ],
)
def test_a_plan_may_allow_less_than_the_settings_and_never_more(bounds: ConnectionBounds, code: str) -> None:
    counted = admission(AdmissionLimits(principal=2, tenant=2, address=2))
    wide = ConnectionBounds(user=9, tenant=9, address=9)
    at_once(entered(counted).admit(PRINCIPALS[0], wide))
    with pytest.raises(Refused) as caught:
        at_once(entered(counted).admit(PRINCIPALS[0], bounds))

    assert caught.value.code == code


@pytest.mark.parametrize(
    "bounds",
    [
        ConnectionBounds(user=1, is_shadow=True),
        ConnectionBounds(tenant=1, is_shadow=True),
        ConnectionBounds(address=1, is_shadow=True),
    ],
)
def test_a_plan_in_shadow_refuses_nobody_and_says_who_is_beyond_it(bounds: ConnectionBounds) -> None:
    beyond: list[None] = []
    clock = FakeClock()
    limits = AdmissionLimits(principal=3, tenant=3, address=3)
    counted = Admission(limits, clock, Proxies(), Caps(clock), on_beyond=lambda: beyond.append(None))
    first = entered(counted)
    at_once(first.admit(PRINCIPALS[0], bounds))
    assert not beyond
    second = entered(counted)
    at_once(second.admit(PRINCIPALS[0], bounds))
    assert len(beyond) == 1
    at_once(entered(counted).admit(PRINCIPALS[0], bounds))
    with pytest.raises(Refused):  # what the settings say holds
        at_once(counted.guest("203.0.113.9", "").admit(PRINCIPALS[0], bounds))
    assert len(beyond) == 2

    first.leave()
    second.leave()
    assert counted._caps.held("connection", PRINCIPALS[0].id) == 1


async def test_who_is_beyond_a_plan_in_shadow_waits_for_nothing() -> None:
    clock, shared = FakeClock(), SharedTally()
    caps = Caps(clock, shared.at(new_node_id()))
    caps.open()
    beyond: list[None] = []
    counted = Admission(LIMITS, clock, Proxies(), caps, on_beyond=lambda: beyond.append(None))
    guests = [entered(counted) for _ in range(2)]
    for guest in guests:  # nobody moves the clock
        await guest.admit(PRINCIPALS[0], ConnectionBounds(tenant=1, is_shadow=True))
    assert len(beyond) == 1

    for guest in guests:
        guest.leave()
    assert counted.is_empty
    await caps.aclose()


async def test_an_address_has_its_limit_on_all_nodes_together() -> None:
    clock, shared = FakeClock(), SharedTally()
    nodes = [Caps(clock, shared.at(new_node_id())) for _ in range(2)]
    a, b = [Admission(LIMITS, clock, Proxies(), caps) for caps in nodes]
    for caps in nodes:
        caps.open()
    guests = [entered(counted, "203.0.113.1") for counted in (a, b, a, b)]
    for guest, principal in zip(guests[:3], [0, 1, 2], strict=True):
        await guest.admit(PRINCIPALS[principal])
    asking = asyncio.create_task(guests[3].admit(PRINCIPALS[2]))
    await settle()
    clock.advance(0.25)
    with pytest.raises(Refused) as caught:
        await asking
    assert caught.value.code == "too_many_connections_from_address"
    guests[0].leave()
    await guests[3].admit(PRINCIPALS[2])

    for guest in guests:
        guest.leave()
    assert a.is_empty and b.is_empty
    for caps in nodes:
        await caps.aclose()


async def test_one_who_is_cut_off_has_no_place_anywhere() -> None:
    """Wherever it is on its way: it has a place of its key's, of its tenant's, or none yet."""
    clock, shared = FakeClock(), SharedTally()
    caps = Caps(clock, shared.at(new_node_id()))
    caps.open()
    counted = Admission(LIMITS, clock, Proxies(), caps)
    for turns in range(24):
        guest = entered(counted, "203.0.113.1")
        asking = asyncio.create_task(guest.admit(PRINCIPALS[0]))
        for _ in range(turns):
            await asyncio.sleep(0)
        asking.cancel()
        await asyncio.wait({asking})
        guest.leave()
        assert counted.is_empty
    await settle()
    assert not any(shared.numbers.values())
    await caps.aclose()


def test_whoever_fails_too_often_has_to_wait_and_others_have_not() -> None:
    clock = FakeClock()
    counted = admission(clock=clock)
    for _ in range(4):
        guest = entered(counted)
        guest.failed()
        guest.leave()
    waits = refused(counted.guest("203.0.113.1", ""))
    assert (waits.status, waits.code, waits.retry_after) == (429, "too_many_failed_attempts", 2)
    entered(counted, "203.0.113.2").leave()
    clock.advance(waits.retry_after)
    guest = entered(counted)
    guest.failed()
    guest.leave()
    assert refused(counted.guest("203.0.113.1", "")).code == "too_many_failed_attempts"
    clock.advance(60)
    entered(counted).leave()


def test_failures_are_remembered_of_so_many_addresses_and_no_longer_than_they_count() -> None:
    clock = FakeClock()
    counted = admission(clock=clock)
    for number in range(10_000):
        counted.guest(f"203.{number >> 8}.{number & 255}.1", "").failed()
    assert "4096 failures" in repr(counted)
    clock.advance(3600)
    counted.guest("203.0.113.1", "").failed()
    assert "1 failures" in repr(counted)


def test_this_machine_fails_as_often_as_it_likes() -> None:
    counted = admission()
    for _ in range(100):
        guest = entered(counted, "127.0.0.1")
        guest.failed()
        guest.leave()


def test_a_proxy_that_is_not_listed_is_warned_of_once() -> None:
    counted = Admission(LIMITS, FakeClock(), Proxies(["10.0.0.1"]), Caps(FakeClock()))
    with structlog.testing.capture_logs() as logs:
        counted.guest("10.0.0.1", "203.0.113.1")
        counted.guest("10.0.0.2", "")
        assert logs == []
        for peer in ("10.0.0.2", "10.0.0.3"):
            counted.guest(peer, "203.0.113.1")

    assert [(entry["event"], entry["peer"]) for entry in logs] == [
        ("X-Forwarded-For not believed", "10.0.0.2")
    ]


class Counting(RuleBasedStateMachine):
    """Guests come, are refused at any step, and leave at any time: the numbers are those of who is there."""

    @initialize()
    def begin(self) -> None:
        self.clock = FakeClock()
        self.admission = admission(clock=self.clock)
        self.present: list[tuple[Guest, str, Principal | None]] = []

    @rule(
        address=st.sampled_from(ADDRESSES),
        principal=st.sampled_from([None, *PRINCIPALS]),
        stays=st.booleans(),
        fails=st.booleans(),
    )
    def come(self, address: str, principal: Principal | None, stays: bool, fails: bool) -> None:
        guest = self.admission.guest(address, "")
        admitted = None
        try:
            guest.enter()
            if fails:
                guest.failed()
            elif principal is not None:
                at_once(guest.admit(principal))
                admitted = principal
        except Refused:
            stays = False
        if stays:
            self.present.append((guest, address, admitted))
        else:
            guest.leave()

    @rule(data=st.data())
    def leave(self, data: st.DataObject) -> None:
        if self.present:
            guest, *_ = self.present.pop(data.draw(st.integers(0, len(self.present) - 1)))
            guest.leave()
            guest.leave()

    @rule(seconds=st.floats(0, 20))
    def wait(self, seconds: float) -> None:
        self.clock.advance(seconds)

    @invariant()
    def numbers_are_right(self) -> None:
        addresses = [address for _, address, _ in self.present if address != "127.0.0.1"]
        principals = [principal for _, _, principal in self.present if principal is not None]
        assert self.admission.connections == len(self.present) <= LIMITS.node
        assert sorted(self.admission._addresses.values()) == sorted(map(addresses.count, set(addresses)))
        for name in PRINCIPALS:
            assert self.admission._caps.held("connection", name.id) == principals.count(name)
        tenants = Counter(principal.tenant for principal in principals)
        assert self.admission._caps.holders("tenant_connection") == len(tenants)
        assert max(tenants.values(), default=0) <= LIMITS.tenant
        assert all(addresses.count(address) <= LIMITS.address for address in addresses)
        assert all(principals.count(principal) <= LIMITS.principal for principal in principals)

    def teardown(self) -> None:
        if hasattr(self, "admission"):
            for guest, *_ in self.present:
                guest.leave()
            assert self.admission.is_empty


TestCounting = Counting.TestCase
