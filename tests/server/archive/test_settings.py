"""The settings of the archive and of webhooks: what can be used, and what is said of the rest."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

from unbroken.server.app import build
from unbroken.server.archive_settings import retention_of
from unbroken.server.config import ConfigError, StartupError, shown
from unbroken.server.setting_hints import hints
from unbroken.server.setting_sources import load_settings
from unbroken.server.setting_transfer import packed, unpacked

SECRET = "whsec_" + "A" * 43 + "="
URL = "sqlite:///archive.db"


def load(folder: Path, text: str = "", **environ: str) -> Any:
    (folder / "unbroken.toml").write_text(text)
    return load_settings({}, {f"UNBROKEN_{name.upper()}": value for name, value in environ.items()}, folder)


def problems(folder: Path, text: str = "", **environ: str) -> str:
    with pytest.raises(ConfigError) as caught:
        load(folder, text, **environ)
    return str(caught.value)


HOOKS = f'''
archive_url = "{URL}"
[webhooks.crm]
url = "https://crm.example.com/hook"
secrets = ["{SECRET}"]
events = ["turn.completed"]
tenants = ["acme"]
content = true
[webhooks.audit]
url = "http://10.0.0.7:9000/"
secrets = ["{SECRET}", "{SECRET}"]
'''


def test_times_are_read() -> None:
    assert [retention_of(each) for each in ("forever", "0", "90", "5m", "12h", "30d")] == [
        None,
        0.0,
        90.0,
        300.0,
        43_200.0,
        2_592_000.0,
    ]


def test_an_archive_and_its_webhooks_are_read_from_a_file(tmp_path: Path) -> None:
    settings = load(tmp_path, HOOKS, archive_retention="90d, free=0").settings

    assert settings.archive_retention == ("default=90d", "free=0")
    crm, audit = settings.webhooks["crm"], settings.webhooks["audit"]
    assert (crm.events, crm.tenants, crm.content) == (("turn.completed",), ("acme",), True)
    assert len(audit.events) == 7
    assert SECRET not in repr(settings)
    assert shown("webhooks", settings) == "crm, audit"
    assert shown("archive_url", settings) == URL
    secret = load(tmp_path, archive_url="postgresql://me:secret-word@host/db?password=secret-word").settings
    assert shown("archive_url", secret) == "postgresql://********@host/db?********"
    assert unpacked(packed(settings)) == settings
    assert unpacked(packed(settings)).webhooks["crm"].secrets[0].get_secret_value() == SECRET


def test_webhooks_are_read_from_the_environment(tmp_path: Path) -> None:
    text = f'{{"crm": {{"url": "https://x", "secrets": "{SECRET}", "events": "session.ended"}}}}'
    settings = load(tmp_path, archive_url=URL, webhooks=text).settings

    assert settings.webhooks["crm"].events == ("session.ended",)


@pytest.mark.parametrize(
    ("environ", "said"),
    [
        ({"archive_url": "mysql://x"}, "should begin with sqlite:///"),
        ({"archive_url": "sqlite://x"}, "should begin with sqlite:///"),
        ({"archive_retention": "soon"}, "should be forever, or a time such as 90d"),
        ({"archive_url": URL, "redis_url": "redis://x", "secret": "x" * 32}, "a file, which other nodes"),
        ({"webhooks": f'{{"a": {{"url": "https://x", "secrets": "{SECRET}"}}}}'}, "and there is none"),
        ({"archive_url": URL, "webhooks": '{"a": {"url": "https://x"}}'}, "a.secrets is missing"),
        ({"archive_url": URL, "webhooks": '{"a": {"url": "x", "secrets": "y"}}'}, "should begin with http"),
        ({"archive_url": URL, "webhooks": '{"a": {"url": "https://x", "secrets": "y"}}'}, "whsec_ and 24"),
        ({"archive_url": URL, "webhooks": '{"a": {"secret": "x"}}'}, "did you mean secrets?"),
        (
            {
                "archive_url": URL,
                "webhooks": f'{{"a": {{"url": "https://x", "secrets": "{SECRET}", "events": "x"}}}}',
            },
            "should be some of turn.completed",
        ),
        (
            {"archive_url": URL, "webhooks": f'{{"A b": {{"url": "https://x", "secrets": "{SECRET}"}}}}'},
            "small letters",
        ),
    ],
)
def test_what_cannot_be_used_is_said_with_the_fix(tmp_path: Path, environ: dict[str, str], said: str) -> None:
    found = problems(tmp_path, **environ)

    assert said in found
    assert SECRET not in found


def test_what_is_set_in_vain_is_said(tmp_path: Path) -> None:
    (hint,) = hints(load(tmp_path, archive_retention="90d"))

    assert hint == (
        "UNBROKEN_ARCHIVE_RETENTION does nothing, as there is no archive. "
        "Set UNBROKEN_ARCHIVE_URL, or unset it."
    )


def test_a_client_that_is_not_installed_is_said_with_how_to_install_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "asyncpg", None)
    monkeypatch.delitem(sys.modules, "unbroken.server.archive.postgresql", raising=False)
    settings = load(tmp_path, archive_url="postgresql://host/db").settings

    with pytest.raises(StartupError, match=r"pip install 'unbroken\[postgresql\]'"):
        build(settings.model_copy(update={"agent": "scripted"}))
