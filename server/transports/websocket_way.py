"""What every door for WebSockets does with a handshake, ahead of what it is there for.

The counterpart of :mod:`unbroken.server.transports.http_way`. Whoever is refused is told in the way that they
can read: by an HTTP status, or, as browsers can't read that, in a frame of the door's protocol.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Protocol, TypeAlias, TypeVar

from starlette.types import Scope, Send

from unbroken.server.auth.base import Authenticator, Grant, LongLivedKey, Unauthenticated
from unbroken.server.auth.presence import Presence
from unbroken.server.auth.principal import REALTIME, STRANGERS
from unbroken.server.errors import CloseCode
from unbroken.server.fair_names import FairNames
from unbroken.server.limits import ConnectionBounds
from unbroken.server.metrics import Metrics
from unbroken.server.quota.gate import Gate
from unbroken.server.transports.admission import Admission, Guest
from unbroken.server.transports.departure import Departing, departing, until_departure
from unbroken.server.transports.handshake import SUBPROTOCOL, Handshake, is_loopback_name
from unbroken.server.transports.refusal import RefusalLog, Refused, SayAlone, overloaded, refuse, spread_wait
from unbroken.server.transports.turnstile import TurnMissed, Turnstile
from unbroken.sessions.clock import Clock
from unbroken.sessions.errors import NodeDraining, StoreUnavailable
from unbroken.sessions.node import Node

__all__ = ["Admit", "Greeting", "WebSocketWay"]

_T = TypeVar("_T")

Admit: TypeAlias = Callable[[Handshake, Guest, Grant], Awaitable[_T]]
"""Returns what there is to connect to. Raises Refused."""


class Greeting(Protocol):
    """How one connection begins in a protocol in which clients may say who they are once it is accepted."""

    @property
    def is_accepted(self) -> bool:
        """Whether the handshake has been answered."""

    @property
    def heard(self) -> Sequence[str | bytes]:
        """What the client has said since then, for whoever answers it."""

    @property
    def subprotocol(self) -> str:
        """What clients have to offer."""

    async def introduce(self, handshake: Handshake) -> Handshake:
        """Return *handshake*, with what the client presents by then.

        Raises:
            Refused: It says something else, or nothing in time.
            ClientDisconnected: It has left.

        """

    async def dismiss(self, refused: Refused, handshake: Handshake) -> bool:
        """Say why there is nothing to connect to, and return True; False: as everywhere."""


class WebSocketWay:
    """What is the same on the way into each door for WebSockets."""

    def __init__(
        self,
        *,
        node: Node,
        authenticator: Authenticator,
        directory: Presence,
        admission: Admission,
        turnstile: Turnstile,
        allowed_origins: tuple[str, ...],
        loopback_only: bool,
        metrics: Metrics,
        clock: Clock,
        gate: Gate | None,
        fair_names: FairNames,
    ) -> None:
        self._node = node
        self._authenticator = authenticator
        self._directory = directory
        self._admission = admission
        self._turnstile = turnstile
        self._allowed_origins = allowed_origins
        self._loopback_only = loopback_only
        self._metrics = metrics
        self._gate = gate
        self._fair_names = fair_names
        self._refusals = RefusalLog(clock)
        self._greeting: set[asyncio.Timeout] = set()  # what ends the waiting for what clients begin with

    @asynccontextmanager
    async def admitted(
        self, scope: Scope, send: Send, admit: Admit[_T], say: SayAlone, greeting: Greeting | None = None
    ) -> AsyncIterator[tuple[_T, str | None] | None]:
        """Have what *admit* returns, and the subprotocol to select, for as long as the connection lives.

        None: the client was told why there is nothing, where it has to be by *say*. With a *greeting*, the
        connection may have been accepted by then.

        Raises:
            ClientDisconnected: The client has left meanwhile. Nothing of it is left but its count.

        """
        handshake = Handshake.of(scope, SUBPROTOCOL if greeting is None else greeting.subprotocol)
        client = scope.get("client")
        peer = client[0] if client else None
        guest = self._admission.guest(peer, handshake.forwarded)
        subprotocol = handshake.subprotocol
        try:
            try:
                let_in = await self._let_in(handshake, guest, departing(scope), admit, greeting)
            except Refused as refused:
                self._metrics.refused.labels(refused.code).inc()
                self._refusals.note(refused, peer)
                if greeting is None or not await greeting.dismiss(refused, handshake):
                    await refuse(refused, handshake, send, say)
                yield None
                return
            del handshake  # a connection may live for days
            yield let_in, subprotocol
        finally:
            guest.leave()

    async def _let_in(
        self,
        handshake: Handshake,
        guest: Guest,
        client: Departing | None,
        admit: Admit[_T],
        greeting: Greeting | None,
    ) -> _T:
        self._knock(handshake, guest)
        with until_departure(client):  # whoever has left counts no more, and is worked for no more
            if greeting is not None:
                handshake = await self._introduced(greeting, handshake)
            # An issuer of tokens that hangs, and room at a cap, aren't waited for in anybody's turn.
            grant = await self._identified(handshake, guest)
            try:
                async with self._turnstile.turn():
                    await self._note(guest, grant)
                    return await admit(handshake, guest, grant)
            except TurnMissed:
                raise overloaded() from None

    async def _introduced(self, greeting: Greeting, handshake: Handshake) -> Handshake:
        try:
            async with asyncio.timeout(None) as cut:
                self._greeting.add(cut)
                try:
                    return await greeting.introduce(handshake)
                finally:
                    self._greeting.discard(cut)
        except TimeoutError:
            raise self.draining() from None

    def leave(self) -> None:
        """Wait for nobody any more to say who they are: the node is about to end, and they are told so."""
        greeting, self._greeting = self._greeting, set()
        for cut in greeting:
            cut.reschedule(asyncio.get_running_loop().time())

    def _knock(self, handshake: Handshake, guest: Guest) -> None:
        """Refuse whoever need not wait to be told so. It takes next to nothing: crowds come at once."""
        if self._node.is_draining:
            raise self.draining()
        if not (handshake.goes_on or self._node.takes_sessions):
            # First of all: an overloaded server has no time for more than this.
            raise overloaded()
        guest.knock()
        guest.enter()
        if self._loopback_only and not is_loopback_name(handshake.host):
            message = (
                "Without keys this server is for this machine only: address it as 127.0.0.1 or localhost. "
                "The operator can set UNBROKEN_API_KEYS to serve other names."
            )
            raise Refused(403, "host_not_allowed", message)
        if not handshake.is_readable:
            raise Refused(
                400, "invalid_query", "The query of the address is too long, or has too many fields."
            )
        if not handshake.comes_from(self._allowed_origins):
            message = (
                "Pages of this origin may not connect. The operator can list it in UNBROKEN_ALLOWED_ORIGINS."
            )
            raise Refused(403, "origin_not_allowed", message)
        if handshake.is_beta:
            message = (
                "The beta version of the Realtime API isn't offered. Leave out `OpenAI-Beta: realtime=v1`."
            )
            raise Refused(400, "beta_api_shape_disabled", message)

    async def _identified(self, handshake: Handshake, guest: Guest) -> Grant:
        try:
            grant = await self._authenticator.authenticate(handshake.credentials)
        except Unauthenticated as exc:
            if exc.is_failure:
                guest.failed()
            code = "api_key_in_browser" if isinstance(exc, LongLivedKey) else "invalid_api_key"
            raise Refused(401, code, str(exc)) from None
        except StoreUnavailable as exc:
            raise Refused(503, "store_unavailable", str(exc), CloseCode.TRY_AGAIN) from None
        if REALTIME not in grant.principal.scopes:
            raise Refused(403, "insufficient_scope", "This key isn't good for sessions. Use another one.")
        plan, gate = grant.principal.plan, self._gate
        await guest.admit(grant.principal, ConnectionBounds() if gate is None else gate.connections(plan))
        return grant

    async def _note(self, guest: Guest, grant: Grant) -> None:
        if self._node.is_draining:  # since it began to wait
            raise self.draining()
        principal = grant.principal
        await self._directory.note(principal)
        if principal.tenant == STRANGERS:
            self._fair_names.note_stranger(principal.id, guest.address)

    def draining(self) -> Refused:
        """Return the refusal of a node that ends."""
        elsewhere = self._node.has_successors
        return Refused(
            503,
            "server_draining",
            str(NodeDraining()),
            CloseCode.RESTART,
            retry_after=spread_wait(over=2 if elsewhere else None),
            elsewhere=elsewhere,
        )
