"""What an operator asks of a node, on the internal listener: to drain, to serve, to forget, what was used.

It takes a key of its own: whoever may speak to the agent may not stop it.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Awaitable, Callable, Collection
from typing import Final

import structlog
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from unbroken.server.auth.keyring import Keyring
from unbroken.server.cache.base import CacheUnavailable
from unbroken.server.cache.stage import CacheStage
from unbroken.server.drain import Drain, Stopping
from unbroken.server.erasing.base import Erasure
from unbroken.server.quota.base import Ledger
from unbroken.server.quota.report import tenant_report
from unbroken.server.throttle import Throttle
from unbroken.server.transports.address import Proxies
from unbroken.server.transports.admin_keys import key_routes
from unbroken.server.transports.failure_rate import FailureRate
from unbroken.server.transports.handshake import forwarded_for
from unbroken.server.transports.health import state_response
from unbroken.server.transports.http_way import HttpRefusal
from unbroken.server.transports.own_data import erasing_act
from unbroken.server.transports.query import check_query
from unbroken.server.transports.refusal import Refused, error_type
from unbroken.server.transports.usage import wanted_records
from unbroken.sessions.clock import Clock
from unbroken.sessions.errors import StoreUnavailable

__all__ = ["admin_routes"]

_REFUSALS_LOGGED: Final = 10
"""In a minute."""

_Act = Callable[[Request], Awaitable[Response]]


def admin_routes(
    drain: Drain,
    key: str | None,
    clock: Clock,
    *,
    failures: FailureRate,
    proxies: Proxies,
    keys: Keyring | None = None,
    cache: CacheStage | None = None,
    ledger: Ledger | None = None,
    erasure: Erasure,
) -> list[Route]:
    """Return ``/admin/drain`` and ``/admin/data``; ``/admin/keys`` where *keys* come and go.

    And ``/admin/cache`` where there is one, ``/admin/usage?tenant=&user=&limit=`` where a *ledger* counts.
    Nothing without a *key*, and nothing for a while, whatever the key, for an address that *failures* has too
    many wrong ones of.

    Fields that a path doesn't have are refused.
    Of a drain, GET says how far it is, POST begins one, DELETE takes it back. All answer with the state
    as JSON; POST with 202 as long as something is left. DELETE of the cache has all answers forgotten, or
    those of the tenant that ``?tenant=`` names; of the data, everything of ``?tenant=&user=``.
    """
    if key is None:
        return []
    expected, throttle = _digest(key), Throttle(clock, lines=_REFUSALS_LOGGED)

    def guarded(act: _Act, *fields: str) -> _Act:
        async def checked(request: Request) -> Response:
            peer = None if request.client is None else request.client.host
            address = proxies.client(peer, forwarded_for(request.scope))
            try:
                failures.check(address)
            except Refused as refused:
                response = _refused(refused.status, refused.code, refused.message)
                response.headers["retry-after"] = str(refused.retry_after)
                return response
            scheme, _, given = request.headers.get("authorization", "").partition(" ")
            is_right = hmac.compare_digest(_digest(given.strip()), expected)
            if scheme.lower() == "bearer" and is_right:
                # One misspelt would be as one left out: all of it, or another's.
                return _unknown(request, fields) or await act(request)
            failures.failed(address)
            if (unsaid := throttle.admit("refused")) is not None:
                structlog.get_logger().warning("admin key refused", address=peer, unsaid=unsaid)
            message = "Send the key of UNBROKEN_ADMIN_KEY as Authorization: Bearer <key>."
            response = _refused(401, "invalid_admin_key", message)
            response.headers["www-authenticate"] = "Bearer"
            return response

        return checked

    async def state(_: Request) -> Response:
        return state_response(200, drain.state)

    async def begin(_: Request) -> Response:
        drain.begin()
        return state_response(200 if drain.state.status == "drained" else 202, drain.state)

    async def take_back(_: Request) -> Response:
        try:
            await drain.take_back()
        except Stopping:
            return _refused(409, "server_stopping", "The process was told to end: that can't be taken back.")
        return state_response(200, drain.state)

    async def forget(request: Request) -> Response:
        assert cache is not None, "there is no such route without one"
        tenant = request.query_params.get("tenant")
        if tenant == "":  # as of a variable that isn't set: whose is meant, or all, nobody can say
            message = "The tenant is empty. Name one, or leave it out to have all answers forgotten."
            return _refused(400, "invalid_request", message)
        try:
            await cache.forget(tenant)
        except CacheUnavailable:
            return _refused(
                503, "store_unavailable", "Redis is out of reach: nothing was forgotten. Try again."
            )
        return Response(status_code=204)

    async def usage(request: Request) -> Response:
        assert ledger is not None, "there is no such route without one"
        tenant, user = request.query_params.get("tenant", "default"), request.query_params.get("user")
        if not tenant or user == "":  # as above
            message = "The tenant or the user is empty. Name one, or leave the field out."
            return _refused(400, "invalid_request", message)
        if user is not None and ":" not in user:
            user = f"user:{user}"  # as keys have it
        try:
            report = await tenant_report(ledger, tenant, wanted_records(request), user)
        except Refused as refused:
            return _refused(refused.status, refused.code, refused.message)
        except StoreUnavailable as exc:
            return _refused(503, "store_unavailable", str(exc))
        return state_response(200, report)

    path = "/admin/drain"
    cached = [] if cache is None else [Route("/admin/cache", guarded(forget, "tenant"), methods=["DELETE"])]
    used = (
        []
        if ledger is None
        else [Route("/admin/usage", guarded(usage, "tenant", "user", "limit"), methods=["GET"])]
    )
    return [
        *cached,
        *used,
        Route("/admin/data", guarded(erasing_act(erasure), "tenant", "user"), methods=["DELETE"]),
        Route(path, guarded(state), methods=["GET"]),
        Route(path, guarded(begin), methods=["POST"]),
        Route(path, guarded(take_back), methods=["DELETE"]),
        *([] if keys is None else key_routes(keys, guarded, clock)),
    ]


def _digest(key: str) -> bytes:
    """Return a digest, so that a comparison tells neither content nor length."""
    return hashlib.sha256(key.encode("utf-8", "surrogateescape")).digest()


def _unknown(request: Request, fields: Collection[str]) -> Response | None:
    try:
        check_query(request.query_params, fields)
    except HttpRefusal as refused:
        return _refused(refused.status, refused.code, refused.message)
    return None


def _refused(status: int, code: str, message: str) -> Response:
    error = {"message": message, "type": error_type(status), "param": None, "code": code}
    return state_response(status, {"error": error})
