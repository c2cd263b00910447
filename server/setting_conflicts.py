"""Settings that are sound by themselves and don't fit each other."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Final

from unbroken.server.config import Settings, is_loopback
from unbroken.server.plan_tables import row_of, rows_of
from unbroken.server.setting_origins import PREFIX, label

__all__ = ["conflicts"]

_OWN_TOOLS: Final = "tools"
"""The label of the operator's own functions."""


def conflicts(settings: Settings, failed: frozenset[str], origins: Mapping[str, str]) -> Iterator[str]:
    """Find settings that don't fit each other. What has failed already stays out of it."""

    def sound(*names: str) -> bool:
        return failed.isdisjoint(names)

    if (
        sound("host", "api_keys", "key_store", "jwt_jwks")
        and not is_loopback(settings.host)
        and not settings.has_authentication
    ):
        yield (
            f"{label('host', origins)} is {settings.host}, which others can reach, without authentication. "
            f"Make a key with `unbroken new-key NAME` and set {PREFIX}API_KEYS, or listen on 127.0.0.1."
        )
    if sound("host") and settings.api_keys_in_browsers and not is_loopback(settings.host):
        yield (
            f"{label('api_keys_in_browsers', origins)} is for developing on loopback, "
            f"and {label('host', origins)} is {settings.host}. Unset it, or listen on 127.0.0.1."
        )
    yield from _auth_conflicts(settings, sound, origins)
    same_host = settings.host == settings.admin_host
    if sound("port", "admin_port") and same_host and settings.port == settings.admin_port != 0:
        yield (
            f"{label('port', origins)} and {label('admin_port', origins)} are both {settings.port}. "
            "Give the admin listener another port, or 0 for none."
        )
    if sound("workers", "redis_url", "admin_port", "port") and settings.workers > 1:
        yield from _worker_conflicts(settings, origins)
    if sound("agent", "python_agent") and settings.agent == "python" and settings.python_agent is None:
        yield f"The python agent needs your function. Set {PREFIX}PYTHON_AGENT to module:function."
    upstream = settings.openai_api_key or settings.openai_base_url
    if sound("agent", "openai_api_key", "openai_base_url") and settings.agent == "openai" and not upstream:
        yield (
            "The openai agent needs a key. Set OPENAI_API_KEY, "
            "or OPENAI_BASE_URL for an upstream that takes none."
        )
    if sound("agent", "models") and settings.agent == "embedded" and settings.models:
        yield f"The embedded agent has one model. Unset {PREFIX}MODELS, or choose another agent."
    if sound("redis_url", "secret") and settings.redis_url is not None and settings.secret is None:
        yield (
            f"Nodes that share sessions sign resume tokens alike. Set {PREFIX}SECRET, the same on all; "
            "`openssl rand -hex 32` prints one."
        )
    if sound("mcp_servers", "mcp_keys", "mcp_trusted", "firewall_trusted_tools"):
        yield from _mcp_conflicts(settings, origins)
    yield from _guard_conflicts(settings, sound, origins)
    yield from _archive_conflicts(settings, sound, origins)
    is_chat = settings.openai_api == "chat"
    if sound("openai_background", "openai_api") and settings.openai_background and is_chat:
        yield f"{label('openai_background', origins)} needs {PREFIX}OPENAI_API to be responses. Set it so."
    if sound("files_keep", "files_dir") and settings.files_keep and settings.files_dir is None:
        yield f"{label('files_keep', origins)} needs a folder. Set {PREFIX}FILES_DIR."
    if sound("files_keep", "files") and settings.files_keep and settings.files == "memory":
        yield (
            f"{label('files_keep', origins)} needs a disk, and {label('files', origins)} is memory. "
            "Unset either."
        )
    if sound("fallbacks", "agent", "fallback_patience", "stall_timeout") and settings.fallbacks:
        yield from _chain_conflicts(settings, origins)
    if sound("overload_lag", "overload_lag_responses"):
        yield from _overload_conflicts(settings, origins)
    for small, large in (
        ("log_retain_bytes", "log_max_bytes"),
        ("max_session_bytes", "max_node_bytes"),
        ("max_file_bytes", "max_turn_file_bytes"),
        ("max_file_bytes", "max_principal_file_bytes"),
        ("max_principal_file_bytes", "max_node_file_bytes"),
    ):
        if sound(small, large) and getattr(settings, small) > getattr(settings, large):
            yield f"{label(small, origins)} is above {label(large, origins)}. Lower it, or raise the other."


def _auth_conflicts(
    settings: Settings, sound: Callable[..., bool], origins: Mapping[str, str]
) -> Iterator[str]:
    store = label("key_store", origins)
    if sound("key_store", "key_file") and settings.key_store == "file" and settings.key_file is None:
        yield f"{store} is file, and none is named. Set {PREFIX}KEY_FILE."
    if sound("key_store", "redis_url") and settings.key_store == "redis" and settings.redis_url is None:
        yield f"{store} is redis, and there is none. Set {PREFIX}REDIS_URL, or {PREFIX}KEY_STORE to file."
    is_local = settings.key_store in ("memory", "file")
    if sound("key_store", "redis_url") and is_local and settings.redis_url is not None:
        yield (
            f"{store} is {settings.key_store}, which other nodes can't see, and sessions are shared. "
            f"Set {PREFIX}KEY_STORE to redis."
        )
    names = ("jwt_issuer", "jwt_audience")
    if sound("jwt_jwks", *names) and settings.jwt_jwks is not None:
        for name in names:
            if not getattr(settings, name):
                yield (
                    f"{label('jwt_jwks', origins)} says whose tokens are taken, but not which of them. "
                    f"Set {PREFIX}{name.upper()}."
                )


def _worker_conflicts(settings: Settings, origins: Mapping[str, str]) -> Iterator[str]:
    count, first = settings.workers, settings.admin_port
    if settings.redis_url is None:
        yield (
            f"{label('workers', origins)} is {count}, and sessions are in memory: who comes back to another "
            f"worker would find nothing. Set {PREFIX}REDIS_URL, or 1 worker."
        )
    last = first + count - 1
    if first and last > 65535:
        yield (
            f"{label('admin_port', origins)} is {first}, and the last of {count} workers would have {last}. "
            "Give a lower one, or 0 for no admin listeners."
        )
    if settings.host == settings.admin_host and first and first < settings.port <= last:
        yield (
            f"{label('port', origins)} is {settings.port}, and the admin listeners of {count} workers have "
            f"{first} to {last}. Give another port, or 0 for no admin listeners."
        )


def _mcp_conflicts(settings: Settings, origins: Mapping[str, str]) -> Iterator[str]:
    """Find labels that name no server. Of a key's entry only the label is shown."""
    known = [entry.partition("=")[0] for entry in settings.mcp_servers]
    keys = [key.get_secret_value().partition(":")[0] for key in settings.mcp_keys]
    unchecked = [each for each in settings.firewall_trusted_tools if each != _OWN_TOOLS]
    for name, labels in (
        ("mcp_keys", keys),
        ("mcp_trusted", settings.mcp_trusted),
        ("firewall_trusted_tools", unchecked),
    ):
        for each in dict.fromkeys(labels):
            if each not in known:
                there = f"{label('mcp_servers', origins)} has {', '.join(known) or 'no server'}"
                yield (
                    f"{label(name, origins)} has the label {each[:32]!r}, and {there}. "
                    "Correct the label, or take it out."
                )


def _guard_conflicts(
    settings: Settings, sound: Callable[..., bool], origins: Mapping[str, str]
) -> Iterator[str]:
    if sound("firewall_flag", "firewall_block"):
        flags, blocks = rows_of(settings.firewall_flag), rows_of(settings.firewall_block)
        for plan in dict.fromkeys((*flags, *blocks)):
            flag, block = row_of(flags, plan, "0.5"), row_of(blocks, plan, "0.8")
            if float(block) < float(flag):
                yield (
                    f"{label('firewall_block', origins)} is {block} for the plan {plan}, and "
                    f"{label('firewall_flag', origins)} {flag}: what is flagged would be blocked before. "
                    "Raise the first, or lower the second."
                )


def _archive_conflicts(
    settings: Settings, sound: Callable[..., bool], origins: Mapping[str, str]
) -> Iterator[str]:
    url = settings.archive_url
    is_file = url is not None and url.get_secret_value().startswith("sqlite:")
    if sound("archive_url", "redis_url") and is_file and settings.redis_url is not None:
        yield (
            f"{label('archive_url', origins)} is a file, which other nodes can't see, and sessions are "
            f"shared. Set {PREFIX}ARCHIVE_URL to a PostgreSQL."
        )
    if sound("webhooks", "archive_url") and settings.webhooks and url is None:
        yield (
            f"{label('webhooks', origins)} wait in the archive until they are delivered, and there is none. "
            f"Set {PREFIX}ARCHIVE_URL; with {PREFIX}ARCHIVE_RETENTION=0 nothing else is kept there."
        )


def _overload_conflicts(settings: Settings, origins: Mapping[str, str]) -> Iterator[str]:
    sessions, responses = settings.overload_lag, settings.overload_lag_responses
    if 0 < responses < sessions:
        yield (
            f"{label('overload_lag_responses', origins)} is below {label('overload_lag', origins)}: those "
            "who are in go before new ones. Raise it, or lower the other."
        )


def _chain_conflicts(settings: Settings, origins: Mapping[str, str]) -> Iterator[str]:
    chain = label("fallbacks", origins)
    if any(entry.name == settings.agent for entry in settings.fallbacks):
        yield f"{chain} has an entry named {settings.agent}, as the agent is. Rename it, or take it out."
    if settings.fallback_patience >= settings.stall_timeout:
        yield (
            f"{label('fallback_patience', origins)} is not below {label('stall_timeout', origins)}: "
            "a silent turn would fail before the next agent is asked. Lower it, or raise the other."
        )
