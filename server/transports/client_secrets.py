"""The doors ``/v1/realtime/client_secrets`` and ``/v1/realtime/tickets``, in the shape that OpenAI has.

A backend asks for one with its own key, and gives it to a page. Where the operator allows it, a page
of an allowed origin gets one by itself: for a stranger, with everything settled by the server.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

from msgspec import UNSET
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import Send

from unbroken.server.auth.client_secrets import ClientSecrets, ForeignPlan, ForeignUser, Issued, Wanted
from unbroken.server.auth.pins import Pins
from unbroken.server.auth.principal import CLIENT_SECRETS
from unbroken.server.auth.secret_store import PoolFull, SecretsFull
from unbroken.server.guards.injection.screening import Gate
from unbroken.server.metrics import Metrics
from unbroken.server.models import Models
from unbroken.server.protocols.items import DecodeError
from unbroken.server.protocols.realtime.encode import session_fields
from unbroken.server.protocols.realtime.pinning import SecretRequest, decode_secret_request, pins_of
from unbroken.server.transports.address_rate import AddressRate
from unbroken.server.transports.body import read_body
from unbroken.server.transports.http_way import Endpoint, HttpRefusal, HttpWay, Visit, found, json_response
from unbroken.server.transports.refusal import Refused
from unbroken.sessions.entries import UpdateConfig
from unbroken.sessions.errors import NodeDraining, Refusal, StoreUnavailable
from unbroken.sessions.ids import new_session_id
from unbroken.sessions.items import SessionConfig

__all__ = ["ClientSecretsDoor", "SecretTerms"]

_MOST_BYTES: Final = 256 * 1024
"""Of a request, however it is written: what it settles may be less."""

_RETRY_AFTER: Final = 120
"""Seconds, where somebody has as many keys as may be. Longer than clients wait by themselves to try again."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SecretTerms:
    """For how long short-lived keys are good, unless their makers say so, and who else may have one."""

    lifetime: float = 60.0
    ticket_lifetime: float = 30.0
    anonymous_plan: str | None = None
    """The plan of strangers; None: they get none."""


class ClientSecretsDoor:
    """Serves both paths.

    Args:
        way: How requests come in.
        secrets: Makes the keys.
        terms: On which terms.
        strangers: How often an address may have a key for a stranger.
        models: Which models there are.
        defaults: What sessions are unless something else is settled.
        is_draining: Whether no new work is taken.
        metrics: Where figures go.
        guard: Looks at what is settled of sessions.

    """

    def __init__(
        self,
        *,
        way: HttpWay,
        secrets: ClientSecrets,
        terms: SecretTerms,
        strangers: AddressRate,
        models: Models,
        defaults: SessionConfig,
        is_draining: Callable[[], bool],
        metrics: Metrics,
        guard: Gate,
    ) -> None:
        self._way = way
        self._secrets = secrets
        self._terms = terms
        self._strangers = strangers
        self._models = models
        self._defaults = defaults
        self._is_draining = is_draining
        self._metrics = metrics
        self._guard = guard

    def routes(self) -> list[Route]:
        """Return its routes."""
        return [
            Route("/v1/realtime/client_secrets", Endpoint(self._serving(is_ticket=False))),
            Route("/v1/realtime/tickets", Endpoint(self._serving(is_ticket=True))),
        ]

    def _serving(self, *, is_ticket: bool) -> Callable[[Request, Send], Awaitable[None]]:
        async def serve(request: Request, send: Send) -> None:
            await self._way.serve(request, send, partial(self._create, is_ticket=is_ticket), _refusal_of)

        return serve

    async def _create(self, visit: Visit, *, is_ticket: bool) -> Response:
        self._way.enter(visit)
        found(("POST",), visit.method)
        if self._is_draining():
            raise HttpRefusal(503, "server_draining", str(NodeDraining()))
        credentials = visit.handshake.credentials
        plan = self._terms.anonymous_plan
        if plan is not None and credentials.key is None and visit.handshake.is_browser:
            return await self._for_stranger(visit, plan, is_ticket=is_ticket)
        maker = await self._way.authenticate(visit, CLIENT_SECRETS)
        request = await self._read(visit)
        pins = pins_of(request.session, most_tokens=self._defaults.max_output_tokens)
        # Once, by the plan of whoever makes it: sessions begin with it, and aren't looked at for it again.
        await self._guard.settled(
            UpdateConfig(instructions=pins.instructions, tools=pins.tools), maker.principal
        )
        issued = await self._secrets.issue(maker, self._wanted(request, pins, is_ticket=is_ticket))
        self._metrics.short_lived_keys.labels("made").inc()
        return self._answer(issued, pins, {"plan": issued.plan})

    async def _for_stranger(self, visit: Visit, plan: str, *, is_ticket: bool) -> Response:
        """Make a key for whoever asks: it says nothing, so that everything is as the operator has it."""
        if wait := self._strangers.wait(visit.guest.address):
            message = (
                "Too many keys for strangers were asked for from this address. Try again later. "
                "The operator can raise UNBROKEN_ANONYMOUS_RATE."
            )
            raise Refused(429, "too_many_requests", message, retry_after=wait)
        defaults = self._defaults
        pins = Pins(
            model=defaults.model,
            instructions=defaults.instructions,
            tools=(),
            max_output_tokens=UNSET if defaults.max_output_tokens is None else defaults.max_output_tokens,
        )
        lifetime = self._terms.ticket_lifetime if is_ticket else self._terms.lifetime
        wanted = Wanted(pins=pins, lifetime=lifetime, origin=visit.handshake.origin, is_ticket=is_ticket)
        issued = await self._secrets.issue_anonymous(wanted, plan=plan, address=visit.guest.address)
        self._metrics.short_lived_keys.labels("anonymous").inc()
        return self._answer(issued, pins)

    async def _read(self, visit: Visit) -> SecretRequest:
        request = decode_secret_request(await read_body(visit.request, _MOST_BYTES))
        model = None if request.session is None else request.session.model
        if isinstance(model, str) and self._models.resolve(model) is None:
            message = f"The model isn't offered here. Use one of: {', '.join(self._models.names)}."
            raise HttpRefusal(404, "model_not_found", message, "session.model")
        return request

    def _wanted(self, request: SecretRequest, pins: Pins, *, is_ticket: bool) -> Wanted:
        usual = self._terms.ticket_lifetime if is_ticket else self._terms.lifetime
        extension = request.extension
        return Wanted(
            pins=pins,
            lifetime=usual if request.seconds is None else request.seconds,
            user=extension.user,
            plan=extension.plan,
            origin=extension.origin,
            uses=extension.max_uses or 1,
            is_ticket=is_ticket,
        )

    def _answer(self, issued: Issued, pins: Pins, extension: dict[str, str] | None = None) -> Response:
        wanted = None if pins.model is UNSET else pins.model
        model = self._models.resolve(wanted) or self._defaults.model
        config = pins.applied(
            SessionConfig(
                model=model,
                instructions=self._defaults.instructions,
                max_output_tokens=self._defaults.max_output_tokens,
                concurrency=self._defaults.concurrency,
            )
        )
        # The session is only begun when the key is used, by another name.
        session: dict[str, Any] = session_fields(new_session_id(), config)
        fields: dict[str, Any] = {
            "value": issued.value,
            "expires_at": int(issued.expires_at),
            "session": session,
        }
        return json_response(fields if extension is None else {**fields, "unbroken": extension})


def _refusal_of(exc: Exception) -> HttpRefusal | None:
    """Return how a request is refused because of *exc*; None: it is none of what may happen."""
    match exc:
        case DecodeError():
            return HttpRefusal(400, exc.code, exc.message, exc.param)
        case Refusal():  # by the guard
            return HttpRefusal(
                503 if exc.code == "guard_unavailable" else 400, exc.code, exc.message, exc.param
            )
        case ForeignUser():
            return HttpRefusal(403, "foreign_user", str(exc), "unbroken.user")
        case ForeignPlan():
            return HttpRefusal(403, "foreign_plan", str(exc), "unbroken.plan")
        case PoolFull():
            return HttpRefusal(429, "too_many_short_lived_keys", str(exc), retry_after=_RETRY_AFTER)
        case SecretsFull():
            return HttpRefusal(503, "server_full", str(exc))
        case StoreUnavailable():
            return HttpRefusal(503, "store_unavailable", str(exc))
        case _:
            return None
