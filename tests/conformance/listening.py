"""Applications of the tests' own, behind the server's connection classes and settings."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

from starlette.types import ASGIApp

from unbroken.server.config import Settings
from unbroken.server.process import Server, bind

__all__ = ["listening"]


@contextlib.asynccontextmanager
async def listening(app: ASGIApp, **settings: Any) -> AsyncIterator[int]:
    """Serve *app* as the process serves its own. Yields the port."""
    chosen = Settings(agent="scripted", port=0, admin_port=0, **settings)
    with contextlib.closing(bind(chosen)) as listeners:
        server = Server(app, listeners.public, chosen)
        task = asyncio.get_running_loop().create_task(server.run_until_stopped())
        await server.listening.wait()
        try:
            yield listeners.public[0].getsockname()[1]
        finally:
            server.cut()
            await task
