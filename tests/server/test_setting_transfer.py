"""Settings on their way to a worker."""

from __future__ import annotations

from pathlib import Path

import pytest

from unbroken.server.config import Settings
from unbroken.server.setting_sources import load_settings
from unbroken.server.setting_transfer import packed, unpacked

ENVIRON = {
    "UNBROKEN_AGENT": "openai",
    "UNBROKEN_OPENAI_API_KEY": "sk-mine",
    "UNBROKEN_SECRET": "s" * 32,
    "UNBROKEN_ADMIN_KEY": "k" * 32,
    "UNBROKEN_API_KEYS": "alice:" + "0123456789abcdef" * 4,
    "UNBROKEN_REDIS_URL": "redis://:hunter2@host/0",
    "UNBROKEN_INSTRUCTIONS": "Be \u00fcbel\nand brief \udcff.",
    "UNBROKEN_MODELS": "a, b",
    "UNBROKEN_MODEL_PATH": "model.gguf",
    "UNBROKEN_FILES_DIR": "/srv/files",
    "UNBROKEN_MCP_SERVERS": "docs=https://docs.example.com/mcp",
    "UNBROKEN_MCP_KEYS": "docs:secret",
    "UNBROKEN_MAX_FRAME_BYTES": "1MiB",
    "UNBROKEN_OVERLOAD_LAG": "0",
    "UNBROKEN_LOG_CONTENT": "true",
    "UNBROKEN_FALLBACKS": "one=https://h/v1|m|BACKUP_KEY|responses, two=http://h/v1|m, embedded",
    "BACKUP_KEY": "sk-backup",
}


@pytest.mark.parametrize("environ", [{}, ENVIRON])
def test_they_arrive_as_they_are(environ: dict[str, str], tmp_path: Path) -> None:
    settings = load_settings({}, environ, tmp_path).settings
    arrived = unpacked(packed(settings))

    assert arrived == settings
    for name in Settings.model_fields:
        assert type(getattr(arrived, name)) is type(getattr(settings, name))


def test_keys_arrive_too(tmp_path: Path) -> None:
    arrived = unpacked(packed(load_settings({}, ENVIRON, tmp_path).settings))

    assert arrived.admin_key is not None
    assert arrived.admin_key.get_secret_value() == "k" * 32
    assert [key.get_secret_value() for key in arrived.mcp_keys] == ["docs:secret"]
    (backup, *_) = arrived.fallbacks
    assert backup.api_key is not None
    assert backup.api_key.get_secret_value() == "sk-backup"
