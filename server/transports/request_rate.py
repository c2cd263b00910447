"""Bounds how many HTTP requests an address may make, ahead of everything that looks at one."""

from __future__ import annotations

import orjson
from starlette.datastructures import Headers
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from unbroken.server.metrics import Metrics
from unbroken.server.transports.address import Proxies
from unbroken.server.transports.address_rate import AddressRate
from unbroken.server.transports.handshake import Handshake, forwarded_for
from unbroken.server.transports.http_way import request_id_of, show_to_pages
from unbroken.server.transports.refusal import RefusalLog, Refused, error_type
from unbroken.sessions.clock import Clock

__all__ = ["RequestRate"]


class RequestRate:
    """An ASGI application around *app*. WebSockets are none of its business: their doors count them."""

    def __init__(
        self,
        app: ASGIApp,
        rate: AddressRate,
        proxies: Proxies,
        metrics: Metrics,
        clock: Clock,
        allowed_origins: tuple[str, ...] = (),
    ) -> None:
        self._app = app
        self._rate = rate
        self._proxies = proxies
        self._metrics = metrics
        self._refusals = RefusalLog(clock)
        self._allowed_origins = allowed_origins

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request, or answer it with 429."""
        if scope["type"] == "http" and (wait := self._wait(scope)):
            await self._refusal(scope, wait)(scope, receive, send)
        else:
            await self._app(scope, receive, send)

    def _wait(self, scope: Scope) -> int:
        client = scope.get("client")
        peer = client[0] if client else None
        # Whoever isn't believed may write a header as long as they like: it isn't read.
        forwarded = forwarded_for(scope) if self._proxies.are_believed(peer) else ""
        return self._rate.wait(self._proxies.client(peer, forwarded))

    def _refusal(self, scope: Scope, wait: int) -> Response:
        message = (
            "Too many requests came from this address. Try again later. "
            "The operator can raise UNBROKEN_RATE_REQUESTS, or list a proxy in UNBROKEN_TRUSTED_PROXIES."
        )
        refused = Refused(429, "too_many_requests", message, retry_after=wait)
        self._metrics.refused.labels(refused.code).inc()
        client = scope.get("client")
        self._refusals.note(refused, client[0] if client else None)
        error = {"message": message, "type": error_type(refused.status), "param": None, "code": refused.code}
        given = Headers(scope=scope).get("x-request-id", "")
        headers = {
            "retry-after": str(wait),
            "cache-control": "no-store",
            "x-request-id": request_id_of(given),
        }
        body = orjson.dumps({"error": error})
        response = Response(body, refused.status, headers=headers, media_type="application/json")
        show_to_pages(response, Handshake.of(scope), self._allowed_origins)
        return response
