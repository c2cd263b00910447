"""How much may connect, and how much a node holds, as the settings say."""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from unbroken.server.config import Settings
from unbroken.server.limits import Rate
from unbroken.server.quota.estimate import item_bytes
from unbroken.server.transports.admission import AdmissionLimits
from unbroken.sessions.node import NodeLimits
from unbroken.sessions.replica import ActorLimits
from unbroken.sessions.run import RunLimits
from unbroken.sessions.session import SessionLimits

__all__ = ["admission_limits", "node_limits", "transient_limits"]

_HANDOVER_DELAY: Final = 1.2
"""Seconds in which a node hears that others are told to end with it, as a machine's workers are."""

_GATHERING: Final = 0.002
"""Seconds that nobody sees, and that halve how often a shared store is called."""


_GRACE: Final = 60.0
"""Seconds for which a response that isn't stored can be had once it has ended."""

_TRANSIENT_SHARE: Final = 4
"""Of what all sessions may have: so much more for those that aren't stored."""


def admission_limits(settings: Settings) -> AdmissionLimits:
    """Return how many may connect."""
    return AdmissionLimits(
        node=settings.max_connections,
        address=settings.connections_per_address,
        principal=settings.connections_per_principal,
        tenant=settings.connections_per_tenant,
        failures=Rate(settings.auth_failures / 60, settings.auth_failures),
        handshakes=Rate(settings.rate_handshakes, 10 * settings.rate_handshakes),
    )


def node_limits(settings: Settings, patience: float) -> NodeLimits:
    """Return what a node holds. *patience* is for how long the pieces of a fast answer are gathered."""
    return NodeLimits(
        actor=ActorLimits(
            run=RunLimits(
                stall_timeout=settings.stall_timeout,
                turn_timeout=settings.turn_timeout,
                output_bytes=settings.max_output_bytes,
            ),
            retain_bytes=settings.log_retain_bytes,
            log_bytes=settings.log_max_bytes,
            alone_bytes=settings.log_max_bytes,
            attempts=settings.turn_attempts,
            notes_turns=settings.archive_url is not None,
        ),
        session=SessionLimits(conversation_bytes=settings.max_session_bytes, weigh=item_bytes),
        sessions=settings.max_sessions,
        bytes=settings.max_node_bytes,
        principal_share=settings.principal_share,
        strangers_share=settings.strangers_share,
        connections_per_session=settings.connections_per_session,
        responses_per_principal=settings.responses_per_principal,
        idle_timeout=settings.session_idle_timeout,
        empty_grace=settings.empty_session_grace,
        release_after=settings.release_after,
        outage_patience=settings.store_patience,
        is_strict=settings.store_strict,
        patience=patience,
        gathering=_GATHERING,
        handover_delay=_HANDOVER_DELAY if settings.redis_url is not None else 0.0,
    )


def transient_limits(settings: Settings, patience: float) -> NodeLimits:
    """Return how much there may be of what isn't stored, and for how long."""
    limits = node_limits(settings, patience)
    return replace(
        limits,
        actor=replace(limits.actor, notes_turns=False),
        bytes=settings.max_node_bytes // _TRANSIENT_SHARE,
        idle_timeout=_GRACE,
        room_timeout=0.0,
        handover_delay=0.0,
    )
