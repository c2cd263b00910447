"""``unbroken transcripts``: what it prints, and what it says when it can't."""

from __future__ import annotations

import asyncio
import json
import os
from pathlib import Path

import pytest

from tests.fakes.surroundings import neutral_environment
from tests.server.archive.turns import ALICE, BOB, new, session_of, turn
from unbroken.server import cli, logs
from unbroken.server.archive.sql import SqlArchive
from unbroken.server.archive.sqlite import SqliteDatabase

HERS, HIS = session_of(ALICE), session_of(BOB)


@pytest.fixture(autouse=True)
def alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in os.environ.keys() - neutral_environment().keys():
        monkeypatch.delenv(name)
    monkeypatch.setattr(logs, "configure_logs", lambda *_, **__: None)
    monkeypatch.setenv("UNBROKEN_ARCHIVE_URL", "sqlite:///archive.db")


@pytest.fixture
def filled(tmp_path: Path) -> None:
    async def fill() -> None:
        archive = SqlArchive(SqliteDatabase(tmp_path / "archive.db"))
        await archive.open()
        await archive.write([new(turn(HERS, number)) for number in range(120)], 0.0)
        await archive.write([new(turn(HIS, 1), whose=BOB)], 0.0)
        await archive.aclose()

    asyncio.run(fill())


def run(*arguments: str) -> int:
    with pytest.raises(SystemExit) as left:
        cli.main(["transcripts", *arguments])
    assert isinstance(left.value.code, int)
    return left.value.code


def test_sessions_are_listed(filled: None, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("list") == 0
    first, second = capsys.readouterr().out.splitlines()
    assert first.split()[0] == HERS
    assert "120 turns" in first
    assert second.split()[0] == HIS

    assert run("list", "--user", "bob", "--limit", "1") == 0
    assert capsys.readouterr().out == second + "\n"


def test_turns_are_exported_as_json_lines(filled: None, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("export", HERS) == 0
    turns = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [each["id"] for each in turns] == [f"resp_{number}" for number in range(120)]
    assert turns[0]["input"][0]["content"][0]["text"] == "question 0 \x00"
    assert (turns[0]["tenant"], turns[0]["user"]) == ("acme", "alice")

    assert run("export", "--tenant", "acme") == 0
    assert len(capsys.readouterr().out.splitlines()) == 121
    assert run("export", "--tenant", "other") == 0
    assert capsys.readouterr().out == ""


def test_what_is_not_there_is_said_in_one_line(
    filled: None, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert run("export", "sess_none") == 1
    assert capsys.readouterr().err == "unbroken: The archive has no session sess_none.\n"
    monkeypatch.delenv("UNBROKEN_ARCHIVE_URL")
    assert run("list") == 1
    assert "Set UNBROKEN_ARCHIVE_URL" in capsys.readouterr().err
    monkeypatch.setenv("UNBROKEN_ARCHIVE_URL", "sqlite:///none/archive.db")
    assert run("list") == 1
    assert "can't be used" in capsys.readouterr().err
