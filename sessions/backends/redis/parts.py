"""Which part of Redis has a key: a server of a cluster, or what is half moved from one to another."""

from __future__ import annotations

from unbroken.sessions.backends.redis.connection import Client, is_of_a_slot, server_of
from unbroken.sessions.backends.redis.keys import Keys

__all__ = ["Parts"]


class Parts:
    """The parts that the keys of one kind of calls are in.

    Args:
        client: Knows the servers.

    """

    def __init__(self, client: Client) -> None:
        self._client = client
        self._half_moved: dict[str, str] = {}  # the servers of tags whose slots weren't whole there

    def of(self, key: str) -> str:
        """Return the name of the part that has *key* now; empty: there is but one, or none is known."""
        server, tag = server_of(self._client, key), Keys.tag_of(key)
        # Once it has been moved it is elsewhere, and whole. Where it stays after all, this costs little.
        return f"{server}/{tag}" if server and self._half_moved.get(tag) == server else server

    def note(self, key: str, error: Exception) -> None:
        """Note that a call that had *key* failed, of the client's *error*."""
        if is_of_a_slot(error):
            self._half_moved[Keys.tag_of(key)] = server_of(self._client, key)
