"""Whoever is here is known here, however many others come meanwhile."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from unbroken.server.auth.directory import Directory
from unbroken.server.auth.principal import Principal
from unbroken.sessions.errors import StoreUnavailable
from unbroken.sessions.ids import PrincipalId

__all__ = ["Presence"]

_LEFT: Final = 10_000
"""Principals that have left: what they asked for may yet begin. Who left first is forgotten for a new one."""


class Presence(Directory):
    """A :class:`Directory` over another that never forgets whom it has to know on this node.

    That is whoever has a connection, or a response that runs, by :meth:`stay`: as many as there are of these.
    The other one's word comes first, since it may know of a later one on another node.
    """

    def __init__(self, directory: Directory) -> None:
        self._directory = directory
        self._present: dict[PrincipalId, tuple[Principal, int]] = {}  # and how often each is here
        self._left: OrderedDict[PrincipalId, Principal] = OrderedDict()

    async def note(self, principal: Principal) -> None:
        """See :meth:`Directory.note`."""
        if principal.id in self._present:
            self._present[principal.id] = principal, self._present[principal.id][1]
        await self._directory.note(principal)

    async def find(self, principal_id: PrincipalId) -> Principal | None:
        """See :meth:`Directory.find`."""
        present, _ = self._present.get(principal_id, (self._left.get(principal_id), 0))
        try:
            return await self._directory.find(principal_id) or present
        except StoreUnavailable:
            if present is None:
                raise
            return present

    @contextmanager
    def stay(self, principal: Principal) -> Iterator[None]:
        """Know *principal* meanwhile."""
        self._present[principal.id] = principal, self._present.get(principal.id, (principal, 0))[1] + 1
        self._left.pop(principal.id, None)
        try:
            yield
        finally:
            latest, stays = self._present.pop(principal.id)
            if stays > 1:
                self._present[principal.id] = latest, stays - 1
            else:
                self._left[principal.id] = latest
                if len(self._left) > _LEFT:
                    self._left.popitem(last=False)

    @property
    def present(self) -> int:
        """How many are here."""
        return len(self._present)
