"""What whoever asks is told of what they have used, and of what is left."""

from __future__ import annotations

from typing import Any

import pytest

from tests.server.quota.gating import ALICE, World
from unbroken.server.quota.base import Amount, Scope
from unbroken.server.quota.refusal import QuotaRefusal, headers, rate_limits
from unbroken.server.quota.report import own_report, tenant_report
from unbroken.sessions.ids import ResponseId
from unbroken.sessions.items import Usage

ADDRESS = b"\x7f\0\0\1"


@pytest.mark.parametrize(
    "limits",
    [
        {"tenant_requests_per_minute": 2},
        {"tenant_requests_per_minute": 2, "requests_per_minute": 100},
        {"address_requests_per_minute": 2, "requests_per_minute": 100},
        {"requests_per_minute": 2, "tenant_requests_per_minute": 100},
    ],
    ids=["tenant alone", "tenant", "address", "user"],
)
async def test_headers_tell_of_the_limit_that_binds(limits: dict[str, Any]) -> None:
    """As the event does, whoever's it is."""
    world = World(**limits)
    await world.reserve(address=ADDRESS)
    (event,) = rate_limits(await world.reserve(response_id=ResponseId("resp_2"), address=ADDRESS))
    body, standing = await own_report(world.gate, ALICE, ADDRESS, 5)

    assert (event["limit"], event["remaining"]) == (2, 0)
    assert body["rate_limits"] == rate_limits(standing) == [event]
    assert headers(standing)["x-ratelimit-limit-requests"] == "2"
    assert headers(standing)["x-ratelimit-remaining-requests"] == "0"
    with pytest.raises(QuotaRefusal):
        await world.reserve(response_id=ResponseId("resp_9"), address=ADDRESS)


async def test_an_address_that_is_not_counted_has_no_limit() -> None:
    """Loopback: nothing is counted for it."""
    world = World(address_requests_per_minute=2)
    await world.reserve()

    assert (await own_report(world.gate, ALICE, None, 5))[0]["rate_limits"] == []


async def test_the_operator_is_told_what_one_user_has_used() -> None:
    """Not what their tenant has: and nothing of somebody whom nobody knows."""
    world = World()
    await world.reserve()
    await world.end("completed", Usage(10, 5))
    await world.ledger.settle("acme", "another's", (Scope("t"), Scope("u", "other")), Amount(1000), None)

    told = {}
    for user in (None, ALICE.user, "nobody"):
        report = await tenant_report(world.ledger, "acme", 5, user)
        assert report.get("user") == user
        told[user] = report["usage"]["tokens_per_day"]["used"], len(report["data"])
    assert told == {None: (1015, 1), ALICE.user: (15, 1), "nobody": (0, 0)}
    other_tenant = await tenant_report(world.ledger, "other", 5, ALICE.user)
    assert {row["used"] for row in other_tenant["usage"].values()} == {0}
