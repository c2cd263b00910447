"""Whose connection it is, as far as addresses tell: what limits per address count by. No I/O."""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from functools import lru_cache
from typing import Final

__all__ = ["Address", "Proxies"]

Address = bytes
"""What counts as one address: the four bytes of IPv4, or the first eight of IPv6.

An IPv6 network of 64 bits is what one customer or one machine is given at the
least (RFC 6177), so that whoever has one address has all of it.
"""

_MAX_HOPS: Final = 16

_LONGEST: Final = 100
"""Characters of an address, with its zone and a port."""

_Ip = ipaddress.IPv4Address | ipaddress.IPv6Address


class Proxies:
    """Tells who a request comes from, through the proxies in *networks* and no others."""

    def __init__(self, networks: Sequence[str] = ()) -> None:
        self._networks = [ipaddress.ip_network(network) for network in networks]

    def client(self, peer: str | None, forwarded: str = "") -> Address | None:
        """Return the address that a request counts for. None: it counts for none.

        That is so for this machine itself, and for sockets without addresses.

        Args:
            peer: Who has connected.
            forwarded: The values of ``X-Forwarded-For``, in order, joined by commas. They are believed
                from the right, as far as they were written by a trusted proxy: the first that isn't one
                is the client. What stands left of it, it has written itself.

        """
        address = _parsed(peer or "")
        if address is None:
            return None
        is_told = False
        hops = forwarded.rsplit(",", _MAX_HOPS)[-_MAX_HOPS:] if self._networks else []
        for hop in reversed(hops):
            before = _parsed(hop.strip())
            if before is None or not self._trusts(address):
                break
            address, is_told = before, True
        if address.is_loopback and not is_told:
            return None
        return address.packed if isinstance(address, ipaddress.IPv4Address) else address.packed[:8]

    def are_believed(self, peer: str | None) -> bool:
        """Return whether what *peer* says of whom it speaks for counts."""
        address = _parsed(peer or "")
        return address is not None and self._trusts(address)

    def _trusts(self, address: _Ip) -> bool:
        return any(address in network for network in self._networks)


def _parsed(text: str) -> _Ip | None:
    """Read an address, with a port where a proxy adds one. An IPv4 address in IPv6's form is IPv4."""
    return _read(text) if len(text) <= _LONGEST else None


@lru_cache(maxsize=1024)
def _read(text: str) -> _Ip | None:
    if text.startswith("["):
        text = text[1:].partition("]")[0]
    elif text.count(":") == 1:
        text = text.partition(":")[0]
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return None
    return getattr(address, "ipv4_mapped", None) or address
