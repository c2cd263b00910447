"""``unbroken usage``: asks a running node's admin listener what a tenant has used.

::

    Exception
    +-- UsageUnknown    it can't be told: one line, with what to do
"""

from __future__ import annotations

import http.client
import json
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from typing import Any, Final

from unbroken.server.config import Settings
from unbroken.server.drain_command import address_of
from unbroken.server.openers import unmoved

__all__ = ["UsageUnknown", "ask_for_usage"]

_TIMEOUT: Final = 5.0


class UsageUnknown(Exception):
    """It can't be told."""


def ask_for_usage(
    settings: Settings, *, url: str | None, tenant: str, user: str | None, most: int
) -> Iterator[str]:
    """Yield what a tenant has used of late, and its latest turns, a line each.

    Raises:
        UsageUnknown: It can't be told.

    """
    if settings.admin_key is None:
        raise UsageUnknown("This needs the server's admin key. Set UNBROKEN_ADMIN_KEY, here as there.")
    if url is None and not settings.admin_port:
        raise UsageUnknown("UNBROKEN_ADMIN_PORT is 0: the server has no admin listener. Set it to a port.")
    base = (url or address_of(settings, 0)).rstrip("/")
    if not base.startswith(("http://", "https://")):
        raise UsageUnknown(f"{base} is no address. Give --url as in http://127.0.0.1:8001.")
    query = {"tenant": tenant, "limit": str(most)} | ({} if user is None else {"user": user})
    report = _get(
        f"{base}/admin/usage?{urllib.parse.urlencode(query)}", settings.admin_key.get_secret_value()
    )
    for name, row in report["usage"].items():
        yield f"{name:<20} {row['used']}"
    for each in report["data"]:
        tokens = f"{each['input_tokens']}+{each['output_tokens']}"
        about = " (estimated)" if each["is_estimate"] else ""
        whose = f"{each['response_id']}  {each['user']}  {each['model']}"
        yield f"{whose}  {each['status']}  {tokens}  {each['cost']}{about}"


def _get(url: str, key: str) -> dict[str, Any]:
    opener = unmoved()  # the key is for the node alone
    request = urllib.request.Request(url, headers={"Authorization": f"Bearer {key}"})  # noqa: S310 - checked
    try:
        with opener.open(request, timeout=_TIMEOUT) as answer:
            report: Any = json.loads(answer.read(1 << 24))
    except urllib.error.HTTPError as error:
        with error:
            raise UsageUnknown(_explained(error.code)) from None
    except (OSError, http.client.HTTPException) as error:
        reason = getattr(error, "reason", error)
        message = f"No server answers there: {reason}. Start it, or give its address with --url."
        raise UsageUnknown(message) from None
    except ValueError:
        report = None
    if not isinstance(report, dict) or report.get("object") != "usage":
        raise UsageUnknown("What answers is no Unbroken server. Give another address with --url.")
    return report


def _explained(status: int) -> str:
    match status:
        case 401:
            return "The server refuses the key. UNBROKEN_ADMIN_KEY must be the same here and there."
        case 404:
            return "The server counts nothing. Set UNBROKEN_QUOTAS and UNBROKEN_ADMIN_KEY for it, too."
        case 503:
            return "The server can't reach Redis. Try again in a moment."
        case _:
            return f"The server answers with HTTP status {status}. Look at its log."
