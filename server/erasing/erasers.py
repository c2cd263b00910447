"""What of a user's is erased beside conversations: archived turns, files, and answers that were kept.

Of what else there is the rule is another (docs/conversations.md): usage is kept for as long as it is for
everybody, as their tenant's bills are made of it, and holds nothing that was said.
"""

from __future__ import annotations

from typing import Final

from unbroken.server.archive.base import Archive, ArchiveUnavailable
from unbroken.server.auth.principal import Principal
from unbroken.server.cache.base import CacheUnavailable
from unbroken.server.cache.stage import CacheStage
from unbroken.server.erasing.base import Progress, Unerased
from unbroken.server.files.base import FileNotFound, FileStore, FilesUnavailable
from unbroken.sessions.clock import Clock

__all__ = ["AnswerEraser", "ArchiveEraser", "FileEraser"]

_BETWEEN: Final = 60.0
"""Seconds after which a user may have answers forgotten again that were kept for their tenant."""

_TENANTS: Final = 1000
"""Tenants of which it is known when that was last."""


class ArchiveEraser:
    """Erases finished turns that were archived, also of sessions that are long gone.

    Args:
        archive: Has them.

    """

    what: Final = "archived_turns"
    """See :attr:`Eraser.what`."""

    def __init__(self, archive: Archive) -> None:
        self._archive = archive

    async def erase(self, whose: Principal, at: int, progress: Progress, *, is_thorough: bool) -> None:  # noqa: ARG002
        """See :meth:`Eraser.erase`."""
        try:
            progress.erased = await self._archive.erase(whose.id, at / 1000)
        except ArchiveUnavailable:
            raise Unerased from None


class FileEraser:
    """Erases files that this node keeps.

    Args:
        files: Where they are.

    """

    what: Final = "files"
    """See :attr:`Eraser.what`."""

    def __init__(self, files: FileStore) -> None:
        self._files = files

    async def erase(self, whose: Principal, at: int, progress: Progress, *, is_thorough: bool) -> None:  # noqa: ARG002
        """See :meth:`Eraser.erase`."""
        try:
            for file in await self._files.of(whose.id):
                if 1000 * file.created_at <= at:
                    try:
                        await self._files.delete(file.id, whose.id)
                    except FileNotFound:
                        continue  # it has just expired
                    progress.erased += 1
        except FilesUnavailable:
            raise Unerased from None


class AnswerEraser:
    """Has the answers be forgotten that were kept for the user's tenant: nobody knows who asked first.

    Once a minute, where a user asks: else each could have all others go without answers that were kept. Who
    asks sooner is told that something is left.

    Args:
        cache: Has them.
        clock: Where time comes from.

    """

    what: Final = "kept_answers"
    """See :attr:`Eraser.what`."""

    def __init__(self, cache: CacheStage, clock: Clock) -> None:
        self._cache = cache
        self._clock = clock
        self._forgotten: dict[str, float] = {}  # of each tenant, when; the latest last

    async def erase(self, whose: Principal, at: int, progress: Progress, *, is_thorough: bool) -> None:  # noqa: ARG002
        """See :meth:`Eraser.erase`. How many they were isn't known: 1."""
        now, tenant = self._clock.monotonic(), whose.tenant
        if not is_thorough and now - self._forgotten.get(tenant, -_BETWEEN) < _BETWEEN:
            raise Unerased
        try:
            await self._cache.forget(tenant)
        except CacheUnavailable:
            raise Unerased from None
        self._forgotten.pop(tenant, None)
        self._forgotten[tenant] = now
        if len(self._forgotten) > _TENANTS:
            del self._forgotten[next(iter(self._forgotten))]
        progress.erased = 1
