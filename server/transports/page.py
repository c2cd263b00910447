"""Serves the page to chat on: a handful of static files, read once, under a strict policy."""

from __future__ import annotations

import hashlib
from importlib.resources import files
from typing import Final

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

__all__ = ["page_routes"]

_SCRIPT: Final = "text/javascript; charset=utf-8"
_FILES: Final = {
    "/": ("index.html", "text/html; charset=utf-8"),
    "/page/chat.css": ("chat.css", "text/css; charset=utf-8"),
    **{
        f"/page/{name}.js": (f"{name}.js", _SCRIPT)
        for name in (
            "attachments",
            "backoff",
            "callline",
            "calls",
            "chat",
            "conversation",
            "delivery",
            "elements",
            "inline",
            "log",
            "markdown",
            "outbox",
            "outcome",
            "parcel",
            "press",
            "realtime",
            "refusal",
            "rejections",
            "stranger",
            "transcript",
        )
    },
    "/page/icon.svg": ("icon.svg", "image/svg+xml"),
    "/favicon.ico": ("icon.svg", "image/svg+xml"),
}

_HEADERS: Final = {
    # Nothing from elsewhere, nothing inline, nowhere to be framed or sent.
    "content-security-policy": (
        # Images that the page itself has made addresses for: thumbnails of what is attached.
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob:; connect-src 'self'; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'; "
        # Where the browser knows these, text can't become markup even by mistake.
        "require-trusted-types-for 'script'; trusted-types 'none'"
    ),
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(), geolocation=(), microphone=()",
    "cache-control": "no-cache",
}


def page_routes() -> list[Route]:
    """Return the routes of the page."""
    folder = files("unbroken.server") / "page"
    return [_route(path, (folder / name).read_bytes(), kind) for path, (name, kind) in _FILES.items()]


def _route(path: str, body: bytes, kind: str) -> Route:
    tag = f'"{hashlib.sha256(body).hexdigest()[:32]}"'
    headers = {**_HEADERS, "etag": tag}

    async def serve(request: Request) -> Response:
        if request.headers.get("if-none-match") == tag:
            return Response(status_code=304, headers=headers)
        return Response(body, media_type=kind, headers=headers)

    return Route(path, serve)
