"""Who is told what."""

from __future__ import annotations

from typing import Any

import msgspec
import orjson

from tests.server.archive.turns import ALICE, session_of, turn
from unbroken.server.archive.base import ArchivedSession
from unbroken.server.webhook_settings import WebhookEndpoint
from unbroken.server.webhooks.events import Announcer

SECRET = "whsec_" + "A" * 43 + "="
SESSION = session_of(ALICE)


def endpoint(**fields: Any) -> WebhookEndpoint:
    return WebhookEndpoint.model_validate(
        {"url": "https://crm.example.com/hook", "secrets": [SECRET], **fields}
    )


def told(deliveries: Any) -> list[tuple[str, str]]:
    return [(each.endpoint, each.kind) for each in deliveries]


def test_a_turn_is_told_without_what_was_said_in_it() -> None:
    (delivery,) = Announcer({"crm": endpoint()}).turn_ended(turn(SESSION, 1), ALICE, is_attended=True)

    assert orjson.loads(delivery.body) == {
        "type": "turn.completed",
        "timestamp": "1970-01-01T00:16:41.500Z",
        "data": {
            "id": "resp_1",
            "object": "archive.turn",
            "session_id": SESSION,
            "status": "completed",
            "reason": None,
            "error": None,
            "model": "m",
            "asked_at": 1001,
            "ended_at": 1001.5,
            "in_conversation": True,
            "usage": {"input_tokens": 3, "output_tokens": 4, "cached_tokens": 0, "total_tokens": 7},
            "tenant": "acme",
            "user": "alice",
        },
    }


def test_an_endpoint_that_asks_for_it_is_told_what_was_said() -> None:
    announcer = Announcer({"crm": endpoint(content=True), "bill": endpoint()})
    crm, bill = announcer.turn_ended(turn(SESSION, 1), ALICE, is_attended=True)

    (said,) = orjson.loads(crm.body)["data"]["output"]
    assert said["content"][0]["text"] == "answer 1 ü"
    assert b"answer" not in bill.body.encode()
    assert crm.message_id == bill.message_id


def test_what_ended_while_nobody_was_there_is_told_twice() -> None:
    deliveries = Announcer({"crm": endpoint()}).turn_ended(turn(SESSION, 1), ALICE, is_attended=False)

    assert told(deliveries) == [("crm", "turn.completed"), ("crm", "turn.finished_while_away")]
    assert len({each.message_id for each in deliveries}) == 2


def test_each_is_told_what_it_wants_of_whom_it_wants() -> None:
    announcer = Announcer(
        {
            "failures": endpoint(events=["turn.failed"]),
            "acme": endpoint(tenants=["acme"]),
            "other": endpoint(tenants="other, more"),
        }
    )
    failed = msgspec.structs.replace(turn(SESSION, 1), status="failed")

    assert told(announcer.turn_ended(turn(SESSION, 1), ALICE, is_attended=True)) == [
        ("acme", "turn.completed")
    ]
    assert told(announcer.turn_ended(failed, ALICE, is_attended=True)) == [
        ("failures", "turn.failed"),
        ("acme", "turn.failed"),
    ]
    assert told(announcer.turn_ended(failed, None, is_attended=True)) == [("failures", "turn.failed")]


def test_the_same_has_the_same_name_and_nothing_else_has() -> None:
    announcer = Announcer({"crm": endpoint()})
    names = [
        announcer.turn_ended(turn(SESSION, number), ALICE, is_attended=True)[0].message_id
        for number in (1, 1, 2)
    ]

    assert names[0] == names[1] != names[2]


def test_a_session_that_ended_is_told_once_for_each_life() -> None:
    session = ArchivedSession(
        id=SESSION,
        principal=ALICE.id,
        tenant="acme",
        user="alice",
        model="m",
        began_at=1.0,
        active_at=2.0,
        ended_at=None,
        turns=3,
    )
    announcer = Announcer({"crm": endpoint()})
    (first,) = announcer.session_ended(session, 9.0)
    (again,) = announcer.session_ended(session, 10.0)

    assert first.message_id == again.message_id
    assert orjson.loads(first.body)["data"] == {
        "id": SESSION,
        "session_id": SESSION,
        "object": "archive.session",
        "model": "m",
        "began_at": 1,
        "active_at": 2,
        "ended_at": 9,
        "turns": 3,
        "tenant": "acme",
        "user": "alice",
    }


def test_with_no_endpoints_nobody_is_told() -> None:
    assert Announcer({}).turn_ended(turn(SESSION, 1), ALICE, is_attended=False) == ()
