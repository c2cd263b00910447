"""The doors that the settings ask for, over the parts of a server: for the composition root."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import orjson
from starlette.routing import Route
from starlette.types import ASGIApp

from unbroken.server.archive.base import Archive
from unbroken.server.auth_selection import Auth
from unbroken.server.compactions import Compactions
from unbroken.server.config import Settings, StartupError
from unbroken.server.erasing.base import Erasure
from unbroken.server.erasing.transcripts import Transcripts
from unbroken.server.fair_names import FairNames
from unbroken.server.files.base import FileStore
from unbroken.server.files.references import referring
from unbroken.server.files.transfers import Transfers
from unbroken.server.guard_selection import Guards
from unbroken.server.limits import ConnectionLimits, Rate
from unbroken.server.metrics import Metrics
from unbroken.server.models import Models
from unbroken.server.openapi.selection import document
from unbroken.server.openapi.terms import Terms
from unbroken.server.quota.gate import Gate
from unbroken.server.quota.stored_sessions import StoredSessions
from unbroken.server.resume import ResumeTokens
from unbroken.server.transports import agui_socket, deepchat_socket, responses_socket, ui_socket
from unbroken.server.transports.address_rate import AddressRate
from unbroken.server.transports.admission import Admission
from unbroken.server.transports.agui import AguiDoor
from unbroken.server.transports.agui_socket import AguiSocket
from unbroken.server.transports.archive import ArchiveDoor
from unbroken.server.transports.chat import ChatDoor
from unbroken.server.transports.chats import Chats
from unbroken.server.transports.client_secrets import ClientSecretsDoor, SecretTerms
from unbroken.server.transports.compaction import CompactionDoor
from unbroken.server.transports.conversation_door import ConversationDoor
from unbroken.server.transports.conversations import Conversations
from unbroken.server.transports.deepchat import DeepChatDoor
from unbroken.server.transports.deepchat_socket import DeepChatSocket
from unbroken.server.transports.document import DocumentDoor
from unbroken.server.transports.exchanges import Exchanges
from unbroken.server.transports.files import FilesDoor
from unbroken.server.transports.http_way import HttpWay
from unbroken.server.transports.intake import intake_limits
from unbroken.server.transports.models import ModelsDoor
from unbroken.server.transports.own_data import OwnDataDoor
from unbroken.server.transports.page import page_routes
from unbroken.server.transports.reception import Reception
from unbroken.server.transports.refusal import SayAlone
from unbroken.server.transports.responses import ResponsesDoor
from unbroken.server.transports.responses_socket import ResponsesSocket
from unbroken.server.transports.runs import Runs
from unbroken.server.transports.session_events import SessionEventsDoor
from unbroken.server.transports.talk_door import Converse, Greet, TalkDoor
from unbroken.server.transports.turnstile import Turnstile
from unbroken.server.transports.ui import UiDoor
from unbroken.server.transports.ui_socket import UiSocket
from unbroken.server.transports.upgrade import UpgradeDoor
from unbroken.server.transports.usage import UsageDoor
from unbroken.server.transports.websocket import RealtimeDoor
from unbroken.server.transports.websocket_way import WebSocketWay
from unbroken.sessions.backends.base import SessionStore
from unbroken.sessions.backends.index import SessionIndex
from unbroken.sessions.clock import Clock
from unbroken.sessions.items import SessionConfig
from unbroken.sessions.node import Node

if TYPE_CHECKING:
    from unbroken.server.graphql_doors import GraphqlDoors

__all__ = ["DoorSelection"]


@dataclass(frozen=True, kw_only=True)
class DoorSelection:
    """Makes the doors of one server."""

    settings: Settings
    node: Node
    transient: Node
    """Has the sessions that are in no store."""
    store: SessionStore
    index: SessionIndex
    erasure: Erasure
    transcripts: Transcripts
    auth: Auth
    guards: Guards
    models: Models
    defaults: SessionConfig
    """How a session is that says nothing else."""
    metrics: Metrics
    clock: Clock
    files: FileStore | None
    transfers: Transfers
    gate: Gate | None
    fair_names: FairNames
    admission: Admission
    turnstile: Turnstile
    tokens: ResumeTokens
    compactions: Compactions
    archive: Archive | None = None

    @cached_property
    def page(self) -> list[Route]:
        """The page's."""
        return page_routes()

    def routes(self) -> list[Route]:
        """Return those that HTTP comes in by."""
        way = self._way()
        reception = Reception(
            way=way,
            gate=self.gate,
            directory=self.auth.directory,
            lapses=self.auth.lapses,
            clock=self.clock,
        )
        return [
            # Ahead of those whose paths have a part for anything.
            *UpgradeDoor(way, ("/v1/realtime", "/v1/ui/ws", "/v1/agui/ws")).routes(),
            *self._file_routes(way),
            *self._secret_routes(way),
            *([] if self.gate is None else UsageDoor(way, self.gate).routes()),
            *self._response_routes(reception),
            *self._event_routes(reception),
            *self._conversation_routes(reception),
            *OwnDataDoor(reception, self.erasure).routes(),
            *([] if self.archive is None else ArchiveDoor(way, self.archive, self.tokens).routes()),
            *self._chat_routes(reception),
            *self._ui_routes(reception),
            *self._agui_routes(reception),
            *self._widget_routes(reception),
            *self._graphql_routes(reception),
            *ModelsDoor(way, self.models, self.clock).routes(),
            *self._document_routes(way),
        ]

    def _document_routes(self, way: HttpWay) -> list[Route]:
        if not self.settings.openapi:
            return []
        terms = Terms(
            settings=self.settings, has_files=self.files is not None, has_quotas=self.gate is not None
        )
        page = [route.path for route in self.page]
        return DocumentDoor(way, orjson.dumps(document(terms, page))).routes()

    def _way(self) -> HttpWay:
        return HttpWay(
            authenticator=self.auth.authenticator,
            directory=self.auth.directory,
            allowed_origins=self.settings.allowed_origins,
            loopback_only=not self.settings.has_authentication,
            is_overloaded=lambda: not self.node.takes_sessions,
            admission=self.admission,
            metrics=self.metrics,
            clock=self.clock,
            fair_names=self.fair_names,
        )

    def _secret_routes(self, way: HttpWay) -> list[Route]:
        settings = self.settings
        door = ClientSecretsDoor(
            way=way,
            secrets=self.auth.secrets,
            terms=SecretTerms(
                lifetime=settings.client_secret_lifetime,
                ticket_lifetime=settings.ticket_lifetime,
                anonymous_plan=settings.anonymous_plan if settings.anonymous else None,
            ),
            strangers=AddressRate(Rate(settings.anonymous_rate / 60, settings.anonymous_rate), self.clock),
            models=self.models,
            defaults=self.defaults,
            is_draining=lambda: self.node.is_draining,
            metrics=self.metrics,
            guard=self.guards.gate,
        )
        return door.routes()

    def _file_routes(self, way: HttpWay) -> list[Route]:
        files = self.files
        if files is None:
            return []
        self.metrics.observe_files(lambda: files.count, lambda: files.size)
        door = FilesDoor(
            way=way,
            store=files,
            transfers=self.transfers,
            lifetime=self.settings.file_lifetime,
            is_draining=lambda: self.node.is_draining,
            metrics=self.metrics,
        )
        return door.routes()

    @cached_property
    def _stored_sessions(self) -> StoredSessions:
        return StoredSessions(
            self.index,
            self.store,
            self.clock,
            most=self.settings.sessions_per_user,
            plans=None if self.gate is None else self.gate.plans,
            name_of=self.fair_names.of,
        )

    @cached_property
    def _exchanges(self) -> Exchanges:
        settings = self.settings
        return Exchanges(
            node=self.node,
            transient=self.transient,
            models=self.models,
            defaults=self.defaults,
            tokens=self.tokens,
            screen=self.guards.gate.command,
            refer=lambda command, principal: referring(
                command, principal, self.files, lifetime=settings.file_lifetime
            ),
            admit=self._stored_sessions.admit,
            gate=self.gate,
            clock=self.clock,
        )

    def _event_routes(self, reception: Reception) -> list[Route]:
        door = SessionEventsDoor(
            reception=reception,
            node=self.node,
            tokens=self.tokens,
        )
        return door.routes()

    def _response_routes(self, reception: Reception) -> list[Route]:
        settings = self.settings
        compaction = CompactionDoor(
            reception=reception,
            exchanges=self._exchanges,
            compactions=self.compactions,
            most_bytes=settings.max_body_bytes,
            most_depth=settings.max_frame_depth,
        )
        door = ResponsesDoor(
            reception=reception,
            exchanges=self._exchanges,
            compactions=self.compactions,
            transcripts=self.transcripts,
            most_bytes=settings.max_body_bytes,
            most_depth=settings.max_frame_depth,
        )
        return [*compaction.routes(), *door.routes()]

    @cached_property
    def _conversations(self) -> Conversations:
        return Conversations(
            exchanges=self._exchanges,
            node=self.node,
            transient=self.transient,
            store=self.store,
            index=self.index,
            transcripts=self.transcripts,
        )

    def _conversation_routes(self, reception: Reception) -> list[Route]:
        door = ConversationDoor(
            reception=reception,
            conversations=self._conversations,
            compactions=self.compactions,
            most_bytes=self.settings.max_body_bytes,
            most_depth=self.settings.max_frame_depth,
        )
        return door.routes()

    def _chat_routes(self, reception: Reception) -> list[Route]:
        settings = self.settings
        door = ChatDoor(
            reception=reception,
            exchanges=self._exchanges,
            most_bytes=settings.max_body_bytes,
            most_depth=settings.max_frame_depth,
        )
        return door.routes()

    @cached_property
    def _chats(self) -> Chats:
        return Chats(self._exchanges)

    def _ui_routes(self, reception: Reception) -> list[Route]:
        settings = self.settings
        door = UiDoor(
            reception=reception,
            chats=self._chats,
            most_bytes=settings.max_body_bytes,
            most_depth=settings.max_frame_depth,
        )
        return door.routes()

    @cached_property
    def _runs(self) -> Runs:
        return Runs(self._chats)

    def _agui_routes(self, reception: Reception) -> list[Route]:
        settings = self.settings
        door = AguiDoor(
            reception=reception,
            runs=self._runs,
            most_bytes=settings.max_body_bytes,
            most_depth=settings.max_frame_depth,
        )
        return door.routes()

    def _widget_routes(self, reception: Reception) -> list[Route]:
        settings = self.settings
        door = DeepChatDoor(
            reception=reception,
            chats=self._chats,
            most_bytes=settings.max_body_bytes,
            most_depth=settings.max_frame_depth,
        )
        return door.routes()

    @cached_property
    def _graphql(self) -> GraphqlDoors | None:
        """What makes the doors for GraphQL. None: there are none."""
        if not self.settings.graphql:
            return None
        try:
            import strawberry  # noqa: F401 - to say what is missing before anything else does
        except ImportError:
            message = "UNBROKEN_GRAPHQL needs Strawberry. Install it: pip install 'unbroken[graphql]'"
            raise StartupError(message) from None
        from unbroken.server.graphql_doors import GraphqlDoors

        return GraphqlDoors(
            settings=self.settings,
            exchanges=self._exchanges,
            conversations=self._conversations,
            gate=self.gate,
            models=self.models,
            limits=self._limits(),
            clock=self.clock,
        )

    def _graphql_routes(self, reception: Reception) -> list[Route]:
        return [] if self._graphql is None else self._graphql.routes(reception)

    def websockets(self) -> dict[str, ASGIApp]:
        """Return those for WebSockets, by their paths."""
        way = self._websocket_way
        return {"/v1/realtime": self._realtime(way), **self._talk_doors}

    @cached_property
    def _websocket_way(self) -> WebSocketWay:
        return WebSocketWay(
            node=self.node,
            authenticator=self.auth.authenticator,
            directory=self.auth.directory,
            admission=self.admission,
            turnstile=self.turnstile,
            allowed_origins=self.settings.allowed_origins,
            loopback_only=not self.settings.has_authentication,
            metrics=self.metrics,
            clock=self.clock,
            gate=self.gate,
            fair_names=self.fair_names,
        )

    def _realtime(self, way: WebSocketWay) -> RealtimeDoor:
        settings = self.settings
        return RealtimeDoor(
            way=way,
            node=self.node,
            directory=self.auth.directory,
            lapses=self.auth.lapses,
            tokens=self.tokens,
            models=self.models,
            defaults=self.defaults,
            limits=self._limits(),
            intake=intake_limits(settings),
            metrics=self.metrics,
            screen=self.guards.gate.command,
            admit=self._stored_sessions.admit,
            clock=self.clock,
            files=self.files,
            file_lifetime=settings.file_lifetime,
            gate=self.gate,
        )

    def leave(self) -> None:
        """Have those leave on whose connections nothing is being said: the server is about to end."""
        self._websocket_way.leave()
        for door in self._talk_doors.values():
            door.leave()

    @cached_property
    def _talk_doors(self) -> dict[str, TalkDoor]:
        """Those on whose connections several things are said at once."""
        responses = ResponsesSocket(self._exchanges, self.compactions, self._limits())
        ui = UiSocket(self._chats, self._limits())
        agui = AguiSocket(self._runs, self._limits(), self.clock)
        deepchat = DeepChatSocket(self._chats, self._limits())
        doors = {
            "/v1/responses": self._talk_door(responses, responses_socket.say_alone),
            "/v1/ui/ws": self._talk_door(ui, ui_socket.say_alone),
            "/v1/agui/ws": self._talk_door(agui, agui_socket.say_alone),
            "/v1/widget/deepchat": self._talk_door(deepchat, deepchat_socket.say_alone),
        }
        if (graphql := self._graphql) is not None:
            doors["/graphql"] = self._talk_door(graphql.socket, graphql.say_alone, graphql.greet)
        return doors

    def _talk_door(self, converse: Converse, say_alone: SayAlone, greet: Greet | None = None) -> TalkDoor:
        return TalkDoor(
            way=self._websocket_way,
            converse=converse,
            say_alone=say_alone,
            node=self.node,
            directory=self.auth.directory,
            lapses=self.auth.lapses,
            limits=self._limits(),
            intake=intake_limits(self.settings),
            metrics=self.metrics,
            clock=self.clock,
            greet=greet,
        )

    def _limits(self) -> ConnectionLimits:
        settings = self.settings
        return ConnectionLimits(
            frame_depth=settings.max_frame_depth,
            input_queue=settings.input_queue,
            idle_timeout=settings.connection_idle_timeout,
        )
