"""Files as OpenAI's Files API shows them, and what its clients may ask for."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from typing import Any, Final

from unbroken.server.files.base import StoredFile

__all__ = ["BadRequest", "file_fields", "lifetime_of", "page_fields", "purpose_of"]

_PURPOSES: Final = ("user_data", "vision", "assistants")
"""Those that are for showing files to models. Nothing follows from which it is."""

_MOST_SECONDS: Final = 2592000
_FEWEST_SECONDS: Final = 3600
"""Of the API's own bounds on ``expires_after.seconds``."""

_MOST_LISTED: Final = 10_000


class BadRequest(Exception):
    """A field can't be taken."""

    def __init__(self, message: str, param: str) -> None:
        super().__init__(message)
        self.param = param


def file_fields(file: StoredFile) -> dict[str, Any]:
    """Return a file as clients see it."""
    return {
        "id": file.id,
        "object": "file",
        "bytes": file.bytes,
        "created_at": int(file.created_at),
        # Rounded down: the file is there until then at least.
        "expires_at": int(file.expires_at),
        "filename": file.name,
        "purpose": file.purpose,
        "status": "processed",
        "unbroken": {"media_type": file.media_type},
    }


def page_fields(files: Sequence[StoredFile], query: Mapping[str, str]) -> dict[str, Any]:
    """Return the part of *files*, given in the order in which they were made, that *query* asks for.

    Raises:
        BadRequest: It asks for what there isn't.

    """
    order = query.get("order", "desc")
    if order not in ("asc", "desc"):
        raise BadRequest("`order` must be `asc` or `desc`.", "order")
    limit = _number(query.get("limit", str(_MOST_LISTED)))
    if limit is None or not 1 <= limit <= _MOST_LISTED:
        raise BadRequest(f"`limit` must be a number from 1 to {_MOST_LISTED}.", "limit")
    purpose, after = query.get("purpose"), query.get("after")
    shown = [file for file in files if purpose in (None, file.purpose)]
    if order == "desc":
        shown.reverse()
    if after is not None:
        place = next((index for index, file in enumerate(shown) if file.id == after), None)
        if place is None:
            raise BadRequest("There is no file of that id to go on after.", "after")
        shown = shown[place + 1 :]
    page = shown[:limit]
    fields: dict[str, Any] = {
        "object": "list",
        "data": [file_fields(file) for file in page],
        "has_more": len(shown) > limit,
    }
    if page:
        fields |= {"first_id": page[0].id, "last_id": page[-1].id}
    return fields


def purpose_of(fields: Mapping[str, str]) -> str:
    """Return the purpose that an upload's *fields* give.

    Raises:
        BadRequest: They give none that there is.

    """
    purpose = fields.get("purpose")
    if purpose not in _PURPOSES:
        raise BadRequest(f"`purpose` must be one of {', '.join(_PURPOSES)}.", "purpose")
    return purpose


def lifetime_of(fields: Mapping[str, str], most: float) -> float:
    """Return for how many seconds a file is to be kept: *most*, or less if the upload's *fields* say so.

    Raises:
        BadRequest: They say it in a way that isn't the API's.

    """
    given = _expires_after(fields)
    if not given:
        return most
    seconds = _number(given.get("seconds", ""))
    if given.get("anchor") != "created_at":
        raise BadRequest("`expires_after.anchor` must be `created_at`.", "expires_after")
    if seconds is None or not _FEWEST_SECONDS <= seconds <= _MOST_SECONDS:
        message = f"`expires_after.seconds` must be from {_FEWEST_SECONDS} to {_MOST_SECONDS}."
        raise BadRequest(message, "expires_after")
    return min(float(seconds), most)


def _expires_after(fields: Mapping[str, str]) -> dict[str, str]:
    """Read the field as SDKs write it, ``expires_after[seconds]``, or as JSON, as some do."""
    found = {
        match[1]: value
        for name, value in fields.items()
        if (match := re.fullmatch(r"expires_after\[(\w+)\]", name))
    }
    if "expires_after" not in fields:
        return found
    try:
        whole = json.loads(fields["expires_after"])
    except (ValueError, RecursionError):
        whole = None
    if not isinstance(whole, dict):
        raise BadRequest("`expires_after` must be an object.", "expires_after")
    return {str(name): str(value) for name, value in whole.items()}


def _number(text: str) -> int | None:
    try:
        value = float(text) if len(text) <= 20 else math.nan
    except ValueError:
        return None
    return int(value) if value.is_integer() else None
