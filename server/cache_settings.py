"""The settings of the cache: what is answered with what was said before. Part of :class:`Settings`."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from unbroken.server.plan_tables import ModesElseOff
from unbroken.server.setting_values import Bytes, Seconds, zero_or
from unbroken.server.settings_part import SettingsPart

__all__ = ["CacheSettings"]


class CacheSettings(SettingsPart):
    """Whether, for whom and for how long an answer is good for who asks the same."""

    cache: ModesElseOff = Field(
        default=("default=off",),
        description="Answer what was answered before: off, shadow or on; by plan: default=on,free=off.",
    )
    cache_semantic: ModesElseOff = Field(
        default=("default=off",),
        description="The same for questions in other words. Needs the extra cache. See The cache.",
    )
    cache_scope: Literal["user", "tenant"] = Field(
        default="user", description="For whom an answer is good: who asked, or all of a tenant."
    )
    cache_lifetime: Annotated[Seconds, Field(ge=1, le=30 * 86400)] = Field(
        default=3600, description="Seconds for which an answer is good."
    )
    cache_version: str = Field(
        default="", max_length=100, description="Change it, and nothing that was kept before is found."
    )
    cache_threshold: float = Field(
        default=0.92, ge=0.88, le=1, description="Least cosine of two questions that may be one."
    )
    cache_pace: Annotated[float, Field(ge=0, le=10_000, allow_inf_nan=False), AfterValidator(zero_or(1))] = (
        Field(default=50, description="Pieces a second of an answer that was kept; 0: all at once.")
    )
    cache_billing: Literal["free", "full"] = Field(
        default="free", description="What an answer that was kept costs: no tokens, or those it cost then."
    )
    cache_sample: float = Field(
        default=0.02,
        ge=0,
        le=1,
        description="Share of hits that are asked all the same, to compare the answers.",
    )
    cache_patience: Annotated[Seconds, Field(ge=0.001, le=10)] = Field(
        default=0.05, description="Seconds that a turn waits for the cache's store, and for its embedder."
    )
    cache_threads: int = Field(default=1, ge=1, le=64, description="Questions that are embedded at once.")
    cache_entries: int = Field(
        default=100_000, ge=1, description="Answers that are kept; with Redis, by all nodes."
    )
    cache_bytes: Bytes = Field(
        default=256 << 20,
        ge=4096,
        description="Bytes of all answers that are kept, in memory with their questions.",
    )
    cache_place_entries: int = Field(
        default=1000,
        ge=1,
        le=5000,
        description="Answers of one place: the same asker, model and instructions.",
    )
    cache_place_bytes: Bytes = Field(
        default=16 << 20,
        ge=4096,
        description="Bytes of the answers of one place, in memory with their questions.",
    )
