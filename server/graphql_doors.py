"""The doors for GraphQL, as the settings say. Importing it takes the extra ``graphql``."""

from __future__ import annotations

from functools import cached_property, partial

from starlette.routing import Route

from unbroken.server.config import Settings
from unbroken.server.limits import ConnectionLimits
from unbroken.server.models import Models
from unbroken.server.protocols.graphql.documents import Documents
from unbroken.server.protocols.graphql.limits import DocumentLimits
from unbroken.server.protocols.graphql.schema import schema_of_sessions
from unbroken.server.quota.gate import Gate
from unbroken.server.transports.conversations import Conversations
from unbroken.server.transports.exchanges import Exchanges
from unbroken.server.transports.graphql import GraphqlDoor
from unbroken.server.transports.graphql_greeting import GraphqlGreeting
from unbroken.server.transports.graphql_socket import GraphqlSocket, say_alone
from unbroken.server.transports.reception import Reception
from unbroken.server.transports.refusal import SayAlone
from unbroken.server.transports.talk_door import Greet
from unbroken.sessions.clock import Clock

__all__ = ["GraphqlDoors"]


class GraphqlDoors:
    """Makes them.

    Args:
        settings: The server's.
        exchanges: Begins responses, and finds them.
        conversations: Lists sessions.
        gate: Counts. None: nobody does.
        models: Which there are.
        limits: What a connection may do.
        clock: Where time comes from.

    """

    def __init__(
        self,
        *,
        settings: Settings,
        exchanges: Exchanges,
        conversations: Conversations,
        gate: Gate | None,
        models: Models,
        limits: ConnectionLimits,
        clock: Clock,
    ) -> None:
        self._settings = settings
        self._exchanges = exchanges
        self._conversations = conversations
        self._gate = gate
        self._models = models
        self._limits = limits
        self._clock = clock

    @cached_property
    def _documents(self) -> Documents:
        settings = self._settings
        shown = settings.graphql_introspection
        limits = DocumentLimits(
            bytes=settings.graphql_max_bytes,
            tokens=settings.graphql_max_tokens,
            depth=settings.graphql_max_depth,
            cost=settings.graphql_max_cost,
            aliases=settings.graphql_max_aliases,
        )
        # Without keys the server is for this machine only: somebody develops.
        shows_schema = shown == "on" or (shown == "auto" and not settings.has_authentication)
        return Documents(schema_of_sessions(), limits, shows_schema=shows_schema)

    def routes(self, reception: Reception) -> list[Route]:
        """Return those that HTTP comes in by."""
        door = GraphqlDoor(
            reception=reception,
            documents=self._documents,
            exchanges=self._exchanges,
            conversations=self._conversations,
            gate=self._gate,
            models=self._models,
            most_bytes=self._settings.max_body_bytes,
            most_depth=self._settings.max_frame_depth,
        )
        return door.routes()

    @property
    def socket(self) -> GraphqlSocket:
        """What answers on a WebSocket."""
        return GraphqlSocket(
            documents=self._documents,
            exchanges=self._exchanges,
            conversations=self._conversations,
            gate=self._gate,
            models=self._models,
            limits=self._limits,
            most=self._settings.graphql_subscriptions,
            patience=self._settings.handshake_timeout,
            clock=self._clock,
        )

    @property
    def say_alone(self) -> SayAlone:
        """What makes errors of whole connections."""
        return say_alone

    @property
    def greet(self) -> Greet:
        """What connections begin with."""
        settings = self._settings
        return partial(
            GraphqlGreeting, timeout=settings.handshake_timeout, most_depth=settings.max_frame_depth
        )
