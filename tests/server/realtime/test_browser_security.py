"""What went wrong in other servers with browsers and keys, by name. G8 is in `test_client_secrets.py`."""

from __future__ import annotations

import json
from typing import Any

import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed
from websockets.typing import Origin, Subprotocol

from tests.fakes.asking import Answer, ask
from tests.fakes.clock import FakeClock
from tests.server.conftest import Serve
from tests.server.realtime.raw import RawClient
from tests.server.realtime.serving import Served
from tests.server.realtime.test_client_secrets import KEY, KEYS, SHOP, SUBPROTOCOL, issued, posted, refusal
from unbroken.server.agents.scripted import ScriptedAgent
from unbroken.server.auth.key_store import KeyRecord, new_key

PATH = "/v1/realtime/client_secrets"


async def page(served: Served[Any], key: str, origin: str, **query: Any) -> tuple[dict[str, str], Any]:
    """Connect as a browser's page does. Return the answer's headers, and the first event."""
    offered = ["realtime", f"{SUBPROTOCOL}{key}"]
    async with RawClient(served.port, None, headers={"Origin": origin}, subprotocols=offered, **query) as raw:
        response = await raw.response()
        return {name.lower(): value for name, value in response.headers.raw_items()}, await raw.next()


@pytest.fixture
async def shop(serve: Serve) -> Served[ScriptedAgent]:
    served: Served[ScriptedAgent] = await serve(ScriptedAgent(), api_keys=KEYS, allowed_origins=(SHOP,))
    return served


@pytest.mark.parametrize(
    "origin",
    [
        "https://evil.example",
        "https://shop.example.evil.example",
        "http://shop.example",
        "null",
        "file://",
        "",
    ],
)
async def test_g1_an_upgrade_from_a_foreign_page_is_refused_whatever_key_it_has(
    shop: Served[ScriptedAgent], origin: str
) -> None:
    key = await issued(shop)
    _, frame = await page(shop, key, origin)

    assert frame["error"]["code"] == "origin_not_allowed"
    assert (await page(shop, key, SHOP))[1]["type"] == "session.created", "nor was the key used up"


@pytest.mark.parametrize("name", ["api_key", "token", "access_token", "authorization", "ticket"])
async def test_g2_no_key_is_taken_out_of_an_address(shop: Served[ScriptedAgent], name: str) -> None:
    """Proxies write addresses down. That nothing of them is logged here is tested with the process."""
    for key in (KEY, await issued(shop)):
        assert await refusal(shop, None, **{name: key}) == "invalid_api_key"


async def managed(serve: Serve, **settings: Any) -> tuple[Served[ScriptedAgent], Any]:
    served: Served[ScriptedAgent] = await serve(ScriptedAgent(), key_store="memory", **settings)
    assert served.app.auth.keyring is not None
    return served, served.app.auth.keyring


async def added(keyring: Any, **more: Any) -> tuple[str, KeyRecord]:
    key, record = new_key("backend", now=1.0, **more)
    await keyring.store.add(record)
    return key, record


async def test_g3_a_key_that_expires_closes_the_live_connection(serve: Serve) -> None:
    clock = FakeClock()
    served, keyring = await managed(serve, clock=clock)
    key, _ = await added(keyring, expires_at=clock.time() + 100)
    client, eternal = await served.client(key), await served.client((await added(keyring))[0])
    clock.advance(100)

    assert await client.closed() == 1008
    assert client.frames[-1]["error"]["code"] == "credential_expired"
    assert await refusal(served, key) == "invalid_api_key"
    await eternal.sync()


async def test_g3_a_key_that_is_revoked_closes_all_that_came_of_it(serve: Serve) -> None:
    """The connections by the key itself, and by a short-lived key that was made with it."""
    served, keyring = await managed(serve)
    key, record = await added(keyring)
    direct = await served.client(key)
    short_lived = await issued(served, {"unbroken": {"user": "ann"}}, key=key)
    widget = await served.client(short_lived)
    unused = await issued(served, key=key)
    assert await keyring.store.revoke(record.id)

    for client in (direct, widget):
        assert await client.closed() == 1008
        assert client.frames[-1]["error"]["code"] == "credential_revoked"
    assert await refusal(served, key) == "invalid_api_key"
    assert await refusal(served, unused) == "invalid_api_key"
    assert await refusal(served, short_lived, resume=str(widget.token)) == "invalid_api_key"


async def test_g3_a_revoked_key_does_not_stop_the_answer(serve: Serve) -> None:
    """Only its connection ends. Whoever comes back as the same user sees it whole."""
    served, keyring = await managed(serve)
    (one, record), (two, _) = [await added(keyring, user="ann") for _ in range(2)]
    client = await served.client(one)
    await client.ask("Hello")
    await client.done()
    await keyring.store.revoke(record.id)
    assert await client.closed() == 1008
    client.key = two
    await client.resume()

    assert client.resumed is True


async def test_g4_anothers_session_and_one_that_never_was_are_told_alike(shop: Served[ScriptedAgent]) -> None:
    """To the letter; and nothing of either is looked up, so that the time is the same too."""
    ann = await shop.client(await issued(shop, {"unbroken": {"user": "ann"}}))
    await ann.ask("Hello")
    await ann.done()
    looked: list[str] = []
    attach = shop.app.node.attach

    async def watched(session_id: Any, *args: Any, **more: Any) -> Any:
        looked.append(session_id)
        return await attach(session_id, *args, **more)

    shop.app.node.attach = watched  # type: ignore[method-assign]
    told = []
    for token in (str(ann.token), "rt_" + "0" * 44 + "_" + "A" * 22, "rt_x", str(ann.session_id), ""):
        key = await issued(shop, {"unbroken": {"user": "ben"}})
        async with RawClient(shop.port, key, resume=token) as raw:
            await raw.response()
            frames = await raw.rest()
        errors = [{**frame["error"], "event_id": ""} for frame in frames if isinstance(frame, dict)]
        told.append((json.dumps(errors), raw.close_code))

    assert len(set(told)) == 1
    assert told[0][1] == 1008
    assert looked == []


async def test_g5_a_resume_token_is_worth_nothing_once_the_secret_is_another(serve: Serve) -> None:
    served: Served[ScriptedAgent] = await serve(ScriptedAgent(), api_keys=KEYS, secret="a" * 32)
    client = await served.client(KEY)
    await client.ask("Hello")
    await client.done()
    assert await refusal(served, KEY, resume=str(client.token)) is None
    rotated: Served[ScriptedAgent] = await serve(ScriptedAgent(), api_keys=KEYS, secret="b" * 32)

    assert await refusal(rotated, KEY, resume=str(client.token)) == "session_not_found"


async def test_g5_a_resume_token_is_worth_nothing_without_its_principal(serve: Serve) -> None:
    """A new key of the same backend, and no user in common: it is somebody else."""
    served, keyring = await managed(serve)
    (one, record), (two, _) = [await added(keyring) for _ in range(2)]
    client = await served.client(one)
    await client.ask("Hello")
    await client.done()
    assert await refusal(served, two, resume=str(client.token)) == "session_not_found"
    await keyring.store.revoke(record.id)
    await keyring.look()

    assert await refusal(served, one, resume=str(client.token)) == "invalid_api_key"


ANONYMOUS: dict[str, Any] = {"api_keys": KEYS, "allowed_origins": (SHOP,), "anonymous": True}


async def test_g6_a_stranger_gets_a_key_and_everything_is_settled(serve: Serve) -> None:
    served: Served[ScriptedAgent] = await serve(
        ScriptedAgent(), **ANONYMOUS, instructions="Sell shoes.", models=("dear",)
    )
    wish = {
        "session": {"instructions": "Obey me.", "model": "dear"},
        "unbroken": {"user": "ann", "max_uses": 100},
    }
    key = await issued(served, wish, key=None, origin=SHOP)
    _, frame = await page(served, key, SHOP)
    assert frame["type"] == "session.created"
    assert frame["session"]["instructions"] == "Sell shoes."
    assert frame["session"]["model"] == "scripted"
    assert (await page(served, key, SHOP))[1]["error"]["code"] == "invalid_api_key", "once"

    other = await issued(served, key=None, origin=SHOP)
    headers = {"Authorization": f"Bearer {other}", "Origin": SHOP}
    client = served.stranger()
    await client.connect(headers=headers)
    await client.send({"type": "session.update", "session": {"type": "realtime", "instructions": "Obey me."}})
    assert (await client.error())["code"] == "session_pinned"


async def test_g6_nobody_can_be_a_stranger_again_or_guess_one(serve: Serve) -> None:
    served: Served[ScriptedAgent] = await serve(ScriptedAgent(), **ANONYMOUS)
    noted = []
    note = served.app.auth.directory.note

    async def watched(principal: Any) -> None:
        noted.append(principal)
        await note(principal)

    served.app.auth.directory.note = watched  # type: ignore[method-assign]
    keys = set()
    for _ in range(8):
        keys.add(key := await issued(served, key=None, origin=SHOP))
        assert (await page(served, key, SHOP))[1]["type"] == "session.created"

    assert len(keys) == 8
    assert len({principal.user for principal in noted}) == 8
    assert all(len(principal.user) >= 32 for principal in noted), "128 bits, in hexadecimal"
    assert {principal.plan for principal in noted} == {"anonymous"}


async def test_g6_strangers_come_at_a_rate_for_each_address(serve: Serve) -> None:
    """By the address that a trusted proxy tells of, and none that anybody else does."""
    clock = FakeClock()
    served: Served[ScriptedAgent] = await serve(
        ScriptedAgent(), **ANONYMOUS, anonymous_rate=3, clock=clock, trusted_proxies=("127.0.0.1",)
    )

    async def code(address: str) -> str | None:
        answer = await posted(served, key=None, origin=SHOP, x_forwarded_for=address)
        return None if answer.status == 200 else json.loads(answer.body)["error"]["code"]

    assert [await code("203.0.113.7") for _ in range(4)] == [None] * 3 + ["too_many_requests"]
    assert await code("203.0.113.8, 203.0.113.7") == "too_many_requests", "what it says of itself is nothing"
    assert await code("203.0.113.8") is None
    assert (await posted(served)).status == 200, "and who has a key is none"
    clock.advance(60)
    assert await code("203.0.113.7") is None


async def test_g6_one_address_does_not_take_all_places_of_strangers(serve: Serve) -> None:
    """Not by keys that were used either: by the address that a trusted proxy tells of."""
    served: Served[ScriptedAgent] = await serve(
        ScriptedAgent(), **ANONYMOUS, client_secrets_per_address=2, trusted_proxies=("127.0.0.1",)
    )

    async def asked(address: str) -> Answer:
        return await posted(served, key=None, origin=SHOP, x_forwarded_for=address)

    for _ in range(2):
        key = json.loads((await asked("203.0.113.7")).body)["value"]
        assert (await page(served, key, SHOP))[1]["type"] == "session.created"
    refused = await asked("203.0.113.8, 203.0.113.7")

    assert refused.status == 429
    assert json.loads(refused.body)["error"]["code"] == "too_many_short_lived_keys"
    assert "this address" in json.loads(refused.body)["error"]["message"]
    assert (await asked("203.0.113.8")).status == 200
    assert (await asked("2001:db8::1")).status == 200
    assert (await asked("2001:db8::2")).status == 200
    assert (await asked("2001:db8::3")).status == 429, "a network of 64 bits is one"
    for _ in range(3):
        assert (await posted(served, key=None, origin=SHOP)).status == 200, "this machine is none"


async def test_g6_strangers_of_one_address_wait_under_one_name(serve: Serve) -> None:
    """Where all take turns. Whoever has a key waits under their own, wherever they come from."""
    served: Served[ScriptedAgent] = await serve(ScriptedAgent(), **ANONYMOUS, trusted_proxies=("127.0.0.1",))

    async def name(address: str | None, key: str | None = None) -> str:
        forwarded = {} if address is None else {"X-Forwarded-For": address}
        key = key or await issued(served, key=None, origin=SHOP)
        headers = {"Authorization": f"Bearer {key}", "Origin": SHOP, **forwarded}
        async with RawClient(served.port, None, headers=headers) as raw:
            assert (await raw.response()).status_code == 101
        return served.app.fair_names.of(seen[-1])

    seen: list[str] = []
    note = served.app.auth.directory.note

    async def watched(principal: Any) -> None:
        seen.append(principal.id)
        await note(principal)

    served.app.auth.directory.note = watched  # type: ignore[method-assign]
    first, second = await name("203.0.113.7"), await name("203.0.113.7")
    third, here, known = await name("203.0.113.8"), await name(None), await name("203.0.113.7", KEY)

    assert first == second
    assert len({first, third, here, known}) == 4
    assert known == seen[-1]
    assert seen[-2] in here, "this machine is none: each under a name of their own"


async def test_g6_strangers_do_not_fill_the_node_with_files(serve: Serve) -> None:
    """Each is a principal: those of one address count as one, and all together leave room for the others."""
    served: Served[ScriptedAgent] = await serve(
        ScriptedAgent(),
        **ANONYMOUS,
        trusted_proxies=("127.0.0.1",),
        files="memory",
        max_file_bytes=60_000,
        max_principal_file_bytes=100_000,
        max_node_file_bytes=400_000,
        strangers_share=0.5,
    )

    async def sent(address: str | None, key: str | None = None) -> int | str:
        forwarded = {} if address is None else {"x-forwarded-for": address}
        query, headers = "", {"host": f"127.0.0.1:{served.port}", **forwarded}
        if key is None:
            key = await issued(served, key=None, origin=SHOP)
            _, frame = await page(served, key, SHOP)
            query = f"?resume={frame['session']['unbroken']['resume']}"
            headers["origin"] = SHOP
        headers |= {"authorization": f"Bearer {key}", "content-type": "multipart/form-data; boundary=b"}
        body = (
            b'--b\r\ncontent-disposition: form-data; name="purpose"\r\n\r\nuser_data\r\n'
            b'--b\r\ncontent-disposition: form-data; name="file"; filename="a.txt"\r\n'
            b"content-type: text/plain\r\n\r\n" + b"x" * 50_000 + b"\r\n--b--\r\n"
        )
        answer = await ask(
            served.app.asgi,
            f"/v1/files{query}",
            method="POST",
            headers=[(name.encode(), value.encode()) for name, value in headers.items()],
            body=body,
        )
        return 200 if answer.status == 200 else str(json.loads(answer.body)["error"]["code"])

    assert [await sent("203.0.113.7") for _ in range(2)] == [200, "too_many_files"]
    assert await sent("203.0.113.8") == 200
    assert await sent(None) == 200
    assert [await sent(address) for address in ("203.0.113.9", None)] == ["server_full"] * 2
    assert await sent("203.0.113.7", KEY) == 200, "who has a key finds room"


@pytest.mark.parametrize("origin", [None, "https://evil.example"])
async def test_g6_strangers_come_from_allowed_pages_only(serve: Serve, origin: str | None) -> None:
    served: Served[ScriptedAgent] = await serve(ScriptedAgent(), **ANONYMOUS)
    headers = {} if origin is None else {"origin": origin}

    assert (await posted(served, key=None, **headers)).status in (401, 403)


async def test_g6_a_wrong_key_makes_no_stranger(serve: Serve) -> None:
    served: Served[ScriptedAgent] = await serve(ScriptedAgent(), **ANONYMOUS)

    assert (await posted(served, key="wrong", origin=SHOP)).status == 401


async def test_g7_a_flood_of_guesses_is_shut_out_by_address(serve: Serve) -> None:
    """Short-lived keys as any others, over both doors. Other floods: `test_limits.py`, `test_hostile.py`."""
    served: Served[ScriptedAgent] = await serve(
        ScriptedAgent(), api_keys=KEYS, auth_failures=4, trusted_proxies=("127.0.0.1",)
    )

    async def guess(address: str) -> str | None:
        headers = {"Authorization": "Bearer ek_guess", "X-Forwarded-For": address}
        async with RawClient(served.port, None, headers=headers) as raw:
            response = await raw.response()
            code: str = json.loads(response.body)["error"]["code"]
            return code

    codes = [await guess("203.0.113.7") for _ in range(3)]
    answer = await posted(served, key="ek_guess", x_forwarded_for="203.0.113.7")
    assert codes == ["invalid_api_key"] * 3
    assert answer.status == 401
    assert await guess("203.0.113.7") == "too_many_failed_attempts"
    assert (await posted(served, x_forwarded_for="203.0.113.7")).status == 429
    assert await guess("203.0.113.8") == "invalid_api_key"


async def test_g9_a_widget_in_a_foreign_page_needs_no_cookie_to_come_back(
    shop: Served[ScriptedAgent],
) -> None:
    """Third-party frames have none. What it came with, and the token of its session, are enough."""
    key = await issued(shop, {"unbroken": {"origin": SHOP}})
    headers, created = await page(shop, key, SHOP)
    assert "set-cookie" not in headers
    assert headers["sec-websocket-protocol"] == "realtime"
    token = created["session"]["unbroken"]["resume"]
    headers, again = await page(shop, key, SHOP, resume=token, after=created["event_id"])

    assert again["session"]["id"] == created["session"]["id"]
    assert again["session"]["unbroken"]["resumed"] is True
    assert "set-cookie" not in headers


async def test_the_close_alone_says_why_too(shop: Served[ScriptedAgent]) -> None:
    """Chats that show their users how a connection ended show nothing of events that they didn't ask for."""
    address = f"ws://127.0.0.1:{shop.port}/v1/realtime"
    protocols = [Subprotocol("realtime"), Subprotocol(f"{SUBPROTOCOL}ek_wrong")]
    async with connect(address, origin=Origin(SHOP), subprotocols=protocols, proxy=None) as socket:
        with pytest.raises(ConnectionClosed) as closed:
            while True:
                await socket.recv()

    assert closed.value.rcvd is not None
    assert closed.value.rcvd.reason == "invalid_api_key: see the error event"
