"""What is checked before a WebSocket is accepted. It costs the same for everybody, and looks nothing up."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final
from urllib.parse import parse_qs, urlsplit

from starlette.types import Scope

from unbroken.server.auth.base import Credentials
from unbroken.server.trace_context import taken

__all__ = ["SUBPROTOCOL", "Handshake", "forwarded_for", "is_loopback_name"]

SUBPROTOCOL: Final = "realtime"
"""What official browser clients offer, beside their key."""

_KEY_PROTOCOL: Final = "openai-insecure-api-key."
_BETA_PROTOCOL: Final = "openai-beta.realtime-v1"
_READ: Final = frozenset({b"host", b"origin", b"authorization", b"openai-beta", b"traceparent"})
"""What is read of a request."""

_MAX_QUERY: Final = 4096
_MAX_FIELDS: Final = 32


@dataclass(frozen=True, slots=True)
class Handshake:
    """An upgrade request, as far as anyone here cares."""

    host: str
    origin: str | None
    credentials: Credentials
    subprotocol: str | None
    """What to select; None: nothing was offered that is known here."""
    forwarded: str
    """Whom proxies say that it came from: the values of ``X-Forwarded-For``, in order, joined by commas."""
    model: str | None
    resume: str | None
    after: str | None
    goes_on: bool
    """Whether it comes back to what has begun: it says where."""
    is_beta: bool
    is_readable: bool
    """False: the query is longer than anything that is meant for this server, and was not read."""
    trace: str | None = None
    """The trace that it belongs to, as :func:`~unbroken.server.trace_context.taken` has it."""

    @classmethod
    def of(cls, scope: Scope, known: str = SUBPROTOCOL) -> Handshake:
        """Read the request, to a door that speaks *known*.

        Header values are Latin-1 (RFC 9110, section 5.5).
        """
        headers: dict[bytes, str] = {}
        for raw_name, raw_value in scope["headers"]:
            name = raw_name.lower()
            if name in _READ:
                headers.setdefault(name, raw_value.decode("latin-1"))
        offered: Sequence[str] = scope.get("subprotocols", ())
        query = scope.get("query_string", b"").decode("latin-1")
        is_readable = len(query) <= _MAX_QUERY and query.count("&") < _MAX_FIELDS
        fields = parse_qs(query, keep_blank_values=True) if is_readable else {}
        origin = headers.get(b"origin")
        return cls(
            host=headers.get(b"host", ""),
            origin=origin,
            credentials=_credentials(headers, offered, origin, fields),
            forwarded=forwarded_for(scope),
            subprotocol=known if known in offered else None,
            model=_one(fields, "model"),
            resume=_one(fields, "resume"),
            after=_one(fields, "after"),
            goes_on=any(_one(fields, name) for name in ("resume", "continue", "offset")),
            is_readable=is_readable,
            is_beta="realtime=v1" in headers.get(b"openai-beta", "") or _BETA_PROTOCOL in offered,
            trace=taken(headers.get(b"traceparent")),
        )

    @property
    def is_browser(self) -> bool:
        """Whether a web page made the request: it can't read an HTTP status, only frames."""
        return self.origin is not None

    def comes_from(self, allowed: Sequence[str]) -> bool:
        """Return whether the page it comes from, if any, is the server's own or an allowed one.

        CORS doesn't cover WebSockets: without this, any page that a user visits
        could speak in their name.
        """
        if self.origin is None:
            return True
        if self.origin in allowed:
            return True
        try:
            parts = urlsplit(self.origin)
        except ValueError:
            return False
        return parts.scheme in ("http", "https") and bool(parts.netloc) and parts.netloc == self.host


def forwarded_for(scope: Scope) -> str:
    """Return the values of ``X-Forwarded-For``, in order, joined by commas."""
    values = [value for name, value in scope["headers"] if name.lower() == b"x-forwarded-for"]
    return b",".join(values).decode("latin-1")


def is_loopback_name(host: str) -> bool:
    """Return whether a ``Host`` header names this machine from within.

    A page of another site can have its name resolve to 127.0.0.1; its requests
    then come with that name.
    """
    try:
        name = urlsplit(f"//{host}").hostname or ""
    except ValueError:
        return False
    return name in ("localhost", "::1") or (name.startswith("127.") and name.replace(".", "").isdigit())


def _credentials(
    headers: dict[bytes, str], offered: Sequence[str], origin: str | None, fields: dict[str, list[str]]
) -> Credentials:
    """Return what is presented: never a key out of the query, which proxies write into their logs."""
    scheme, _, value = headers.get(b"authorization", "").partition(" ")
    key = (value.strip() or None) if scheme.lower() == "bearer" else None
    offers = (each.removeprefix(_KEY_PROTOCOL) for each in offered if each.startswith(_KEY_PROTOCOL))
    offer = None if key is not None else next(offers, None)
    return Credentials(
        key if offer is None else offer,
        is_browser=origin is not None,
        is_subprotocol=offer is not None,
        ticket=_one(fields, "ticket"),
        resume=_one(fields, "resume"),
        origin=origin,
    )


def _one(fields: dict[str, list[str]], name: str) -> str | None:
    values = fields.get(name)
    return values[-1] if values else None
