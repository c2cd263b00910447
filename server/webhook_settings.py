"""The settings of webhooks. Part of :class:`Settings`."""

from __future__ import annotations

import base64
import binascii
import re
from typing import Annotated, Any, Final

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, SecretStr, field_validator
from pydantic_settings import NoDecode

from unbroken.server.setting_tables import read_tables
from unbroken.server.setting_values import Seconds, check_address, read_list
from unbroken.server.settings_part import SettingsPart

__all__ = ["EVENTS", "WebhookEndpoint", "WebhookSettings"]

EVENTS: Final = (
    "turn.completed",
    "turn.incomplete",
    "turn.cancelled",
    "turn.failed",
    "turn.interrupted",
    "turn.finished_while_away",
    "session.ended",
)
"""All that there are."""

_NAME: Final = re.compile(r"[a-z0-9_-]{1,32}")
_LEAST: Final = 24
"""Bytes of a secret, as Standard Webhooks has it; the most are 64."""
_MOST: Final = 64


class WebhookEndpoint(BaseModel):
    """Somebody who is told."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    url: str
    secrets: Annotated[tuple[SecretStr, ...], BeforeValidator(read_list)]
    """Each signs. Two of them, while receivers change from one to the other."""
    events: Annotated[tuple[str, ...], BeforeValidator(read_list)] = EVENTS
    tenants: Annotated[tuple[str, ...], BeforeValidator(read_list)] = ()
    """None: of all tenants."""
    content: bool = False
    """Whether what was said is in it, beside ids, status and usage."""

    @field_validator("url")
    @classmethod
    def _is_address(cls, value: str) -> str:
        check_address(value)
        return value

    @field_validator("secrets")
    @classmethod
    def _are_secrets(cls, values: tuple[SecretStr, ...]) -> tuple[SecretStr, ...]:
        if not 1 <= len(values) <= 2:
            raise ValueError("should be one secret, or two while they change")
        for value in values:
            text = value.get_secret_value()
            try:
                key = base64.b64decode(text.removeprefix("whsec_"), validate=True)
            except binascii.Error:
                key = b""
            if not (text.startswith("whsec_") and _LEAST <= len(key) <= _MOST):
                raise ValueError(
                    "should each be whsec_ and 24 to 64 bytes in Base64; "
                    '`echo "whsec_$(openssl rand -base64 32)"` prints one'
                )
        return values

    @field_validator("events")
    @classmethod
    def _are_events(cls, values: tuple[str, ...]) -> tuple[str, ...]:
        if not values or any(value not in EVENTS for value in values):
            raise ValueError(f"should be some of {', '.join(EVENTS)}")
        return values


def _endpoints(value: object) -> dict[str, Any]:
    what = "endpoints, such as [webhooks.crm] with url and secrets"
    found = read_tables(value, WebhookEndpoint, what, "url, secrets, events, tenants and content")
    for name in found:
        if _NAME.fullmatch(name) is None:
            raise ValueError(
                f"can't be used: {name[:64]} should be up to 32 small letters, digits, dashes and underscores"
            )
    return found


class WebhookSettings(SettingsPart):
    """Who is told what happens, and how persistently."""

    webhooks: Annotated[dict[str, WebhookEndpoint], NoDecode, BeforeValidator(_endpoints)] = Field(
        default={}, repr=False, description="Who is told what happens, a table for each endpoint."
    )
    webhook_timeout: Annotated[Seconds, Field(le=60)] = Field(
        default=10, description="Seconds within which an endpoint has to answer."
    )
    webhook_tries: int = Field(
        default=10, ge=1, le=30, description="Times that a webhook is tried before it is given up."
    )
    webhook_concurrency: int = Field(
        default=4, ge=1, le=100, description="Webhooks on their way to one endpoint at once, from each node."
    )
