"""The committed table of clients says what the tests show, no more and no less."""

from __future__ import annotations

import json

import pytest

from tests.conformance.clients import CLIENTS, FEATURES, ROOT, marked, rendered

DOCUMENT = ROOT / "docs" / "clients.md"

Pairs = set[tuple[str, str]]


@pytest.fixture(scope="module")
def pairs() -> Pairs:
    """What the tests are marked with: looked for in all of them once."""
    return marked()


def test_tests_name_clients_and_features_that_there_are(pairs: Pairs) -> None:
    assert {client for client, _ in pairs} == set(CLIENTS)
    assert {feature for _, feature in pairs} == set(FEATURES)


def test_the_table_is_what_a_run_of_these_tests_writes(pairs: Pairs) -> None:
    assert DOCUMENT.read_text() == rendered(dict.fromkeys(pairs, True)), "write it: make conformance"


def test_a_test_that_failed_is_told(pairs: Pairs) -> None:
    failed = dict.fromkeys(pairs, True) | {("page", "cancel"): False}

    assert rendered(failed).count("**failed**") == 1
    assert "**failed**" not in DOCUMENT.read_text()


def test_packages_for_javascript_are_locked_by_hash_and_by_no_address() -> None:
    folder = ROOT / "tests" / "conformance" / "node"
    wanted = json.loads((folder / "package.json").read_text())["dependencies"]
    locked = json.loads((folder / "package-lock.json").read_text())["packages"]
    del locked[""]

    assert {name: locked[f"node_modules/{name}"]["version"] for name in wanted} == wanted
    assert [name for name, package in locked.items() if "integrity" not in package] == []
    assert [name for name, package in locked.items() if "resolved" in package] == []
