"""Signatures, as the public library for receivers checks them."""

from __future__ import annotations

import base64
import time

import pytest
from standardwebhooks.webhooks import Webhook, WebhookVerificationError

from unbroken.server.webhooks.signature import headers

OLD, NEW, OTHER = ("whsec_" + base64.b64encode(bytes([number]) * 32).decode() for number in (1, 2, 3))
BODY = '{"type":"turn.completed","data":{"text":"ü"}}'.encode()


def test_a_receiver_accepts_what_its_secret_signed() -> None:
    signed = headers([NEW], "msg_1", int(time.time()), BODY)

    assert Webhook(NEW).verify(BODY, signed)["type"] == "turn.completed"
    with pytest.raises(WebhookVerificationError):
        Webhook(OTHER).verify(BODY, signed)


def test_while_secrets_change_receivers_with_either_accept_it() -> None:
    signed = headers([NEW, OLD], "msg_1", int(time.time()), BODY)

    for secret in (OLD, NEW):
        assert Webhook(secret).verify(BODY, signed)
    with pytest.raises(WebhookVerificationError):
        Webhook(OTHER).verify(BODY, signed)


def test_nothing_of_it_can_be_changed() -> None:
    signed = headers([NEW], "msg_1", int(time.time()), BODY)
    changed = [
        (BODY + b" ", signed),
        (BODY, signed | {"webhook-id": "msg_2"}),
        (BODY, signed | {"webhook-timestamp": str(int(signed["webhook-timestamp"]) + 1)}),
        (BODY, headers([NEW], "msg_1", int(time.time()) - 3600, BODY)),  # sent again by somebody, later
    ]
    for body, given in changed:
        with pytest.raises(WebhookVerificationError):
            Webhook(NEW).verify(body, given)
