"""Which fields the query of a request may have, and what may name something there."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import Final

from unbroken.server.protocols.items import DecodeError, check_name
from unbroken.server.transports.http_way import HttpRefusal

__all__ = ["check_query", "checked"]

_OF_BALANCERS: Final = frozenset({"affinity", "try"})
"""What a client may say to the balancers in between, at every path."""


def check_query(given: Iterable[str], fields: Collection[str]) -> None:
    """Refuse what has other fields than *fields*: one misspelt would be as one left out, and answered.

    What is said to balancers is nothing here.

    Raises:
        HttpRefusal: It has.

    """
    known = set(fields)
    if other := sorted(set(given) - known - _OF_BALANCERS):
        what = f"what there is: {', '.join(fields)}" if fields else "none: the path takes no fields"
        raise HttpRefusal(400, "invalid_query", f"The query has {other[0][:64]!r}. Use {what}.")


def checked(name: str, param: str) -> str:
    """Return *name*, if it can be one.

    Raises:
        DecodeError: It can't.

    """
    try:
        check_name(name, param, None)
    except DecodeError as exc:
        raise DecodeError("invalid_request", exc.message, param=param) from None
    return name
