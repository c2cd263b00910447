"""What a user of Redis has to be allowed: the rule in the docs, to the letter."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

from tests.fakes.valkey import Server

__all__ = ["allow", "documented_rule"]

_OPERATIONS: Final = Path(__file__).parents[4] / "docs" / "operations.md"


def documented_rule(prefix: str, *, in_cluster: bool = False) -> list[str]:
    """Return the words of the rule, for keys with *prefix*; with what the docs add for a cluster."""
    text = _OPERATIONS.read_text()
    (rule,) = re.findall(r"^ACL SETUSER (unbroken .*)$", text, re.MULTILINE)
    (more,) = re.findall(r"In a cluster add `(.*?)`", text)
    words = f"{rule} {more}" if in_cluster else rule
    return [word.replace("unbroken:*", f"{prefix}:*") for word in words.split()]


def allow(server: Server, prefix: str, *, in_cluster: bool = False, is_redis7: bool = False) -> None:
    """Make the user, ``unbroken`` with the password ``password``; on Redis 7.0, as the docs say of it."""
    words = documented_rule(prefix, in_cluster=in_cluster)
    if is_redis7:
        words.remove("+client|setinfo")
    assert server.command("ACL", "SETUSER", *words) == b"+OK\r\n"
