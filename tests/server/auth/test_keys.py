from __future__ import annotations

import contextlib
import hashlib
import hmac
import inspect

import pytest
from hypothesis import given
from hypothesis import strategies as st

from unbroken.server.auth import keys
from unbroken.server.auth.base import Authenticator, Credentials, Grant, Unauthenticated
from unbroken.server.auth.keys import DevelopmentAuthenticator, KeyAuthenticator
from unbroken.server.auth.principal import Principal


def presented(key: str | None) -> Credentials:
    return Credentials(key, is_browser=False)


def digest_of(key: str) -> str:
    return hashlib.sha256(key.encode()).hexdigest()


KEYS = KeyAuthenticator([("ann", digest_of("key-a")), ("ben", digest_of("key-b"))])


async def test_a_known_key_is_its_name() -> None:
    assert await KEYS.authenticate(presented("key-a")) == Grant(Principal(user="key:ann"))
    assert await KEYS.authenticate(presented("key-b")) == Grant(Principal(user="key:ben"))


@pytest.mark.parametrize(
    "key", [None, "", "key-c", "key-a ", "KEY-A", "key", "ann", digest_of("key-a"), "\ud800", "x" * 10**6]
)
async def test_anything_else_proves_nothing(key: str | None) -> None:
    with pytest.raises(Unauthenticated) as caught:
        await KEYS.authenticate(presented(key))
    assert str(caught.value) == str(Unauthenticated()), "it never says what was wrong"


async def test_without_keys_nobody_gets_in() -> None:
    with pytest.raises(Unauthenticated):
        await KeyAuthenticator([]).authenticate(presented(""))


@pytest.mark.parametrize("key", ["key-a", "key-b", "wrong", None])
async def test_every_key_is_compared_whichever_matches(
    key: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So that the time taken tells nothing: neither which key is close nor where it stands."""
    compared: list[tuple[int, int]] = []

    def compare(one: bytes, other: bytes) -> bool:
        compared.append((len(one), len(other)))
        return hmac.compare_digest(one, other)

    class Recording:
        compare_digest = staticmethod(compare)

    monkeypatch.setattr(keys, "hmac", Recording)
    with contextlib.suppress(Unauthenticated):
        await KEYS.authenticate(presented(key))
    assert compared == [(32, 32), (32, 32)]


async def test_in_development_a_key_is_known_again() -> None:
    authenticator = DevelopmentAuthenticator()
    one = await authenticator.authenticate(presented("a"))

    assert one == await authenticator.authenticate(presented("a"))
    assert one != await authenticator.authenticate(presented("b"))
    assert one.principal.user == "dev:" + digest_of("a"), "never the key itself"
    await authenticator.authenticate(presented("\ud800"))


@pytest.mark.parametrize("key", [None, "", "x" * 1025])
async def test_in_development_there_must_be_a_key_and_of_sane_length(key: str | None) -> None:
    with pytest.raises(Unauthenticated):
        await DevelopmentAuthenticator().authenticate(presented(key))


@pytest.mark.parametrize("authenticator", [KEYS, DevelopmentAuthenticator()])
def test_the_interface_is_kept(authenticator: Authenticator) -> None:
    expected = inspect.signature(Authenticator.authenticate)

    assert inspect.signature(type(authenticator).authenticate) == expected


@given(st.text(max_size=8), st.text(max_size=8), st.text(max_size=8), st.text(max_size=8))
def test_two_principals_have_two_ids(user: str, tenant: str, other_user: str, other_tenant: str) -> None:
    one, other = Principal(user, tenant), Principal(other_user, other_tenant)
    if "\0" in user + tenant + other_user + other_tenant:
        return  # settings and keys can't hold one
    assert (one.id == other.id) == ((user, tenant) == (other_user, other_tenant))


def test_an_id_gives_nothing_away() -> None:
    principal = Principal("ann", "acme")

    assert len(principal.id) == 32
    assert "ann" not in principal.id
    assert principal.id == Principal("ann", "acme", plan="other").id


def test_a_key_is_not_shown() -> None:
    assert "sk-1" not in repr(presented("sk-1"))
    assert "none" in repr(presented(None))
