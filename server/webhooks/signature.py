"""Signs webhooks as Standard Webhooks says (version 1, symmetric): HMAC-SHA256 over id, time and body."""

from __future__ import annotations

import base64
import hashlib
import hmac
from collections.abc import Sequence

__all__ = ["headers"]


def headers(secrets: Sequence[str], message_id: str, at: int, body: bytes) -> dict[str, str]:
    """Return the three headers of a webhook that is sent *at*, in seconds since 1970.

    Of several *secrets* (``whsec_`` and Base64), each signs: a receiver has one of them.
    """
    signed = b"%b.%d.%b" % (message_id.encode(), at, body)
    signatures = [
        base64.b64encode(
            hmac.digest(base64.b64decode(each.removeprefix("whsec_")), signed, hashlib.sha256)
        ).decode()
        for each in secrets
    ]
    return {
        "webhook-id": message_id,
        "webhook-timestamp": str(at),
        "webhook-signature": " ".join(f"v1,{each}" for each in signatures),
    }
