"""The scripts, called by digest. A server that has forgotten them is given them again."""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from functools import partial
from importlib.resources import files
from typing import Any, Final, Protocol

from redis.exceptions import NoScriptError, ResponseError, TimeoutError

from unbroken.sessions.backends.redis.places import Places

__all__ = ["Caller", "HalfMoved", "Scripts", "SlotDown"]

_NAMES: Final = (
    "acquire",
    "admit",
    "append",
    "beat",
    "busy",
    "compact",
    "create",
    "delete",
    "erase",
    "erased",
    "forget",
    "inspect",
    "keep",
    "leave",
    "list",
    "listed",
    "metadata",
    "owners",
    "read",
    "recall",
    "rejoin",
    "release",
    "reseed",
    "rewrite",
    "settle",
    "shelves",
    "submit",
    "tally",
    "unfollow",
)

_AGAIN: Final = (0.0, 0.05, 0.1, 0.2)
"""Seconds after which a call is made again whose keys were half moved. With few keys that takes no longer."""


class HalfMoved(ResponseError):
    """Some keys of a call are still on the server that their slot comes from, and some aren't: TRYAGAIN.

    It wasn't made. The server has nothing else against it, or against other calls.
    """


class SlotDown(ResponseError):
    """The server that a call's slot belongs to serves it for the time being no more: CLUSTERDOWN.

    It wasn't made. Other servers may be as well as ever.
    """


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
        again: Seconds after which a call is made again whose keys are half moved, each time that it finds
            them so. It has no place meanwhile.

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
        again: Sequence[float] = _AGAIN,
    ) -> None:
        self._caller = caller
        self._places: defaultdict[str, Places] = defaultdict(
            partial(Places, at_once, patience, time.monotonic)
        )
        self._server_of = server_of
        self._again = again
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
            TimeoutError: The server doesn't answer, be it those before.
            HalfMoved: Its keys are, for longer than that takes as a rule.
            RedisError: As the client does.

        """
        for delay in self._again:
            try:
                return await self._call(name, keys, *args)
            except HalfMoved:
                await asyncio.sleep(delay)
        return await self._call(name, keys, *args)

    async def _call(self, name: str, keys: list[str], *args: Any) -> Any:
        places = self._places[self._server_of(keys[0])]
        since = await places.take()
        is_answered = is_late = False
        try:
            try:
                answer = await self._caller.evalsha(self._digests[name], len(keys), *keys, *args)
            except NoScriptError:
                answer = await self._caller.eval(self._texts[name], len(keys), *keys, *args)
            is_answered = True
        except ResponseError:
            is_answered = True
            raise
        except TimeoutError:  # of the client: who has less patience than that says nothing for others
            is_late = True
            raise
        finally:
            places.give_back(since, is_answered=is_answered, is_late=is_late)
        return answer
