"""The settings of what connections may do, and of how many there may be. Part of :class:`Settings`."""

from __future__ import annotations

import ipaddress
from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from unbroken.server.setting_values import Bytes, Names, Seconds, zero_or
from unbroken.server.settings_part import SettingsPart

__all__ = ["ConnectionSettings"]


_SHORTEST_PREFIX = {4: 8, 6: 7}
"""Bits of a network of proxies: those of the largest private ones, 10.0.0.0/8 and fc00::/7."""


def _networks(entries: tuple[str, ...]) -> tuple[str, ...]:
    for entry in entries:
        try:
            network = ipaddress.ip_network(entry)
        except ValueError:
            raise ValueError(
                f"should be addresses or networks such as 10.0.0.0/8, comma-separated; {entry[:60]!r} is none"
            ) from None
        if network.prefixlen < _SHORTEST_PREFIX[network.version]:
            raise ValueError(
                f"should be the proxies alone: {entry[:60]} would have clients believed too, each of which "
                "could then name the address that limits count it for"
            )
    return entries


# Neither end of a float: what is kept of a rate are times, in seconds.
_Rate = Annotated[float, Field(ge=0.001, le=1e9, allow_inf_nan=False)]
# Of these ten times as many may come at once, which has to be one at the least.
_AddressRate = Annotated[float, Field(ge=0.1, le=1e9, allow_inf_nan=False)]
# A loop that has nothing to do is a few milliseconds late, too.
_Lag = Annotated[float, Field(ge=0, le=60, allow_inf_nan=False), AfterValidator(zero_or(0.01))]
_MOST_BYTES = 1 << 40


class ConnectionSettings(SettingsPart):
    """Bounds on connections. A limit holds per door; those on numbers hold for all doors together."""

    websocket_class: Literal["own", "stock"] = Field(
        default="own",
        description="What holds WebSockets: the server's own class, or uvicorn's as it comes. See Limits.",
    )

    # Messages
    max_frame_bytes: Bytes = Field(
        default=65536, ge=1024, le=64 << 20, description="Bytes of one incoming message."
    )
    max_body_bytes: Bytes = Field(
        default=1 << 20,
        ge=1024,
        le=64 << 20,
        description="Bytes of the body of a request for a response, which may hold a whole conversation.",
    )
    max_frame_depth: int = Field(
        default=32, ge=4, le=200, description="Nesting of one incoming message, or body of a request."
    )
    input_queue: int = Field(
        default=64, ge=1, description="Messages of a connection that may wait; more are refused."
    )
    rate_messages: _Rate = Field(
        default=100, description="Messages a second of one connection, each fragment counted; more wait."
    )
    burst_messages: int = Field(
        default=500,
        ge=1,
        le=10**9,
        description="Messages that may come at once before the rate holds them back.",
    )
    rate_bytes: Bytes = Field(
        default=1 << 20,
        ge=1024,
        le=_MOST_BYTES,
        description="Bytes a second that one connection may send; more wait.",
    )
    burst_bytes: Bytes = Field(
        default=4 << 20,
        ge=1024,
        le=_MOST_BYTES,
        description="Bytes that may come at once before the rate holds them back.",
    )
    rate_pings: _Rate = Field(
        default=10,
        description="Pings and unasked pongs a second of one connection, ten times as many at once; "
        "more end it.",
    )

    # Numbers
    connections_per_session: int = Field(
        default=8, ge=1, description="Connections that may watch one session."
    )
    connections_per_principal: int = Field(
        default=1000, ge=1, description="Connections of one key, on all its sessions and all nodes."
    )
    connections_per_tenant: int = Field(
        default=0, ge=0, description="Connections of all keys of one tenant, on all nodes; 0: no bound."
    )
    responses_per_principal: int = Field(
        default=0,
        ge=0,
        description="Responses of one key that run or wait at once, on all nodes; 0: no bound.",
    )
    connections_per_address: int = Field(
        default=256,
        ge=1,
        description="Connections from one address, or IPv6 /64, on all nodes; loopback aside.",
    )
    max_connections: int = Field(default=20_000, ge=1, description="Connections that this node holds.")
    trusted_proxies: Annotated[Names, AfterValidator(_networks)] = Field(
        default=(),
        description="Addresses and networks of proxies whose X-Forwarded-For is believed; comma-separated.",
    )
    rate_requests: _AddressRate = Field(
        default=50,
        description="HTTP requests a second of one address, ten times as many at once; loopback aside.",
    )
    rate_handshakes: _AddressRate = Field(
        default=30,
        description="Handshakes a second of one address, ten times as many at once; loopback aside.",
    )
    auth_failures: int = Field(
        default=30, ge=1, description="Failed authentications of one address in a minute; loopback aside."
    )

    # Times
    handshake_timeout: Seconds = Field(
        default=10, description="Seconds for a request's header, and again for the answer to a handshake."
    )
    connection_idle_timeout: Annotated[
        float, Field(ge=0, le=7 * 86400, allow_inf_nan=False), AfterValidator(zero_or(1))
    ] = Field(
        default=0,
        description="Seconds without a message either way after which a connection is closed; 0: never.",
    )
    ping_interval: Seconds = Field(default=20, description="Seconds between keepalive pings.")
    ping_timeout: Seconds = Field(
        default=20, description="Seconds to wait for a pong before the connection is cut."
    )
    overload_lag: _Lag = Field(
        default=0.2,
        description="Seconds that the event loop is late when new sessions are refused; 0: none ever is.",
    )
    overload_lag_responses: _Lag = Field(
        default=1, description="The same for new responses; 0: none ever is refused."
    )
    drain_timeout: Annotated[float, Field(ge=0, le=86400, allow_inf_nan=False)] = Field(
        default=25, description="Seconds that running turns get after SIGTERM."
    )
