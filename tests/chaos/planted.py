"""The server with a mistake in it, as a program of its own: what the chaos suite has to find.

``CHAOS_PLANT`` says which mistake:

- ``no-fence``: who owned a session once may go on writing to it, behind what others wrote;
- ``no-nonce``: nobody asks which entry is at a place of a log, neither of who writes behind it nor of
  who reads from there;
- ``empty-here``: a session in which nobody has said anything is empty, whatever was said in it elsewhere.
"""

from __future__ import annotations

import hashlib
import os
from typing import Any, Final

from unbroken.server.cli import main
from unbroken.sessions.actor import Actor
from unbroken.sessions.backends.redis.scripts import Scripts
from unbroken.sessions.event_log import EventLog, Position, Verdict
from unbroken.sessions.unopened import Unopened

__all__ = ["PLANT"]

PLANT: Final = "CHAOS_PLANT"

_OWNER = "at[2] ~= a[2] or at[3] ~= a[3]"
_MISTAKES: Final[dict[str, dict[str, list[tuple[str, str]]]]] = {
    "empty-here": {},
    "no-fence": {
        "append": [
            (f"at[1] ~= a[4] or {_OWNER}", "at[1] ~= a[4]"),
            ("if tonumber(at[13] or 0) > a[5] then", "if false then"),
        ]
    },
    "no-nonce": {
        "append": [("if not holds(at, log, a[5], a[6]) then", "if false then")],
        "rejoin": [("if at[4] ~= ARGV[5] or at[5] ~= ARGV[6] then", "if false then")],
        "read": [
            ("if at[7] ~= nonce then", "if false then"),
            ("if #found == 0 or found[1][2][2] ~= nonce then", "if #found == 0 then"),
        ],
    },
}


def plant(name: str) -> None:
    """Have this process' scripts make the mistake of that *name*."""
    original = Scripts.__init__

    def changed(self: Scripts, *args: Any, **kwargs: Any) -> None:
        original(self, *args, **kwargs)
        for script, changes in _MISTAKES[name].items():
            text = self._texts[script]
            for before, after in changes:
                if before not in text:
                    raise RuntimeError(f"{script}.lua has no {before!r} any more: plant the mistake anew")
                text = text.replace(before, after)
            self._texts[script] = text
            self._digests[script] = hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest()

    Scripts.__init__ = changed  # type: ignore[method-assign]
    if name == "no-nonce":
        EventLog.check = _check_number  # type: ignore[method-assign]
    if name == "empty-here":
        Unopened.check = _never  # type: ignore[method-assign]


_check = EventLog.check


def _check_number(self: EventLog, position: Position) -> Verdict:
    """Judge a client's place by its number alone."""
    if self.floor <= position.seq <= self.head:
        position = position._replace(nonce=self.nonce_at(position.seq))
    return _check(self, position)


async def _never(self: Unopened, actor: Actor) -> None:
    """Ask nobody."""


if __name__ == "__main__":
    plant(os.environ[PLANT])
    main()
