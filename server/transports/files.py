"""The door ``/v1/files``: OpenAI's Files API, for what messages refer to.

Who may come in is :class:`HttpWay`'s to decide. How much one principal may do at once is
:class:`Transfers`' to say. Everything that the door says is JSON in OpenAI's shapes, but
content: that is a download, never a page.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from contextlib import aclosing
from typing import Final, TypeAlias

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from unbroken.server.auth.principal import FILES
from unbroken.server.files.base import FileError, FileNotFound, FileStore, StoredFile
from unbroken.server.files.kinds import UnsupportedKind
from unbroken.server.files.names import disposition
from unbroken.server.files.references import refusal_of
from unbroken.server.files.transfers import Transfer, Transfers, TransfersBusy
from unbroken.server.metrics import Metrics
from unbroken.server.protocols.file_objects import BadRequest, file_fields, page_fields
from unbroken.server.protocols.multipart import InvalidForm
from unbroken.server.transports.http_way import (
    Endpoint,
    HttpRefusal,
    HttpWay,
    Visit,
    found,
    json_response,
)
from unbroken.server.transports.query import check_query
from unbroken.server.transports.upload import UploadStalled, receive_file
from unbroken.sessions.errors import NodeDraining
from unbroken.sessions.ids import PrincipalId

__all__ = ["FilesDoor"]

_STATUSES: Final = {
    "file_not_found": 404,
    "file_too_large": 413,
    "too_many_files": 403,
    "unsupported_file_type": 415,
    "server_full": 503,
    "files_unavailable": 503,
}

_PAGE_FIELDS: Final = ("order", "limit", "purpose", "after", "resume", "ticket")
"""Of a list; the last two say who asks."""

_CONTENT_HEADERS: Final = {
    # Whatever it is, it runs nowhere.
    "content-security-policy": "default-src 'none'; sandbox",
    "x-content-type-options": "nosniff",
    "cross-origin-resource-policy": "same-origin",
    "cache-control": "private, no-store",
}

_Act: TypeAlias = Callable[[Request, PrincipalId], Awaitable[Response]]


class FilesDoor:
    """Serves ``/v1/files`` and what is below."""

    def __init__(
        self,
        *,
        way: HttpWay,
        store: FileStore,
        transfers: Transfers,
        lifetime: float,
        is_draining: Callable[[], bool],
        metrics: Metrics,
    ) -> None:
        self._way = way
        self._store = store
        self._transfers = transfers
        self._lifetime = lifetime
        self._is_draining = is_draining
        self._metrics = metrics

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
        async def act(visit: Visit) -> Response:
            grant = await self._way.admit(visit, FILES)
            if not acts:
                message = "There is nothing at this path. Files are at /v1/files, each at /v1/files/{id}."
                raise HttpRefusal(404, "path_not_found", message)
            found(acts, visit.method)
            return await acts[visit.method](visit.request, grant.principal.id)

        async def serve(request: Request, send: Send) -> None:
            await self._way.serve(request, send, act, _refusal_of)

        return Route(path, Endpoint(serve))  # all methods: whom the others are told of is checked, too

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
        return json_response(file_fields(file))

    async def _list(self, request: Request, principal: PrincipalId) -> Response:
        check_query(request.query_params, _PAGE_FIELDS)
        return json_response(page_fields(await self._store.of(principal), request.query_params))

    async def _retrieve(self, request: Request, principal: PrincipalId) -> Response:
        return json_response(file_fields(await self._store.stat(request.path_params["file_id"], principal)))

    async def _delete(self, request: Request, principal: PrincipalId) -> Response:
        file_id = request.path_params["file_id"]
        await self._store.delete(file_id, principal)
        return json_response({"id": file_id, "object": "file", "deleted": True})

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
