"""Where the value of a setting comes from, and what the setting is called there."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Final

__all__ = ["PREFIX", "SDK_VARIABLES", "label", "origin_of"]

PREFIX: Final = "UNBROKEN_"
"""What the variables of settings begin with."""

# Names of the openai SDK. Those of ours go first: a machine's OPENAI_* may be meant for something else.
SDK_VARIABLES: Final = {"OPENAI_BASE_URL": "openai_base_url", "OPENAI_API_KEY": "openai_api_key"}


def origin_of(source: str, name: str, variables: Mapping[str, str]) -> str:
    """Say where *name* came from, with the variable where that isn't the setting's own."""
    for variable, field in SDK_VARIABLES.items():
        if name == field and variables.get(variable) and not variables.get(PREFIX + field.upper()):
            return f"{source} {variable}"
    return source


def label(name: str, origins: Mapping[str, str]) -> str:
    """Name a setting as the person wrote it, or would write it."""
    origin = origins.get(name, "flag")
    if origin == "flag":
        return "--" + name.replace("_", "-")
    if origin.startswith("file "):
        return f"{name} in {Path(origin.removeprefix('file ')).name}"
    source, _, variable = origin.partition(" ")
    return (variable or PREFIX + name.upper()) + (" in .env" if source == ".env" else "")
