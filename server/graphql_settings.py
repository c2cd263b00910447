"""The settings of the door for GraphQL. Part of :class:`Settings`."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from unbroken.server.setting_values import Bytes
from unbroken.server.settings_part import SettingsPart

__all__ = ["GraphqlSettings"]


class GraphqlSettings(SettingsPart):
    """Whether GraphQL is spoken, and how much one document may ask for."""

    graphql: bool = Field(default=False, description="Serve /graphql. Needs the extra `graphql`.")
    graphql_introspection: Literal["auto", "on", "off"] = Field(
        default="auto",
        description="Show the schema, and suggest its names in errors. auto: only while no key is needed.",
    )
    graphql_max_bytes: Bytes = Field(
        default=16 * 1024, ge=256, le=256 * 1024, description="Bytes of a document; its variables aside."
    )
    graphql_max_tokens: int = Field(
        default=1000, ge=16, le=10_000, description="Lexical tokens of a document."
    )
    graphql_max_depth: int = Field(
        default=10, ge=1, le=64, description="How deeply its fields may be nested, fragments resolved."
    )
    graphql_max_cost: int = Field(
        default=2000,
        ge=16,
        le=100_000,
        description="Fields that a document may ask for, those of a list once for each entry there may be.",
    )
    graphql_max_aliases: Annotated[int, Field(ge=0, le=1000)] = Field(
        default=16,
        description="Fields that a document may ask for once more, under another name or the same.",
    )
    graphql_subscriptions: int = Field(
        default=32, ge=1, le=1000, description="Operations that may run at once on one WebSocket."
    )
