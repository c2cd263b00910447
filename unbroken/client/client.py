"""What callers hold: a conversation with a server, its turns, and the functions that it may call.

One task keeps the client connected; functions run in tasks of their own. All of them end before
:meth:`Client.close` returns.
"""

from __future__ import annotations

import asyncio
import random
import secrets
import ssl as tls
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Any, Literal, Self

from unbroken.client.calls import Call
from unbroken.client.conversation import Conversation
from unbroken.client.door import Door, TokenSource
from unbroken.client.errors import ClientClosed, ClientError, Unreachable
from unbroken.client.exchange import Exchange
from unbroken.client.limits import Limits, Timing
from unbroken.client.link import Link
from unbroken.client.tool import Tool, call
from unbroken.client.turn import Turn

__all__ = ["Client", "connect"]


def connect(
    url: str,
    *,
    key: str | None = None,
    token: TokenSource | None = None,
    model: str | None = None,
    instructions: str | None = None,
    tools: Sequence[Tool] = (),
    state: Mapping[str, Any] | None = None,
    ssl: tls.SSLContext | None = None,
    headers: Mapping[str, str] | None = None,
    proxy: str | Literal[True] | None = True,
    open_timeout: float | None = 30.0,
    limits: Limits | None = None,
    timing: Timing | None = None,
) -> Client:
    """Return a client, to be used as an asynchronous context manager: that connects it.

    Args:
        url: The server's: ``http://host:port`` is enough.
        key: Is presented as ``Authorization: Bearer``.
        token: Is called before each connection for the key to present: for keys that are good for a
            minute. It may be a coroutine function. What it raises counts as a failed attempt, unless it is
            a ClientError: that ends the client.
        model: Which one is to answer. None: the server's own choice.
        instructions: What the model is told in every turn. None: what the server, or the key, settles.
        tools: Functions that the model may call, in every turn.
        state: Where another client was: see :attr:`Client.state`.
        ssl: For ``https`` and ``wss``. None: the system's certificates are trusted.
        headers: Further ones of each handshake.
        proxy: True: the one that the environment names; None: none.
        open_timeout: Seconds in which there has to be a first connection. 0: don't wait for it; what is
            said meanwhile is sent when there is one. None: wait as long as it takes.
        limits: How much there may be.
        timing: How patient the client is.

    Raises:
        ValueError: The address isn't a server's, or there are two keys.
        BadState: The state is none.

    """
    limits, timing = limits or Limits(), timing or Timing()
    door = Door(
        url,
        query={} if model is None else {"model": model},
        key=key,
        token=token,
        ssl=ssl,
        headers=dict(headers or {}),
        proxy=proxy,
        limits=limits,
        timing=timing,
    )
    return Client(
        door,
        instructions=instructions,
        tools=tools,
        state=state,
        open_timeout=open_timeout,
        limits=limits,
        timing=timing,
    )


class Client:
    """A conversation with a server, over as many connections as it takes. Made by :func:`connect`.

    It belongs to one event loop. What is sent, or stopped, is so as soon as there is a connection.
    """

    def __init__(
        self,
        door: Door,
        *,
        instructions: str | None,
        tools: Sequence[Tool],
        state: Mapping[str, Any] | None,
        open_timeout: float | None,
        limits: Limits,
        timing: Timing,
    ) -> None:
        self._open_timeout = open_timeout
        self._limits = limits
        self._timing = timing
        self._wishes = {} if instructions is None else {"instructions": instructions}
        self._tools = {tool.name: tool for tool in tools}
        draw = random.SystemRandom().random
        self._conversation = Conversation(
            limits=limits,
            draw=draw,
            new_id=lambda: secrets.token_hex(12),
            patience=timing.refusals,
            tools=[tool.fields for tool in tools],
        )
        if state is not None:
            self._conversation.restore(state)
        self._link = Link(self._conversation, door, timing, draw, self._changed)
        self._turns = {each.id: Turn(each, self._stop) for each in self._conversation.exchanges}
        self._restored = tuple(self._turns.values())
        self._calls: dict[asyncio.Task[None], Exchange] = {}
        self._calling = asyncio.Semaphore(limits.calls_at_once)
        self._failure: ClientError | None = None
        self._last_state: dict[str, Any] | None = None  # as it was when that ended everything
        self._task: asyncio.Task[None] | None = None

    # The caller's.

    async def __aenter__(self) -> Self:
        """Connect.

        Raises:
            Refused: The server doesn't want it, or couldn't have it for as long as was waited.
            Unreachable: There was no server.
            ClientError: As the package's docstring says.

        """
        if self._task is not None:
            raise RuntimeError("A client connects once. Make another one.")
        self._task = asyncio.create_task(self._run())
        try:
            if self._open_timeout != 0:
                await self._first_connection()
        except BaseException:
            await self.close()
            raise
        return self

    async def _first_connection(self) -> None:
        try:
            async with asyncio.timeout(self._open_timeout):
                await self._link.settled.wait()
        except TimeoutError:
            raise self._link.trouble or Unreachable("The server doesn't answer.") from None
        if self._failure is not None:
            raise self._failure

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """End the connection, and everything here. The server goes on with what it has. It may be repeated.

        Turns that haven't ended raise :class:`ClientClosed`; :attr:`state` still knows them.
        """
        task = self._task
        is_cancelled = False
        while task is not None and not task.done():
            task.cancel()
            try:
                await asyncio.wait((task,))
            except asyncio.CancelledError:
                is_cancelled = True  # it ends in a moment: then it goes no further
        self._fail(ClientClosed("The client was closed."))
        if is_cancelled:
            raise asyncio.CancelledError
        if task is not None and not task.cancelled() and (bug := task.exception()) is not None:
            raise bug

    def send(
        self,
        message: str,
        *,
        instructions: str | None = None,
        max_output_tokens: int | None = None,
        tool_choice: str | None = None,
        metadata: Mapping[str, str] | None = None,
    ) -> Turn:
        """Say *message*, and have it answered, when all that was said before has been.

        Without a connection it waits for one. It is answered once, whatever happens on the way.

        Args:
            message: The user's.
            instructions: Instead of the client's.
            max_output_tokens: Of the answer.
            tool_choice: ``auto``, ``none`` or ``required``.
            metadata: Is kept with the answer.

        Raises:
            QueueFull: As many turns wait as may.
            MessageTooLarge: It doesn't fit into a frame.
            ClientError: What ended the client: it is closed, or can't connect.

        """
        if self._failure is not None:
            raise self._failure
        wishes: dict[str, Any] = dict(self._wishes)
        if instructions is not None:
            wishes["instructions"] = instructions
        if max_output_tokens is not None:
            wishes["max_output_tokens"] = max_output_tokens
        if tool_choice is not None:
            wishes["tool_choice"] = tool_choice
        if metadata is not None:
            wishes["metadata"] = dict(metadata)
        exchange = self._conversation.send(message, wishes)
        turn = self._turns[exchange.id] = Turn(exchange, self._stop)
        self._changed()
        return turn

    def stop(self) -> None:
        """Stop all turns, those that wait too, and whatever else is answered in the session."""
        self._conversation.stop_all()
        self._changed()

    @property
    def turns(self) -> tuple[Turn, ...]:
        """Those that came with the state, and those that haven't ended, in their order."""
        begun = {turn.id for turn in self._restored}
        fresh = (each.id for each in self._conversation.exchanges if each.id not in begun)
        return (*self._restored, *(self._turns[turn_id] for turn_id in fresh))

    @property
    def state(self) -> dict[str, Any]:
        """Where the client is, for another to go on from: small, and JSON.

        Whatever is taken from a turn after it was read comes again there, and nothing else does. It is a
        secret: whoever has it and a key of the same user has the session.
        """
        return self._conversation.state() if self._last_state is None else self._last_state

    @property
    def session_id(self) -> str | None:
        """The session's name; None: there is none yet."""
        return self._conversation.session_id

    @property
    def is_connected(self) -> bool:
        """Whether there is a connection, as far as is known."""
        return self._conversation.is_welcome

    @property
    def is_durable(self) -> bool:
        """Whether what is said is saved. False: should the node die now, it is lost."""
        return self._conversation.is_durable

    @property
    def trouble(self) -> ClientError | None:
        """Why there is no connection; None: there is one, or there was no attempt yet."""
        return self._failure or self._link.trouble

    def _stop(self, exchange: Exchange) -> None:
        self._conversation.stop(exchange)
        self._changed()

    # Inside.

    def _changed(self) -> None:
        """See to what follows from what was said, or has come."""
        exchanges = self._conversation.exchanges
        for exchange, due in self._conversation.due_calls():
            task = asyncio.create_task(self._call(exchange, due))
            self._calls[task] = exchange
            task.add_done_callback(self._calls.pop)
        for task, exchange in self._calls.items():
            if exchange.is_over:
                task.cancel()
        if len(self._turns) > len(exchanges):
            self._turns = {each.id: self._turns[each.id] for each in exchanges}
        self._link.wake()

    async def _call(self, exchange: Exchange, made: Call) -> None:
        async with self._calling:
            output = await call(
                self._tools.get(made.name),
                made.arguments,
                seconds=self._timing.function,
                most=self._limits.output_bytes,
            )
        self._conversation.returned(exchange, made.id, output)
        self._changed()

    def _fail(self, error: ClientError) -> None:
        """End everything because of *error*, unless it has ended."""
        if self._failure is None:
            self._last_state = self._conversation.state()
            self._failure = error
            self._conversation.fail(error)
            self._link.settled.set()
            self._changed()

    async def _run(self) -> None:
        try:
            self._fail(await self._link.run())
        finally:
            # First of all: nobody waits for what won't come, whatever went wrong here.
            self._fail(ClientClosed("The client was closed."))
            if calls := list(self._calls):
                await asyncio.wait(calls, timeout=self._timing.closing)
