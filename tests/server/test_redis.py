"""The server over a real Redis: what it says when it can't start, serve or read."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import orjson
import pytest
import structlog
from redis.exceptions import ConnectionError
from structlog.testing import capture_logs
from websockets.exceptions import InvalidStatus

from tests.fakes.surroundings import free_port
from tests.fakes.tls import TlsProxy, make_certificate
from tests.fakes.valkey import Server
from tests.server.realtime.serving import Served, eventually, serving
from tests.sessions.next_format import FORMAT_2
from unbroken.server import app as application
from unbroken.server.agents.scripted import ScriptedAgent
from unbroken.server.config import StartupError
from unbroken.server.store_selection import build_store
from unbroken.sessions.backends.redis.kinship import Kinship
from unbroken.sessions.format import FORMAT_1

SECRET: Final = 32 * "x"

MISTAKES: Final[dict[str, tuple[tuple[str, ...], str]]] = {
    "a replica": (("REPLICAOF", "127.0.0.1", "1"), "read_only.*This is a replica"),
    "full": (("CONFIG", "SET", "maxmemory", "1"), "out_of_memory.*Raise maxmemory"),
    "a user with too few rights": (
        ("ACL", "SETUSER", "default", "-@scripting"),
        r"not_permitted.*docs/operations\.md",
    ),
    "replicas that are missing": (("CONFIG", "SET", "min-replicas-to-write", "1"), "min-replicas-to-write"),
    "another password": (("CONFIG", "SET", "requirepass", "secret"), "user or the password"),
    "a later format": (
        ("HSET", "unbroken:{nodes}:formats", "w", "2", "l", "1", "h", "2", "e", "1"),
        "in format 1 to 2, and this release reads 1 to 1. .*UNBROKEN_STORE_FORMAT=1",
    ),
}


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    with Server(tmp_path / "data").running() as server:
        yield server


def start(server: Server, **settings: Any) -> Any:
    return serving(ScriptedAgent(), redis_url=server.url, secret=SECRET, **settings)


@pytest.mark.parametrize("mistake", list(MISTAKES))
async def test_what_keeps_it_from_starting_is_one_line_with_what_to_do(server: Server, mistake: str) -> None:
    command, said = MISTAKES[mistake]
    server.command(*command)
    with pytest.raises(StartupError, match=said) as refused:
        async with start(server):
            pass
    assert "\n" not in str(refused.value)


async def test_a_node_with_another_secret_is_not_let_in(server: Server) -> None:
    async with start(server):
        with pytest.raises(StartupError, match="another UNBROKEN_SECRET"):
            async with serving(ScriptedAgent(), redis_url=server.url, secret=32 * "y"):
                pass
        async with serving(ScriptedAgent(), redis_url=server.url, secret=32 * "y", redis_prefix="other"):
            pass
        async with start(server):
            pass
    assert SECRET.encode() not in server.command("GET", "unbroken:{nodes}:secret")


async def test_nodes_with_another_secret_that_got_in_are_told_of(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As when Redis was restarted empty, or failed in the very moment in which a node compared."""

    async def fail(_: Kinship) -> None:
        raise ConnectionError

    def told(served: Served[ScriptedAgent]) -> bool:
        return "unbroken_store_foreign_nodes 1.0" in served.app.metrics.exposition().decode().splitlines()

    async with start(server) as one:
        monkeypatch.setattr(Kinship, "check", fail)
        async with serving(ScriptedAgent(), redis_url=server.url, secret=32 * "y") as two:
            kinships = [one.app._stored.redis, two.app._stored.redis]
            assert not told(one)
            with capture_logs() as logs:
                for _ in range(3):
                    for each in kinships:
                        assert each is not None
                        await each.kinship.look()
            assert told(one)
            assert told(two)
            errors = [log for log in logs if log["log_level"] == "error"]
            assert [log["event"] for log in errors] == 2 * ["foreign nodes in redis"]
            assert "UNBROKEN_SECRET" in errors[0]["hint"]
            assert SECRET not in str(logs)
        for _ in range(5):
            await kinships[0].kinship.look()
        assert not told(one)


async def test_why_redis_can_t_be_reached_is_said(server: Server, tmp_path: Path) -> None:
    port, plain = free_port(), server.port
    proxy = TlsProxy(plain, make_certificate(tmp_path))
    async with proxy:
        for url, why in (
            (f"redis://127.0.0.1:{port}/0", "nothing listens at its address"),
            (f"redis://user:secret@nowhere.invalid:{port}/0", "the name of its host is unknown"),
            (f"rediss://127.0.0.1:{proxy.port}/0", "its certificate isn't trusted"),
            (f"rediss://127.0.0.1:{plain}/0", "no TLS|in time"),
            (f"redis+cluster://127.0.0.1:{plain}/0", "no cluster"),
            (f"redis+cluster://127.0.0.1:{port}", "nothing listens|no cluster"),
            (f"redis://127.0.0.1:{port}/abc", "ends with the number of a database"),
        ):
            with pytest.raises(StartupError, match=why) as raised:
                async with serving(ScriptedAgent(), redis_url=url, secret=SECRET):
                    pass
            assert "secret" not in str(raised.value)


async def test_a_format_that_isn_t_written_is_refused(server: Server) -> None:
    with pytest.raises(StartupError, match="UNBROKEN_STORE_FORMAT=7: this version writes the formats 1 to 1"):
        async with start(server, store_format=7):
            pass


async def test_how_redis_is_stands_in_the_metrics(server: Server) -> None:
    server.command("CONFIG", "SET", "maxmemory", "100mb", "maxmemory-policy", "allkeys-lru")
    async with start(server) as served:
        lines: list[str] = []

        def told(*names: str) -> bool:
            lines[:] = served.app.metrics.exposition().decode().splitlines()
            return all(name in lines for name in names)

        await eventually(lambda: told("unbroken_store_bytes_limit 1.048576e+08", "unbroken_store_evicts 1.0"))
        assert "unbroken_store_format 1.0" in lines
        assert "unbroken_store_bytes 0.0" not in lines
        assert "unbroken_store_evicted_keys 0.0" in lines
        server.kill()
        await eventually(lambda: told("unbroken_store_lost 1.0"))
        await eventually(lambda: any(line.startswith("unbroken_store_failures_total{") for line in lines))
        assert served.app._readiness() == (200, "store out of reach")
        server.start()
        await eventually(lambda: told("unbroken_store_lost 0.0"))


async def test_a_session_of_a_later_release_is_refused_and_left_as_it_is(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        application, "build_store", functools.partial(build_store, newest=FORMAT_2, older=FORMAT_1)
    )
    async with start(server) as later:
        formats = later.app._stored.formats
        formats.agree(2)
        monkeypatch.setattr(formats, "agree", lambda _: None)  # as one that has heard of nothing since
        client = await later.client()
        await client.ask("hello")
        await client.done()
        await client.drop()
    (log,) = [key for key in keys(server) if key.endswith(":l")]
    before = server.command("XRANGE", log, "-", "+")
    assert b'"v":2' in before
    server.command("DEL", "unbroken:{nodes}:formats")
    monkeypatch.undo()

    async with start(server) as old:
        stranger = old.stranger(token=client.token)
        with pytest.raises(InvalidStatus) as refused:
            await stranger.resume()
        assert refused.value.response.status_code == 503
        assert refused.value.response.headers["Retry-After"] == "2"
        error = orjson.loads(refused.value.response.body or b"")["error"]
        assert error["code"] == "session_too_new"
        assert "other nodes go on with it" in error["message"]
        metrics = old.app.metrics.exposition().decode()
        assert 'unbroken_connections_refused_total{code="session_too_new"} 1.0' in metrics
        assert "unbroken_store_unreadable_total 0.0" not in metrics
    assert server.command("XRANGE", log, "-", "+") == before


def keys(server: Server) -> list[str]:
    return [word for word in server.command("KEYS", "*").decode().split("\r\n") if word[:1] not in "$*"]


async def test_a_node_that_the_others_have_left_behind_drains(server: Server) -> None:
    """As one that was cut off for so long that they took it for gone, and went on to the next format."""
    async with start(server) as served:
        client = await served.client()
        server.command("HSET", "unbroken:{nodes}:formats", "w", "2", "l", "1", "h", "2", "e", "9")
        with structlog.testing.capture_logs() as logs:
            await served.app._stored.cluster._beat()
            assert await client.closed() == 1012
        assert [line["event"] for line in logs if line["log_level"] == "error"] == ["format not read"]
        assert served.app._readiness() == (404, "draining")
        await drained(served)


async def drained(served: Served[ScriptedAgent]) -> None:
    await eventually(lambda: served.app.drain.state.status == "drained")


async def test_a_session_without_a_word_goes_on_elsewhere_if_its_client_can_tell_where_it_was(
    server: Server,
) -> None:
    """Nobody but its node knows it. A place at its beginning says that nothing can be missing; without one,
    it may as well be a session that is gone, and an empty one in its stead would hide that.
    """
    async with start(server) as a, start(server) as b:
        client = await a.client("alice")
        token, session_id, place = client.token, client.session_id, client.last_id
        assert token is not None
        assert place is not None
        await client.open(resume=token)
        await client.until("session.created")
        client.port = b.port
        await client.open(resume=token)
        assert (await client.error())["code"] == "session_not_found"
        assert await client.closed() == 1008

        created = await client.resume(after=place)
        assert created["session"]["id"] == session_id
        await client.ask("hello")
        assert (await client.done())["status"] == "completed"


async def test_who_comes_back_to_where_its_session_was_empty_sees_its_answer_go_on(server: Server) -> None:
    """Within a minute that node still has it as it was, and by itself doesn't hear of the other."""
    async with start(server) as a, start(server) as b:
        client = await a.client("alice")
        client.port = b.port
        created = await client.resume()
        assert created["session"]["unbroken"]["resumed"] is True
        await client.ask("/tokens 40 20")
        await client.until("response.output_text.delta")

        client.port = a.port
        created = await client.resume()
        assert created["session"]["unbroken"]["resumed"] is True
        assert (await client.done())["status"] == "completed"
        await client.drop()
        await a.no_connections()


async def test_a_tab_that_waits_on_another_node_is_sent_back_at_the_first_word(server: Server) -> None:
    async with start(server) as a, start(server) as b:
        client, tab = await a.client("alice"), await b.client("alice")
        tab.token, tab.last_id = client.token, client.last_id
        await tab.resume()
        assert tab.session_id == client.session_id
        await client.ask("hello")
        await client.done()

        assert await tab.closed() == 1013
        created = await tab.resume()
        assert created["session"]["unbroken"]["resumed"] is True
        assert (await tab.done())["status"] == "completed"
        await client.drop()
        await a.no_connections()
