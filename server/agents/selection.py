"""Which agent the settings ask for: one, or a chain of them. Called by the composition root alone.

The libraries of each are imported only when it is wanted.
"""

from __future__ import annotations

from unbroken.server.agents.base import Agent, AgentError
from unbroken.server.agents.breaker import BreakerLimits, BreakerState
from unbroken.server.agents.fallback import FallbackAgent, Member, Observer
from unbroken.server.agents.upstream import Upstream, UpstreamObserver
from unbroken.server.chain import ChainEntry, UpstreamApi
from unbroken.server.config import Settings, StartupError
from unbroken.server.fair_names import FairName
from unbroken.server.metrics import Metrics
from unbroken.sessions.clock import Clock

__all__ = ["build_agent"]


def build_agent(settings: Settings, clock: Clock, metrics: Metrics, fair_name: FairName = str) -> Agent:
    """Return the agent that *settings* describe: one, or a chain of them.

    *fair_name* says under which name somebody's turns wait, where they have to.

    Raises:
        StartupError: What it needs isn't installed.

    """
    if not settings.fallbacks:
        return _agent(settings, metrics, fair_name)
    members = [Member(name=settings.agent, agent=_agent(settings, metrics, fair_name))]
    for entry in settings.fallbacks:
        agent = (
            _embedded(settings, metrics, None, fair_name)
            if entry.is_embedded
            else _fallback(settings, entry, metrics)
        )
        members.append(Member(name=entry.name, agent=agent, model=agent.model))
    limits = BreakerLimits(
        failures=settings.breaker_failures,
        window=settings.breaker_window,
        cooldown=settings.breaker_cooldown,
    )
    return FallbackAgent(
        members, clock, limits=limits, patience=settings.fallback_patience, observer=_ChainMetrics(metrics)
    )


class _ChainMetrics(Observer):
    """Counts what happens in a chain."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics

    def called(self, name: str, outcome: str) -> None:
        self._metrics.agent_calls.labels(name, outcome).inc()

    def breaker_changed(self, name: str, state: BreakerState) -> None:
        self._metrics.agent_passed_over.labels(name).set(state is not BreakerState.CLOSED)


class _UpstreamMetrics(UpstreamObserver):
    """Counts what is asked of one upstream."""

    def __init__(self, metrics: Metrics, agent: str) -> None:
        self._metrics = metrics
        self._agent = agent

    def requested(self, *, is_retry: bool) -> None:
        self._metrics.upstream_requests.labels(self._agent, "retry" if is_retry else "first").inc()

    def ended(self, outcome: str) -> None:
        self._metrics.upstream_calls.labels(self._agent, outcome).inc()


def _agent(settings: Settings, metrics: Metrics, fair_name: FairName) -> Agent:
    match settings.agent:
        case "embedded":
            return _embedded(settings, metrics, settings.model, fair_name)
        case "openai":
            key = settings.openai_api_key
            return _upstream(
                settings,
                _UpstreamMetrics(metrics, settings.agent),
                api=settings.openai_api,
                model=settings.model or "gpt-5-mini",
                base_url=settings.openai_base_url,
                # Upstreams of one's own often take none; the SDK insists on one.
                api_key=key.get_secret_value() if key else ("none" if settings.openai_base_url else None),
            )
        case "python":
            from unbroken.server.agents.python import PythonAgent

            return PythonAgent(settings.python_agent or "", model=settings.model)
        case "scripted":
            from unbroken.server.agents.scripted import ScriptedAgent

            return ScriptedAgent(model=settings.model or "scripted")


def _embedded(settings: Settings, metrics: Metrics, model: str | None, fair_name: FairName) -> Agent:
    from unbroken.server.agents.embedded import EmbeddedAgent

    agent = EmbeddedAgent(
        model=model,
        model_path=settings.model_path,
        slots=settings.embedded_slots,
        context=settings.embedded_context,
        max_queue=settings.embedded_queue,
        threads=settings.embedded_threads,
        fair_name=fair_name,
    )
    try:
        agent.check()  # what is missing is said before anything else is
    except AgentError as exc:
        raise StartupError(str(exc)) from None
    metrics.embedded_waiting.set_function(lambda: agent.waiting)
    return agent


def _fallback(settings: Settings, entry: ChainEntry, metrics: Metrics) -> Agent:
    return _upstream(
        settings,
        _UpstreamMetrics(metrics, entry.name),
        api=entry.api,
        model=entry.model,
        base_url=entry.base_url,
        api_key=entry.api_key.get_secret_value() if entry.api_key else "none",
    )


def _upstream(
    settings: Settings,
    observer: UpstreamObserver,
    *,
    api: UpstreamApi,
    model: str,
    base_url: str | None,
    api_key: str | None,
) -> Agent:
    upstream = Upstream(
        base_url=base_url,
        api_key=api_key,
        # A little less than a turn may be silent, so that it is told apart.
        timeout=settings.stall_timeout * 0.9,
        # Where there is another one to ask, a client isn't kept waiting for the same one twice.
        max_retries=1 if settings.fallbacks else 2,
        max_connections=settings.openai_connections,
        observer=observer,
    )
    if api == "responses":
        from unbroken.server.agents.responses import ResponsesAgent

        return ResponsesAgent(upstream, model=model, background=settings.openai_background)
    from unbroken.server.agents.openai import OpenAIAgent

    return OpenAIAgent(upstream, model=model)
