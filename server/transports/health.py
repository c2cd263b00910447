"""Liveness, readiness and metrics over HTTP."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import msgspec
from msgspec import Struct
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from unbroken import __version__
from unbroken.server.metrics import Metrics

__all__ = ["Readiness", "health_routes", "metrics_route", "state_response"]

Readiness = Callable[[], tuple[int, str]]
"""Returns the HTTP status of readiness and one word for why."""


def health_routes(readiness: Readiness) -> list[Route]:
    """Return ``/healthz``, which answers as long as the process does, and ``/readyz``.

    While draining, readiness answers 404, not 503: load balancers then send
    nothing new and leave open connections alone (HAProxy's ``disable-on-404``).
    """

    async def healthz(_: Request) -> Response:
        return state_response(200, {"status": "ok", "version": __version__})

    async def readyz(_: Request) -> Response:
        status, word = readiness()
        return state_response(status, {"status": word})

    return [Route("/healthz", healthz), Route("/readyz", readyz)]


def metrics_route(metrics: Metrics) -> Route:
    """Return ``/metrics`` in the Prometheus text format. For an internal listener."""

    async def exposition(_: Request) -> Response:
        return Response(metrics.exposition(), media_type="text/plain; version=0.0.4; charset=utf-8")

    return Route("/metrics", exposition)


def state_response(status: int, body: Struct | Mapping[str, Any]) -> Response:
    """Return JSON that is true now, and that nobody is to keep."""
    return Response(
        msgspec.json.encode(body),
        status,
        media_type="application/json",
        headers={"cache-control": "no-store"},
    )
