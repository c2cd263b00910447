"""The settings of listeners, and of who may speak there. Part of :class:`Settings`."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator, Field, SecretStr

from unbroken.server.setting_values import (
    Names,
    Port,
    check_admin_key,
    check_api_keys,
    check_origins,
    check_secret,
)
from unbroken.server.settings_part import SettingsPart

__all__ = ["DoorSettings"]


class DoorSettings(SettingsPart):
    """Where the server listens, and whom it believes."""

    # Listeners
    host: str = Field(default="127.0.0.1", min_length=1, description="Address of the public listener.")
    port: Port = Field(default=8000, description="Port of the public listener; 0 takes any free one.")
    admin_host: str = Field(
        default="127.0.0.1", min_length=1, description="Address of the listener for /metrics."
    )
    admin_port: Port = Field(default=8001, description="Port of the listener for /metrics; 0 turns it off.")
    allowed_origins: Annotated[Names, AfterValidator(check_origins)] = Field(
        default=(), description="Origins whose pages may connect, besides the server's own; comma-separated."
    )

    openapi: bool = Field(
        default=True,
        description="Serve /openapi.json, which says what can be asked for over HTTP, to whoever asks.",
    )

    admin_key: Annotated[SecretStr | None, AfterValidator(check_admin_key)] = Field(
        default=None,
        description="Key for /admin on that listener, 32 characters or more. Unset: there is no /admin.",
    )

    workers: int = Field(
        default=1,
        ge=1,
        le=256,
        description="Nodes on this machine, a process each, on the same port. See Workers.",
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
        default=None,
        description="Signs resume tokens and seals compactions, 32 characters or more. "
        "Unset: random at each start.",
    )
