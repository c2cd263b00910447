"""Whom a connection counts for, behind proxies and without."""

from __future__ import annotations

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from unbroken.server.transports.address import Address, Proxies

TRUSTED = Proxies(["10.0.0.0/8", "127.0.0.1", "fd00::/8"])


def four(address: str) -> Address:
    return ipaddress.IPv4Address(address).packed


def six(address: str) -> Address:
    return ipaddress.IPv6Address(address).packed[:8]


@pytest.mark.parametrize(
    ("peer", "forwarded", "expected"),
    [
        ("203.0.113.7", "", four("203.0.113.7")),
        ("203.0.113.7", "198.51.100.1", four("203.0.113.7")),  # no proxy of ours: it made that up
        ("10.0.0.1", "198.51.100.1", four("198.51.100.1")),
        ("10.0.0.1", "192.0.2.66, 198.51.100.1", four("198.51.100.1")),
        ("10.0.0.1", "192.0.2.66, 198.51.100.1, 10.2.2.2", four("198.51.100.1")),
        ("10.0.0.1", "192.0.2.66,198.51.100.1 ,10.2.2.2,\t127.0.0.1", four("198.51.100.1")),
        ("10.0.0.1", "10.3.3.3, 10.2.2.2", four("10.3.3.3")),
        ("10.0.0.1", "198.51.100.1, 10.2.2.2, nonsense", four("10.0.0.1")),
        ("10.0.0.1", "198.51.100.1, nonsense, 10.2.2.2", four("10.2.2.2")),
        ("10.0.0.1", "", four("10.0.0.1")),
        ("10.0.0.1", "198.51.100.1:4711", four("198.51.100.1")),
        ("10.0.0.1", "[2001:db8::7]:4711", six("2001:db8::")),
        ("fd00::1", "2001:db8:1:2:3:4:5:6", six("2001:db8:1:2::")),
        ("::ffff:10.0.0.1", "198.51.100.1", four("198.51.100.1")),
        ("10.0.0.1", "::ffff:198.51.100.1", four("198.51.100.1")),
        ("127.0.0.1", "198.51.100.1", four("198.51.100.1")),
        ("127.0.0.1", "", None),
        ("127.0.0.1", "127.0.0.2", four("127.0.0.2")),  # a proxy says so; it isn't this machine for that
        ("::1", "", None),
        ("::1", "198.51.100.1", None),
        ("", "198.51.100.1", None),
        (None, "198.51.100.1", None),
        ("testclient", "", None),
    ],
)
def test_the_client_is_the_first_from_the_right_that_no_trusted_proxy_wrote(
    peer: str | None, forwarded: str, expected: Address | None
) -> None:
    assert TRUSTED.client(peer, forwarded) == expected


def test_without_proxies_nothing_is_believed() -> None:
    assert Proxies().client("127.0.0.1", "198.51.100.1") is None
    assert Proxies().client("203.0.113.7", "198.51.100.1") == four("203.0.113.7")


def test_an_ipv6_network_counts_as_one_address() -> None:
    """Whoever has one address of it has all of them."""
    one, other, foreign = "2001:db8:0:1::1", "2001:db8:0:1:ffff::2", "2001:db8:0:2::1"

    assert Proxies().client(one) == Proxies().client(other)
    assert Proxies().client(one) != Proxies().client(foreign)


def test_no_more_hops_are_read_than_anybody_has() -> None:
    hops = ", ".join(["198.51.100.1", *["10.1.1.1"] * 10_000])

    assert TRUSTED.client("10.0.0.1", hops) == four("10.1.1.1")


@given(
    st.text(max_size=60), st.ip_addresses().map(str), st.text(st.characters(max_codepoint=255), max_size=60)
)
def test_what_the_client_writes_itself_changes_nothing(said: str, client: str, peer: str) -> None:
    """Its proxy adds who it is on the right."""
    if not any(
        ipaddress.ip_address(client) in ipaddress.ip_network(each) for each in ("10.0.0.0/8", "fd00::/8")
    ):
        honest = TRUSTED.client("10.0.0.1", client)
        if not ipaddress.ip_address(client).is_loopback:
            assert TRUSTED.client("10.0.0.1", f"{said}, {client}") == honest
    TRUSTED.client(peer, said)
