"""What opens addresses that whoever set them means, and no others: who answers there is shown a key."""

from __future__ import annotations

import urllib.request
from typing import Any

__all__ = ["unmoved"]


class _Unmoved(urllib.request.HTTPRedirectHandler):
    """Follows no redirection: it is an error like any other status."""

    def redirect_request(self, *_: Any) -> None:
        """Return no request."""


def unmoved() -> urllib.request.OpenerDirector:
    """Return what opens an address, follows no redirection and asks no proxy."""
    return urllib.request.build_opener(urllib.request.ProxyHandler({}), _Unmoved)
