"""What webhooks say, and to whom: from turns and sessions that have ended to deliveries. Pure.

A webhook's id is made of what it says, so that it is the same however often that is found out: a receiver
that has seen an id has heard it all.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import orjson

from unbroken.server.archive.base import ArchivedSession, Delivery
from unbroken.server.archive.transcript import content_fields, session_fields, turn_fields
from unbroken.server.auth.principal import Principal
from unbroken.server.webhook_settings import WebhookEndpoint
from unbroken.sessions.finished import FinishedTurn

__all__ = ["Announcer"]


class Announcer:
    """Makes deliveries.

    Args:
        endpoints: Who is told what, by name.

    """

    def __init__(self, endpoints: Mapping[str, WebhookEndpoint]) -> None:
        self._endpoints = endpoints

    def turn_ended(
        self, turn: FinishedTurn, whose: Principal | None, *, is_attended: bool
    ) -> Sequence[Delivery]:
        """Return who is to be told that *turn* has ended, and, if nobody was connected, of that.

        *whose* it was; None: nobody knows.
        """
        if not self._endpoints:
            return ()
        kinds = [f"turn.{turn.status}"]
        if not is_attended:
            kinds.append("turn.finished_while_away")
        data = turn_fields(turn) | _whose(whose)
        return [
            each
            for kind in kinds
            for each in self._deliveries(
                kind, (turn.session_id, turn.response_id), turn.ended_at, whose, data, turn
            )
        ]

    def session_ended(self, session: ArchivedSession, at: float) -> Sequence[Delivery]:
        """Return who is to be told that *session* has ended."""
        whose = Principal(session.user, session.tenant) if session.user else None
        ended = {"session_id": session.id, "ended_at": int(at)}
        data = session_fields(session) | ended | _whose(whose)
        # One that went on under the same name may end again.
        named = (session.id, str(session.active_at))
        return self._deliveries("session.ended", named, at, whose, data, None)

    def _deliveries(
        self,
        kind: str,
        named: Sequence[str],
        at: float,
        whose: Principal | None,
        data: dict[str, Any],
        turn: FinishedTurn | None,
    ) -> list[Delivery]:
        message_id = f"msg_{hashlib.sha256(chr(0).join((kind, *named)).encode()).hexdigest()[:32]}"
        found: list[Delivery] = []
        for name, endpoint in self._endpoints.items():
            if kind not in endpoint.events:
                continue
            if endpoint.tenants and (whose is None or whose.tenant not in endpoint.tenants):
                continue
            more = content_fields(turn) if endpoint.content and turn is not None else {}
            said = {"type": kind, "timestamp": _moment(at), "data": data | more}
            found.append(Delivery(message_id, name, kind, orjson.dumps(said).decode()))
        return found


def _whose(whose: Principal | None) -> dict[str, str | None]:
    known = whose is not None and bool(whose.user)
    return {"tenant": whose.tenant, "user": whose.user} if whose and known else {"tenant": None, "user": None}


def _moment(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
