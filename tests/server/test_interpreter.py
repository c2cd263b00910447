"""How the interpreter is set."""

from __future__ import annotations

import gc
import sys
from collections.abc import Iterator

import pytest

from unbroken.server.interpreter import put_off_gc, tune_gc, tune_threads


@pytest.fixture(autouse=True)
def collector() -> Iterator[None]:
    before = gc.get_threshold()
    yield
    gc.unfreeze()
    gc.set_threshold(*before)


def test_the_start_is_spared_the_collector() -> None:
    put_off_gc()

    assert gc.get_threshold() == (100_000, 50, 1000)


def test_gc_is_tuned_for_long_lived_connections() -> None:
    tune_gc()

    assert gc.get_threshold() == (100_000, 50, 1000)
    assert gc.get_freeze_count() > 0


def test_threads_give_way_to_the_loop_soon() -> None:
    before = sys.getswitchinterval()
    try:
        tune_threads()

        assert sys.getswitchinterval() < 0.001
    finally:
        sys.setswitchinterval(before)
