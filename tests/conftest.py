"""What all tests share."""

from __future__ import annotations

import gc
import itertools
import os
from collections.abc import Generator
from pathlib import Path
from typing import Final

import pytest
import structlog
from hypothesis import HealthCheck, settings

# Silent: crashes are planted by the hundred, and formatting their tracebacks takes longer than the tests.
structlog.configure(logger_factory=structlog.ReturnLoggerFactory(), processors=[lambda *_: ""])

pytest.register_assert_rewrite(
    "tests.sessions.backends.store_contract",
    "tests.sessions.backends.outbox_contract",
    "tests.server.agents.agent_contract",
    "tests.deploy.balancer_contract",
    "tests.server.files.file_store_contract",
    "tests.server.agents.upstream_contract",
    "tests.server.archive.archive_contract",
    "tests.server.auth.directory_contract",
    "tests.server.quota.ledger_contract",
    "tests.server.guards.injection.suspicion_contract",
    "tests.server.realtime.client",
    "tests.server.realtime.serving",
)


_ROOT: Final = Path(__file__).parent

_WHOLE: Final = tuple(
    _ROOT / each
    for each in (
        "client/test_client.py",
        "client/test_documented.py",
        "client/test_ends.py",
        "client/test_handover.py",
        "client/test_refusals.py",
        "client/test_tools_and_stops.py",
        "conformance",
        "deploy",
        "page",
        "server/agents/test_openai.py",
        "server/archive/test_cluster.py",
        "server/archive/test_over_http.py",
        "server/agents/test_responses.py",
        "server/agents/test_responses_in_background.py",
        "server/agents/test_upstream.py",
        "server/openapi/test_drawn.py",
        "server/openapi/test_serving.py",
        "server/realtime",
        "server/test_interpreter.py",
        "server/test_keys.py",
        "server/test_logs.py",
        "server/test_redis.py",
        "server/transports/test_files.py",
        "server/transports/test_uploads.py",
        "server/webhooks/test_documented.py",
        "sessions/backends/redis",
        "test_imports.py",
        "test_makefile.py",
    )
)
"""What takes a whole server, or other programs, quick or not: not part of `make check`."""

_SERVERS: Final = frozenset(
    {
        "answers_server",
        "postgres",
        "redis",
        "redis7",
        "redis_server",
        "serve",
        "servers",
        "valkey",
        "valkey_store",
    }
)
"""The fixtures that start servers: what takes one of them is whole, too."""


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Leave unread, for `make check`, what it wouldn't take a test of: to import it takes seconds."""
    return True if "not whole" in config.option.markexpr and collection_path in _WHOLE else None


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what takes a whole server, and have the files begin first that may take longest.

    Of folders, each file is asked once: the tests are thousands.
    """
    files = [list(tests) for _, tests in itertools.groupby(items, lambda item: item.path)]
    for tests in files:
        is_whole = any(tests[0].path.is_relative_to(each) for each in _WHOLE)
        for item in tests:
            if is_whole or not _SERVERS.isdisjoint(getattr(item, "fixturenames", ())):
                item.add_marker("whole")
    # A long one that begins last leaves a core idle to its end.
    files.sort(key=_seconds, reverse=True)
    items[:] = itertools.chain.from_iterable(files)


def _seconds(tests: list[pytest.Item]) -> float:
    """Return what the longest of *tests* is given; 0: what all are."""
    given = (item.get_closest_marker("timeout") for item in tests)
    return max((mark.args[0] for mark in given if mark is not None), default=0)


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """Look for no garbage among the modules and tests: they are many, and stay to the end."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.collect()
        gc.freeze()
        gc.enable()


settings.register_profile(
    "default", deadline=None, max_examples=50, suppress_health_check=[HealthCheck.too_slow]
)
settings.register_profile("check", parent=settings.get_profile("default"), max_examples=10)
settings.register_profile("long", parent=settings.get_profile("default"), max_examples=500)
settings.register_profile("thorough", parent=settings.get_profile("default"), max_examples=2000)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "default"))
