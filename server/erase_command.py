"""``unbroken erase``: has a running node erase everything of a user's, over its admin listener.

::

    Exception
    +-- EraseFailed     it can't be asked for, or something is left: one line, with what to do
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

__all__ = ["EraseFailed", "ask_to_erase"]

_TIMEOUT: Final = 60.0

_REPEATS: Final = 20
"""How often in a row a node is asked again that has got no further."""


class EraseFailed(Exception):
    """It can't be asked for, or something is left."""


def ask_to_erase(settings: Settings, *, url: str | None, tenant: str, user: str) -> Iterator[str]:
    """Have everything of a user's erased, again and again until nothing is left; yield what was, a line each.

    However much it is: it ends before only if the node gets no further.

    Raises:
        EraseFailed: Something is left.

    """
    if settings.admin_key is None:
        raise EraseFailed("This needs the server's admin key. Set UNBROKEN_ADMIN_KEY, here as there.")
    if url is None and not settings.admin_port:
        raise EraseFailed("UNBROKEN_ADMIN_PORT is 0: the server has no admin listener. Set it to a port.")
    base = (url or address_of(settings, 0)).rstrip("/")
    if not base.startswith(("http://", "https://")):
        raise EraseFailed(f"{base} is no address. Give --url as in http://127.0.0.1:8001.")
    query = urllib.parse.urlencode({"tenant": tenant, "user": user})
    erased: dict[str, int] = {}
    left: list[str] = []
    furthest, repeats = 0, 0
    while repeats < _REPEATS:
        report = _ask(f"{base}/admin/data?{query}", settings.admin_key.get_secret_value())
        for what, count in report["erased"].items():
            erased[what] = erased.get(what, 0) + count
        if not (left := report["left"]):
            break
        # What else is erased says nothing of that: answers that were kept are forgotten each time.
        looked_at = report.get("looked_at") or 0
        is_further = looked_at > furthest or report["erased"].get("conversations", 0) > 0
        repeats = 0 if is_further else repeats + 1
        furthest = max(furthest, looked_at)
    for what, count in erased.items():
        yield f"{what:<20} {count}"
    if left:
        what = ", ".join(left)
        raise EraseFailed(f"Something may be left of: {what}. Look at the server's log, and ask again.")


def _ask(url: str, key: str) -> dict[str, Any]:
    opener = unmoved()  # the key is for the node alone
    request = urllib.request.Request(  # noqa: S310 - checked
        url, headers={"Authorization": f"Bearer {key}"}, method="DELETE"
    )
    try:
        with opener.open(request, timeout=_TIMEOUT) as answer:
            report: Any = json.loads(answer.read(1 << 20))
    except urllib.error.HTTPError as error:
        with error:
            raise EraseFailed(_explained(error.code)) from None
    except (OSError, http.client.HTTPException) as error:
        reason = getattr(error, "reason", error)
        message = f"No server answers there: {reason}. Start it, or give its address with --url."
        raise EraseFailed(message) from None
    except ValueError:
        report = None
    if not isinstance(report, dict) or report.get("object") != "user.data.deleted":
        raise EraseFailed("What answers is no Unbroken server. Give another address with --url.")
    return report


def _explained(status: int) -> str:
    match status:
        case 400:
            return "The server doesn't take that user or tenant. Name them as `unbroken usage` shows them."
        case 401:
            return "The server refuses the key. UNBROKEN_ADMIN_KEY must be the same here and there."
        case 404:
            return "The server has no admin key. Set UNBROKEN_ADMIN_KEY for it, too."
        case _:
            return f"The server answers with HTTP status {status}. Look at its log."
