"""The committed table of clients says what the tests show, no more and no less."""

from __future__ import annotations

from tests.conformance.clients import CLIENTS, FEATURES, ROOT, marked, rendered

DOCUMENT = ROOT / "docs" / "clients.md"


def test_tests_name_clients_and_features_that_there_are() -> None:
    pairs = marked()

    assert {client for client, _ in pairs} == set(CLIENTS)
    assert {feature for _, feature in pairs} == set(FEATURES)


def test_the_table_is_what_a_run_of_these_tests_writes() -> None:
    assert DOCUMENT.read_text() == rendered(dict.fromkeys(marked(), True)), "write it: make conformance"


def test_a_test_that_failed_is_told() -> None:
    failed = dict.fromkeys(marked(), True) | {("page", "cancel"): False}

    assert rendered(failed).count("**failed**") == 1
    assert "**failed**" not in DOCUMENT.read_text()
