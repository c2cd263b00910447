"""The command: what it prints, where, and its exit codes."""

from __future__ import annotations

import gc
import hashlib
import os
import re
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from tests.fakes.surroundings import neutral_environment
from unbroken import __version__
from unbroken.server import cli, logs, process
from unbroken.server.config import Settings, StartupError

REPOSITORY = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """No settings but a test's own, and logging and the interpreter left alone."""
    monkeypatch.chdir(tmp_path)
    for name in os.environ.keys() - neutral_environment().keys():
        monkeypatch.delenv(name)
    monkeypatch.setattr(logs, "configure_logs", lambda *_, **__: None)
    before = gc.get_threshold()
    yield
    gc.set_threshold(*before)


def run(*arguments: str) -> int:
    with pytest.raises(SystemExit) as left:
        cli.main(arguments)
    assert isinstance(left.value.code, int)
    return left.value.code


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("--version") == 0
    assert capsys.readouterr().out == f"unbroken {__version__}\n"


@pytest.mark.parametrize("arguments", [[], ["--help"]])
def test_help(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert run(*arguments) == 0
    out = capsys.readouterr().out
    assert all(command in out for command in ("serve", "check-config", "new-key"))


@pytest.mark.parametrize(
    "arguments",
    [["serve", "--colour"], ["server"], ["new-key"], ["new-key", "no spaces"], ["serve", "extra"]],
)
def test_a_wrong_command_is_one_line(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert run(*arguments) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert re.fullmatch(r"unbroken: .+\n", captured.err)


def test_check_config_shows_values_and_origins(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "my.toml").write_text('model = "mine"')
    (tmp_path / ".env").write_text("UNBROKEN_OPENAI_API_KEY=sk-hunter2")
    monkeypatch.setenv("UNBROKEN_MAX_FRAME_BYTES", "128KiB")

    assert run("check-config", "--port", "8100", "--config", "my.toml") == 0

    captured = capsys.readouterr()
    rows = {row[0]: row[1:] for row in (re.split(r"\s{2,}", line) for line in captured.out.splitlines())}
    assert set(rows) == set(Settings.model_fields)
    assert rows["port"] == ["8100", "flag"]
    assert rows["max_frame_bytes"] == ["128KiB", "environment"]
    assert rows["openai_api_key"] == ["********", ".env"]
    assert rows["model"] == ["mine", "file my.toml"]
    assert rows["host"] == ["127.0.0.1", "default"]
    assert "hunter2" not in captured.out + captured.err


@pytest.mark.parametrize("command", ["check-config", "serve"])
def test_settings_that_are_wrong_are_a_line_each(
    command: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("UNBROKEN_PRT", "1")

    assert run(command, "--port", "http", "--agent", "magic") == 2

    captured = capsys.readouterr()
    assert (captured.out == "") is (command == "serve")
    assert captured.err.splitlines() == [
        "unbroken: UNBROKEN_PRT is not a setting. Did you mean UNBROKEN_PORT?",
        "unbroken: --port should be a valid integer (it is 'http').",
        "unbroken: --agent should be 'embedded', 'openai', 'python' or 'scripted' (it is 'magic').",
    ]


def test_check_config_lists_all_settings_also_when_one_is_wrong(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As the message about an unknown name says."""
    monkeypatch.setenv("UNBROKEN_WHATEVER", "1")

    assert run("check-config", "--port", "http", "--model", "mine") == 2

    captured = capsys.readouterr()
    assert "`unbroken check-config` lists all settings" in captured.err
    rows = {row[0]: row[1:] for row in (re.split(r"\s{2,}", line) for line in captured.out.splitlines())}
    assert set(rows) == set(Settings.model_fields)
    assert rows["model"] == ["mine", "flag"]
    assert rows["port"] == ["8000", "default"]


def test_check_config_prints_the_values_of_the_settings_that_are_named(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    (tmp_path / "unbroken.toml").write_text('agent = "scripted"')

    assert run("check-config", "agent", "fallbacks") == 0
    assert capsys.readouterr() == ("scripted\nnot set\n", "")
    assert run("check-config", "agnt") == 2


def test_a_rule_of_the_firewall_that_nobody_knows_is_hinted_at(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("UNBROKEN_FIREWALL_RULES_OFF", "role-line, overide-previous")

    assert run("check-config", "--agent", "scripted") == 0

    (hint,) = capsys.readouterr().err.splitlines()
    assert "UNBROKEN_FIREWALL_RULES_OFF has 'overide-previous'" in hint
    assert hint.endswith("Did you mean override-previous?")


def test_a_function_of_ones_own_that_is_not_asked_is_hinted_at(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("UNBROKEN_PYTHON_AGENT", "mine:answer")
    hint = "UNBROKEN_PYTHON_AGENT does nothing, as the agent is scripted. Set UNBROKEN_AGENT to python"

    assert run("check-config", "--agent", "scripted") == 0
    assert hint in capsys.readouterr().err

    monkeypatch.setattr(process, "run", lambda *_: 0)
    with capture_logs() as lines:
        assert run("serve", "--agent", "scripted") == 0
        assert run("serve", "--agent", "python") == 0
    assert [(line["log_level"], line["hint"].startswith(hint)) for line in lines] == [("warning", True)]


def test_a_folder_that_no_files_lie_in_is_hinted_at(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("UNBROKEN_FILES_DIR", "/srv/files")
    hint = "UNBROKEN_FILES_DIR does nothing, as files are off. Set UNBROKEN_FILES to disk"

    assert run("check-config") == 0
    assert hint not in capsys.readouterr().err
    monkeypatch.setenv("UNBROKEN_FILES", "off")
    assert run("check-config") == 0
    assert hint in capsys.readouterr().err


def test_an_admin_key_that_nothing_asks_for_is_hinted_at(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("UNBROKEN_ADMIN_KEY", 32 * "k")
    assert run("check-config") == 0
    shown = capsys.readouterr()
    assert "admin_key does nothing" not in shown.err
    assert 32 * "k" not in shown.out

    assert run("check-config", "--admin-port", "0") == 0
    assert "UNBROKEN_ADMIN_KEY does nothing, as there is no admin listener" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["OPENAI_BASE_URL", "UNBROKEN_OPENAI_BASE_URL"])
@pytest.mark.parametrize("value", ["nonsense", "http://", "ftp://a/v1", "http://[x/v1", "http://a:b/v1"])
def test_an_address_that_is_none_is_named_by_its_variable(
    name: str, value: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(name, value)

    assert run("serve", "--agent", "openai") == 2
    assert capsys.readouterr().err.startswith(f"unbroken: {name} should begin with http:// or https://")


def test_new_key_prints_a_key_and_its_setting(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("new-key", "alice") == 0

    captured = capsys.readouterr()
    key, entry = captured.out.splitlines()
    assert re.fullmatch(r"ub_[\w-]{43}", key)  # 43 characters of 6 bits hold 256
    assert entry == f"alice:{hashlib.sha256(key.encode()).hexdigest()}"
    assert Settings(api_keys=(entry,)).api_keys == (entry,)
    assert key not in captured.err


def test_keys_differ(capsys: pytest.CaptureFixture[str]) -> None:
    run("new-key", "alice")
    run("new-key", "alice")

    assert len(set(capsys.readouterr().out.splitlines())) == 4


@pytest.mark.parametrize("code", [0, 143])
def test_serve_runs_with_its_flags(code: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """And hands on the exit code."""
    seen: list[Settings] = []

    def fake_run(settings: Settings, build: Callable[[Settings], process.Application]) -> int:
        seen.append(settings)
        return code

    monkeypatch.setattr(process, "run", fake_run)
    flags = ["--host", "::1", "--port", "81", "--admin-port", "0", "--agent", "scripted", "--model", "m"]

    assert run("serve", *flags) == code
    assert [Settings(host="::1", port=81, admin_port=0, agent="scripted", model="m")] == seen


def test_serve_begins_with_a_collector_that_looks_seldom(monkeypatch: pytest.MonkeyPatch) -> None:
    """Which is set for good once it listens."""
    seen: list[tuple[int, int, int]] = []

    def fake_run(settings: Settings, build: object) -> int:
        seen.append(gc.get_threshold())
        return 0

    monkeypatch.setattr(process, "run", fake_run)

    run("serve")

    assert seen == [(100_000, 50, 1000)]


def test_a_failed_start_is_one_line_per_problem(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fake_run(settings: Settings, build: object) -> int:
        raise StartupError("One.\nTwo.")

    monkeypatch.setattr(process, "run", fake_run)

    assert run("serve") == 1
    assert capsys.readouterr().err == "unbroken: One.\nunbroken: Two.\n"


def test_ctrl_c_before_the_start_is_no_traceback(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fake_run(settings: Settings, build: object) -> int:
        raise KeyboardInterrupt

    monkeypatch.setattr(process, "run", fake_run)

    assert run("serve") == 130
    assert "Traceback" not in capsys.readouterr().err


@pytest.mark.long
def test_a_port_in_use_is_found_before_anything_is_loaded(tmp_path: Path) -> None:
    """The module as a user runs it; the application's module is made impossible to import."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        program = (
            "import sys; sys.modules['unbroken.server.app'] = None\n"
            "from unbroken.__main__ import main; main()"
        )
        result = subprocess.run(
            [sys.executable, "-c", program, "serve", "--port", str(port), "--admin-port", "0"],
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
            capture_output=True,
            text=True,
            check=False,
            timeout=30,
        )

    assert result.returncode == 1
    assert result.stdout == ""
    assert re.fullmatch(rf"unbroken: Port {port} on 127\.0\.0\.1 is in use\. .+\n", result.stderr)


def test_help_loads_nothing_heavy() -> None:
    """It has to answer at once."""
    program = (
        "import sys\n"
        "sys.argv = ['unbroken', '--help']\n"
        "from unbroken.server.cli import main\n"
        "try: main()\n"
        "except SystemExit: pass\n"
        "heavy = {'asyncio', 'openai', 'pydantic', 'starlette', 'structlog', 'uvicorn'} & set(sys.modules)\n"
        "sys.exit(','.join(heavy) or 0)\n"
    )
    result = subprocess.run(
        [sys.executable, "-c", program],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        check=False,
        timeout=30,
    )

    assert result.stderr == ""
    assert result.returncode == 0
