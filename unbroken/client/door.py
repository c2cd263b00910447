"""How a connection is opened: where to, with which key, and how it is said that there is none."""

from __future__ import annotations

import asyncio
import inspect
import ssl as tls
from collections.abc import Awaitable, Callable, Mapping
from typing import Final, Literal, TypeAlias
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

import orjson
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import InvalidStatus, WebSocketException

from unbroken.client.errors import ClientError, Refused, Unreachable, refusal
from unbroken.client.limits import Limits, Timing

__all__ = ["Door", "TokenSource", "address"]

TokenSource: TypeAlias = Callable[[], str | Awaitable[str]]
"""Makes a key for one connection."""

_SCHEMES: Final = {"ws": "ws", "wss": "wss", "http": "ws", "https": "wss"}
_PATH: Final = "/v1/realtime"


def address(url: str, query: Mapping[str, str]) -> str:
    """Return the address to connect to.

    *url* is a server's, with or without a path: ``https://host``, ``http://host/v1`` and
    ``wss://host/v1/realtime?affinity=x`` are the same door, but for what the last asks for.

    Raises:
        ValueError: It isn't the address of a server.

    """
    parts = urlsplit(url)
    scheme = _SCHEMES.get(parts.scheme)
    if scheme is None or not parts.hostname:
        raise ValueError("The address must be a server's: ws://, wss://, http:// or https://, and a host.")
    if parts.username is not None or parts.password is not None:
        raise ValueError("Give the key as `key`: addresses are written down.")
    path = parts.path.rstrip("/")
    if path in ("", "/v1"):
        path = _PATH
    fields = {**dict(parse_qsl(parts.query, keep_blank_values=True)), **query}
    return urlunsplit((scheme, parts.netloc, path, urlencode(fields), ""))


class Door:
    """Opens connections to one server.

    Args:
        url: The server's.
        query: What each address asks for.
        key: What is presented; None: nothing, or what *token* makes for each connection.
        token: See :func:`unbroken.client.connect`.
        ssl: For ``https`` and ``wss``.
        headers: Further ones of each handshake.
        proxy: As in :func:`websockets.asyncio.client.connect`.
        limits: How large frames may be.
        timing: How long everything may take.

    Raises:
        ValueError: The address isn't a server's, or there are two keys.

    """

    def __init__(
        self,
        url: str,
        *,
        query: Mapping[str, str],
        key: str | None,
        token: TokenSource | None,
        ssl: tls.SSLContext | None,
        headers: Mapping[str, str],
        proxy: str | Literal[True] | None,
        limits: Limits,
        timing: Timing,
    ) -> None:
        if key is not None and token is not None:
            raise ValueError("Give a key or a token, not both.")
        if address(url, query).startswith("ws:") and ssl is not None:
            raise ValueError("A context for TLS is for addresses with https:// or wss://.")
        self._url = url
        self._query = query
        self._key = key
        self._token = token
        self._ssl = ssl
        self._headers = headers
        self._proxy = proxy
        self._limits = limits
        self._timing = timing

    @property
    def has_fresh_keys(self) -> bool:
        """Whether each connection presents another key."""
        return self._token is not None

    async def open(self, query: Mapping[str, str]) -> ClientConnection:
        """Open a connection whose address asks for *query*, too.

        Raises:
            Refused: The server has answered, and won't have it.
            Unreachable: There is no connection, or no key. ``__cause__`` is why.

        """
        url = address(self._url, {**self._query, **query})
        try:
            async with asyncio.timeout(self._timing.handshake):
                headers = dict(self._headers)
                if (key := await self._credential()) is not None:
                    headers["Authorization"] = f"Bearer {key}"
                return await self._connect(url, headers)
        except InvalidStatus as exc:
            raise _refusal_of(exc) from None
        except (OSError, WebSocketException, EOFError) as exc:
            reason = str(exc) or type(exc).__name__
            raise Unreachable(f"There is no connection to the server: {reason}") from exc

    async def _connect(self, url: str, headers: Mapping[str, str]) -> ClientConnection:
        timing = self._timing
        return await connect(
            url,
            ssl=self._ssl or (True if url.startswith("wss:") else None),
            additional_headers=headers,
            proxy=self._proxy,
            compression=None,
            open_timeout=None,
            ping_interval=timing.ping_interval,
            ping_timeout=timing.ping_timeout,
            close_timeout=timing.closing,
            max_size=self._limits.frame_bytes,
        )

    async def _credential(self) -> str | None:
        if self._token is None:
            return self._key
        try:
            made = self._token()
            return await made if inspect.isawaitable(made) else made
        except ClientError:
            raise  # whoever makes keys may know that there are none any more
        except Exception as exc:
            raise Unreachable(f"There is no key to connect with: {type(exc).__name__}.") from exc


def _refusal_of(exc: InvalidStatus) -> Refused:
    """Return what a response says that isn't the upgrade."""
    response = exc.response
    try:
        error = orjson.loads(response.body)["error"]
    except (ValueError, KeyError, TypeError):
        error = None
    said = error if isinstance(error, dict) else {}
    message = {"message": f"The server has answered with the status {response.status_code}."}
    after = response.headers.get("Retry-After", "")
    wait = float(after) if after.isascii() and after.isdigit() else None
    return refusal({**message, **said}, status=response.status_code, retry_after=wait)
