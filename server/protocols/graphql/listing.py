"""Lists of sessions, page by page, as Relay has them."""

from __future__ import annotations

from collections.abc import Sequence

import strawberry

from unbroken.server.protocols.graphql.types import PageInfo, Session

__all__ = ["SessionConnection", "SessionEdge"]


@strawberry.type(description="A session, and its place.")
class SessionEdge:
    """A session, and its place."""

    cursor: str
    node: Session


@strawberry.type(description="A page of sessions.")
class SessionConnection:
    """A page of sessions."""

    edges: list[SessionEdge]
    page_info: PageInfo

    @classmethod
    def of(cls, sessions: Sequence[Session], *, has_more: bool) -> SessionConnection:
        """Return the page that has these."""
        edges = [SessionEdge(cursor=each.id, node=each) for each in sessions]
        info = PageInfo(
            has_next_page=has_more,
            start_cursor=edges[0].cursor if edges else None,
            end_cursor=edges[-1].cursor if edges else None,
        )
        return cls(edges=edges, page_info=info)
