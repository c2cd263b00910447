"""What the settings of one subject are made of."""

from __future__ import annotations

from pydantic_settings import BaseSettings, SettingsConfigDict

__all__ = ["SettingsPart"]


class SettingsPart(BaseSettings):
    """The settings of one subject, which :class:`Settings` has with all others.

    None is ever made by itself, so that what would check its values isn't built: all of it is built
    once, for the whole.
    """

    model_config = SettingsConfigDict(defer_build=True)
