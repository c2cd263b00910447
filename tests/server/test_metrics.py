from __future__ import annotations

from unbroken.server.metrics import Metrics


def test_everything_is_exposed_under_one_prefix() -> None:
    metrics = Metrics()
    metrics.responses.labels("completed").inc()
    metrics.refused.labels("invalid_api_key").inc(2)
    metrics.time_to_first_token.observe(0.03)

    lines = metrics.exposition().decode().splitlines()
    assert 'unbroken_responses_total{status="completed"} 1.0' in lines
    assert 'unbroken_connections_refused_total{code="invalid_api_key"} 2.0' in lines
    assert 'unbroken_time_to_first_token_seconds_bucket{le="0.04"} 1.0' in lines
    assert 'unbroken_time_to_first_token_seconds_bucket{le="0.02"} 0.0' in lines
    assert all(line.startswith(("# HELP unbroken_", "# TYPE unbroken_", "unbroken_")) for line in lines)


def test_a_node_s_figures_are_taken_when_asked_for() -> None:
    metrics = Metrics()
    held = [3.0, 1.0, 700.0]
    metrics.observe_node(lambda: held[0], lambda: held[1], lambda: held[2])
    held[0] = 4.0

    text = metrics.exposition().decode()
    assert "unbroken_sessions 4.0" in text
    assert "unbroken_sessions_running 1.0" in text
    assert "unbroken_sessions_bytes 700.0" in text


def test_two_servers_in_one_process_are_counted_apart() -> None:
    one, other = Metrics(), Metrics()
    one.connections.inc()

    assert "unbroken_connections 1.0" in one.exposition().decode()
    assert "unbroken_connections 0.0" in other.exposition().decode()
