from __future__ import annotations

import asyncio
import base64
import hmac
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from jwt.algorithms import ECAlgorithm, OKPAlgorithm, RSAAlgorithm

from tests.fakes.clock import FakeClock
from tests.server.conftest import Serve
from tests.server.realtime.raw import RawClient
from tests.server.realtime.serving import Served, serving
from tests.server.realtime.test_client_secrets import refusal
from unbroken.server.agents.scripted import ScriptedAgent
from unbroken.server.auth.base import Credentials, LongLivedKey, Unauthenticated
from unbroken.server.auth.jwks import JwksUnavailable, KeySet, NotLookedFor
from unbroken.server.auth.jwt_tokens import JwtAuthenticator, JwtRules
from unbroken.server.auth.principal import Principal
from unbroken.server.config import StartupError
from unbroken.sessions.errors import StoreUnavailable

SPKI = PublicFormat.SubjectPublicKeyInfo
ISSUER, AUDIENCE = "https://id.example", "unbroken"


class Issuer:
    """Somebody who signs tokens, and publishes their keys in a file."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.clock = FakeClock()
        self.private: dict[str, Any] = {}
        self.rotate("k1")

    def rotate(self, *names: str) -> None:
        """Have these keys and no others."""
        self.private = {
            name: self.private.get(name) or rsa.generate_private_key(65537, 2048) for name in names
        }
        self.publish(
            [
                RSAAlgorithm.to_jwk(key.public_key(), as_dict=True)
                | {"kid": name, "alg": "RS256", "use": "sig"}
                for name, key in self.private.items()
            ]
        )

    def publish(self, keys: list[dict[str, Any]]) -> None:
        self.path.write_text(json.dumps({"keys": keys}))

    def token(
        self,
        kid: str | None = "k1",
        *,
        algorithm: str = "RS256",
        key: Any = None,
        header: Any = None,
        **claims: Any,
    ) -> str:
        now = self.clock.time()
        said = {"iss": ISSUER, "aud": AUDIENCE, "sub": "ann", "exp": now + 300, **claims}
        return jwt.encode(
            {name: value for name, value in said.items() if value is not None},
            key or self.private[kid or ""],
            algorithm,
            headers={**({} if kid is None else {"kid": kid}), **(header or {})},
        )

    def authenticator(self, **rules: Any) -> JwtAuthenticator:
        chosen = {
            "issuer": ISSUER,
            "audience": (AUDIENCE,),
            "algorithms": ("RS256", "ES256", "EdDSA"),
        } | rules
        return JwtAuthenticator(JwtRules(**chosen), KeySet(str(self.path), self.clock), self.clock)


@pytest.fixture
def issuer(tmp_path: Path) -> Issuer:
    return Issuer(tmp_path / "jwks.json")


def presented(token: str, *, is_subprotocol: bool = False) -> Credentials:
    return Credentials(token, is_browser=is_subprotocol, is_subprotocol=is_subprotocol)


async def refused(authenticator: JwtAuthenticator, token: str) -> None:
    with pytest.raises(Unauthenticated) as caught:
        await authenticator.authenticate(presented(token))
    assert str(caught.value) == str(Unauthenticated()), "it never says what was wrong"


async def test_a_token_is_whom_it_names(issuer: Issuer) -> None:
    grant = await issuer.authenticator().authenticate(presented(issuer.token()))

    assert grant.principal == Principal("user:ann", expires_at=issuer.clock.time() + 330)
    assert (grant.key_id, grant.pins, grant.spend) == (None, None, None)


async def test_claims_say_who_as_the_settings_map_them(issuer: Issuer) -> None:
    authenticator = issuer.authenticator(
        user_claim="uid", tenant_claim="org", plan_claim="tier", scopes_claim="scope"
    )
    claims: dict[str, Any] = {"uid": "u7", "org": "acme", "tier": "pro"}
    for scope in ("realtime files admin", ["realtime", "files", 7, "admin"]):
        grant = await authenticator.authenticate(presented(issuer.token(**claims, scope=scope)))
        who = grant.principal
        assert (who.user, who.tenant, who.plan) == ("user:u7", "acme", "pro")
        assert who.scopes == {"realtime", "files"}, "none that isn't known here"
    nothing = await authenticator.authenticate(presented(issuer.token(**claims)))
    assert nothing.principal.scopes == frozenset()
    for missing in claims:
        await refused(authenticator, issuer.token(**{**claims, missing: None}))


@pytest.mark.parametrize(
    "claims",
    [
        {"iss": "https://other.example"},
        {"iss": None},
        {"aud": "other"},
        {"aud": None},
        {"exp": None},
        {"exp": "soon"},
        {"exp": True},
        {"exp": 10**400},
        {"nbf": "x"},
        {"sub": None},
        {"sub": ""},
        {"sub": "a\0b"},
        {"sub": "x" * 257},
    ],
)
async def test_a_token_without_what_it_needs_proves_nothing(issuer: Issuer, claims: dict[str, Any]) -> None:
    try:
        token = issuer.token(**claims)
    except TypeError:  # the library signs none of that form
        payload = {"iss": ISSUER, "aud": AUDIENCE, "sub": "ann", "exp": issuer.clock.time() + 300} | claims
        token = jwt.api_jws.encode(
            json.dumps(payload).encode(), issuer.private["k1"], "RS256", headers={"kid": "k1"}
        )
    await refused(issuer.authenticator(), token)


async def test_nobody_s_token_puts_them_among_strangers(issuer: Issuer) -> None:
    """They would share their quotas, answers and pools."""
    authenticator = issuer.authenticator(tenant_claim="org")
    await authenticator.authenticate(presented(issuer.token(org="acme")))
    await refused(authenticator, issuer.token(org="strangers"))


async def test_clocks_may_differ_so_much_and_no_more(issuer: Issuer) -> None:
    authenticator, now = issuer.authenticator(leeway=30), issuer.clock.time()
    early: tuple[dict[str, Any], ...] = ({"exp": now - 29}, {"nbf": now + 29}, {"iat": now + 29})
    late: tuple[dict[str, Any], ...] = ({"exp": now - 31}, {"nbf": now + 31}, {"iat": now + 31})
    for claims in early:
        await authenticator.authenticate(presented(issuer.token(**claims)))
    for claims in late:
        await refused(authenticator, issuer.token(**claims))


async def test_one_of_several_audiences_will_do(issuer: Issuer) -> None:
    authenticator = issuer.authenticator(audience=("other", AUDIENCE))

    await authenticator.authenticate(presented(issuer.token(aud=["x", AUDIENCE])))
    await refused(authenticator, issuer.token(aud=["x"]))


async def test_algorithms_are_pinned(issuer: Issuer) -> None:
    """What anybody could sign is refused: none, and a public key as a shared secret (RFC 8725, 2.1)."""
    authenticator = issuer.authenticator()
    public = issuer.path.read_text()

    body = issuer.token().split(".")[1]
    for unsigned in (b'{"alg":"none"}', b'{"alg":"none","kid":"k1"}', b'{"kid":"k1"}'):
        head = base64.urlsafe_b64encode(unsigned).rstrip(b"=").decode()
        await refused(authenticator, f"{head}.{body}.")
    head = base64.urlsafe_b64encode(b'{"alg":"HS256","kid":"k1"}').rstrip(b"=").decode()
    for secret in (public.encode(), issuer.private["k1"].public_key().public_bytes(Encoding.PEM, SPKI)):
        mac = hmac.digest(secret, f"{head}.{body}".encode(), "sha256")
        forged = base64.urlsafe_b64encode(mac).rstrip(b"=").decode()
        await refused(authenticator, f"{head}.{body}.{forged}")
    await refused(authenticator, issuer.token(algorithm="PS256"))
    await refused(authenticator, issuer.token(algorithm="RS512"))
    await refused(issuer.authenticator(algorithms=("ES256",)), issuer.token())


async def test_a_key_is_good_for_the_algorithm_that_it_is_published_for(issuer: Issuer) -> None:
    """RFC 8725, 3.1: whatever else the settings allow, and the same numbers could do."""
    algorithms = ("RS256", "PS256")
    await refused(issuer.authenticator(algorithms=algorithms), issuer.token(algorithm="PS256"))
    await issuer.authenticator(algorithms=algorithms).authenticate(presented(issuer.token()))
    public = RSAAlgorithm.to_jwk(issuer.private["k1"].public_key(), as_dict=True)
    issuer.publish([public | {"kid": "k1"}])
    for algorithm in algorithms:
        token = issuer.token(algorithm=algorithm)
        await issuer.authenticator(algorithms=algorithms).authenticate(presented(token))


async def test_other_kinds_of_key_will_do(issuer: Issuer) -> None:
    curve, edwards = ec.generate_private_key(ec.SECP256R1()), ed25519.Ed25519PrivateKey.generate()
    issuer.publish(
        [
            ECAlgorithm.to_jwk(curve.public_key(), as_dict=True) | {"kid": "ec"},
            OKPAlgorithm.to_jwk(edwards.public_key(), as_dict=True) | {"kid": "ed"},
            {"kid": "broken", "kty": "RSA"},
            {"kid": "strange", "kty": "?"},
            {"kid": "secret", "kty": "oct", "k": "AAAA"},
        ]
    )
    authenticator = issuer.authenticator()

    await authenticator.authenticate(presented(issuer.token("ec", algorithm="ES256", key=curve)))
    await authenticator.authenticate(presented(issuer.token("ed", algorithm="EdDSA", key=edwards)))
    await refused(authenticator, issuer.token("ec", algorithm="EdDSA", key=edwards))


@pytest.mark.parametrize(
    "names",
    [(None, None), ("k", "k"), (None, None, "k")],
    ids=["without a name", "of one name", "beside one with a name"],
)
async def test_each_of_several_keys_that_names_do_not_tell_apart_will_do(
    issuer: Issuer, names: tuple[str | None, ...]
) -> None:
    """As while one is rotated out, at an issuer that gives them no names."""
    private = [ec.generate_private_key(ec.SECP256R1()) for _ in names]
    issuer.publish(
        [
            ECAlgorithm.to_jwk(key.public_key(), as_dict=True) | ({} if name is None else {"kid": name})
            for name, key in zip(names, private, strict=True)
        ]
    )
    authenticator = issuer.authenticator()
    for name, key in zip(names, private, strict=True):
        await authenticator.authenticate(presented(issuer.token(name, algorithm="ES256", key=key)))
    other = ec.generate_private_key(ec.SECP256R1())
    await refused(authenticator, issuer.token(names[0], algorithm="ES256", key=other))


async def test_of_one_name_each_algorithm_has_its_key(issuer: Issuer) -> None:
    """Also where the set doesn't say which is for which."""
    curve, numbers = ec.generate_private_key(ec.SECP256R1()), issuer.private["k1"]
    published = [
        RSAAlgorithm.to_jwk(numbers.public_key(), as_dict=True) | {"kid": "k"},
        ECAlgorithm.to_jwk(curve.public_key(), as_dict=True) | {"kid": "k"},
    ]
    for keys in (published, published[::-1]):
        issuer.publish(keys)
        authenticator = issuer.authenticator()
        await authenticator.authenticate(presented(issuer.token("k", algorithm="ES256", key=curve)))
        await authenticator.authenticate(presented(issuer.token("k", key=numbers)))
        await refused(authenticator, issuer.token("k", key=numbers, aud="other"))


async def test_a_token_without_a_name_is_of_the_only_key_there_is(issuer: Issuer) -> None:
    """Of several that have names, it says which. Else each would be tried for whatever strangers invent."""
    await issuer.authenticator().authenticate(presented(issuer.token(None, key=issuer.private["k1"])))
    issuer.rotate("k1", "k2")
    await refused(issuer.authenticator(), issuer.token(None, key=issuer.private["k1"]))


async def test_a_changed_token_proves_nothing(issuer: Issuer) -> None:
    authenticator, token = issuer.authenticator(), issuer.token()
    header, payload, signature = token.split(".")
    other = issuer.token(sub="ben").split(".")[1]
    wrong = rsa.generate_private_key(65537, 2048)

    for changed in (
        f"{header}.{other}.{signature}",
        f"{header}.{payload}.",
        f"{header}.{payload}",
        token + "x" * 9000,
        "eyJ..",
        "eyJhbGciOiJSUzI1NiJ9.x.x",
        "",
        issuer.token(key=wrong),
        base64.urlsafe_b64encode(b'{"alg":"RS256","kid":7}').rstrip(b"=").decode()
        + f".{payload}.{signature}",
        issuer.token(header={"crit": ["x"], "x": 1}),
    ):
        await refused(authenticator, changed)


async def test_keys_are_rotated_without_a_restart_and_fetched_no_more_than_so_often(issuer: Issuer) -> None:
    authenticator = issuer.authenticator()
    old = issuer.token("k1")
    await authenticator.authenticate(presented(old))
    issuer.rotate("k1", "k2")
    new = issuer.token("k2")
    await refused(authenticator, new)
    issuer.clock.advance(30)
    await authenticator.authenticate(presented(new))
    issuer.rotate("k2")
    issuer.clock.advance(30)
    await authenticator.authenticate(presented(issuer.token("k2")))

    issuer.clock.advance(1200)
    await refused(authenticator, old)


class HeldKeySet(KeySet):
    """One whose issuer takes its time: *is_asked* says when, and it answers when it *may_answer*."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.is_asked, self.may_answer = asyncio.Event(), asyncio.Event()

    async def _read(self) -> Any:
        self.is_asked.set()
        await self.may_answer.wait()
        return await super()._read()


async def test_a_token_whose_key_is_known_does_not_wait_for_the_set(issuer: Issuer) -> None:
    """Nor does any, while the issuer is away: one in half a minute would, for seconds."""
    fetched: list[str] = []
    keys = HeldKeySet(str(issuer.path), issuer.clock, on_fetch=fetched.append)
    keys.may_answer.set()
    await keys.start()
    keys.may_answer.clear()
    issuer.rotate("k2")
    issuer.clock.advance(700)
    for _ in range(3):
        assert await keys.find("k1")
    await keys.is_asked.wait()
    assert await keys.find("k1")
    assert fetched == []
    keys.may_answer.set()
    await keys.find("k2")

    assert fetched == ["ok"]
    assert await keys.find("k1") == ()
    assert await keys.find("k2")


async def test_a_set_that_nobody_has_asked_for_is_fetched_before_a_key_of_it_is_believed(
    issuer: Issuer,
) -> None:
    """It may have been withdrawn hours ago."""
    keys = KeySet(str(issuer.path), issuer.clock)
    await keys.start()
    issuer.rotate("k2")
    issuer.clock.advance(3600)

    assert await asyncio.gather(*(keys.find("k1") for _ in range(5))) == [()] * 5


async def test_the_end_ends_what_is_being_fetched_and_tells_whoever_waits(issuer: Issuer) -> None:
    """Nothing is left behind, and a process that is to end isn't held up."""
    keys = HeldKeySet(str(issuer.path), issuer.clock)
    keys.may_answer.set()
    await keys.start()
    keys.may_answer.clear()
    keys.is_asked.clear()
    issuer.clock.advance(700)
    waiting = asyncio.create_task(keys.find("k2"))
    await keys.is_asked.wait()
    await keys.stop()

    assert keys._fetching is None
    with pytest.raises(NotLookedFor):
        await waiting


async def test_a_key_that_may_be_new_is_no_failure_until_it_was_looked_for(issuer: Issuer) -> None:
    """Somebody who invents names keeps a rotated key from being found for a while: that is nobody's fault."""
    authenticator = issuer.authenticator()
    await authenticator.authenticate(presented(issuer.token()))
    issuer.clock.advance(40)
    with pytest.raises(Unauthenticated) as invented:
        await authenticator.authenticate(presented(issuer.token(header={"kid": "invented"})))
    assert invented.value.is_failure
    issuer.rotate("k1", "k2")
    issuer.clock.advance(5)
    for kid in ("k2", "k2"):
        with pytest.raises(Unauthenticated) as early:
            await authenticator.authenticate(presented(issuer.token(kid)))
        assert not early.value.is_failure
        assert str(early.value) == str(Unauthenticated())
    with pytest.raises(Unauthenticated) as forged:
        await authenticator.authenticate(presented(issuer.token(key=issuer.private["k2"])))
    assert forged.value.is_failure, "a key that is known, and didn't sign it"
    issuer.clock.advance(30)
    await authenticator.authenticate(presented(issuer.token("k2")))


async def test_a_key_that_can_not_be_looked_for_is_no_failure(issuer: Issuer) -> None:
    authenticator = issuer.authenticator()
    await authenticator.authenticate(presented(issuer.token()))
    issuer.clock.advance(60)
    issuer.rotate("k2")
    token = issuer.token("k2")
    issuer.path.unlink()

    with pytest.raises(Unauthenticated) as caught:
        await authenticator.authenticate(presented(token))
    assert not caught.value.is_failure


async def test_whatever_strangers_name_costs_one_fetch_in_half_a_minute(issuer: Issuer) -> None:
    fetched: list[str] = []
    keys = KeySet(str(issuer.path), issuer.clock, on_fetch=fetched.append)
    found = await asyncio.gather(*(keys.find(f"stranger{number}") for number in range(50)))

    assert found == [()] * 50
    assert fetched == ["ok"]


async def test_a_set_that_can_not_be_fetched_counts_on_for_a_day(issuer: Issuer) -> None:
    keys = KeySet(str(issuer.path), issuer.clock)
    await keys.start()
    issuer.path.unlink()
    issuer.clock.advance(86_000)
    assert await keys.find("k1")
    issuer.clock.advance(500)

    with pytest.raises(JwksUnavailable):
        await keys.find("k1")
    issuer.rotate("k1")
    issuer.clock.advance(30)
    assert await keys.find("k1")
    await keys.stop()


async def test_without_keys_nobody_can_say(issuer: Issuer) -> None:
    issuer.path.unlink()

    with pytest.raises(StoreUnavailable):
        await issuer.authenticator().authenticate(presented(issuer.token()))


@pytest.mark.parametrize(
    "text", ["", "[]", '{"keys": 1}', '{"keys": []}', "[" * 100_000, '{"keys": [1, null]}']
)
async def test_what_is_no_set_is_said_to_be_none_at_the_start(issuer: Issuer, text: str) -> None:
    issuer.path.write_text(text)

    with pytest.raises(JwksUnavailable, match="UNBROKEN_JWT_JWKS"):
        await KeySet(str(issuer.path), issuer.clock).start()


async def test_a_set_is_bounded(issuer: Issuer) -> None:
    (entry,) = json.loads(issuer.path.read_text())["keys"]
    issuer.publish([entry | {"kid": str(number)} for number in range(101)])
    with pytest.raises(JwksUnavailable):
        await KeySet(str(issuer.path), issuer.clock).start()
    issuer.path.write_text(json.dumps({"keys": [entry]}) + " " * (1 << 20))
    with pytest.raises(JwksUnavailable, match="too long"):
        await KeySet(str(issuer.path), issuer.clock).start()


async def test_a_page_may_present_a_token_that_soon_ends(issuer: Issuer) -> None:
    authenticator, now = issuer.authenticator(), issuer.clock.time()
    await authenticator.authenticate(presented(issuer.token(exp=now + 3000), is_subprotocol=True))

    with pytest.raises(LongLivedKey):
        await authenticator.authenticate(presented(issuer.token(exp=now + 7200), is_subprotocol=True))
    await authenticator.authenticate(presented(issuer.token(exp=now + 7200)))


@pytest.fixture
def published(issuer: Issuer) -> Iterator[str]:
    """The issuer's keys at an address, and beside it one that leads there."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            is_moved = self.path == "/moved"
            self.send_response(302 if is_moved else 200)
            if is_moved:
                self.send_header("location", "/jwks")
            self.end_headers()
            self.wfile.write(b"" if is_moved else issuer.path.read_bytes())

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


async def test_a_set_may_be_at_an_address_and_is_looked_for_nowhere_else(
    issuer: Issuer, published: str
) -> None:
    keys = KeySet(f"{published}/jwks", issuer.clock)
    await keys.start()
    assert await keys.find("k1")
    assert await keys.find(None), "the only one there is"

    with pytest.raises(JwksUnavailable, match=r"302|Found"):
        await KeySet(f"{published}/moved", issuer.clock).start()


class TestOverTheDoors:
    """A server that believes an issuer's tokens."""

    async def test_a_token_is_a_key_as_any_other(self, serve: Serve, tmp_path: Path) -> None:
        issuer = Issuer(tmp_path / "jwks.json")
        served: Served[ScriptedAgent] = await serve(
            ScriptedAgent(),
            clock=issuer.clock,
            jwt_jwks=str(issuer.path),
            jwt_issuer=ISSUER,
            jwt_audience=(AUDIENCE,),
            jwt_leeway=10,
            jwt_tenant_claim="org",
        )
        client = await served.client(issuer.token(org="acme"))
        await client.ask("Hello")
        await client.done()
        backend = await served.openai(issuer.token(org="acme"))
        made = await backend.realtime.client_secrets.create()
        client.key = made.value
        await client.resume()
        assert client.resumed is True, "a short-lived key that she makes is hers"

        assert await refusal(served, issuer.token()) == "invalid_api_key", "no tenant"
        assert await refusal(served, issuer.token(org="other"), resume=str(client.token)) == (
            "session_not_found"
        )
        issuer.clock.advance(311)
        assert await client.closed() == 1008
        assert client.errors()[-1] == "credential_expired", "with the token that the key was made with"

    async def test_a_rotated_key_bars_no_address(self, serve: Serve, tmp_path: Path) -> None:
        """Someone who invents names, or the key set's own delay, has nobody's neighbours refused."""
        issuer = Issuer(tmp_path / "jwks.json")
        served: Served[ScriptedAgent] = await serve(
            ScriptedAgent(),
            clock=issuer.clock,
            jwt_jwks=str(issuer.path),
            jwt_issuer=ISSUER,
            jwt_audience=(AUDIENCE,),
            auth_failures=3,
            trusted_proxies=("127.0.0.1",),
        )
        issuer.clock.advance(1)
        old = issuer.token()
        issuer.rotate("k1", "k2")

        async def status(token: str) -> int:
            headers = {"Authorization": f"Bearer {token}", "X-Forwarded-For": "203.0.113.1"}
            async with RawClient(served.port, None, headers=headers) as raw:
                return int((await raw.response()).status_code)

        assert [await status(issuer.token("k2")) for _ in range(5)] == [401] * 5
        assert await status(old) == 101
        forged = issuer.token(key=issuer.private["k2"])
        assert [await status(forged) for _ in range(4)] == [401, 401, 401, 429]

    async def test_a_server_whose_issuer_can_not_be_asked_says_so(self, tmp_path: Path) -> None:
        with pytest.raises(StartupError, match="UNBROKEN_JWT_JWKS"):
            async with serving(
                ScriptedAgent(),
                jwt_jwks=str(tmp_path / "none.json"),
                jwt_issuer=ISSUER,
                jwt_audience=(AUDIENCE,),
            ):
                raise AssertionError("it started")
