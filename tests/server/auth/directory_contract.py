"""What every directory must do. Subclass, and provide ``nodes``: two views of one."""

from __future__ import annotations

from unbroken.server.auth.directory import Directory
from unbroken.server.auth.principal import ALL_SCOPES, Principal
from unbroken.sessions.ids import PrincipalId

ANN = Principal("user:ann", "acme", "pro", frozenset({"realtime"}), 1_900_000_000.5)
BEN = Principal("key:ben")


class DirectoryContract:
    """Run over each implementation."""

    async def test_whom_one_node_notes_every_node_finds(self, nodes: tuple[Directory, Directory]) -> None:
        here, there = nodes
        await here.note(ANN)
        await there.note(BEN)

        for node in nodes:
            assert await node.find(ANN.id) == ANN
            assert await node.find(BEN.id) == BEN, "scopes and all, also where there is no end"

    async def test_nobody_else_is_found(self, nodes: tuple[Directory, Directory]) -> None:
        here, there = nodes
        await here.note(ANN)

        assert await there.find(Principal("user:ann", "other").id) is None
        assert await here.find(PrincipalId("strange: {name} *")) is None

    async def test_known_is_who_is_found(self, nodes: tuple[Directory, Directory]) -> None:
        here, there = nodes
        await here.note(ANN)

        assert await there.known(ANN.id) == ANN
        assert await there.known(BEN.id) is None

    async def test_who_was_noted_last_counts(self, nodes: tuple[Directory, Directory]) -> None:
        here, _ = nodes
        await here.note(ANN)
        assert await here.find(ANN.id) == ANN

        later = Principal(ANN.user, ANN.tenant, "enterprise", ALL_SCOPES)
        await here.note(later)

        assert await here.find(ANN.id) == later

    async def test_who_has_expired_is_still_known(self, nodes: tuple[Directory, Directory]) -> None:
        here, there = nodes
        gone = Principal("user:gone", expires_at=1.0)
        await here.note(gone)

        assert await there.find(gone.id) == gone, "their turns go on"
