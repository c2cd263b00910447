"""The scripts, called by digest. A server that has forgotten them is given them again."""

from __future__ import annotations

import asyncio
import builtins
import hashlib
from collections import defaultdict
from collections.abc import Callable, Sequence
from functools import partial
from importlib.resources import files
from typing import Any, Final, Protocol

from redis.exceptions import NoScriptError, TimeoutError

__all__ = ["Caller", "Scripts", "TooManyCalls"]

_NAMES: Final = (
    "acquire",
    "append",
    "beat",
    "busy",
    "compact",
    "create",
    "delete",
    "forget",
    "inspect",
    "leave",
    "owners",
    "read",
    "recall",
    "rejoin",
    "release",
    "reseed",
    "rewrite",
    "submit",
    "tally",
    "unfollow",
)


class TooManyCalls(TimeoutError):
    """A call hasn't had its turn in time, behind others of this node. It wasn't made."""


class Caller(Protocol):
    """What of a client is needed to call a script. ``EVAL`` loads what it is given."""

    async def evalsha(self, sha: str, numkeys: int, *keys_and_args: Any) -> Any:
        """Call a script that was loaded."""

    async def eval(self, script: str, numkeys: int, *keys_and_args: Any) -> Any:
        """Load a script and call it."""


class Scripts:
    """Calls scripts by their names: so many at once, the rest one after another.

    Args:
        caller: The client.
        at_once: Calls that may be under way, to each server. A client's pool refuses more than
            it has connections, except for a single server's, where it makes them wait.
        patience: Seconds that a call waits for its turn.
        package: Whose folder ``scripts`` they are in.
        names: Theirs, without ``.lua``.
        server_of: Names the server of a key: one that doesn't answer has none of the others' calls wait.

    """

    def __init__(
        self,
        caller: Caller,
        at_once: int,
        patience: float,
        *,
        package: str = "unbroken.sessions.backends.redis",
        names: Sequence[str] = _NAMES,
        server_of: Callable[[str], str] = lambda _: "",
    ) -> None:
        self._caller = caller
        self._places: defaultdict[str, asyncio.Semaphore] = defaultdict(partial(asyncio.Semaphore, at_once))
        self._server_of = server_of
        self._patience = patience
        folder = files(package) / "scripts"
        self._texts = {name: (folder / f"{name}.lua").read_text("utf-8") for name in names}
        self._digests = {
            name: hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest()
            for name, text in self._texts.items()
        }

    async def call(self, name: str, keys: list[str], *args: Any) -> Any:
        """Call the script of that name. A script that isn't there has done nothing, and is sent then.

        Raises:
            TooManyCalls: It isn't its turn in time.
            RedisError: As the client does.

        """
        places = self._places[self._server_of(keys[0])]
        try:
            async with asyncio.timeout(self._patience):
                await places.acquire()
        except builtins.TimeoutError:
            raise TooManyCalls("too many calls are waiting") from None
        try:
            return await self._caller.evalsha(self._digests[name], len(keys), *keys, *args)
        except NoScriptError:
            return await self._caller.eval(self._texts[name], len(keys), *keys, *args)
        finally:
            places.release()
