"""A crowd that comes at once is taken from the kernel's queue before its clients give up."""

from __future__ import annotations

import asyncio
import socket
from contextlib import ExitStack

import uvloop
from starlette.types import Receive, Scope, Send

from unbroken.server.config import Settings
from unbroken.server.process import Server

_CROWD = 64


async def nothing(scope: Scope, receive: Receive, send: Send) -> None:
    raise AssertionError("nobody asked for anything")


async def turns_until_all_are_taken(sock: socket.socket, settings: Settings) -> int:
    """Return for how many turns of the loop connections were taken that had come before."""
    server = Server(nothing, [sock], settings)
    serving = asyncio.create_task(server.run_until_stopped())
    turns = 0
    while len(server.server_state.connections) < _CROWD:
        assert not serving.done()
        await asyncio.sleep(0)
        turns += bool(server.server_state.connections)
    server.stop()
    server.cut()
    await serving
    return turns


def test_a_busy_loop_takes_several_connections_a_turn() -> None:
    """uvloop takes one, so that who waits is behind all those that have given up."""
    with ExitStack() as stack:
        sock = stack.enter_context(socket.create_server(("127.0.0.1", 0), backlog=_CROWD))
        for _ in range(_CROWD):
            stack.enter_context(socket.create_connection(sock.getsockname()))
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            turns = runner.run(turns_until_all_are_taken(sock, Settings()))
        assert turns <= _CROWD / 4
        assert sock.fileno() == -1, "nobody listens any more"
