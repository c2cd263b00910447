"""``/admin/keys``: API keys, made, looked at and revoked by an operator while the server runs."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Final

import msgspec
import structlog
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from unbroken.server.auth.key_request import BadKeyRequest, KeyRequest, key_fields
from unbroken.server.auth.key_store import KeyStoreFull, KeyStoreUnusable
from unbroken.server.auth.keyring import Keyring
from unbroken.server.transports.body import read_body
from unbroken.server.transports.health import state_response
from unbroken.server.transports.http_way import HttpRefusal
from unbroken.server.transports.refusal import error_type
from unbroken.sessions.clock import Clock
from unbroken.sessions.errors import StoreUnavailable

__all__ = ["key_routes"]

_MOST_BYTES: Final = 16 * 1024

_Act = Callable[[Request], Awaitable[Response]]


def key_routes(keyring: Keyring, guarded: Callable[[_Act], _Act], clock: Clock) -> list[Route]:
    """Return ``/admin/keys``: GET lists keys, POST makes one, and DELETE of ``/admin/keys/{id}`` revokes it.

    Args:
        keyring: Where they are, and this node's idea of them.
        guarded: Lets nobody through but an operator.
        clock: Where time comes from.

    """

    async def listed(_: Request) -> Response:
        keys = [key_fields(record, used) for record, used in await keyring.store.all()]
        return state_response(200, {"object": "list", "data": keys})

    async def made(request: Request) -> Response:
        try:
            body = await read_body(request, _MOST_BYTES)
            wanted = msgspec.json.decode(body, type=KeyRequest)
            key, record = wanted.made(clock.time())
        except HttpRefusal as refused:
            return _refused(refused.status, refused.code, refused.message)
        except (msgspec.DecodeError, UnicodeDecodeError) as exc:
            return _refused(400, "invalid_request", f"The body isn't what it should be: {str(exc)[:200]}.")
        except BadKeyRequest as exc:
            return _refused(400, "invalid_request", str(exc), exc.field)
        await keyring.store.add(record)
        structlog.get_logger().info("key made", id=record.id)
        return state_response(201, {**key_fields(record, None), "key": key})

    async def revoked(request: Request) -> Response:
        key_id = request.path_params["key_id"]
        if not await keyring.store.revoke(key_id):
            return _refused(404, "key_not_found", "There is no such key. GET /admin/keys lists them.")
        structlog.get_logger().info("key revocation", id=key_id)
        # The others find out within a second; and so does this one, if it can't look now: it is revoked.
        with suppress(StoreUnavailable, KeyStoreUnusable):
            await keyring.look()
        return state_response(200, {"id": key_id, "object": "key", "deleted": True})

    def reached(act: _Act) -> _Act:
        async def checked(request: Request) -> Response:
            try:
                return await act(request)
            except KeyStoreFull as exc:
                return _refused(409, "too_many_keys", str(exc))
            except (StoreUnavailable, KeyStoreUnusable) as exc:
                return _refused(503, "keys_unavailable", str(exc))

        return guarded(checked)

    return [
        Route("/admin/keys", reached(listed), methods=["GET"]),
        Route("/admin/keys", reached(made), methods=["POST"]),
        Route("/admin/keys/{key_id}", reached(revoked), methods=["DELETE"]),
    ]


def _refused(status: int, code: str, message: str, param: str | None = None) -> Response:
    error = {"message": message, "type": error_type(status), "param": param, "code": code}
    return state_response(status, {"error": error})
