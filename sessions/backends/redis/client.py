"""redis-py's client as it is used here: of what stands in the way of a call, only what it is for.

A call through the client of 8.1 costs several times what the call itself does: it is packed argument by
argument, its writing is a task of its own with a time-out, and what nobody here asks for is measured and
repeated. What is left out has an equivalent: a call's time-out is that of its answer, which covers its
writing, too; and nothing is sent twice.

It relies on attributes of redis-py's that it doesn't document; its tests fail when one of them goes.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Any

from hiredis import pack_command
from redis.asyncio import BlockingConnectionPool, Redis
from redis.exceptions import ConnectionError, TimeoutError

__all__ = ["BriefClient", "BriefConnection", "BriefPool"]


class BriefConnection:
    """A connection whose commands are packed in one step, and written without waiting.

    To be mixed into one of redis-py's.

    One that has been closed behind its back says so when it is written to. uvloop's streams may raise a
    RuntimeError then, which would be taken for a bug, here and in the client. Where the client itself has
    closed it, for another call, there is no stream any more.
    """

    _writer: asyncio.StreamWriter | None = None
    is_connected: bool

    def pack_command(self, *args: Any) -> list[bytes]:
        """Return a command as it is sent."""
        if type(args[0]) is str and " " not in args[0]:  # else its name is of several words
            try:
                return [pack_command(args)]
            except TypeError:
                pass  # a number or a text of a class of its own, or what can't be sent at all
        packed: list[bytes] = super().pack_command(*args)  # type: ignore[misc]
        return packed

    async def send_packed_command(
        self,
        command: Any,
        check_health: bool = True,  # noqa: ARG002 - it is asked for nowhere
    ) -> None:
        """Write. There is no waiting until it is sent: what there is to send is one command.

        Raises:
            ConnectionError: The connection is closed.

        """
        if not self.is_connected:
            await self.connect_check_health(check_health=False)  # type: ignore[attr-defined]
        try:
            self._write(command)
        except BaseException:
            await self.disconnect(nowait=True)  # type: ignore[attr-defined]
            raise

    def _write(self, command: bytes | str | Iterable[bytes]) -> None:
        writer = self._writer
        if writer is None:
            raise ConnectionError("The connection was closed as it was made.")
        if writer.is_closing():
            raise ConnectionError("The connection is closed.")
        if isinstance(command, str):
            command = command.encode()
        try:
            writer.write(command if isinstance(command, bytes) else b"".join(command))
        except OSError as exc:
            raise ConnectionError(f"The connection can't be written to: {type(exc).__name__}.") from exc
        except RuntimeError as exc:
            if not str(exc).endswith("the handler is closed"):
                raise
            raise ConnectionError("The server has closed the connection.") from exc


class BriefPool(BlockingConnectionPool):
    """A pool that hands out at once what is there, where nobody waits."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._waiting = 0  # how many are to be told when a connection is given back

    async def get_connection(self, *_: Any, **__: Any) -> Any:
        """Return a connection that can be written to, within the pool's time-out. Release it."""
        if self._waiting or self._in_maintenance or not self._available_connections:
            self._waiting += 1
            try:
                return await super().get_connection()  # type: ignore[no-untyped-call]
            finally:
                self._waiting -= 1
        connection = self.get_available_connection()  # type: ignore[no-untyped-call]
        try:
            if not await _is_ready(connection):
                await self.ensure_connection(connection)
        except BaseException:
            await self.release(connection)
            raise
        return connection

    async def release(self, connection: Any) -> None:
        """Take a connection back."""
        if self._waiting or self._in_maintenance or connection.should_reconnect():
            await super().release(connection)
            return
        self._in_use_connections.remove(connection)
        self._available_connections.append(connection)


async def _is_ready(connection: Any) -> bool:
    """Return whether a connection is open, and nothing is left to be read of a call before."""
    if not connection.is_connected:
        return False
    if connection._reader.at_eof():  # redis-py: takes the end for something that the server tells
        await connection.disconnect(nowait=True)
        return False
    try:
        return not await connection.can_read()
    except ConnectionError:
        return False


class BriefClient(Redis):
    """A client that makes a call once, and takes no notes."""

    async def execute_command(self, *args: Any, **options: Any) -> Any:
        """Send a command, and return the answer.

        Raises:
            RedisError: As redis-py does.

        """
        pool: Any = self.connection_pool
        connection = await pool.get_connection()
        try:
            await connection.send_command(*args)
            return await self.parse_response(connection, args[0], **options)
        except (ConnectionError, TimeoutError, OSError):
            await connection.disconnect()  # its answer may come yet, and would be taken for another's
            raise
        finally:
            await pool.release(connection)
