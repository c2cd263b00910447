"""Reading the settings: flags, the environment, ``.env``, a TOML file; every problem at once."""

from __future__ import annotations

import difflib
import io
import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from dotenv.parser import parse_stream
from pydantic import ValidationError
from pydantic_settings import EnvSettingsSource, TomlConfigSettingsSource

from unbroken.server.chain import ChainEntry, with_keys
from unbroken.server.config import ConfigError, Loaded, Settings, is_secret
from unbroken.server.setting_conflicts import conflicts
from unbroken.server.setting_origins import PREFIX, SDK_VARIABLES, label, origin_of

__all__ = ["load_settings"]

_FILE: Final = "unbroken.toml"

# Kubernetes and Docker describe a service called "unbroken" (or
# "unbroken-anything") to every container beside it in variables of this shape.
_SERVICE_LINK: Final = re.compile(r"_SERVICE_(HOST|PORT\w*)$|_PORT_\d+_(TCP|UDP|SCTP)(_\w+)?$")
_SERVICE_URL: Final = re.compile(r"(tcp|udp|sctp)://")


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
    config = given.pop("config", None) or environ.get(f"{PREFIX}CONFIG") or dotenv.get(f"{PREFIX}CONFIG")
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
        origins |= {name: origin_of(origin, name, variables.get(origin, {})) for name in layer}

    settings, failed = _validated(values, origins, problems)
    settings = _with_keys(settings, [environ, dotenv], origins, problems)
    problems += conflicts(settings, failed, origins)
    if problems:
        raise ConfigError(problems, Loaded(settings, origins | dict.fromkeys(failed, "default")))
    return Loaded(settings, origins)


class _Variables(EnvSettingsSource):
    """pydantic-settings' own source over a given mapping, where it would read ``os.environ``."""

    def __init__(self, variables: Mapping[str, str]) -> None:
        self._variables = variables
        super().__init__(Settings)

    def _load_env_vars(self) -> Mapping[str, str | None]:
        return {name.lower(): value for name, value in self._variables.items()}


def _read_variables(environ: Mapping[str, str], where: str, problems: list[str]) -> dict[str, object]:
    """Take the settings out of an environment. Set but empty counts as not set, as Compose leaves them."""
    known = {PREFIX + name.upper() for name in Settings.model_fields}
    found = {PREFIX + field.upper(): environ.get(name, "") for name, field in SDK_VARIABLES.items()}
    for name, value in environ.items():
        if not name.startswith(PREFIX) or name == f"{PREFIX}CONFIG" or _is_service_link(name, value):
            continue
        if name not in known:
            problems.append(f"{name}{where} is not a setting. {_suggestion(name, known)}")
        elif value:
            found[name] = value
    return _Variables({name: value for name, value in found.items() if value})()


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
    # Without the prefix, which all share and which makes names alike that have nothing in common.
    bare = {each.removeprefix(PREFIX): each for each in known}
    close = difflib.get_close_matches(name.removeprefix(PREFIX), bare, n=1, cutoff=0.75)
    return (
        f"Did you mean {bare[close[0]]}?"
        if close
        else "Remove it; `unbroken check-config` lists all settings."
    )


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
        got = "" if is_secret(name) else f" (it is {_clipped(values.get(name))})"
        problems.append(f"{label(name, origins)} {text}{got}.")
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
                f"{label('fallbacks', origins)}: the key of {entry.name} should be in {missing}, "
                "which is not set. Set it, or leave it out for an upstream that takes none."
            )
    return settings.model_copy(update={"fallbacks": tuple(entries)})


def _clipped(value: object) -> str:
    text = re.sub(r"//\S*@", "//********@", repr(value))  # an address of any setting may hold a password
    return text if len(text) <= 60 else f"{text[:57]}..."
