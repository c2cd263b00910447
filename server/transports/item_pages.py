"""Lists of items over HTTP, page by page, as OpenAI's APIs have them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from starlette.datastructures import QueryParams

from unbroken.server.protocols.responses.items import Fields, item_fields
from unbroken.server.transports.http_way import HttpRefusal
from unbroken.sessions.items import Item

__all__ = ["page_bounds", "page_of"]

_USUAL: Final = 20
_MOST: Final = 100


def page_bounds(query: QueryParams) -> tuple[int, str]:
    """Return how many a query asks for, and in which order: ``asc`` or ``desc``.

    Raises:
        HttpRefusal: It asks for what there can't be.

    """
    limit, order = query.get("limit", str(_USUAL)), query.get("order", "desc")
    if not (limit.isascii() and limit.isdigit() and len(limit) < 4 and 1 <= int(limit) <= _MOST):
        raise HttpRefusal(400, "invalid_request", f"`limit` is a number from 1 to {_MOST}.", "limit")
    if order not in ("asc", "desc"):
        raise HttpRefusal(400, "invalid_request", "`order` is `asc` or `desc`.", "order")
    return int(limit), order


def page_of(items: Sequence[Item], query: QueryParams) -> Fields:
    """Return the page of *items*, the oldest first, that *query* asks for: ``limit``, ``order``, ``after``.

    Raises:
        HttpRefusal: It asks for none that there can be.

    """
    (limit, order), after = page_bounds(query), query.get("after")
    ordered = list(items) if order == "asc" else list(reversed(items))
    if after is not None:
        place = next((index for index, item in enumerate(ordered, 1) if item.id == after), None)
        if place is None:
            raise HttpRefusal(400, "invalid_request", "There is no such item in the list.", "after")
        ordered = ordered[place:]
    page = ordered[:limit]
    return {
        "object": "list",
        "data": [item_fields(item) for item in page],
        "first_id": page[0].id if page else None,
        "last_id": page[-1].id if page else None,
        "has_more": len(ordered) > len(page),
    }
