"""The door ``/v1/files``: OpenAI's Files API, for what messages refer to.

Who may come in is decided as at the WebSocket's door: the same keys, hosts and origins, and the same
bounds on addresses, wrong keys and load: a request counts as a connection until its answer is sent. How
much one principal may do at once is :class:`Transfers`' to say. Everything that the door says is JSON in
OpenAI's shapes, but content: that is a download, never a page.
"""

from __future__ import annotations

import re
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from contextlib import aclosing
from typing import Any, Final, TypeAlias

import orjson
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from unbroken.server.auth.base import Authenticator, Unauthenticated
from unbroken.server.files.base import FileError, FileNotFound, FileStore, StoredFile
from unbroken.server.files.kinds import UnsupportedKind
from unbroken.server.files.names import disposition
from unbroken.server.files.references import refusal_of
from unbroken.server.files.transfers import Transfer, Transfers, TransfersBusy
from unbroken.server.metrics import Metrics
from unbroken.server.protocols.file_objects import BadRequest, file_fields, page_fields
from unbroken.server.protocols.multipart import InvalidForm
from unbroken.server.transports.admission import Admission, Guest
from unbroken.server.transports.handshake import Handshake, is_loopback_name
from unbroken.server.transports.refusal import RefusalLog, Refused, overloaded
from unbroken.server.transports.upload import UploadStalled, receive_file
from unbroken.sessions.clock import Clock
from unbroken.sessions.errors import NodeDraining
from unbroken.sessions.ids import PrincipalId

__all__ = ["FilesDoor", "HttpRefusal"]

_STATUSES: Final = {
    "file_not_found": 404,
    "file_too_large": 413,
    "too_many_files": 403,
    "unsupported_file_type": 415,
    "server_full": 503,
    "files_unavailable": 503,
}

_RETRY_AFTER: Final = 2
"""Seconds."""

_METHODS: Final = ("GET", "POST", "DELETE", "OPTIONS")
_HEADER_NAMES: Final = re.compile(r"[A-Za-z0-9, -]{0,2048}")

_CONTENT_HEADERS: Final = {
    # Whatever it is, it runs nowhere.
    "content-security-policy": "default-src 'none'; sandbox",
    "x-content-type-options": "nosniff",
    "cross-origin-resource-policy": "same-origin",
    "cache-control": "private, no-store",
}

_Act: TypeAlias = Callable[[Request, PrincipalId], Awaitable[Response]]


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
        allow: str | None = None,
    ) -> None:
        super().__init__(code)
        self.status = status
        self.code = code
        self.message = message
        self.param = param
        self.allow = allow
        self.retry_after = retry_after


class FilesDoor:
    """Serves ``/v1/files`` and what is below."""

    def __init__(
        self,
        *,
        store: FileStore,
        transfers: Transfers,
        lifetime: float,
        authenticator: Authenticator,
        allowed_origins: tuple[str, ...],
        loopback_only: bool,
        is_draining: Callable[[], bool],
        is_overloaded: Callable[[], bool],
        admission: Admission,
        metrics: Metrics,
        clock: Clock,
    ) -> None:
        self._store = store
        self._transfers = transfers
        self._lifetime = lifetime
        self._authenticator = authenticator
        self._allowed_origins = allowed_origins
        self._loopback_only = loopback_only
        self._is_draining = is_draining
        self._is_overloaded = is_overloaded
        self._admission = admission
        self._metrics = metrics
        self._refusals = RefusalLog(clock)

    def routes(self) -> list[Route]:
        """Return its routes."""
        one = {"GET": self._retrieve, "DELETE": self._delete}
        return [
            self._route("/v1/files", {"GET": self._list, "POST": self._create}),
            self._route("/v1/files/{file_id}", one),
            self._route("/v1/files/{file_id}/content", {"GET": self._content}),
            self._route("/v1/files/{rest:path}", {}),
        ]

    def _route(self, path: str, acts: Mapping[str, _Act]) -> Route:
        return Route(path, _Endpoint(self, acts))  # all methods: whom the others are told of is checked, too

    async def serve(self, acts: Mapping[str, _Act], request: Request, send: Send) -> None:
        """Answer a request."""
        handshake = Handshake.of(request.scope)
        peer = request.client.host if request.client else None
        guest = self._admission.guest(peer, handshake.forwarded)
        try:
            response = await self._answer(request, handshake, guest, peer, acts)
            response.headers["vary"] = "origin"
            if handshake.origin is not None and handshake.comes_from(self._allowed_origins):
                response.headers["access-control-allow-origin"] = handshake.origin
            await response(request.scope, request.receive, send)
        finally:
            guest.leave()

    async def _answer(
        self,
        request: Request,
        handshake: Handshake,
        guest: Guest,
        peer: str | None,
        acts: Mapping[str, _Act],
    ) -> Response:
        method = "GET" if request.method == "HEAD" else request.method
        try:
            if method == "OPTIONS":
                self._check_place(handshake)
                return Response(status_code=204, headers=_preflight(request))
            principal = await self._admit(handshake, guest)
            return await _found(acts, method)(request, principal)
        except Refused as refused:
            self._metrics.refused.labels(refused.code).inc()
            self._refusals.note(refused, peer)
            return _refused(
                HttpRefusal(refused.status, refused.code, refused.message, retry_after=refused.retry_after)
            )
        except ClientDisconnect:
            return Response(status_code=400)  # nobody reads it
        except Exception as exc:
            refusal = _refusal_of(exc)
            if refusal is None:
                raise
            return _refused(refusal)

    async def _admit(self, handshake: Handshake, guest: Guest) -> PrincipalId:
        if self._is_overloaded():
            raise overloaded()
        guest.enter()
        self._check_place(handshake)
        try:
            return (await self._authenticator.authenticate(handshake.credentials)).id
        except Unauthenticated as exc:
            guest.failed()
            raise Refused(401, "invalid_api_key", str(exc)) from None

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

    # What can be asked for.

    async def _create(self, request: Request, principal: PrincipalId) -> Response:
        outcome = "failed"
        try:
            if self._is_draining():
                raise HttpRefusal(503, "server_draining", str(NodeDraining()))
            with self._transfers.one(principal):
                file = await receive_file(
                    request, principal, self._store, self._transfers.limits, lifetime=self._lifetime
                )
            outcome = "stored"
        except Exception as exc:
            if (refusal := _refusal_of(exc)) is not None:
                outcome = refusal.code
            raise
        finally:
            self._metrics.uploads.labels(outcome).inc()
        return _json(file_fields(file))

    async def _list(self, request: Request, principal: PrincipalId) -> Response:
        return _json(page_fields(await self._store.of(principal), request.query_params))

    async def _retrieve(self, request: Request, principal: PrincipalId) -> Response:
        return _json(file_fields(await self._store.stat(request.path_params["file_id"], principal)))

    async def _delete(self, request: Request, principal: PrincipalId) -> Response:
        file_id = request.path_params["file_id"]
        await self._store.delete(file_id, principal)
        return _json({"id": file_id, "object": "file", "deleted": True})

    async def _content(self, request: Request, principal: PrincipalId) -> Response:
        file = await self._store.stat(request.path_params["file_id"], principal)
        transfer = self._transfers.begin(principal)
        pieces = self._store.read(file.id, principal)
        try:
            first = await anext(pieces, b"")
            if not first:  # emptied by somebody else: no file of ours is
                raise FileNotFound
        except BaseException:
            transfer.end()
            raise
        return _Content(file, first, pieces, transfer)


class _Endpoint:
    """What answers at one path. An ASGI application, as whoever asks is counted until the answer is sent."""

    def __init__(self, door: FilesDoor, acts: Mapping[str, _Act]) -> None:
        self._door = door
        self._acts = acts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self._door.serve(self._acts, Request(scope, receive), send)


class _Content(Response):
    """A file's content. It ends when it is sent, or when the connection has ended."""

    def __init__(
        self, file: StoredFile, first: bytes, rest: AsyncGenerator[bytes, None], transfer: Transfer
    ) -> None:
        charset = "; charset=utf-8" if file.media_type.startswith("text/") else ""
        headers = {
            **_CONTENT_HEADERS,
            "content-type": file.media_type + charset,
            "content-length": str(file.bytes),
            "content-disposition": disposition(file.name),
        }
        super().__init__(None, headers=headers)
        self._first = first
        self._rest = rest
        self._transfer = transfer

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG002
        try:
            async with aclosing(self._rest) as rest:
                # What is sent to a connection that has ended goes nowhere, at once.
                await send(
                    {"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers}
                )
                await send({"type": "http.response.body", "body": self._first, "more_body": True})
                async for piece in rest:
                    await send({"type": "http.response.body", "body": piece, "more_body": True})
                await send({"type": "http.response.body", "body": b"", "more_body": False})
        finally:
            self._transfer.end()


def _json(fields: dict[str, Any], status: int = 200) -> Response:
    headers = {"cache-control": "no-store", "x-content-type-options": "nosniff"}
    return Response(orjson.dumps(fields), status, headers=headers, media_type="application/json")


def _found(acts: Mapping[str, _Act], method: str) -> _Act:
    """Return what *method* does at a path where there are *acts*."""
    if not acts:
        message = "There is nothing at this path. Files are at /v1/files, each at /v1/files/{id}."
        raise HttpRefusal(404, "path_not_found", message)
    act = acts.get(method)
    if act is None:
        # RFC 9110, section 15.5.6. What takes GET takes HEAD, and every path OPTIONS.
        allow = ", ".join((*acts, *(("HEAD",) if "GET" in acts else ()), "OPTIONS"))
        raise HttpRefusal(405, "method_not_allowed", f"This path takes {allow}.", allow=allow)
    return act


def _refusal_of(exc: Exception) -> HttpRefusal | None:
    """Return how a request is refused because of *exc*; None: it is none of what may happen."""
    match exc:
        case HttpRefusal():
            return exc
        case TransfersBusy():
            return HttpRefusal(429, "too_many_transfers", str(exc))
        case BadRequest():
            return HttpRefusal(400, "invalid_request", str(exc), exc.param)
        case InvalidForm():
            return HttpRefusal(400, "invalid_upload", str(exc))
        case UploadStalled():
            return HttpRefusal(408, "upload_stalled", str(exc))
        case FileError() | UnsupportedKind():
            refusal = refusal_of(exc)
            return HttpRefusal(_STATUSES[refusal.code], refusal.code, refusal.message)
        case _:
            return None


def _refused(refusal: HttpRefusal) -> Response:
    error = {
        "message": refusal.message,
        "type": "server_error" if refusal.status >= 500 else "invalid_request_error",
        "param": refusal.param,
        "code": refusal.code,
    }
    response = _json({"error": error}, refusal.status)
    if refusal.status in (429, 503):
        response.headers["retry-after"] = str(refusal.retry_after)
    if refusal.allow is not None:
        response.headers["allow"] = refusal.allow
    if refusal.status == 401:
        response.headers["www-authenticate"] = "Bearer"
    return response


def _preflight(request: Request) -> dict[str, str]:
    """Return what a page of an allowed origin may send. SDKs have many headers of their own."""
    wanted = request.headers.get("access-control-request-headers", "")
    return {
        "access-control-allow-methods": ", ".join(_METHODS),
        "access-control-allow-headers": wanted if _HEADER_NAMES.fullmatch(wanted) else "authorization",
        "access-control-max-age": "600",
    }
