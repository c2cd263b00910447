from __future__ import annotations

import asyncio
import hashlib

import pytest

from tests.fakes.clock import FakeClock
from unbroken.server.auth.base import Credentials, Grant, Unauthenticated
from unbroken.server.auth.client_secrets import ClientSecrets, ForeignPlan, ForeignUser, Issued, Wanted
from unbroken.server.auth.key_store import MemoryKeyStore, new_key
from unbroken.server.auth.keyring import Keyring
from unbroken.server.auth.lapse import Lapses
from unbroken.server.auth.pins import Pins
from unbroken.server.auth.principal import Principal
from unbroken.server.auth.redis.connection import Redis
from unbroken.server.auth.redis.secrets import RedisSecretStore
from unbroken.server.auth.secret_pools import SecretBounds, SecretRecord
from unbroken.server.auth.secret_store import MemorySecretStore
from unbroken.server.resume import ResumeTokens
from unbroken.sessions.ids import ChainId, SessionId

BACKEND = Grant(Principal("key:backend", "acme", "pro"))
ANN = Grant(Principal("user:ann", "acme"))
TOKENS = ResumeTokens(b"x" * 32)
HERS, OTHER = SessionId("sess_" + "1" * 32), SessionId("sess_" + "2" * 32)
CHAIN = ChainId("0" * 12)


def made(clock: FakeClock, keyring: Keyring | None = None) -> ClientSecrets:
    return ClientSecrets(MemorySecretStore(clock), TOKENS, keyring, clock, session_lifetime=3600)


def wanted(**more: object) -> Wanted:
    return Wanted(**({"pins": Pins(), "lifetime": 60.0} | more))  # type: ignore[arg-type]


def presented(issued: Issued, *, resume: str | None = None, origin: str | None = None) -> Credentials:
    is_ticket = issued.value.startswith("tk_")
    return Credentials(
        None if is_ticket else issued.value,
        is_browser=origin is not None,
        ticket=issued.value if is_ticket else None,
        resume=resume,
        origin=origin,
    )


async def spent(secrets: ClientSecrets, issued: Issued, session: SessionId = HERS) -> Principal:
    grant = await secrets.authenticate(presented(issued))
    assert grant.spend is not None
    assert await grant.spend(session)
    return grant.principal


async def refused(secrets: ClientSecrets, credentials: Credentials) -> None:
    with pytest.raises(Unauthenticated) as caught:
        await secrets.authenticate(credentials)
    assert str(caught.value) == str(Unauthenticated()), "it never says what was wrong"


async def test_a_key_is_bound_to_tenant_plan_and_user_and_may_make_no_others() -> None:
    clock = FakeClock()
    secrets = made(clock)
    issued = await secrets.issue(BACKEND, wanted(user="ann"))
    grant = await secrets.authenticate(presented(issued))

    ends = clock.time() + 3600
    assert grant.principal == Principal("user:ann", "acme", "pro", frozenset({"realtime", "files"}), ends)
    assert issued.expires_at == clock.time() + 60
    assert issued.value.startswith("ek_")
    assert issued.value[3:] not in repr(issued)


PLANS: dict[str, tuple[str, ...]] = {"pro": ("default", "gold")}
"""What makers on the plan pro give."""


async def on_plan(maker: Grant, asked: str | None, plans: dict[str, tuple[str, ...]] | None) -> str:
    """Return the plan of a key that *maker* makes, both as it is told and as it is."""
    clock = FakeClock()
    secrets = ClientSecrets(MemorySecretStore(clock), TOKENS, None, clock, session_lifetime=3600, plans=plans)
    issued = await secrets.issue(maker, wanted(plan=asked))
    grant = await secrets.authenticate(presented(issued))
    assert issued.plan == grant.principal.plan
    assert grant.is_plan_given == (maker.principal.plan in (plans or {}))
    return issued.plan


async def test_a_key_is_on_the_plan_that_the_settings_have_for_its_maker_s() -> None:
    assert await on_plan(BACKEND, None, None) == "pro"
    assert await on_plan(BACKEND, "pro", None) == "pro"
    assert await on_plan(BACKEND, None, PLANS) == "default"
    assert await on_plan(BACKEND, "gold", PLANS) == "gold"
    assert await on_plan(ANN, None, PLANS) == "default", "her own"


@pytest.mark.parametrize(
    ("maker", "asked", "plans", "allowed"),
    [
        (BACKEND, "gold", None, "pro"),
        (BACKEND, "pro", PLANS, "default, gold"),
        (BACKEND, "", PLANS, "default, gold"),
        (ANN, "gold", PLANS, "default"),
        (ANN, "pro", PLANS, "default"),
    ],
)
async def test_nobody_gives_a_plan_that_is_not_theirs_to_give(
    maker: Grant, asked: str, plans: dict[str, tuple[str, ...]] | None, allowed: str
) -> None:
    """Neither a higher one than their own, nor their own where the settings have others for their keys."""
    with pytest.raises(ForeignPlan) as caught:
        await on_plan(maker, asked, plans)
    assert f"may be on: {allowed}." in str(caught.value)


async def test_a_backend_that_names_no_user_makes_keys_for_strangers_to_each_other() -> None:
    secrets = made(FakeClock())
    users = set()
    for _ in range(50):
        issued = await secrets.issue(BACKEND, wanted())
        users.add((await secrets.authenticate(presented(issued))).principal.user)

    assert len(users) == 50
    assert all(user.startswith("anon:") and len(user) == 37 for user in users), "unguessable: 128 bits"


async def test_what_a_backend_makes_counts_as_its_own_and_what_a_user_makes_does_not() -> None:
    """Else one backend could have all places, or all users together have one's."""
    clock = FakeClock()
    store = MemorySecretStore(clock)
    secrets = ClientSecrets(store, TOKENS, None, clock, session_lifetime=3600)
    made = [
        await secrets.issue(BACKEND, wanted(user="ann")),
        await secrets.issue(BACKEND, wanted()),
        await secrets.issue(ANN, wanted()),
        await secrets.issue_anonymous(wanted(), plan="free"),
        await secrets.issue_anonymous(wanted(), plan="free", address=bytes([203, 0, 113, 7])),
    ]
    counted = []
    for issued in made:
        held = await store.look(hashlib.sha256(issued.value.encode()).hexdigest()[:40])
        assert held is not None
        counted.append([pool.name for pool in SecretBounds().pools_of(held.record)])

    backend, ann = "key\0acme\0None\0key:backend", "user\0acme\0user:ann"
    assert counted == [
        [ann, backend],
        [backend],
        [ann],
        ["strangers"],
        ["address cb007107", "strangers"],
    ]


def test_whoever_has_spaces_in_their_name_counts_for_nobody_else() -> None:
    """Tokens of others name tenants and users as they like."""
    one = SecretRecord("user:b user:c", "a", "free", (), 1.0, maker="x y")
    other = SecretRecord("user:c", "a user:b", "free", (), 1.0, maker="y", key_id="x")
    names = [{pool.name for pool in SecretBounds().pools_of(record)} for record in (one, other)]

    assert not names[0] & names[1]


async def test_whoever_has_a_user_makes_keys_for_that_one_only() -> None:
    secrets = made(FakeClock())
    for request in (wanted(), wanted(user="ann")):
        issued = await secrets.issue(ANN, request)
        assert (await secrets.authenticate(presented(issued))).principal.id == ANN.principal.id

    with pytest.raises(ForeignUser):
        await secrets.issue(ANN, wanted(user="ben"))


async def test_a_user_that_a_backend_names_is_never_another_backend() -> None:
    secrets = made(FakeClock())
    issued = await secrets.issue(BACKEND, wanted(user="key:other"))

    assert (await secrets.authenticate(presented(issued))).principal.user == "user:key:other"


async def test_a_spent_key_is_good_with_its_sessions_token_until_its_principal_expires() -> None:
    clock = FakeClock()
    secrets = made(clock)
    issued = await secrets.issue(BACKEND, wanted(user="ann"))
    ann = await spent(secrets, issued)
    token = TOKENS.mint(HERS, CHAIN, ann.id)
    await refused(secrets, presented(issued))
    clock.advance(3599)

    again = await secrets.authenticate(presented(issued, resume=token))
    assert again.principal == ann
    assert again.spend is None, "nothing more is used up"
    clock.advance(1)
    await refused(secrets, presented(issued, resume=token))


async def test_a_spent_key_is_not_good_with_anothers_token_or_for_another_session() -> None:
    secrets = made(FakeClock())
    issued = await secrets.issue(BACKEND, wanted(user="ann"))
    ann = await spent(secrets, issued)
    foreign = TOKENS.mint(HERS, CHAIN, Principal("user:ben", "acme").id)

    for token in (foreign, TOKENS.mint(OTHER, CHAIN, ann.id), "", "rt_" + "0" * 67, foreign + "x"):
        await refused(secrets, presented(issued, resume=token))


async def test_a_key_comes_from_its_origin_alone() -> None:
    secrets = made(FakeClock())
    issued = await secrets.issue(BACKEND, wanted(origin="https://shop.example"))

    for origin in (None, "https://shop.example.evil", "http://shop.example", "null"):
        await refused(secrets, presented(issued, origin=origin))
    await secrets.authenticate(presented(issued, origin="https://shop.example"))


async def test_each_kind_comes_on_its_own_way_only() -> None:
    secrets = made(FakeClock())
    key = (await secrets.issue(BACKEND, wanted())).value
    ticket = (await secrets.issue(BACKEND, wanted(is_ticket=True, uses=5))).value

    await refused(secrets, Credentials(None, is_browser=False, ticket=key))
    await refused(secrets, Credentials(ticket, is_browser=False))
    await refused(secrets, Credentials(ticket, is_browser=True, is_subprotocol=True))
    await refused(secrets, Credentials(key.replace("ek_", "tk_"), is_browser=False))
    await refused(secrets, Credentials(None, is_browser=False))
    for wrong in ("ek_", key + "x", key[:-1], "ek_" + "\ud800", "ek_" + "x" * 10**6):
        await refused(secrets, Credentials(wrong, is_browser=False))
    await secrets.authenticate(Credentials(key, is_browser=False))


async def test_a_ticket_is_good_once_whatever_its_maker_says() -> None:
    secrets = made(FakeClock())
    issued = await secrets.issue(BACKEND, wanted(is_ticket=True, uses=5))
    await spent(secrets, issued)

    await refused(secrets, presented(issued))


async def test_nothing_that_is_made_outlives_its_maker() -> None:
    clock = FakeClock()
    secrets = made(clock)
    maker = Grant(Principal("key:backend", expires_at=clock.time() + 30))
    issued = await secrets.issue(maker, wanted())
    assert issued.expires_at == clock.time() + 30
    grant = await secrets.authenticate(presented(issued))
    assert grant.principal.expires_at == clock.time() + 30
    clock.advance(30)

    await refused(secrets, presented(issued))


async def test_what_a_revoked_key_has_made_goes_with_it() -> None:
    clock = FakeClock()
    store = MemoryKeyStore()
    key, record = new_key("backend", now=clock.time())
    await store.add(record)
    keyring = Keyring(store, Lapses(clock), clock)
    secrets = made(clock, keyring)
    maker = await keyring.authenticate(Credentials(key, is_browser=False))
    fresh, used = [await secrets.issue(maker, wanted(user="ann")) for _ in range(2)]
    ann = await spent(secrets, used)
    token = TOKENS.mint(HERS, CHAIN, ann.id)
    assert (await secrets.authenticate(presented(used, resume=token))).key_id == record.id
    await store.revoke(record.id)
    await keyring.look()

    await refused(secrets, presented(fresh))
    await refused(secrets, presented(used, resume=token))


async def test_of_two_nodes_that_let_somebody_in_by_one_key_exactly_one_may(redis: Redis) -> None:
    """Over a real Valkey, twenty times: both look, and find it good; then both use it."""
    clock = FakeClock()
    here, there = (
        ClientSecrets(RedisSecretStore(redis), TOKENS, None, clock, session_lifetime=3600) for _ in range(2)
    )
    for _ in range(20):
        issued = await here.issue(BACKEND, wanted(user="ann"))
        grants = [await node.authenticate(presented(issued)) for node in (here, there)]
        spends = [grant.spend for grant in grants if grant.spend is not None]
        won = await asyncio.gather(
            *(spend(session) for spend, session in zip(spends, (HERS, OTHER), strict=True))
        )

        assert sorted(won) == [False, True]
        session = (HERS, OTHER)[won.index(True)]
        token = TOKENS.mint(session, CHAIN, grants[0].principal.id)
        assert (await there.authenticate(presented(issued, resume=token))).spend is None
        loser = TOKENS.mint((HERS, OTHER)[won.index(False)], CHAIN, grants[0].principal.id)
        await refused(here, presented(issued, resume=loser))
