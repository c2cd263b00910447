"""What opens addresses that whoever set them means, and no others.

Whoever answers there is believed, or is shown a key: neither holds for where an answer may point to.
"""

from __future__ import annotations

import urllib.request
from typing import Any

__all__ = ["unmoved"]


class _Unmoved(urllib.request.HTTPRedirectHandler):
    """Follows no redirection: it is an error like any other status."""

    def redirect_request(self, *_: Any) -> None:
        """Return no request."""


def unmoved(*, is_direct: bool) -> urllib.request.OpenerDirector:
    """Return what opens an address and follows no redirection. With *is_direct*, it asks no proxy either."""
    return urllib.request.build_opener(*([urllib.request.ProxyHandler({})] if is_direct else []), _Unmoved)
