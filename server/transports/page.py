"""Serves the page to chat on: a handful of static files, read once, under a strict policy."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from importlib.resources import files
from importlib.resources.abc import Traversable
from typing import Final

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

__all__ = ["page_routes"]

_SCRIPT: Final = "text/javascript; charset=utf-8"
_TYPES: Final = "text/plain; charset=utf-8"
_FILES: Final = {
    "/": ("index.html", "text/html; charset=utf-8"),
    "/page/chat.css": ("chat.css", "text/css; charset=utf-8"),
    **{
        f"/page/{name}.js": (f"{name}.js", _SCRIPT)
        for name in (
            "attachments",
            "callline",
            "calls",
            "chat",
            "conversation",
            "elements",
            "inline",
            "log",
            "markdown",
            "message",
            "outcome",
            "press",
            "rejections",
            "stranger",
            "transcript",
            "unsent",
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


_CLIENT: Final = "client/lib"
"""Where the client for browsers is: built files, which import one another by name. Types lie beside them."""


def page_routes() -> list[Route]:
    """Return the routes of the page, and of the client that it is made with."""
    folder = files("unbroken.server") / "page"
    page = [_route(path, (folder / name).read_bytes(), kind) for path, (name, kind) in _FILES.items()]
    return [*page, *_client_routes(folder / _CLIENT)]


def _client_routes(folder: Traversable) -> Iterator[Route]:
    for file in folder.iterdir():
        kind = _SCRIPT if file.name.endswith(".js") else _TYPES
        yield _route(f"/page/{_CLIENT}/{file.name}", file.read_bytes(), kind)


def _route(path: str, body: bytes, kind: str) -> Route:
    tag = f'"{hashlib.sha256(body).hexdigest()[:32]}"'
    headers = {**_HEADERS, "etag": tag}

    async def serve(request: Request) -> Response:
        if request.headers.get("if-none-match") == tag:
            return Response(status_code=304, headers=headers)
        return Response(body, media_type=kind, headers=headers)

    return Route(path, serve)
