"""Every key, bound and lifetime that the store uses, in one place.

All keys of a session, and the index of its bucket, have one hash tag: the
bucket's number. So a script may touch a session's keys in a cluster, and write
many sessions of one bucket in one call.

===========================  ======  ==================================================================
key                          type    what
===========================  ======  ==================================================================
``P:{B}:S:m``                hash    the session: incarnation, owner, token, head, floor, followers...;
                                     without an incarnation, that it was deleted
``P:{B}:S:l``                stream  its log: one entry each, id ``<first number>-0``
``P:{B}:S:d``                hash    the names of its latest inputs, each with number and digest
``P:{B}:S:s``                hash    its snapshot
``P:{B}:busy``               hash    of the bucket's sessions those with something to do, and their owners
``P:{B}:out``                 stream  the bucket's outbox: turns that ended, until they are kept elsewhere
``P:{B}:outn``                string  how many bytes these take
``P:{B}:t:X``                hash    how many connections and responses somebody has on which node
``P:{B}:c:X``                zset    somebody's sessions, and when each began
``P:{B}:e:X``                string  up to when everything of theirs was erased
``P:{B}:w:X``                string  how far all sessions were looked through for theirs
``P:{nodes}:N``              string  the lease of a node
``P:{nodes}:all``            set     the nodes there are
``P:{nodes}:n:N``            channel what a node is told
``P:{nodes}:formats``        hash    in which format is written, and in which something may be there
``P:{nodes}:rewriting``      string  the node that brings it all into one format
``P:{nodes}:secret``         string  a sign for the secret that all nodes have
``P:{cache}:...``            ...     answers that may be given again: see ``server/cache/redis.py``
===========================  ======  ==================================================================

All of this, with the fields of hashes and streams and the arguments that the
scripts leave for each other, belongs to the format of what is kept
(:mod:`unbroken.sessions.format`). Two releases' scripts work on the same keys,
each its own by its digest: so within a format, a script may add a field, and
does without one that isn't there; it never gives one another meaning.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Final
from zlib import crc32

from msgspec import Struct

from unbroken.sessions.ids import NodeId, SessionId

__all__ = ["BUCKETS", "TALLY_LIFETIME", "Bounds", "Keys"]

BUCKETS: Final = 256

TALLY_LIFETIME: Final = 300
"""Seconds that what somebody has is known, unless it is told again. Nodes do so each minute."""


_SESSIONS_KNOWN: Final = 4096


_FEWEST_ENTRIES: Final = 16
"""That one call reads of a session, of however many."""


class Bounds(Struct, frozen=True, kw_only=True):
    """What a session may take in the store. Times are in seconds."""

    lifetime: int = 86_400
    """A session that nothing is written to, and that no node says to keep, is forgotten after so long."""
    deleted: int = 86_400
    """For so long it is known that a session was deleted, or for a session's lifetime, if that is longer."""
    dedupe_window: int = 1024
    """Names of inputs that are remembered in any case; up to a quarter more are."""
    waiting_inputs: int = 1000
    """Inputs that may wait for an owner to answer them."""
    call_sessions: int = 256
    """Sessions that one call reads or writes."""
    call_bytes: int = 256 * 1024
    """Bytes of bodies after which a call takes in no further session."""
    followers: int = 32
    """Nodes that are told of a session; of more, the latest. Others find out by their polls."""
    page_entries: int = 512
    """Entries that one call reads of a session; of several, fewer."""

    def page_of(self, sessions: int) -> int:
        """Return how many entries a call may read of each of so many sessions: few have more than one."""
        return min(self.page_entries, max(_FEWEST_ENTRIES, 2 * self.page_entries // sessions))


class Keys:
    """The keys under one prefix."""

    def __init__(self, prefix: str) -> None:
        self._prefix = prefix
        # What is written is mostly of the same sessions, again and again.
        self.session = lru_cache(_SESSIONS_KNOWN)(self._session)
        """Returns the keys of a session: what it is, log, names, snapshot, and its bucket's index."""

    @staticmethod
    def bucket(name: str) -> int:
        """Return the bucket of a session, or of whoever has connections."""
        return crc32(name.encode()) % BUCKETS

    @staticmethod
    def tag_of(key: str) -> str:
        """Return what of *key* decides where in a cluster it is."""
        return key.partition("{")[2].partition("}")[0]

    def meta(self, session_id: SessionId) -> str:
        """Return the key of what a session is."""
        return f"{self._prefix}:{{{self.bucket(session_id)}}}:{session_id}:m"

    def _session(self, session_id: SessionId) -> tuple[str, str, str, str, str]:
        bucket = self.bucket(session_id)
        base = f"{self._prefix}:{{{bucket}}}:{session_id}:"
        return base + "m", base + "l", base + "d", base + "s", self.busy(bucket)

    def busy(self, bucket: int) -> str:
        """Return the key of a bucket's index."""
        return f"{self._prefix}:{{{bucket}}}:busy"

    def outbox(self, bucket: int) -> tuple[str, str]:
        """Return the keys of a bucket's outbox, and of how many bytes that takes."""
        base = f"{self._prefix}:{{{bucket}}}:out"
        return base, base + "n"

    @property
    def indexes(self) -> list[str]:
        """The keys of all buckets' indexes."""
        return [self.busy(bucket) for bucket in range(BUCKETS)]

    def tally(self, whose: str) -> str:
        """Return the key of how many somebody has of what is counted."""
        return f"{self._prefix}:{{{self.bucket(whose)}}}:t:{whose}"

    def listed(self, whose: str) -> str:
        """Return the key of somebody's sessions. Another bucket's, mostly, than the sessions' own."""
        return f"{self._prefix}:{{{self.bucket(whose)}}}:c:{whose}"

    def erased(self, whose: str) -> str:
        """Return the key of when everything of somebody's was erased."""
        return f"{self._prefix}:{{{self.bucket(whose)}}}:e:{whose}"

    def asked(self, whose: str, *, is_thorough: bool) -> str:
        """Return the key of what somebody, or an operator, has asked to be erased, and isn't yet."""
        return f"{self._prefix}:{{{self.bucket(whose)}}}:{'p' if is_thorough else 'o'}:{whose}"

    def search(self, whose: str) -> str:
        """Return the key of how far all sessions were looked through for somebody's."""
        return f"{self._prefix}:{{{self.bucket(whose)}}}:w:{whose}"

    def suspicion(self, session_id: SessionId) -> str:
        """Return the key of what a session is suspected of."""
        return f"{self._prefix}:{{{self.bucket(session_id)}}}:{session_id}:g"

    def cached(self, name: str) -> str:
        """Return a key of the cache's. All have one tag: one script bounds what is kept as a whole."""
        return f"{self._prefix}:{{cache}}:{name}"

    @property
    def nodes(self) -> str:
        """The key of the set of nodes."""
        return f"{self._prefix}:{{nodes}}:all"

    def lease(self, node: NodeId) -> str:
        """Return the key of a node's lease."""
        return f"{self._prefix}:{{nodes}}:{node}"

    @property
    def formats(self) -> str:
        """The key of what nodes have agreed on to write."""
        return f"{self._prefix}:{{nodes}}:formats"

    @property
    def secret(self) -> str:
        """The key of the sign for the secret that all nodes have."""
        return f"{self._prefix}:{{nodes}}:secret"

    @property
    def rewriting(self) -> str:
        """The key of who brings all sessions into one format."""
        return f"{self._prefix}:{{nodes}}:rewriting"

    @property
    def sessions(self) -> str:
        """The pattern of the keys of what sessions are."""
        return f"{self._prefix}:{{*}}:*:m"

    def channel(self, node: NodeId) -> str:
        """Return the channel on which a node is told something."""
        return f"{self._prefix}:{{nodes}}:n:{node}"
