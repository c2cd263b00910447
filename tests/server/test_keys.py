"""API keys as an operator has them: with the command, and over the admin listener."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from tests.fakes.asking import ask
from tests.fakes.surroundings import neutral_environment
from tests.server.conftest import Serve
from tests.server.realtime.serving import Served
from tests.server.test_admin import KEY, Answer
from unbroken.server import cli, logs
from unbroken.server.agents.scripted import ScriptedAgent
from unbroken.server.auth.key_file import FileKeyStore
from unbroken.server.auth.keys import digest_of
from unbroken.server.transports import body as bodies
from unbroken.sessions.errors import StoreUnavailable

ADMIN: dict[str, Any] = {"admin_key": KEY, "key_store": "memory"}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory whose settings name a file of keys, and no others."""
    monkeypatch.chdir(tmp_path)
    for name in os.environ.keys() - neutral_environment().keys():
        monkeypatch.delenv(name)
    monkeypatch.setattr(logs, "configure_logs", lambda *_, **__: None)  # it is the process's
    (tmp_path / "unbroken.toml").write_text('key_store = "file"\nkey_file = "keys.json"\n')
    return tmp_path


def run(*arguments: str) -> int:
    with pytest.raises(SystemExit) as left:
        cli.main(["keys", *arguments])
    assert isinstance(left.value.code, int)
    return left.value.code


def test_a_key_is_made_listed_and_revoked(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    who = ["--tenant", "acme", "--user", "ann", "--plan", "pro"]
    options = [*who, "--scope", "realtime", "--scope", "files", "--expires-in", "3600"]
    assert run("create", "ci", *options) == 0
    made = capsys.readouterr()
    key = made.out.strip()
    assert re.fullmatch(r"ub_[\w-]{43}", key)
    (key_id,) = set(re.findall(r"key_[0-9a-f]{16}", made.err))
    assert run("list") == 0
    heading, row = capsys.readouterr().out.splitlines()
    assert heading.split()[:6] == ["ID", "NAME", "TENANT", "USER", "PLAN", "SCOPES"]
    assert row.split()[:6] == [key_id, "ci", "acme", "ann", "pro", "files,realtime"]
    assert row.split()[-1] == "never", "it was not used"
    kept = (folder / "keys.json").read_text()
    assert key not in kept
    assert digest_of(key).hex() in kept

    assert run("revoke", key_id) == 0
    assert run("list") == 0
    assert len(capsys.readouterr().out.splitlines()) == 2, "what it said of revoking, and a heading"
    assert run("revoke", key_id) == 1
    assert "There is no key" in capsys.readouterr().err


LOGGING = """
import structlog
from unbroken.server import cli, keys_command

key_store = keys_command.key_store

def noting(*args):
    structlog.get_logger("unbroken.test").warning("noted")
    return key_store(*args)

keys_command.key_store = noting
cli.main(["keys", "create", "ci"])
"""


@pytest.mark.usefixtures("folder")
def test_nothing_but_the_key_is_on_standard_output() -> None:
    """Scripts read it from there; what is logged on the way to the store stands elsewhere."""
    made = subprocess.run([sys.executable, "-c", LOGGING], capture_output=True, text=True, check=True)
    assert re.fullmatch(r"ub_[\w-]{43}\n", made.stdout)
    assert "noted" in made.stderr


def test_a_key_on_a_plan_that_no_table_knows_is_made_and_that_is_said(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with (folder / "unbroken.toml").open("a") as file:
        file.write("[quotas.pro]\nturns = 2\n")
    said = {}
    for plan in ("por", "pro", "default"):
        assert run("create", "ci", "--plan", plan) == 0
        said[plan] = "row for the plan" in capsys.readouterr().err

    assert said == {"por": True, "pro": False, "default": False}


@pytest.mark.parametrize(
    "arguments",
    [
        ["create"],
        ["create", "no spaces"],
        ["create", "ci", "--scope", "everything"],
        ["create", "ci", "--expires-in", "soon"],
        ["create", "ci", "--expires-in", "0"],
        ["create", "ci", "--tenant", "a b"],
        ["create", "ci", "--tenant", "strangers"],
        ["create", "ci", "--user", ""],
        ["revoke"],
    ],
)
def test_what_can_not_be_is_one_line(
    folder: Path, arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(*arguments) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert len(captured.err.splitlines()) == 1
    assert not (folder / "keys.json").exists()


def test_without_a_store_it_is_said_what_to_set(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for kind in ("none", "memory"):
        (folder / "unbroken.toml").write_text(f'key_store = "{kind}"\n')
        assert run("list") == 1
        assert "UNBROKEN_KEY_STORE" in capsys.readouterr().err


def test_a_file_that_can_not_be_read_is_one_line(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "keys.json").write_text("?")
    assert run("create", "ci") == 1
    assert "keys.json, can't be used" in capsys.readouterr().err


def test_a_redis_that_is_not_there_is_one_line(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "unbroken.toml").write_text(
        f'key_store = "redis"\nredis_url = "redis://127.0.0.1:1/0"\nsecret = "{"s" * 32}"\n'
    )
    assert run("list") == 1
    assert "Redis can't be reached" in capsys.readouterr().err


async def test_what_the_command_makes_the_running_server_takes(serve: Serve, tmp_path: Path) -> None:
    from unbroken.server.auth.key_store import new_key

    path = tmp_path / "keys.json"
    served: Served[ScriptedAgent] = await serve(ScriptedAgent(), key_store="file", key_file=path)
    key, record = new_key("ci", now=1.0)
    await FileKeyStore(path).add(record)
    client = await served.client(key)
    await FileKeyStore(path).revoke(record.id)

    assert await client.closed() == 1008
    assert client.errors() == ["credential_revoked"]


# Over the admin listener.


async def asked(
    served: Served[Any], method: str, path: str, body: object = None, *, key: str = KEY
) -> Answer:
    answer = await ask(
        served.app.admin_asgi,
        path,
        method=method,
        headers=[(b"authorization", f"Bearer {key}".encode())],
        body=b"" if body is None else body if isinstance(body, bytes) else json.dumps(body).encode(),
    )
    is_json = answer.headers.get("content-type") == "application/json"
    return Answer(answer.status, json.loads(answer.body) if is_json else {}, answer.headers)


async def test_an_operator_makes_looks_at_and_revokes_keys(serve: Serve) -> None:
    served: Served[ScriptedAgent] = await serve(ScriptedAgent(), **ADMIN)
    wish = {
        "name": "ci",
        "tenant": "acme",
        "user": "ann",
        "plan": "pro",
        "scopes": ["realtime"],
        "expires_in": 60,
    }
    with capture_logs() as logs:
        made = await asked(served, "POST", "/admin/keys", wish)
        key = made.body["key"]
        client = await served.client(key)
        listed = await asked(served, "GET", "/admin/keys")
        revoked = await asked(served, "DELETE", f"/admin/keys/{made.body['id']}")

    assert made.status == 201
    (shown,) = listed.body["data"]
    assert "key" not in shown
    assert "digest" not in shown
    assert {name: shown[name] for name in ("name", "tenant", "user", "plan", "scopes")} == {
        name: wish[name] for name in ("name", "tenant", "user", "plan", "scopes")
    }
    assert shown["expires_at"] == shown["created_at"] + 60
    assert (revoked.status, revoked.body["deleted"]) == (200, True)
    assert await client.closed() == 1008
    assert key not in str(logs)
    gone = await asked(served, "DELETE", f"/admin/keys/{made.body['id']}")
    assert (gone.status, gone.body["error"]["code"]) == (404, "key_not_found")


async def test_a_key_is_revoked_though_this_node_can_not_look_at_once(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An operator who is told that it failed would ask again, and hear that there is no such key."""
    served: Served[ScriptedAgent] = await serve(ScriptedAgent(), **ADMIN)
    made = await asked(served, "POST", "/admin/keys", {"name": "ci"})
    client = await served.client(made.body["key"])
    keyring = served.app.auth.keyring
    assert keyring is not None
    with monkeypatch.context() as patched:
        patched.setattr(keyring.store, "version", gone)
        revoked = await asked(served, "DELETE", f"/admin/keys/{made.body['id']}")

    assert (revoked.status, revoked.body["deleted"]) == (200, True)
    assert await client.closed() == 1008, "as soon as it can look again"


async def gone() -> str:
    raise StoreUnavailable("gone")


@pytest.mark.parametrize(
    ("body", "param"),
    [
        (b"", None),
        (b"[]", None),
        (b"\xff", None),
        ({}, None),
        ({"name": "ci", "unknown": 1}, None),
        ({"name": "a b"}, "name"),
        ({"name": "ci", "tenant": ""}, "tenant"),
        ({"name": "ci", "tenant": "strangers"}, "tenant"),
        ({"name": "ci", "plan": "x" * 65}, "plan"),
        ({"name": "ci", "user": "a\0"}, "user"),
        ({"name": "ci", "scopes": []}, "scopes"),
        ({"name": "ci", "scopes": ["root"]}, "scopes"),
        ({"name": "ci", "expires_in": -1}, "expires_in"),
    ],
)
async def test_a_wish_that_makes_no_sense_is_refused(serve: Serve, body: object, param: str | None) -> None:
    served: Served[ScriptedAgent] = await serve(ScriptedAgent(), **ADMIN)
    answer = await asked(served, "POST", "/admin/keys", body)

    assert (answer.status, answer.body["error"]["code"]) == (400, "invalid_request")
    assert answer.body["error"]["param"] == param
    assert (await asked(served, "GET", "/admin/keys")).body["data"] == []


async def test_a_wish_is_bounded(serve: Serve) -> None:
    served: Served[ScriptedAgent] = await serve(ScriptedAgent(), **ADMIN)

    assert (await asked(served, "POST", "/admin/keys", b"x" * 20_000)).status == 413


async def test_a_wish_that_does_not_come_is_given_up(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    served: Served[ScriptedAgent] = await serve(ScriptedAgent(), **ADMIN)
    monkeypatch.setattr(bodies, "TIMEOUT", 0.01)
    headers = [(b"authorization", b"Bearer " + KEY.encode())]
    answer = await ask(served.app.admin_asgi, "/admin/keys", method="POST", headers=headers, body=None)
    assert (answer.status, json.loads(answer.body)["error"]["code"]) == (408, "body_stalled")


async def test_only_the_operator_has_keys(serve: Serve) -> None:
    served: Served[ScriptedAgent] = await serve(ScriptedAgent(), **ADMIN)
    for method, path in (("GET", "/admin/keys"), ("POST", "/admin/keys"), ("DELETE", "/admin/keys/key_1")):
        assert (await asked(served, method, path, key="wrong")).status == 401
    bare: Served[ScriptedAgent] = await serve(ScriptedAgent(), admin_key=KEY)
    assert (await asked(bare, "GET", "/admin/keys")).status == 404, "where none come and go"


async def test_a_store_that_can_not_be_used_is_a_503(serve: Serve, tmp_path: Path) -> None:
    path = tmp_path / "keys.json"
    served: Served[ScriptedAgent] = await serve(
        ScriptedAgent(), admin_key=KEY, key_store="file", key_file=path
    )
    path.write_text("?")
    answer = await asked(served, "GET", "/admin/keys")

    assert (answer.status, answer.body["error"]["code"]) == (503, "keys_unavailable")


async def test_a_key_may_do_what_its_scopes_say(serve: Serve) -> None:
    served: Served[ScriptedAgent] = await serve(ScriptedAgent(), **ADMIN)
    keys = {}
    for scope in ("realtime", "files", "client_secrets"):
        made = await asked(served, "POST", "/admin/keys", {"name": "ci", "scopes": [scope]})
        keys[scope] = made.body["key"]
    host = (b"host", f"127.0.0.1:{served.port}".encode())

    async def status(path: str, method: str, scope: str) -> int:
        headers = [host, (b"authorization", f"Bearer {keys[scope]}".encode())]
        return (await ask(served.app.asgi, path, method=method, headers=headers)).status

    from tests.server.realtime.test_client_secrets import refusal

    told = {scope: await refusal(served, key) for scope, key in keys.items()}
    assert told == {"realtime": None, "files": "insufficient_scope", "client_secrets": "insufficient_scope"}
    assert [await status("/v1/files", "GET", scope) for scope in keys] == [403, 200, 403]
    assert [await status("/v1/realtime/client_secrets", "POST", scope) for scope in keys] == [403, 403, 200]
