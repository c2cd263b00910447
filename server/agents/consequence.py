"""What follows from an agent's failure in a chain of agents, as a table."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from unbroken.server.agents.base import (
    AgentBusy,
    AgentError,
    AgentNotReady,
    ContentUnsupported,
    ContextTooLong,
    FormatUnsupported,
    ResponseGone,
    ResponseShorter,
    UpstreamCut,
    UpstreamMalformed,
    UpstreamRateLimited,
    UpstreamRefusedKey,
    UpstreamRejected,
    UpstreamReportedError,
    UpstreamStalled,
    UpstreamUnavailable,
)

__all__ = ["CONSEQUENCES", "Consequence", "consequence_of"]


class Consequence(enum.Enum):
    """What follows from a failure before the first piece."""

    END = enum.auto()
    """The client is told. The agent works; another would say the same."""
    NEXT = enum.auto()
    """The next one is asked. It says nothing about the agent's health."""
    COUNT = enum.auto()
    """The next one is asked, and the failure counts against this one."""
    OPEN = enum.auto()
    """The next one is asked, and this one not again for a while: only the operator can help."""


CONSEQUENCES: Final[Mapping[type[AgentError], Consequence]] = MappingProxyType(
    {
        ContextTooLong: Consequence.END,
        UpstreamRejected: Consequence.END,
        ResponseGone: Consequence.END,
        ContentUnsupported: Consequence.NEXT,
        FormatUnsupported: Consequence.NEXT,
        AgentBusy: Consequence.NEXT,
        AgentNotReady: Consequence.NEXT,
        UpstreamUnavailable: Consequence.COUNT,
        UpstreamRateLimited: Consequence.COUNT,
        UpstreamStalled: Consequence.COUNT,
        UpstreamCut: Consequence.COUNT,
        UpstreamMalformed: Consequence.COUNT,
        ResponseShorter: Consequence.COUNT,
        UpstreamReportedError: Consequence.COUNT,
        UpstreamRefusedKey: Consequence.OPEN,
        AgentError: Consequence.COUNT,
    }
)
"""By kind; a kind that isn't here follows its base. What isn't an AgentError is a bug, and ends the turn."""


def consequence_of(error: AgentError) -> Consequence:
    """Return what :data:`CONSEQUENCES` says of *error*, or of the nearest of its bases."""
    return next(CONSEQUENCES[kind] for kind in type(error).__mro__ if kind in CONSEQUENCES)
