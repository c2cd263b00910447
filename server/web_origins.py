"""Origins of web pages. They are compared letter by letter, so written as browsers write them. Pure."""

from __future__ import annotations

import re
from typing import Final
from urllib.parse import urlsplit

__all__ = ["origin_fault"]

_WEB: Final = {"http": 80, "https": 443}
"""Their hosts are in lower case, and their usual ports aren't said."""
_HOST: Final = r"(?:[a-z0-9_-]+(?:\.[a-z0-9_-]+)*|\[[0-9a-f:.]+\])"
_WEB_ORIGIN: Final = re.compile(rf"(https?)://{_HOST}(?::([1-9][0-9]{{0,4}}))?")
# Of extensions and apps: chrome-extension://abcdef, capacitor://localhost.
_OTHER_ORIGIN: Final = re.compile(
    r"(?!https?:|file:|wss?:)[a-z][a-z0-9+.-]*://[A-Za-z0-9_.-]+(?::[1-9][0-9]{0,4})?"
)

_RULE: Final = (
    "scheme://host or scheme://host:port, in lower case and without a path, such as https://example.com"
)


def origin_fault(value: str) -> str | None:
    """Return what is to be written in place of *value*, as the end of a sentence; None: it is an origin.

    No browser sends anything else, so that whatever is let in by it would never come. ``null`` is sent by
    pages that are anybody's: it names none.
    """
    web = _WEB_ORIGIN.fullmatch(value)
    if web is not None:
        port = int(web[2] or 0)
        if port != _WEB[web[1]] and port < 65536:
            return None
    elif _OTHER_ORIGIN.fullmatch(value) is not None:
        return None
    meant = _meant(value)
    return f"should be {_RULE}" if meant is None else f"should be {meant}: {_RULE}"


def _meant(value: str) -> str | None:
    """Return the origin that *value* has in it; None: it has none."""
    try:
        parts = urlsplit(value.strip())
        port = None if parts.port == _WEB.get(parts.scheme) else parts.port
    except ValueError:  # brackets or a port that make no sense
        return None
    host = parts.hostname or ""
    place = f"[{host}]" if ":" in host else host
    origin = f"{parts.scheme}://{place}" + (f":{port}" if port else "")
    return origin if _WEB_ORIGIN.fullmatch(origin) is not None else None
