"""Bringing all sessions into the format that is written, for releases that read no other to come (back).

What an entry says stays the same, and so do its number and nonce: nobody who
reads a session, or owns it, notices. It is done in the background, by one node
at a time, from one end of the keys to the other; sessions that are in that format
already are but looked at.
"""

from __future__ import annotations

import asyncio
from typing import Any, Final

import msgspec
import structlog

from unbroken.sessions.backends.redis.connection import Client
from unbroken.sessions.backends.redis.keys import Keys
from unbroken.sessions.backends.redis.packing import packed, unpacked
from unbroken.sessions.backends.redis.scripts import Scripts
from unbroken.sessions.entries import version_of
from unbroken.sessions.errors import UnknownFormat
from unbroken.sessions.format import Formats
from unbroken.sessions.ids import NodeId

__all__ = ["Rewriting"]

_TURN: Final = 60_000
"""Milliseconds after which another node may do it, if this one says nothing more."""

_TURN_SESSIONS: Final = 100
"""Sessions after which it says so."""

_PAGE: Final = 512

_REST: Final = 0.002
"""Seconds between two sessions: nobody waits for this, and all others wait for their turn of the loop."""


class Rewriting:
    """Rewrites what others have written. All calls raise what the client does.

    Args:
        client: How Redis is reached.
        keys: What things are called there.
        formats: What is read, and written.
        scripts: How scripts are called.

    """

    def __init__(self, client: Client, keys: Keys, formats: Formats, scripts: Scripts) -> None:
        self._client: Any = client  # its methods are of both worlds, says redis-py
        self._keys = keys
        self._formats = formats
        self._scripts = scripts

    async def run(self, node: NodeId) -> bool:
        """Look at all sessions. Return whether all are in the format that is written now.

        False also where another node is at it.
        """
        task, turn = asyncio.current_task(), self._keys.rewriting
        assert task is not None
        if not await self._client.set(turn, node, nx=True, px=_TURN):
            return False
        is_whole, number, format_number = True, 0, self._formats.written
        try:
            async for meta in self._client.scan_iter(match=self._keys.sessions, count=_PAGE):
                is_whole &= await self._rewrite(meta.decode())
                if task.cancelling():  # the client may take a cancellation for its own, and go on
                    raise asyncio.CancelledError
                await asyncio.sleep(_REST)
                number += 1
                if number % _TURN_SESSIONS == 0:
                    await self._client.set(turn, node, px=_TURN)
        finally:
            await self._client.delete(turn)
        if task.cancelling():
            raise asyncio.CancelledError
        log = structlog.get_logger()
        log.info("sessions rewritten", format=format_number, sessions=number, is_whole=is_whole)
        return is_whole

    async def _rewrite(self, meta: str) -> bool:
        """Rewrite one session. Return whether all of it could be read."""
        log, kept = f"{meta[:-1]}l", f"{meta[:-1]}s"
        incarnation = await self._client.hget(meta, "i")
        if incarnation is None:
            return True
        try:
            changed = await self._changed(log)
            seq, nonce, data = await self._snapshot(kept)
        except UnknownFormat:
            return False
        if changed or data:
            args = (incarnation, msgspec.msgpack.encode(changed), seq, nonce, data)
            await self._scripts.call("rewrite", [meta, log, kept], *args)
        return True

    async def _changed(self, log: str) -> list[tuple[str, str, str]]:
        """Return the entries of a log that aren't in the format: id, nonce, and body as it should be."""
        formats = self._formats
        changed: list[tuple[str, str, str]] = []
        start = "-"
        while page := await self._client.xrange(log, min=start, count=_PAGE):
            for number, fields in page:
                body = fields[b"b"]
                if version_of(body) != formats.written:
                    text = formats.encode_body(formats.decode_body(body)).decode()
                    changed.append((number.decode(), fields[b"k"].decode(), text))
            start = f"({page[-1][0].decode()}"
        return changed

    async def _snapshot(self, kept: str) -> tuple[bytes, bytes, bytes]:
        """Return a snapshot's number and nonce, and the data as they should be; empty if they are."""
        seq, nonce, data = await self._client.hmget(kept, "q", "k", "d")
        if data is None:
            return b"", b"", b""
        formats, state = self._formats, unpacked(data)
        version = version_of(state)
        if version == formats.written:
            return b"", b"", b""
        if version is None or not formats.covers(version, version):
            formats.on_unreadable()
            raise UnknownFormat(f"the snapshot has format {version}")
        return seq, nonce, packed(formats.encode_state(formats.decode_state(state)))
