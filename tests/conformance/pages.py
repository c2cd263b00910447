"""The pages that documents show, on a site of their own, and what its backend answers them."""

from __future__ import annotations

import contextlib
import hashlib
import re
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Generic, TypeVar

import httpx2
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.routing import Route

from tests.conformance.listening import listening
from tests.conformance.node import FOLDER
from tests.conformance.tabs import script_at
from tests.server.auth.test_jwt import AUDIENCE, ISSUER, Issuer
from tests.server.realtime.serving import Served, serving
from unbroken.server.agents.base import Agent

__all__ = ["DOCUMENTS", "PAGES", "ROOT", "DocumentedPage", "Site", "opened_site", "short_lived_key"]

AgentT = TypeVar("AgentT", bound=Agent)

ROOT: Final = Path(__file__).parents[2]
DOCUMENTS: Final = (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")))
BACKEND: Final = "backend-key"
WIDGET: Final = FOLDER / "node_modules" / "deep-chat" / "dist" / "deepChat.bundle.js"
_SERVER: Final = "127.0.0.1:8000"
_HEAD: Final = '<!doctype html><meta charset="utf-8"><link rel="icon" href="data:,">'


@dataclass(frozen=True, slots=True)
class DocumentedPage:
    """A block of HTML in a document."""

    name: str
    html: str

    @property
    def is_of_any_site(self) -> bool:
        """Whether it says where the server is; others are pages of the server's own origin."""
        return _SERVER in self.html

    @property
    def asks(self) -> bool:
        """Whether somebody has to press a button, having said what to ask."""
        return ">Ask</button>" in self.html

    @property
    def stops(self) -> bool:
        return ">Stop</button>" in self.html

    @property
    def goes_on(self) -> bool:
        """Whether it goes on in mid-answer when it is loaded again."""
        return "sessionStorage" in self.html

    @property
    def reconnects(self) -> bool:
        """Whether it comes back by itself when its connection is lost."""
        return ".onclose" in self.html


PAGES: Final = [
    DocumentedPage(f"{path.stem}-{number}", html)
    for path in DOCUMENTS
    for number, html in enumerate(re.findall(r"```html\n(.*?)```", path.read_text(), re.DOTALL))
]


@dataclass(frozen=True, slots=True)
class Site(Generic[AgentT]):
    """A server, and a site of another origin that has a page with it."""

    served: Served[AgentT]
    url: str
    """Where the page is."""
    token: str
    """What the page's user presents with requests."""


@contextlib.asynccontextmanager
async def opened_site(
    page: DocumentedPage, folder: Path, agent: AgentT, script: Path | None = None
) -> AsyncIterator[Site[AgentT]]:
    """Serve *page*, and a server for it with every door. Its user is Ann, however she shows it.

    *script*: what is at ``/page.js`` beside it.
    """
    issuer = Issuer(folder / "jwks.json")
    token = issuer.token(exp=int(time.time()) + 600)
    port = 0

    async def html(_: Request) -> Response:
        shown = page.html.replace(_SERVER, f"127.0.0.1:{port}")
        return HTMLResponse(_HEAD + shown.replace("key.KEY", f"key.{await short_lived_key(port)}"))

    def backend(value: Callable[[], Awaitable[str]]) -> Callable[[Request], Awaitable[Response]]:
        async def answer(_: Request) -> Response:
            return JSONResponse({"value": await value()})

        return answer

    async def own_token() -> str:
        return token

    routes = [
        Route("/", html),
        Route("/my/token", backend(own_token)),
        Route("/my/key", backend(lambda: short_lived_key(port))),
        Route("/my/ticket", backend(lambda: short_lived_key(port, "tickets"))),
        script_at("/deepChat.bundle.js", WIDGET),
        *([] if script is None else [script_at("/page.js", script)]),
    ]
    async with listening(Starlette(routes=routes)) as own:
        origin = f"http://127.0.0.1:{own}"
        settings: dict[str, Any] = {
            "api_keys": (f"backend:{hashlib.sha256(BACKEND.encode()).hexdigest()}",),
            "allowed_origins": (origin,),
            "archive_url": f"sqlite:///{folder / 'archive.db'}",
            "graphql": True,
            "jwt_jwks": str(issuer.path),
            "jwt_issuer": ISSUER,
            "jwt_audience": (AUDIENCE,),
        }
        async with serving(agent, **settings) as served:
            port = served.port
            yield Site(served, origin, token)


async def short_lived_key(port: int, kind: str = "client_secrets") -> str:
    """Return what a backend gets for Ann: the same user that her tokens name."""
    async with httpx2.AsyncClient(trust_env=False) as client:
        answer = await client.post(
            f"http://127.0.0.1:{port}/v1/realtime/{kind}",
            headers={"authorization": f"Bearer {BACKEND}"},
            json={"unbroken": {"user": "ann"}},
        )
    value: str = answer.raise_for_status().json()["value"]
    return value
