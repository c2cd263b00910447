"""The entries of ``UNBROKEN_FALLBACKS``: what is asked when the agent fails, and how a person writes it.

An entry is ``embedded``, or an OpenAI-compatible upstream: a string
``name=base_url|model|KEY_VARIABLE|api`` whose last two parts may be left out, or in a
TOML file a table with the keys ``name``, ``base_url``, ``model``,
``key_variable`` and ``api``. Keys themselves are never in it: it names the
variable that holds one, in the environment or in ``.env``.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields, replace
from typing import Final, Literal, TypeAlias, get_args

from pydantic import SecretStr

__all__ = ["ChainEntry", "UpstreamApi", "masked_url", "read_entries", "with_keys"]

UpstreamApi: TypeAlias = Literal["chat", "responses"]

_EMBEDDED: Final = "embedded"
_SHAPE: Final = "should be embedded, or name=base_url|model|KEY_VARIABLE|api; the last two may be left out"
_NAME: Final = re.compile(r"[A-Za-z0-9_.-]{1,64}")
_VARIABLE: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


@dataclass(frozen=True, slots=True, kw_only=True)
class ChainEntry:
    """One agent to fall back to."""

    name: str
    base_url: str = ""
    """Empty: it is the embedded agent."""
    model: str = ""
    key_variable: str | None = None
    """Where the key is. None: the upstream takes none."""
    api: UpstreamApi = "chat"
    api_key: SecretStr | None = None

    @property
    def is_embedded(self) -> bool:
        """Whether it is the model inside."""
        return not self.base_url

    def __str__(self) -> str:
        """Write it as a person does, with what is secret masked."""
        if self.is_embedded:
            return self.name
        parts = [masked_url(self.base_url), self.model]
        if self.key_variable or self.api != "chat":
            parts.append(self.key_variable or "")
        if self.api != "chat":
            parts.append(self.api)
        return f"{self.name}={'|'.join(parts)}"


def masked_url(url: str, mask: str = "********") -> str:
    """Return *url* without its password and its query, which may hold one."""
    return re.sub(r"//[^/\s]*@", f"//{mask}@", re.sub(r"\?.*", f"?{mask}", url))


def read_entries(value: object) -> object:
    """Turn what a source gave into entries; leave what isn't a list of them to the field's own type.

    Raises:
        ValueError: An entry isn't one. The text says which, and repeats nothing of it.

    """
    if isinstance(value, str):
        value = [part.strip() for part in value.split(",") if part.strip()]
    if not isinstance(value, list | tuple):
        return value
    entries = [_entry(number, given) for number, given in enumerate(value, 1)]
    names = [entry.name for entry in entries]
    for number, name in enumerate(names, 1):
        if name in names[: number - 1]:
            raise ValueError(f"entry {number} has the name of another one")
    return tuple(entries)


def with_keys(
    entries: tuple[ChainEntry, ...], variables: Mapping[str, str]
) -> Iterator[tuple[ChainEntry, str | None]]:
    """Yield each entry with its key, and the name of the variable that should hold it and is not set."""
    for entry in entries:
        if entry.key_variable is None:
            yield entry, None
        elif key := variables.get(entry.key_variable):
            yield replace(entry, api_key=SecretStr(key)), None
        else:
            yield entry, entry.key_variable


def _entry(number: int, given: object) -> ChainEntry:
    if isinstance(given, ChainEntry):
        return given
    if isinstance(given, str):
        parts = _split(given)
    elif isinstance(given, Mapping):
        parts = {str(name): str(value) for name, value in given.items()}
    else:
        parts = None
    if parts == {"name": _EMBEDDED}:
        return ChainEntry(name=_EMBEDDED)
    known = {field.name for field in fields(ChainEntry)} - {"api_key"}
    if (
        parts is None
        or not {"base_url"} <= parts.keys() <= known
        or not _NAME.fullmatch(parts.get("name", ""))
    ):
        raise ValueError(f"entry {number} {_SHAPE}")
    if not re.match(r"https?://[^/]", parts.get("base_url", "")) or not parts.get("model"):
        raise ValueError(f"entry {number} needs an address that begins with http:// or https://, and a model")
    if parts["name"] == _EMBEDDED:
        raise ValueError(f"entry {number} is an upstream: give it a name other than {_EMBEDDED}")
    variable, api = parts.get("key_variable") or None, parts.get("api") or "chat"
    if variable is not None and not _VARIABLE.fullmatch(variable):
        raise ValueError(f"entry {number} should name the variable that holds its key, and not hold the key")
    if api not in get_args(UpstreamApi):
        raise ValueError(f"entry {number} should have chat or responses for its API")
    return ChainEntry(
        name=parts["name"],
        base_url=parts["base_url"],
        model=parts["model"],
        key_variable=variable,
        api="responses" if api == "responses" else "chat",
    )


def _split(text: str) -> dict[str, str] | None:
    name, equals, rest = text.partition("=")
    if not equals:
        return {"name": name}
    values = [part.strip() for part in rest.split("|")]
    names = ("base_url", "model", "key_variable", "api")
    if len(values) > len(names):
        return None
    return {"name": name.strip(), **dict(zip(names, values, strict=False))}
