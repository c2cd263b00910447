"""A short run of the fuzzer, and that it sees what it is for. `make fuzz` runs it for longer."""

from __future__ import annotations

from typing import Any

import pytest

from tests.conformance import fuzz
from tests.conformance.fuzz import INPUTS, World, main
from tests.conformance.sans_io import Violation
from unbroken.server.protocols.realtime import connection, encode
from unbroken.sessions.session import Session


@pytest.mark.parametrize("number", range(12))
def test_whatever_comes_in_all_holds(number: int) -> None:
    world = World(f"suite:{number}")
    world.run()

    assert world.outcomes.total() > INPUTS
    assert {"(CreateItem)", "(CreateResponse)", "invalid_json", "invalid_event"} <= set(world.outcomes)


def test_the_same_seed_feeds_the_same() -> None:
    worlds = [World("again") for _ in range(2)]
    for world in worlds:
        world.run()

    assert worlds[0].outcomes == worlds[1].outcomes


def test_an_error_of_another_kind_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    def breaks(*_arguments: object, **_options: object) -> object:
        raise KeyError("planted")

    monkeypatch.setattr(connection, "command_of", breaks)
    with pytest.raises(KeyError):
        World("planted").run()


def test_a_frame_that_is_no_event_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    right = encode.item_fields

    def with_null(item: Any) -> Any:
        return {**right(item), "phase": None}

    monkeypatch.setattr(encode, "item_fields", with_null)
    with pytest.raises(Violation, match="null at"):
        World("planted").run()


def test_text_of_another_session_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    sessions: list[Session] = []
    right = Session.apply

    def note(self: Session, entry: Any) -> None:
        if self not in sessions:
            sessions.append(self)
        right(self, entry)

    monkeypatch.setattr(Session, "apply", note)
    monkeypatch.setattr(Session, "item", lambda self, item_id: _first(sessions, item_id))
    with pytest.raises(Violation, match="another session"):
        for number in range(20):
            sessions.clear()
            World(f"planted:{number}").run()


def _first(sessions: list[Session], item_id: str) -> Any:
    """Return the item of that name, whosever it is."""
    found = (each._conversation.find(item_id) for each in sessions)
    return next((item for item in found if item is not None), None)


def test_a_run_tells_its_seed_and_how_much_it_fed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--seconds", "0", "--seed", "five"]) == 0

    told = capsys.readouterr().out
    assert told.startswith("seed five\n")
    assert "inputs, in 1 worlds; everything held" in told


def test_a_run_that_fails_tells_how_to_see_it_again(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def breaks(*_arguments: object, **_options: object) -> object:
        raise KeyError("planted")

    monkeypatch.setattr(fuzz, "decode_event", breaks)

    assert main(["--seconds", "0", "--seed", "five", "--world", "3"]) == 1
    told = capsys.readouterr().out
    assert "KeyError: 'planted'" in told
    assert "see it again: --seed five --world 3" in told
