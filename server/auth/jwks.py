"""The keys that JSON Web Tokens are signed with: a set (RFC 7517) at an address or in a file.

A key that isn't known is looked for once more, at most so often; a set that can't be fetched
any more counts on for a while. Both bound what a stranger's tokens can make the server do.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple, TypeAlias

import structlog
from cryptography.exceptions import UnsupportedAlgorithm
from jwt import PyJWK, PyJWTError

from unbroken.server.auth.download import NotDownloaded, download
from unbroken.sessions.clock import Clock

__all__ = ["JwksUnavailable", "KeySet", "NotLookedFor", "SigningKey"]

_MOST_BYTES: Final = 1 << 20
_MOST_KEYS: Final = 100

_TIMEOUT: Final = 5.0
"""Seconds in which a set has come from its address, or doesn't: whoever waits is told by then."""

_REFRESHED: Final = 600.0
"""Seconds after which a set is fetched again."""

_COOLDOWN: Final = 30.0
"""Seconds between two attempts at fetching it, whatever tokens name."""

_BELIEVED: Final = 1200.0
"""Seconds since the last attempt has ended for which keys are believed meanwhile: while nobody asks, none is
made, and what was withdrawn may be so for long."""

_STALE: Final = 86_400.0
"""Seconds for which a set counts that can't be fetched any more."""


class JwksUnavailable(Exception):
    """The keys can't be had. The text is one line, with what to do."""


class NotLookedFor(Exception):
    """No key of that name is known, and the set wasn't fetched to look for it: it may be new."""


class SigningKey(NamedTuple):
    """A public key, and what it is for where its set says so."""

    key: Any
    algorithm: str | None


_Keys: TypeAlias = Mapping[str | None, Sequence[SigningKey]]
"""By name: None has those without."""


class KeySet:
    """A set of public keys.

    Args:
        source: An address, or the path of a file.
        clock: Where time comes from.
        on_fetch: Told of each attempt: ``ok`` or ``failed``.

    """

    def __init__(
        self, source: str, clock: Clock, *, on_fetch: Callable[[str], None] = lambda _: None
    ) -> None:
        self._source = source
        self._clock = clock
        self._on_fetch = on_fetch
        self._keys: _Keys = {}
        self._fetched_at = float("-inf")
        self._tried_at = float("-inf")
        self._ended_at = float("-inf")  # when the last attempt had, whatever came of it
        self._fetching: asyncio.Task[None] | None = None

    async def find(self, kid: str | None) -> Sequence[SigningKey]:
        """Return the keys of that name: of several, a token is signed with one of them.

        Without a name, those that have none; if there are none, the only key there is. Whoever names a
        known one doesn't wait while the set is fetched again, behind the first who asks after ten minutes:
        what was withdrawn counts until then.

        Raises:
            JwksUnavailable: Nobody can say for the moment.
            NotLookedFor: It isn't known here. Whoever invents names has others wait for new keys, too.

        """
        now = self._clock.monotonic()
        keys = self._of(kid)
        is_wanted = not keys or now - self._fetched_at >= _REFRESHED
        if is_wanted and self._fetching is None and now - self._tried_at >= _COOLDOWN:
            self._tried_at = now
            self._fetching = asyncio.create_task(self._fetch())
        is_believed = keys and now - self._ended_at < _BELIEVED and now - self._fetched_at < _STALE
        if self._fetching is not None and not is_believed:
            # One that is cut off leaves the others their answer, and one that is stopped tells all of them.
            await asyncio.wait({self._fetching})
            keys = self._of(kid)
        if self._clock.monotonic() - self._fetched_at >= _STALE:
            raise JwksUnavailable("The keys that tokens are signed with can't be had. Try again in a moment.")
        if not keys and kid is not None and self._fetched_at < now:
            raise NotLookedFor
        return keys

    def _of(self, kid: str | None) -> Sequence[SigningKey]:
        keys = self._keys.get(kid, ())
        if keys or kid is not None or len(self._keys) != 1:
            return keys
        (only,) = self._keys.values()
        return only if len(only) == 1 else ()

    async def _fetch(self) -> None:
        try:
            self._keys = await self._read()
        except JwksUnavailable as exc:
            self._on_fetch("failed")
            structlog.get_logger().warning("JWKS not fetched", reason=str(exc))
        else:
            self._fetched_at = self._clock.monotonic()
            self._on_fetch("ok")
        finally:
            self._ended_at = self._clock.monotonic()
            self._fetching = None

    async def start(self) -> None:
        """Fetch the set for the first time.

        Raises:
            JwksUnavailable: It can't be had, or has no key that can be used.

        """
        self._keys = await self._read()
        self._fetched_at = self._tried_at = self._ended_at = self._clock.monotonic()

    async def stop(self) -> None:
        """Stop what is being fetched: whoever waits is told as if it had failed. Harmless if nothing is."""
        fetching, self._fetching = self._fetching, None
        if fetching is not None:
            fetching.cancel()
            await asyncio.wait({fetching})

    async def _read(self) -> _Keys:
        try:
            if "://" in self._source:
                # Nowhere but there: whoever answers says who everybody is.
                text = await download(self._source, most=_MOST_BYTES, within=_TIMEOUT)
            else:
                text = await asyncio.to_thread(self._in_file)
        except (NotDownloaded, OSError, ValueError) as exc:
            raise self._unavailable(str(exc)) from None
        if len(text) > _MOST_BYTES:
            raise self._unavailable("it is too long")
        return await asyncio.to_thread(self._keys_in, text)

    # In a thread.

    def _in_file(self) -> bytes:
        with Path(self._source).open("rb") as file:
            return file.read(_MOST_BYTES + 1)

    def _keys_in(self, text: bytes) -> _Keys:
        try:
            entries = json.loads(text)["keys"]
            if not isinstance(entries, list) or len(entries) > _MOST_KEYS:
                raise ValueError
        except (ValueError, KeyError, TypeError, RecursionError):
            raise self._unavailable("what is there is no set of keys") from None
        keys: dict[str | None, list[SigningKey]] = {}
        for entry in entries:
            if isinstance(entry, dict) and (key := _usable(entry)) is not None:
                name = entry.get("kid")
                keys.setdefault(name if isinstance(name, str) else None, []).append(key)
        if not keys:
            raise self._unavailable("none of its keys can be used")
        return keys

    def _unavailable(self, reason: str) -> JwksUnavailable:
        return JwksUnavailable(
            f"The keys at {self._source} can't be had: {reason}. Correct UNBROKEN_JWT_JWKS, or what is there."
        )


def _usable(entry: dict[str, Any]) -> SigningKey | None:
    """Return the public key for signatures that *entry* is, if it is one of a kind that is known here."""
    if entry.get("use", "sig") != "sig" or entry.get("kty") == "oct":
        return None
    try:
        return SigningKey(PyJWK(entry).key, entry.get("alg"))
    except (PyJWTError, UnsupportedAlgorithm, ValueError, TypeError, KeyError):  # the others may be fine
        return None
