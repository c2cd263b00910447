"""The settings: what there is to set, where values come from, and what is wrong with them.

A value comes from the first of these that has one: a flag of the command, the
environment, ``.env`` in the working directory, a TOML file (``unbroken.toml``
there, or the file that ``--config`` or ``UNBROKEN_CONFIG`` names), the default.

:class:`Settings` can be built from keywords alone and then reads nothing else;
:func:`~unbroken.server.setting_sources.load_settings` gathers the sources and reports every problem at once.

::

    Exception
    +-- ConfigError     the settings can't be used: one line per problem, each with its fix
    +-- StartupError    the settings are fine, the machine isn't: a port in use, a file missing
"""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Literal, get_args

from pydantic import BaseModel, Field, SecretStr
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from unbroken.server.agent_settings import AgentSettings
from unbroken.server.archive_settings import ArchiveSettings
from unbroken.server.auth_settings import AuthSettings
from unbroken.server.cache_settings import CacheSettings
from unbroken.server.chain import masked_url
from unbroken.server.connection_settings import ConnectionSettings
from unbroken.server.door_settings import DoorSettings
from unbroken.server.file_settings import FileSettings
from unbroken.server.firewall_settings import FirewallSettings
from unbroken.server.graphql_settings import GraphqlSettings
from unbroken.server.leak_settings import LeakSettings
from unbroken.server.quota_settings import QuotaSettings
from unbroken.server.redis_settings import RedisSettings
from unbroken.server.session_settings import SessionSettings
from unbroken.server.setting_origins import PREFIX
from unbroken.server.setting_values import UNIT_NAMES
from unbroken.server.tool_settings import ToolSettings
from unbroken.server.webhook_settings import WebhookSettings

__all__ = ["ConfigError", "Loaded", "Settings", "StartupError", "is_loopback", "is_secret", "shown"]

MASK: Final = "********"
"""What stands in place of a secret."""


class ConfigError(Exception):
    """The settings can't be used.

    Attributes:
        problems: One line each: the setting, what is wrong, the fix. No secrets.
        loaded: The settings as they would be without those that are wrong.

    """

    def __init__(self, problems: list[str], loaded: Loaded | None = None) -> None:
        super().__init__(problems)
        self.problems = problems
        self.loaded = loaded

    def __str__(self) -> str:
        return "\n".join(self.problems)


class StartupError(Exception):
    """The settings are fine and the server can't start with them here and now.

    The text is what a person sees: one line (or one per problem) with the fix.
    """


# In what is printed, the rooms come from right to left: what concerns the outside first.
class Settings(
    WebhookSettings,
    ArchiveSettings,
    RedisSettings,
    SessionSettings,
    CacheSettings,
    ToolSettings,
    LeakSettings,
    AgentSettings,
    DoorSettings,
    AuthSettings,
    ConnectionSettings,
    FileSettings,
    GraphqlSettings,
    QuotaSettings,
    FirewallSettings,
):
    """Everything that can be set. Durations are in seconds, sizes in bytes.

    Built from keywords it reads no environment and no file.
    """

    model_config = SettingsConfigDict(env_prefix=PREFIX, frozen=True, extra="forbid", defer_build=False)

    # Logs
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        default="info", description="Least level logged."
    )
    log_format: Literal["auto", "json", "console"] = Field(
        default="auto", description="auto: console on a terminal, JSON lines elsewhere."
    )
    log_content: bool = Field(
        default=False,
        description="Show the texts of exceptions and of libraries in logs: they may quote conversations.",
    )

    @property
    def has_authentication(self) -> bool:
        """Whether it is said who may speak: else anybody may, and the server is for this machine only."""
        return bool(self.api_keys) or self.key_store != "none" or self.jwt_jwks is not None

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],  # noqa: ARG003 - the signature is pydantic-settings'
        init_settings: PydanticBaseSettingsSource,
        *_others: PydanticBaseSettingsSource,
        **_named: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Read keywords only: :func:`load_settings` gathers the rest, and knows what came from where."""
        return (init_settings,)


@dataclass(frozen=True, slots=True)
class Loaded:
    """The settings in force, and where each came from."""

    settings: Settings
    origins: Mapping[str, str]
    """For each field: ``flag``, ``environment``, ``environment OPENAI_API_KEY`` where the variable
    isn't the setting's own, ``.env`` likewise, ``file NAME`` or ``default``."""


def is_secret(name: str) -> bool:
    """Whether the setting *name* may hold a secret, so that no message repeats what was given for it.

    Its type says so, or what that is made of; else ``repr=False``, as of addresses with passwords.
    """
    field = Settings.model_fields[name]
    return not field.repr or _holds_secrets(field.annotation)


def _holds_secrets(kind: object) -> bool:
    if isinstance(kind, type) and issubclass(kind, BaseModel):
        parts: list[object] = [field.annotation for field in kind.model_fields.values()]
    else:
        parts = list(get_args(kind))
    return kind is SecretStr or any(map(_holds_secrets, parts))


def shown(name: str, settings: Settings) -> str:
    """Write the setting *name* for a person, with everything secret masked."""
    value = getattr(settings, name)
    if value is None or value in ((), "", {}):
        return "not set"
    if name == "archive_url":  # which of both it is, and where
        return masked_url(value.get_secret_value())
    if isinstance(value, SecretStr):
        return MASK
    if name == "api_keys":
        return ", ".join(f"{entry.partition(':')[0]}:{MASK}" for entry in value)
    if name == "mcp_servers":  # addresses and commands may have keys in them
        return ", ".join(f"{entry.partition('=')[0]}={MASK}" for entry in value)
    if name == "leak_canaries":
        return MASK
    if name in ("openai_base_url", "firewall_service"):
        return masked_url(value)
    if isinstance(value, tuple | dict):  # of tables, their names
        return ", ".join(map(str, value))
    if name.endswith("_bytes"):
        whole = (f"{value // n}{unit}" for unit, n in UNIT_NAMES if value and value % n == 0)
        return next(whole, str(value))
    if isinstance(value, bool):
        return str(value).lower()
    return f"{value:g}" if isinstance(value, float) else " ".join(str(value).split())


def is_loopback(host: str) -> bool:
    """Whether *host* is reachable from this machine only. A name other than localhost counts as not."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
