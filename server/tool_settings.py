"""The settings of tools that the server runs for its agent. Part of :class:`Settings`."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator, BeforeValidator, Field, SecretStr
from pydantic_settings import NoDecode

from unbroken.server.setting_values import (
    Bytes,
    Names,
    Seconds,
    check_mcp_keys,
    check_mcp_servers,
    check_targets,
    read_list,
)
from unbroken.server.settings_part import SettingsPart

__all__ = ["ToolSettings"]


class ToolSettings(SettingsPart):
    """Which tools there are, and what one response may do with them."""

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
