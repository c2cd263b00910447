"""What every HTTP door does with a request, ahead of what it is there for and behind it.

Who may come in is decided as at the WebSocket's door: the same keys, hosts and origins, and the same
bounds on addresses, wrong keys and load: a request counts as a connection until its answer is sent.
Everything that is said is JSON in OpenAI's shapes, unless the door says otherwise.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Awaitable, Callable, Iterable, Mapping
from types import MappingProxyType
from typing import Any, Final, TypeAlias

import orjson
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Match, Route
from starlette.types import Receive, Scope, Send
from structlog.contextvars import bind_contextvars

from unbroken.server.auth.base import Authenticator, Grant, LongLivedKey, Unauthenticated, UnusedKey
from unbroken.server.auth.directory import Directory
from unbroken.server.auth.principal import STRANGERS
from unbroken.server.fair_names import FairNames
from unbroken.server.metrics import Metrics
from unbroken.server.trace_context import trace_id_of
from unbroken.server.transports.admission import Admission, Guest
from unbroken.server.transports.handshake import Handshake, is_loopback_name
from unbroken.server.transports.refusal import RefusalLog, Refused, error_type, overloaded
from unbroken.sessions.clock import Clock
from unbroken.sessions.errors import StoreUnavailable

__all__ = [
    "Act",
    "Dress",
    "Endpoint",
    "HttpRefusal",
    "HttpWay",
    "Visit",
    "found",
    "json_response",
    "nothing_there",
    "request_id_of",
    "show_to_pages",
]

_RETRY_AFTER: Final = 2
"""Seconds."""

_REQUEST_ID: Final = re.compile(r"[A-Za-z0-9._:-]{1,128}")

_SHOWN: Final = (
    "retry-after",
    "x-request-id",
    *(
        f"x-ratelimit-{what}-{of}"
        for what in ("limit", "remaining", "reset")
        for of in ("requests", "tokens")
    ),
)
"""Headers that pages may read beside those that they always may."""

_METHODS: Final = ("GET", "POST", "DELETE", "OPTIONS")
_HEADER_NAMES: Final = re.compile(r"[A-Za-z0-9, -]{0,2048}")

_NONE: Final[Mapping[str, str]] = MappingProxyType({})


class HttpRefusal(Exception):
    """A request can't be served."""

    def __init__(
        self,
        status: int,
        code: str,
        message: str,
        param: str | None = None,
        *,
        retry_after: int = _RETRY_AFTER,
        headers: Mapping[str, str] = _NONE,
    ) -> None:
        super().__init__(code)
        self.status = status
        self.code = code
        self.message = message
        self.param = param
        self.retry_after = retry_after
        self.headers = headers
        """Further ones, of the answer."""


class Visit:
    """A request, and who makes it, until it is answered."""

    __slots__ = ("guest", "handshake", "request")

    def __init__(self, request: Request, handshake: Handshake, guest: Guest) -> None:
        self.request = request
        self.handshake = handshake
        self.guest = guest

    @property
    def method(self) -> str:
        """The method, HEAD as what it asks for without its body."""
        return "GET" if self.request.method == "HEAD" else self.request.method


Act: TypeAlias = Callable[[Visit], Awaitable[Response]]
"""What a door does."""


Dress: TypeAlias = Callable[[HttpRefusal], dict[str, Any]]
"""Returns the body of a refusal, in a protocol's own shape."""


def _as_openai(refusal: HttpRefusal) -> dict[str, Any]:
    error = {
        "message": refusal.message,
        "type": error_type(refusal.status),
        "param": refusal.param,
        "code": refusal.code,
    }
    return {"error": error}


class HttpWay:
    """What is the same on the way into each HTTP door, and out."""

    def __init__(
        self,
        *,
        authenticator: Authenticator,
        directory: Directory,
        allowed_origins: tuple[str, ...],
        loopback_only: bool,
        is_overloaded: Callable[[], bool],
        admission: Admission,
        metrics: Metrics,
        clock: Clock,
        fair_names: FairNames,
    ) -> None:
        self._authenticator = authenticator
        self._directory = directory
        self._allowed_origins = allowed_origins
        self._loopback_only = loopback_only
        self._is_overloaded = is_overloaded
        self._admission = admission
        self._metrics = metrics
        self._refusals = RefusalLog(clock)
        self._fair_names = fair_names

    async def serve(
        self,
        request: Request,
        send: Send,
        act: Act,
        refusal_of: Callable[[Exception], HttpRefusal | None],
        dress: Dress = _as_openai,
    ) -> None:
        """Answer a request by what *act* returns, or with why it can't, as *dress* has it."""
        request_id = request_id_of(request.headers.get("x-request-id", ""))
        handshake = Handshake.of(request.scope)
        trace = {} if handshake.trace is None else {"trace_id": trace_id_of(handshake.trace)}
        bind_contextvars(request_id=request_id, **trace)
        peer = request.client.host if request.client else None
        guest = self._admission.guest(peer, handshake.forwarded)
        try:
            response = await self._answer(Visit(request, handshake, guest), peer, act, refusal_of, dress)
            response.headers["x-request-id"] = request_id
            show_to_pages(response, handshake, self._allowed_origins)
            await response(request.scope, request.receive, send)
        finally:
            guest.leave()

    async def _answer(
        self,
        visit: Visit,
        peer: str | None,
        act: Act,
        refusal_of: Callable[[Exception], HttpRefusal | None],
        dress: Dress,
    ) -> Response:
        try:
            if visit.method == "OPTIONS":
                self._check_place(visit.handshake)
                return Response(status_code=204, headers=_preflight(visit.request))
            return await act(visit)
        except Refused as refused:
            self._metrics.refused.labels(refused.code).inc()
            self._refusals.note(refused, peer)
            refusal = HttpRefusal(
                refused.status, refused.code, refused.message, retry_after=refused.retry_after
            )
            return _refused(refusal, dress)
        except HttpRefusal as refusal:
            return _refused(refusal, dress)
        except ClientDisconnect:
            return Response(status_code=400)  # nobody reads it
        except Exception as exc:
            if (known := refusal_of(exc)) is None:
                raise
            return _refused(known, dress)

    def enter(self, visit: Visit, *, goes_on: bool = False) -> None:
        """Let a request in, whoever makes it. *goes_on*: with what has begun, however much there is to do.

        Raises:
            Refused: It may not come from there, or not now.

        """
        if self._is_overloaded() and not goes_on:
            raise overloaded()
        visit.guest.enter()
        self._check_place(visit.handshake)

    async def admit(self, visit: Visit, scope: str, *, goes_on: bool = False) -> Grant:
        """Let a request in, and return who makes it and may do what *scope* says. See :meth:`enter`.

        Raises:
            Refused: There is nobody who may.

        """
        self.enter(visit, goes_on=goes_on)
        return await self.authenticate(visit, scope)

    async def authenticate(self, visit: Visit, scope: str) -> Grant:
        """Return who makes a request that was let in, and may do what *scope* says.

        Raises:
            Refused: There is nobody who may.

        """
        try:
            grant = await self._authenticator.authenticate(visit.handshake.credentials)
            if grant.spend is not None:
                raise UnusedKey  # it is for a session, and good for this only when it has one
        except Unauthenticated as exc:
            if exc.is_failure:
                visit.guest.failed()
            code = "api_key_in_browser" if isinstance(exc, LongLivedKey) else "invalid_api_key"
            raise Refused(401, code, str(exc)) from None
        except StoreUnavailable as exc:
            raise Refused(503, "store_unavailable", str(exc)) from None
        if scope not in grant.principal.scopes:
            raise Refused(403, "insufficient_scope", f"This key lacks the scope `{scope}`. Use another one.")
        await self._directory.note(grant.principal)
        if grant.principal.tenant == STRANGERS:
            self._fair_names.note_stranger(grant.principal.id, visit.guest.address)
        return grant

    def _check_place(self, handshake: Handshake) -> None:
        if self._loopback_only and not is_loopback_name(handshake.host):
            message = (
                "Without keys this server is for this machine only: address it as 127.0.0.1 or localhost."
            )
            raise Refused(403, "host_not_allowed", message)
        if not handshake.is_readable:
            message = "The query of the address is too long, or has too many fields."
            raise Refused(400, "invalid_query", message)
        if not handshake.comes_from(self._allowed_origins):
            message = (
                "Pages of this origin may not connect. The operator can list it in UNBROKEN_ALLOWED_ORIGINS."
            )
            raise Refused(403, "origin_not_allowed", message)


class Endpoint:
    """What answers at one path. An ASGI application, as whoever asks is counted until the answer is sent."""

    def __init__(self, serve: Callable[[Request, Send], Awaitable[None]]) -> None:
        self._serve = serve

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        await self._serve(Request(scope, receive), send)


def found(methods: Iterable[str], method: str) -> None:
    """Refuse a *method* that is none of those that a path takes.

    Raises:
        HttpRefusal: It is none.

    """
    known = tuple(methods)
    if method not in known:
        # RFC 9110, section 15.5.6. What takes GET takes HEAD, and every path OPTIONS.
        allow = ", ".join((*known, *(("HEAD",) if "GET" in known else ()), "OPTIONS"))
        raise HttpRefusal(405, "method_not_allowed", f"This path takes {allow}.", headers={"allow": allow})


async def nothing_there(request: Request, _: Exception) -> Response:
    """Answer what no route of an application takes: the path, or its method. For its exception handlers."""
    known: set[str] = set()
    for route in request.app.routes:  # a path may have several, each with methods of its own
        if isinstance(route, Route) and route.matches(request.scope)[0] is Match.PARTIAL:
            known |= route.methods or set()
    if known:
        allow = ", ".join(sorted(known))
        refusal = HttpRefusal(
            405, "method_not_allowed", f"This path takes {allow}.", headers={"allow": allow}
        )
    else:
        refusal = HttpRefusal(404, "path_not_found", "There is nothing at this path.")
    response = _refused(refusal)
    response.headers["x-request-id"] = request_id_of(request.headers.get("x-request-id", ""))
    return response


def json_response(fields: dict[str, Any], status: int = 200) -> Response:
    """Return *fields* as JSON, which no proxy keeps."""
    headers = {"cache-control": "no-store", "x-content-type-options": "nosniff"}
    return Response(orjson.dumps(fields), status, headers=headers, media_type="application/json")


def _refused(refusal: HttpRefusal, dress: Dress = _as_openai) -> Response:
    response = json_response(dress(refusal), refusal.status)
    response.headers.update(refusal.headers)
    if refusal.status in (429, 503):
        response.headers["retry-after"] = str(refusal.retry_after)
    if refusal.status == 426:
        response.headers["upgrade"] = "websocket"
        response.headers["connection"] = "upgrade"
    if refusal.status == 401:
        response.headers["www-authenticate"] = "Bearer"
    return response


def show_to_pages(response: Response, handshake: Handshake, allowed_origins: tuple[str, ...]) -> None:
    """Have *response* be read by the page that it is for, if that is the server's own or an allowed one."""
    response.headers["vary"] = "origin"
    if handshake.origin is not None and handshake.comes_from(allowed_origins):
        response.headers["access-control-allow-origin"] = handshake.origin
        response.headers["access-control-expose-headers"] = ", ".join(_SHOWN)


def request_id_of(given: str) -> str:
    """Return by which name a request is known in logs: as *given*, by the client or a proxy, else by ours."""
    return given if _REQUEST_ID.fullmatch(given) else f"req_{secrets.token_hex(12)}"


def _preflight(request: Request) -> dict[str, str]:
    """Return what a page of an allowed origin may send. SDKs have many headers of their own."""
    wanted = request.headers.get("access-control-request-headers", "")
    return {
        "access-control-allow-methods": ", ".join(_METHODS),
        "access-control-allow-headers": wanted if _HEADER_NAMES.fullmatch(wanted) else "authorization",
        "access-control-max-age": "600",
    }
