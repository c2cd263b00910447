"""That what tests take for a server of theirs is theirs."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.fakes.surroundings import free_port
from tests.fakes.valkey import Server


def test_a_port_is_given_to_one_only() -> None:
    ports = [free_port() for _ in range(200)]
    assert len({*ports, *(port + 10_000 for port in ports)}) == 400


def test_who_answers_on_a_port_is_not_taken_for_the_server_that_was_to_have_it(tmp_path: Path) -> None:
    """Six servers of which two were given the same port were five, and never became a cluster of six."""
    with Server(tmp_path / "one").running() as one:
        another = Server(tmp_path / "another", port=one.port)
        with pytest.raises(RuntimeError, match=f"does not start on port {one.port}"):
            another.start()
