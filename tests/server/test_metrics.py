from __future__ import annotations

import pytest

from unbroken.server.metrics import Metrics, NodeFigures
from unbroken.server.overload import Overload, OverloadLimits
from unbroken.sessions.entries import Failure, ResponseDone
from unbroken.sessions.ids import ResponseId
from unbroken.sessions.items import Usage


def exposed(metrics: Metrics) -> list[str]:
    return metrics.exposition().decode().splitlines()


def test_everything_is_exposed_under_one_prefix() -> None:
    """But for what every process is asked for, by the names that dashboards know."""
    metrics = Metrics()
    metrics.responses.labels("completed").inc()
    metrics.refused.labels("invalid_api_key").inc(2)
    metrics.time_to_first_token.observe(0.03)

    lines = exposed(metrics)
    assert 'unbroken_responses_total{status="completed"} 1.0' in lines
    assert 'unbroken_connections_refused_total{code="invalid_api_key"} 2.0' in lines
    assert 'unbroken_time_to_first_token_seconds_bucket{le="0.04"} 1.0' in lines
    assert 'unbroken_time_to_first_token_seconds_bucket{le="0.02"} 0.0' in lines
    names = [line.removeprefix("# HELP ").removeprefix("# TYPE ") for line in lines]
    assert all(name.startswith(("unbroken_", "process_")) for name in names)
    assert any(name.startswith("process_resident_memory_bytes ") for name in names)


def test_a_node_s_figures_are_taken_when_asked_for() -> None:
    metrics = Metrics()
    held = {"sessions": 3.0, "running": 1.0, "waiting": 2.0, "size": 700.0, "commits_waiting": 5.0}
    metrics.observe_node(
        NodeFigures(
            sessions=lambda: held["sessions"],
            running=lambda: held["running"],
            waiting=lambda: held["waiting"],
            size=lambda: held["size"],
            commits_waiting=lambda: held["commits_waiting"],
            unsaved=lambda: 0,
            is_store_lost=lambda: 0,
            is_draining=lambda: True,
        )
    )
    held["sessions"] = 4.0

    lines = exposed(metrics)
    assert "unbroken_sessions 4.0" in lines
    assert "unbroken_sessions_running 1.0" in lines
    assert "unbroken_responses_waiting 2.0" in lines
    assert "unbroken_sessions_bytes 700.0" in lines
    assert "unbroken_commits_waiting 5.0" in lines
    assert "unbroken_draining 1.0" in lines


def test_the_load_is_taken_when_asked_for() -> None:
    metrics, overload = Metrics(), Overload(OverloadLimits())
    metrics.observe_overload(overload)
    for number in range(20):
        overload.note(0.5, float(number))

    lines = exposed(metrics)
    assert "unbroken_overload_level 1.0" in lines
    assert "unbroken_event_loop_lag_median_seconds 0.5" in lines
    assert "unbroken_event_loop_lag_worst_seconds 0.5" in lines


def test_a_response_is_counted_with_its_bill_and_its_failure() -> None:
    metrics = Metrics()
    for code in ("upstream_cut", "a_code_of_somebody_s_own"):
        failure = Failure(code, "secret prose")
        metrics.response_ended(
            ResponseDone(ResponseId("r"), "failed", 1, failure=failure, usage=Usage(10, 4, 3))
        )
    metrics.response_ended(ResponseDone(ResponseId("r"), "completed", 1))

    lines = exposed(metrics)
    assert 'unbroken_responses_total{status="failed"} 2.0' in lines
    assert 'unbroken_responses_total{status="completed"} 1.0' in lines
    assert 'unbroken_responses_failed_total{code="upstream_cut"} 1.0' in lines
    assert 'unbroken_responses_failed_total{code="other"} 1.0' in lines
    for kind, count in (("input", 20), ("output", 8), ("cached", 6)):
        assert f'unbroken_tokens_total{{kind="{kind}"}} {count}.0' in lines
    assert "secret" not in "".join(lines)


@pytest.mark.parametrize(("code", "label"), [(1000, "1000"), (1013, "1013"), (4999, "other"), (7, "other")])
def test_close_codes_are_of_a_closed_list(code: int, label: str) -> None:
    """A client may send thousands of different ones: each would be a series."""
    metrics = Metrics()
    metrics.closed(code)

    assert f'unbroken_connections_closed_total{{code="{label}"}} 1.0' in exposed(metrics)


def test_two_servers_in_one_process_are_counted_apart() -> None:
    one, other = Metrics(), Metrics()
    one.connections.inc()

    assert "unbroken_connections 1.0" in one.exposition().decode()
    assert "unbroken_connections 0.0" in other.exposition().decode()
