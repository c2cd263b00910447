"""Draining by request: over the admin listener, and with the command that asks it."""

from __future__ import annotations

import http.server
import json
import os
import subprocess
import sys
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import pytest
from pydantic import SecretStr
from structlog.testing import capture_logs
from websockets.exceptions import InvalidStatus

from tests.fakes.asking import ask
from tests.fakes.clock import FakeClock
from tests.fakes.surroundings import free_port
from tests.server.conftest import Serve
from tests.server.realtime.agent import ManualAgent
from tests.server.realtime.serving import Served, eventually
from tests.server.test_process import HANG, real_server
from tests.sessions.conversation import limits_of, settle
from tests.sessions.town import distant, open_town
from unbroken.server import drain_command
from unbroken.server.config import Settings
from unbroken.server.drain import Drain
from unbroken.server.drain_command import DrainFailed, ask_to_drain
from unbroken.server.transports.refusal import error_type
from unbroken.sessions.replica import ActorLimits
from unbroken.sessions.run import RunLimits

KEY = "k" * 32


@dataclass(frozen=True)
class Answer:
    status: int
    body: dict[str, Any]
    headers: dict[str, str]


class Operator:
    """Speaks to a server's admin listener."""

    def __init__(self, served: Served[Any], authorization: bytes | None = b"Bearer " + KEY.encode()) -> None:
        self._asgi = served.app.admin_asgi
        self._headers = [] if authorization is None else [(b"authorization", authorization)]

    async def ask(self, method: str, path: str = "/admin/drain", *, client: str = "127.0.0.1") -> Answer:
        answer = await ask(self._asgi, path, method=method, headers=self._headers, client=client)
        is_json = answer.headers.get("content-type") == "application/json"
        return Answer(answer.status, json.loads(answer.body) if is_json else {}, answer.headers)


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/admin/usage?tenat=x"),
        ("GET", "/admin/usage?tenant=x&limits=5"),
        ("DELETE", "/admin/cache?tenat=x"),
        ("GET", "/admin/keys?tenant=x"),
        ("POST", "/admin/drain?wait=5"),
    ],
)
async def test_a_field_that_there_is_not_is_refused(serve: Serve, method: str, path: str) -> None:
    """Left out of account, it would be answered with another tenant's figures, or forget everything."""
    served: Served[ManualAgent] = await serve(
        ManualAgent(), admin_key=KEY, key_store="memory", cache="on", quotas={"default": {"turns": 2}}
    )
    answer = await Operator(served).ask(method, path)
    assert (answer.status, answer.body["error"]["code"]) == (400, "invalid_query")
    assert not served.app.node.is_draining


@pytest.mark.parametrize("query", ["tenant=", "tenant=acme&user="])
async def test_whose_usage_is_asked_for_is_named_or_left_out(serve: Serve, query: str) -> None:
    served: Served[ManualAgent] = await serve(ManualAgent(), admin_key=KEY, quotas={"default": {"turns": 2}})
    answer = await Operator(served).ask("GET", f"/admin/usage?{query}")
    assert (answer.status, answer.body["error"]["code"]) == (400, "invalid_request")


@pytest.mark.parametrize(
    ("status", "expected"),
    [
        (400, "invalid_request_error"),
        (401, "invalid_request_error"),
        (429, "rate_limit_error"),
        (500, "server_error"),
        (503, "server_error"),
    ],
)
def test_the_kind_of_an_error_is_that_of_its_status(status: int, expected: str) -> None:
    """As OpenAI has it. A store that is out of reach was called the operator's mistake."""
    assert error_type(status) == expected


@pytest.mark.parametrize("path", ["/v1/usage?limt=5", "/v1/files?limt=5"])
async def test_a_field_that_there_is_not_is_refused_to_clients_too(serve: Serve, path: str) -> None:
    served: Served[ManualAgent] = await serve(ManualAgent(), quotas={"default": {"turns": 2}})
    host = f"127.0.0.1:{served.port}".encode()
    headers = [(b"authorization", b"Bearer alice"), (b"host", host)]
    answer = await ask(served.app.asgi, path, headers=headers)
    assert (answer.status, json.loads(answer.body)["error"]["code"]) == (400, "invalid_query")
    known = await ask(served.app.asgi, path.replace("limt", "limit"), headers=headers)
    assert known.status == 200


async def test_without_a_key_there_is_nothing_to_ask(serve: Serve) -> None:
    served: Served[ManualAgent] = await serve(ManualAgent())
    operator = Operator(served)
    for method in ("GET", "POST", "DELETE"):
        assert (await operator.ask(method)).status == 404


@pytest.mark.parametrize(
    "given",
    [
        None,
        "",
        "Bearer",
        "Bearer wrong",
        f"Basic {KEY}",
        KEY,
        f"Bearer {KEY}k",
        f"Bearer {KEY[:-1]}",
        "Bearer " + "\udcff" * 32,
    ],
)
async def test_who_hasn_t_the_key_gets_nothing(serve: Serve, given: str | None) -> None:
    served: Served[ManualAgent] = await serve(ManualAgent(), admin_key=KEY)
    operator = Operator(served, None if given is None else given.encode("utf-8", "surrogateescape"))
    with capture_logs() as logs:
        answers = [await operator.ask(method) for method in ("GET", "POST", "DELETE")]

    assert [answer.status for answer in answers] == [401] * 3
    assert answers[0].body["error"]["code"] == "invalid_admin_key"
    assert answers[0].headers["www-authenticate"] == "Bearer"
    assert not served.app.node.is_draining
    assert [entry["event"] for entry in logs] == ["admin key refused"] * 3
    assert "wrong" not in str(logs)


async def test_nobody_tries_keys_for_long(serve: Serve) -> None:
    """Neither is the right one taken then, or they could: but from elsewhere, this machine for one."""
    clock = FakeClock()
    served: Served[ManualAgent] = await serve(ManualAgent(), admin_key=KEY, auth_failures=6, clock=clock)
    wrong, right = Operator(served, b"Bearer wrong"), Operator(served)
    stranger = "203.0.113.7"
    assert (await right.ask("GET", client=stranger)).status == 200
    for method in ("GET", "POST", "DELETE") * 2:
        assert (await wrong.ask(method, client=stranger)).status == 401
    answers = [await operator.ask("GET", client=stranger) for operator in (wrong, right)]
    assert [answer.status for answer in answers] == [429] * 2
    assert answers[0].body["error"]["code"] == "too_many_failed_attempts"
    for elsewhere in ("203.0.113.8", "127.0.0.1"):
        assert (await right.ask("GET", client=elsewhere)).status == 200
    for _ in range(20):
        assert (await wrong.ask("GET")).status == 401
    assert (await right.ask("GET")).status == 200
    clock.advance(int(answers[0].headers["retry-after"]))

    assert (await right.ask("GET", client=stranger)).status == 200
    assert " 0 failures" in repr(served.app.admission), "those of clients are counted apart"


async def test_a_client_s_key_is_not_the_operator_s(serve: Serve) -> None:
    digest = "2bd806c97f0e00af1a1fc3328fa763a9269723c8db8fac4f93af71db186d6e90"  # of "alice"
    served: Served[ManualAgent] = await serve(ManualAgent(), admin_key=KEY, api_keys=(f"alice:{digest}",))
    await served.client("alice")
    assert (await Operator(served, b"Bearer alice").ask("POST")).status == 401


async def test_a_drain_ends_what_there_is_and_the_process_goes_on(serve: Serve) -> None:
    served: Served[ManualAgent] = await serve(ManualAgent(), admin_key=KEY)
    client, idle = await served.client(), await served.client()
    await client.ask("go")
    turn = await served.agent.turn()
    turn.say("one ")
    await client.said("one ")
    operator = Operator(served)
    assert (await operator.ask("GET")).body["status"] == "serving"
    begun = await operator.ask("POST")
    assert (begun.status, begun.body["status"], begun.body["responses"]) == (202, "draining", 1)
    assert await idle.closed() == 1012
    again = await operator.ask("POST")
    assert (again.status, again.body["status"]) == (202, "draining")
    with pytest.raises(InvalidStatus) as refused:
        await served.client()
    turn.say("two")
    turn.end()
    assert await client.closed() == 1012
    await eventually(lambda: served.app.drain.state.status == "drained")
    ended = await operator.ask("POST")
    readiness = await operator.ask("GET", "/readyz")

    assert refused.value.response.status_code == 503
    assert client.answers() == [("completed", "one two")]
    assert (ended.status, ended.body["status"], ended.body["connections"]) == (200, "drained", 0)
    assert (readiness.status, readiness.body) == (404, {"status": "draining"})


async def test_a_response_that_takes_too_long_is_interrupted(serve: Serve) -> None:
    served: Served[ManualAgent] = await serve(ManualAgent(), admin_key=KEY, drain_timeout=0)
    client = await served.client()
    await client.ask("go")
    (await served.agent.turn()).say("one ")
    await client.said("one ")
    operator = Operator(served)
    await operator.ask("POST")
    assert await client.closed() == 1012
    await eventually(lambda: served.app.drain.state.status == "drained")
    assert (await operator.ask("GET")).body["status"] == "drained"

    assert client.answers() == [("failed", "one ")]


async def test_a_drain_that_is_taken_back_lets_everybody_in_again(serve: Serve) -> None:
    """What runs goes on, also beyond the deadline that it would have had."""
    served: Served[ManualAgent] = await serve(ManualAgent(), admin_key=KEY)
    client, idle = await served.client(), await served.client()
    await client.ask("go")
    turn = await served.agent.turn()
    turn.say("one ")
    await client.said("one ")
    operator = Operator(served)
    await operator.ask("POST")
    assert await idle.closed() == 1012
    taken_back = await operator.ask("DELETE")
    assert (taken_back.status, taken_back.body["status"]) == (200, "serving")
    assert (await operator.ask("GET", "/readyz")).status == 200
    assert (await operator.ask("DELETE")).body["status"] == "serving"
    newcomer = await served.client()
    await newcomer.ask("me too")
    second = await served.agent.turn(1)
    for each in (turn, second):
        each.say("two")
        each.end()
    await client.done()
    await newcomer.done()

    assert client.answers() == [("completed", "one two")]
    assert newcomer.answers() == [("completed", "two")]
    assert not served.app.node.is_draining


async def test_a_process_that_ends_takes_nothing_back(serve: Serve) -> None:
    served: Served[ManualAgent] = await serve(ManualAgent(), admin_key=KEY)
    operator = Operator(served)
    await operator.ask("POST")
    served.app.begin_drain()
    answer = await operator.ask("DELETE")

    assert (answer.status, answer.body["error"]["code"]) == (409, "server_stopping")
    assert served.app.node.is_draining


async def test_no_task_outlives_the_server(serve: Serve) -> None:
    """It checks that itself, at its end, with a drain that waits."""
    served: Served[ManualAgent] = await serve(ManualAgent(), admin_key=KEY)
    client = await served.client()
    await client.ask("go")
    await served.agent.turn()
    operator = Operator(served)
    await operator.ask("POST")
    await eventually(lambda: served.app.node.is_draining)


async def test_what_a_drain_could_not_give_up_by_its_deadline_is_given_up_when_the_store_is_back() -> None:
    limits = limits_of(actor=ActorLimits(run=RunLimits(stop_timeout=0.01)))
    async with open_town(seed=7, limits=limits) as town:
        one, two = town.worlds
        client = await one.client()
        await client.say("hi")
        await settle()
        client.disconnect()
        distant(one).is_out = True
        drain = Drain(one.node, timeout=0.01)
        with capture_logs() as logs:
            drain.begin()
            await eventually(lambda: bool(logs) and logs[-1]["event"] == "drain met its deadline")
        assert drain.state.status == "draining"
        await town.store_is_back()

        assert (drain.state.status, drain.state.sessions) == ("drained", 0)
        client.world = two
        await client.resume()
        await settle()
        assert town.owner_of(client) is two.node
        await drain.stop()


async def test_the_end_of_the_process_takes_a_drain_over(serve: Serve) -> None:
    """Its deadline is the one that counts, and one alone waits for the node."""
    served: Served[ManualAgent] = await serve(ManualAgent(), admin_key=KEY, drain_timeout=3600)
    client = await served.client()
    await client.ask("go")
    (await served.agent.turn()).say("one ")
    await client.said("one ")
    operator = Operator(served)
    await operator.ask("POST")
    served.app.begin_drain()
    with capture_logs() as logs:
        await served.app.drained(0.01)

    assert await client.closed() == 1012
    assert client.answers() == [("failed", "one ")]
    assert "drained" not in [entry["event"] for entry in logs]


async def test_wrong_keys_don_t_fill_the_log(serve: Serve) -> None:
    served: Served[ManualAgent] = await serve(ManualAgent(), admin_key=KEY)
    operator = Operator(served, b"Bearer wrong")
    with capture_logs() as logs:
        answers = [await operator.ask("POST") for _ in range(50)]

    assert {answer.status for answer in answers} == {401}
    assert len(logs) == 10


# The command.


class Elsewhere(http.server.BaseHTTPRequestHandler):
    """Sends everybody to another address, and notes who comes there."""

    came: ClassVar[list[str]] = []

    def do_POST(self) -> None:
        self.send_response(302)
        port = self.headers["Host"].partition(":")[2]
        self.send_header("Location", f"http://localhost:{port}/elsewhere")
        self.end_headers()

    def do_GET(self) -> None:
        self.came.append(self.path)
        self.send_response(404)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


def test_the_command_takes_the_key_nowhere_else() -> None:
    with http.server.HTTPServer(("127.0.0.1", 0), Elsewhere) as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        url = f"http://127.0.0.1:{server.server_port}"
        with pytest.raises(DrainFailed, match="HTTP status 302"):
            list(ask_to_drain(Settings(admin_key=SecretStr(KEY)), url=url, wait=None, undo=False))
        server.shutdown()

    assert Elsewhere.came == []


def test_the_command_says_what_is_missing() -> None:
    with pytest.raises(DrainFailed, match="Set UNBROKEN_ADMIN_KEY, here as there"):
        list(ask_to_drain(Settings(), url=None, wait=None, undo=False))
    with pytest.raises(DrainFailed, match=r"no admin listener\. Send it SIGTERM"):
        list(ask_to_drain(Settings(admin_key=SecretStr(KEY), admin_port=0), url=None, wait=None, undo=False))
    with pytest.raises(DrainFailed, match="is no address"):
        list(
            ask_to_drain(Settings(admin_key=SecretStr(KEY)), url="file:///etc/passwd", wait=None, undo=False)
        )
    nobody = f"http://127.0.0.1:{free_port()}"
    with pytest.raises(DrainFailed, match="No server answers"):
        list(ask_to_drain(Settings(admin_key=SecretStr(KEY)), url=nobody, wait=None, undo=False))


class Serving(http.server.BaseHTTPRequestHandler):
    """Is asked, and notes what for."""

    asked: ClassVar[list[str]] = []

    def do_POST(self) -> None:
        self.asked.append(self.path)
        body = json.dumps({"status": "drained", "connections": 0, "responses": 0, "sessions": 0}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


def test_the_command_asks_all_workers_also_when_one_is_away() -> None:
    with http.server.HTTPServer(("127.0.0.1", 0), Serving) as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        settings = Settings(
            admin_key=SecretStr(KEY),
            admin_port=server.server_port - 1,
            workers=2,
            redis_url=SecretStr("redis://127.0.0.1"),
            secret=SecretStr("s" * 32),
        )
        with pytest.raises(DrainFailed, match="No server answers"):
            list(ask_to_drain(settings, url=None, wait=None, undo=False))
        server.shutdown()

    assert Serving.asked == ["/admin/drain"]


@pytest.mark.slow
def test_the_command_drains_a_real_server_and_takes_it_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(drain_command, "_INTERVAL", 0.01)
    port = free_port()
    environment = {
        "UNBROKEN_AGENT": "scripted",
        "UNBROKEN_ADMIN_KEY": KEY,
        "UNBROKEN_ADMIN_PORT": str(port),
        "UNBROKEN_DRAIN_TIMEOUT": "0",
    }

    def ask(*arguments: str, **others: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "unbroken", "drain", *arguments],
            cwd=tmp_path,
            env={"PATH": os.environ["PATH"], **environment, **others},
            capture_output=True,
            text=True,
            timeout=HANG,
            check=False,
        )

    with real_server(tmp_path, **environment) as running:
        refused = ask(UNBROKEN_ADMIN_KEY="x" * 32)
        assert (refused.returncode, refused.stdout) == (1, "")
        assert "must be the same here and there" in refused.stderr
        assert running.get("/readyz")[0] == 200
        drained = ask()
        assert drained.returncode == 0, drained.stderr
        assert drained.stdout.splitlines()[-1] == "drained: 0 connections, 0 responses, 0 sessions"
        assert running.get("/readyz")[0] == 404
        back = ask("--undo")
        assert (back.returncode, back.stdout) == (0, "serving: 0 connections, 0 responses, 0 sessions\n")
        assert running.get("/readyz")[0] == 200
        ask("--wait", "0")
        running.terminate()
        assert running.wait(HANG) == 0
        assert running.process.stderr is not None
        logged = [json.loads(line) for line in running.process.stderr.read().splitlines()]

    assert "admin key refused" in [line["event"] for line in logged]
    assert KEY not in str(logged)
