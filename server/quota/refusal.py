"""What somebody is told who has used too much.

::

    Refusal
    +-- QuotaRefusal    there is too little of something; says of what, and how long to wait
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Final

from unbroken.server.quota.base import KINDS, TURNS, Decision, Standing
from unbroken.sessions.errors import Refusal

__all__ = ["QuotaRefusal", "headers", "rate_limits", "refusal_of"]

_WORDS: Final = {
    "rm": ("requests", "a minute"),
    "rd": ("requests", "a day"),
    "tm": ("tokens", "a minute"),
    "td": ("tokens", "a day"),
    "cd": ("millionths of what a day may cost", "a day"),
    TURNS: ("responses", "at once"),
}

_NAMES: Final = {"r": "requests", "t": "tokens"}
"""Of the limits that the protocol has names for."""


class QuotaRefusal(Refusal):
    """There is too little of something.

    Attributes:
        retry_after: Seconds after which the same may be granted. None: never, or nobody knows.
        headers: What is left, as HTTP says it: see :func:`headers`.

    """

    def __init__(self, code: str, message: str, retry_after: int | None, headers: Mapping[str, str]) -> None:
        super().__init__(code, message)
        self.retry_after = retry_after
        self.headers = headers


def refusal_of(decision: Decision) -> QuotaRefusal:
    """Return what to tell whoever was denied something."""
    denied = decision.denied
    if denied is None:
        raise AssertionError("can't happen: nothing was denied")
    what, within = _WORDS[denied.code]
    whose = KINDS[denied.scope.kind]
    left = headers(decision)
    if decision.is_never:
        message = (
            f"This alone may take more {what} than the limit of this {whose} is, {denied.limit} {within}. "
            "Shorten it, or lower max_output_tokens."
        )
        return QuotaRefusal("request_exceeds_quota", message, None, left)
    if denied.code == TURNS:
        message = f"{denied.limit} responses of this {whose} run or wait. Send this again when one has ended."
        return QuotaRefusal("too_many_responses", message, 1, left)
    wait = max(1, math.ceil(decision.wait))
    used = f"{denied.used} of {denied.limit} {what} {within} are used or reserved for this {whose}"
    message = f"{used}. Send this again in {wait} seconds."
    code = "quota_exceeded" if denied.code.endswith("d") else "rate_limit_exceeded"
    return QuotaRefusal(code, message, wait, left)


def _tightest(decision: Decision) -> dict[str, Standing]:
    """Return for each measure with a name the limit that is the closest."""
    found: dict[str, Standing] = {}
    for standing in decision.standings:
        name = _NAMES.get(standing.code[0]) if standing.code != TURNS else None
        if name is not None and (name not in found or standing.remaining < found[name].remaining):
            found[name] = standing
    return found


def rate_limits(decision: Decision) -> list[dict[str, object]]:
    """Return what ``rate_limits.updated`` says."""
    return [
        {
            "name": name,
            "limit": standing.limit,
            "remaining": standing.remaining,
            "reset_seconds": round(standing.reset, 3),
        }
        for name, standing in _tightest(decision).items()
    ]


def headers(decision: Decision) -> Mapping[str, str]:
    """Return the headers that say so over HTTP, as OpenAI names them."""
    found: dict[str, str] = {}
    for name, standing in _tightest(decision).items():
        found[f"x-ratelimit-limit-{name}"] = str(standing.limit)
        found[f"x-ratelimit-remaining-{name}"] = str(standing.remaining)
        found[f"x-ratelimit-reset-{name}"] = f"{math.ceil(standing.reset)}s"
    return found
