"""Settings: where they come from, and how a person hears what is wrong."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from unbroken.server.config import ConfigError, Settings, is_loopback, is_secret, shown
from unbroken.server.setting_sources import load_settings

DIGEST = "0123456789abcdef" * 4

SHARED = {"UNBROKEN_WORKERS": "2", "UNBROKEN_REDIS_URL": "redis://host", "UNBROKEN_SECRET": 32 * "s"}

NOTHING: Mapping[str, str] = {}


def problems(cwd: Path, environ: Mapping[str, str] = NOTHING, **flags: object) -> list[str]:
    with pytest.raises(ConfigError) as raised:
        load_settings(flags, environ, cwd)
    return raised.value.problems


def test_without_any_source_there_are_defaults(tmp_path: Path) -> None:
    loaded = load_settings({}, {}, tmp_path)

    assert loaded.settings == Settings()
    assert set(loaded.origins) == set(Settings.model_fields)
    assert set(loaded.origins.values()) == {"default"}


def test_every_setting_says_what_it_is() -> None:
    assert all(field.description for field in Settings.model_fields.values())


def test_settings_do_not_change() -> None:
    with pytest.raises(ValidationError):
        Settings().port = 1


def test_building_settings_reads_no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UNBROKEN_PORT", "1")

    assert Settings().port == 8000


def test_sources_have_an_order(tmp_path: Path) -> None:
    """Flag, environment, .env, file, default; and each value knows its source."""
    (tmp_path / "unbroken.toml").write_text(
        'port = 1\nmodel = "file"\nlog_level = "error"\ninstructions = "f"\n'
    )
    (tmp_path / ".env").write_text(
        "UNBROKEN_PORT=2\nUNBROKEN_MODEL=dotenv\nexport UNBROKEN_LOG_LEVEL='debug'\n"
    )
    environ = {"UNBROKEN_PORT": "3", "UNBROKEN_MODEL": "environment"}

    loaded = load_settings({"port": "4", "model": None}, environ, tmp_path)

    settings, origins = loaded.settings, loaded.origins
    assert (settings.port, origins["port"]) == (4, "flag")
    assert (settings.model, origins["model"]) == ("environment", "environment")
    assert (settings.log_level, origins["log_level"]) == ("debug", ".env")
    assert (settings.instructions, origins["instructions"]) == ("f", "file unbroken.toml")
    assert (settings.host, origins["host"]) == ("127.0.0.1", "default")


@pytest.mark.parametrize("source", ["flag", "environment", ".env"])
def test_another_file_can_be_named(source: str, tmp_path: Path) -> None:
    """It takes the place of unbroken.toml."""
    (tmp_path / "unbroken.toml").write_text('model = "wrong"')
    (tmp_path / "my.toml").write_text("port = 7")
    if source == ".env":
        (tmp_path / ".env").write_text("UNBROKEN_CONFIG=my.toml")
    environ = {"UNBROKEN_CONFIG": "my.toml"} if source == "environment" else {}

    loaded = load_settings({"config": "my.toml" if source == "flag" else None}, environ, tmp_path)

    assert (loaded.settings.port, loaded.origins["port"]) == (7, "file my.toml")
    assert loaded.settings.model is None


def test_the_names_of_the_openai_sdk_are_known(tmp_path: Path) -> None:
    """Ours go first, for a machine whose OPENAI_* are meant for something else."""
    environ = {"OPENAI_API_KEY": "sk-theirs", "OPENAI_BASE_URL": "http://theirs/v1"}
    theirs = load_settings({}, environ, tmp_path).settings
    ours = load_settings({}, {**environ, "UNBROKEN_OPENAI_API_KEY": "sk-ours"}, tmp_path).settings

    assert theirs.openai_base_url == "http://theirs/v1"
    assert theirs.openai_api_key is not None
    assert theirs.openai_api_key.get_secret_value() == "sk-theirs"
    assert ours.openai_api_key is not None
    assert ours.openai_api_key.get_secret_value() == "sk-ours"


def test_empty_variables_are_not_set(tmp_path: Path) -> None:
    """Compose files pass on variables that nobody has set."""
    loaded = load_settings({}, {"UNBROKEN_PORT": "", "OPENAI_API_KEY": ""}, tmp_path)

    assert loaded.settings == Settings()
    assert loaded.origins["port"] == "default"


def test_dotenv_expands_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/root")
    (tmp_path / ".env").write_text("UNBROKEN_INSTRUCTIONS='costs ${HOME}'\nOTHER=1\n")

    assert load_settings({}, {}, tmp_path).settings.instructions == "costs ${HOME}"


@pytest.mark.parametrize(
    ("text", "size"),
    [("4096", 4096), ("64KiB", 65536), ("1 MiB", 1 << 20), ("2mib", 2 << 20), ("5000b", 5000)],
)
def test_sizes_have_units(text: str, size: int, tmp_path: Path) -> None:
    assert load_settings({}, {"UNBROKEN_MAX_FRAME_BYTES": text}, tmp_path).settings.max_frame_bytes == size


@pytest.mark.parametrize("text", ["64KB", "-1", "1.5MiB", "many", ""])
def test_other_sizes_are_refused(text: str) -> None:
    with pytest.raises(ValidationError, match="a size such as 64KiB"):
        Settings(max_frame_bytes=text)  # type: ignore[arg-type]


def test_lists_are_separated_by_commas(tmp_path: Path) -> None:
    (tmp_path / "unbroken.toml").write_text('allowed_origins = ["https://a", "https://b"]')
    settings = load_settings(
        {}, {"UNBROKEN_AGENT": "scripted", "UNBROKEN_MODELS": "one, two,"}, tmp_path
    ).settings

    assert settings.models == ("one", "two")
    assert settings.allowed_origins == ("https://a", "https://b")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (
            "https://A.example/,*",
            "has 'https://A.example/', which should be https://a.example: scheme://host",
        ),
        ("https://a.example, *", "has '*', which should be scheme://host"),
        ("null", "has 'null', which should be scheme://host"),
    ],
)
def test_origins_that_no_browser_sends_are_refused_with_what_to_write(
    text: str, said: str, tmp_path: Path
) -> None:
    (found,) = problems(tmp_path, {"UNBROKEN_ALLOWED_ORIGINS": text})

    assert found.startswith(f"UNBROKEN_ALLOWED_ORIGINS {said}")
    assert ("no entry for all" in found) == (text.endswith("*") and "A" not in text)


def test_api_keys_are_names_and_digests() -> None:
    settings = Settings(api_keys=f"alice:{DIGEST.upper()}, bob:{DIGEST}")  # type: ignore[arg-type]

    assert settings.api_keys == (f"alice:{DIGEST}", f"bob:{DIGEST}")


def test_all_problems_come_at_once(tmp_path: Path) -> None:
    """Of every source, of single settings and of settings that don't go together: a line each."""
    (tmp_path / ".env").write_text("UNBROKEN_MODLES=x\n=nothing\nUNBROKEN_MAX_SESSIONS=0\n")
    (tmp_path / "unbroken.toml").write_text('prot = 1\nlog_content = "perhaps"\n')
    found = problems(
        tmp_path,
        {"UNBROKEN_PRT": "1", "UNBROKEN_STALL_TIMEOUT": "nan", "UNBROKEN_HOST": "0.0.0.0"},
        port="70000",
        agent="python",
    )

    assert found == [
        ".env line 2 can't be understood. Write NAME=value.",
        "UNBROKEN_PRT is not a setting. Did you mean UNBROKEN_PORT?",
        "UNBROKEN_MODLES in .env is not a setting. Did you mean UNBROKEN_MODELS?",
        "prot in unbroken.toml is not a setting. Did you mean port?",
        "--port should be less than or equal to 65535 (it is '70000').",
        "UNBROKEN_STALL_TIMEOUT should be a finite number (it is 'nan').",
        "UNBROKEN_MAX_SESSIONS in .env should be greater than or equal to 1 (it is '0').",
        "log_content in unbroken.toml should be a valid boolean (it is 'perhaps').",
        "UNBROKEN_HOST is 0.0.0.0, which others can reach, without authentication. Make a key with "
        "`unbroken new-key NAME` and set UNBROKEN_API_KEYS, or listen on 127.0.0.1.",
        "The python agent needs your function. Set UNBROKEN_PYTHON_AGENT to module:function.",
    ]


def test_a_name_like_no_other_is_told_where_to_look(tmp_path: Path) -> None:
    for name in ("UNBROKEN_XYZZY", "UNBROKEN_NONSENSE"):  # the latter is near SECRET by the prefix alone
        assert problems(tmp_path, {name: "1"}) == [
            f"{name} is not a setting. Remove it; `unbroken check-config` lists all settings."
        ]


@pytest.mark.parametrize(
    ("values", "fix"),
    [
        ({"UNBROKEN_AGENT": "openai"}, "Set OPENAI_API_KEY"),
        ({"UNBROKEN_AGENT": "python"}, "Set UNBROKEN_PYTHON_AGENT to module:function"),
        ({"UNBROKEN_AGENT": "python", "UNBROKEN_PYTHON_AGENT": "a.b"}, "should be module:function"),
        ({"UNBROKEN_AGENT": "magic"}, "should be 'embedded', 'openai', 'python' or 'scripted'"),
        ({"UNBROKEN_REDIS_URL": "http://:hunter2@host"}, "should begin with redis://"),
        ({"UNBROKEN_REDIS_URL": "redis://:hunter2@host"}, "Set UNBROKEN_SECRET, the same on all"),
        ({"UNBROKEN_API_KEYS": "alice:hunter2"}, "entry 1 should be name:sha256"),
        ({"UNBROKEN_SECRET": "hunter2"}, "should have at least 32 characters"),
        ({"UNBROKEN_WORKERS": "2"}, "Set UNBROKEN_REDIS_URL, or 1 worker"),
        ({"UNBROKEN_WORKERS": "0"}, "should be greater than or equal to 1"),
        (SHARED | {"UNBROKEN_ADMIN_PORT": "65535"}, "the last of 2 workers would have 65536"),
        (SHARED | {"UNBROKEN_PORT": "8002"}, "the admin listeners of 2 workers have 8001 to 8002"),
        ({"UNBROKEN_ADMIN_KEY": "hunter2"}, "should have at least 32 characters, of ASCII"),
        ({"UNBROKEN_ADMIN_KEY": 5 * "hunter2 "}, "without spaces"),
        ({"UNBROKEN_HOST": "192.168.0.1"}, "unbroken new-key NAME"),
        ({"UNBROKEN_PORT": "8001"}, "another port, or 0 for none"),
        ({"UNBROKEN_LOG_RETAIN_BYTES": "2MiB"}, "is above UNBROKEN_LOG_MAX_BYTES"),
        ({"UNBROKEN_MAX_FILE_BYTES": "9MiB"}, "is above UNBROKEN_MAX_TURN_FILE_BYTES"),
        ({"UNBROKEN_MAX_PRINCIPAL_FILE_BYTES": "4MiB"}, "is above UNBROKEN_MAX_PRINCIPAL_FILE_BYTES"),
        ({"UNBROKEN_FILES_KEEP": "true"}, "Set UNBROKEN_FILES_DIR"),
        (
            {"UNBROKEN_FILES_KEEP": "true", "UNBROKEN_FILES": "memory", "UNBROKEN_FILES_DIR": "/srv/files"},
            "needs a disk, and UNBROKEN_FILES is memory",
        ),
        ({"UNBROKEN_TRUSTED_PROXIES": "0.0.0.0/0"}, "0.0.0.0/0 would have clients believed too"),
        ({"UNBROKEN_TRUSTED_PROXIES": "10.0.0.1,::/0"}, "should be the proxies alone: ::/0 would have"),
        ({"UNBROKEN_TRUSTED_PROXIES": "128.0.0.0/1"}, "name the address that limits count it for"),
        ({"UNBROKEN_PING_INTERVAL": "1e-9"}, "should be greater than or equal to 0.1"),
        ({"UNBROKEN_PING_TIMEOUT": "1e-9"}, "should be greater than or equal to 0.1"),
        ({"UNBROKEN_HANDSHAKE_TIMEOUT": "0.01"}, "should be greater than or equal to 0.1"),
        ({"UNBROKEN_STALL_TIMEOUT": "0.01"}, "should be greater than or equal to 0.1"),
        ({"UNBROKEN_CONNECTION_IDLE_TIMEOUT": "1e-9"}, "should be 0, or at least 1"),
        ({"UNBROKEN_OVERLOAD_LAG": "1e-9"}, "should be 0, or at least 0.01"),
        ({"UNBROKEN_RATE_REQUESTS": "0.01"}, "should be greater than or equal to 0.1"),
        ({"UNBROKEN_WEBSOCKET_CLASS": "wsproto"}, "should be 'own' or 'stock'"),
        ({"UNBROKEN_RATE_MESSAGES": "1e-320"}, "should be greater than or equal to 0.001"),
        ({"UNBROKEN_RATE_BYTES": "9" * 400}, "should be less than or equal to"),
        ({"UNBROKEN_MAX_FRAME_BYTES": "x" * 1000}, "a size such as 64KiB"),
    ],
)
def test_each_problem_is_one_line_with_its_fix(values: dict[str, str], fix: str, tmp_path: Path) -> None:
    """And repeats no secret."""
    (line,) = problems(tmp_path, values)

    assert fix in line
    assert "\n" not in line
    assert "hunter2" not in line
    assert len(line) < 250


SECRETS = (
    *("admin_key", "api_keys", "archive_url", "fallbacks", "firewall_service", "firewall_service_key"),
    *("leak_canaries", "mcp_keys", "mcp_servers", "openai_api_key", "openai_base_url"),
    *("redis_sentinel_password", "redis_url", "secret", "webhooks"),
)


@pytest.mark.parametrize("name", SECRETS)
def test_what_is_wrong_with_a_secret_is_said_without_it(name: str, tmp_path: Path) -> None:
    """Wherever in its value the mistake is."""
    secret = "hunter2"
    address = f"postgresql+x://u:{secret}@h"
    row = {"url": f"http://u:{secret}@h", "secrets": [secret], "name": secret}
    said: list[str] = []
    for value in (
        secret,
        7,
        address,
        [secret],
        [7],
        {"a": secret},
        {"a": row},
        [row],
        f'{{"a":["{secret}"]}}',
    ):
        try:
            load_settings({name: value}, {}, tmp_path)
        except ConfigError as error:
            said += error.problems

    assert said
    assert secret not in " ".join(said)


def test_every_type_that_holds_a_secret_is_known() -> None:
    assert tuple(sorted(name for name in Settings.model_fields if is_secret(name))) == SECRETS


@pytest.mark.parametrize("name", ["allowed_origins", "jwt_jwks"])
def test_passwords_of_other_addresses_are_masked(name: str, tmp_path: Path) -> None:
    (line,) = problems(tmp_path, {f"UNBROKEN_{name.upper()}": "http://u:hunt@er2@h"})

    assert "hunt" not in line
    assert "er2" not in line


def test_networks_of_proxies_may_be_as_large_as_private_ones_are(tmp_path: Path) -> None:
    networks = "10.0.0.0/8,fc00::/7,192.0.2.1"

    loaded = load_settings({}, {"UNBROKEN_TRUSTED_PROXIES": networks}, tmp_path)

    assert loaded.settings.trusted_proxies == tuple(networks.split(","))


def test_listening_for_others_is_fine_with_keys(tmp_path: Path) -> None:
    environ = {"UNBROKEN_HOST": "0.0.0.0", "UNBROKEN_API_KEYS": f"a:{DIGEST}"}

    assert load_settings({}, environ, tmp_path).settings.host == "0.0.0.0"


def test_an_upstream_without_a_key_is_fine(tmp_path: Path) -> None:
    """Local servers take none."""
    load_settings({"agent": "openai"}, {"OPENAI_BASE_URL": "http://127.0.0.1:9/v1"}, tmp_path)


def test_service_links_are_no_settings(tmp_path: Path) -> None:
    """Kubernetes puts these beside a service that is called unbroken. They must not stop the server."""
    environ = {
        "UNBROKEN_SERVICE_HOST": "10.0.0.1",
        "UNBROKEN_SERVICE_PORT": "80",
        "UNBROKEN_SERVICE_PORT_HTTP": "80",
        "UNBROKEN_PORT": "tcp://10.0.0.1:80",
        "UNBROKEN_PORT_80_TCP": "tcp://10.0.0.1:80",
        "UNBROKEN_PORT_80_TCP_ADDR": "10.0.0.1",
        "UNBROKEN_REDIS_PORT": "tcp://10.0.0.2:6379",
        "UNBROKEN_REDIS_PORT_6379_TCP_PROTO": "tcp",
    }

    assert load_settings({}, environ, tmp_path).settings == Settings()


def test_files_that_cannot_be_used_are_named(tmp_path: Path) -> None:
    (tmp_path / ".env").write_bytes(b"UNBROKEN_PORT=\xff")
    (tmp_path / "unbroken.toml").write_text("port = ")
    dotenv, toml = problems(tmp_path)

    assert dotenv.startswith(".env can't be read: ")
    assert toml.startswith("unbroken.toml is not valid TOML: ")
    assert problems(tmp_path, config="gone.toml")[1:] == [
        f"There is no configuration file {tmp_path}/gone.toml. Correct --config or UNBROKEN_CONFIG."
    ]


def test_a_directory_is_no_file(tmp_path: Path) -> None:
    (tmp_path / ".env").mkdir()  # some call their virtual environment so
    (tmp_path / "d.toml").mkdir()

    (line,) = problems(tmp_path, config="d.toml")

    assert "d.toml" in line


def test_secrets_are_never_shown() -> None:
    settings = Settings(
        secret="s3cret" * 6,  # type: ignore[arg-type]
        openai_api_key="s3cret",  # type: ignore[arg-type]
        openai_base_url="https://me:s3cret@host/v1?key=s3cret",
        firewall_service="https://me:s3cret@guard/check",
        api_keys=(f"alice:{DIGEST}",),
        mcp_servers=("docs=https://me:s3cret@host/mcp", "here=serve --key s3cret"),
        leak_canaries=("s3cret-0123456789-abcdef",),
    )
    text = [shown(name, settings) for name in Settings.model_fields]

    assert "s3cret" not in f"{text} {settings!r} {settings}"
    assert DIGEST not in f"{text} {settings!r}"
    assert shown("openai_base_url", settings) == "https://********@host/v1?********"
    assert shown("firewall_service", settings) == "https://********@guard/check"
    assert shown("api_keys", settings) == "alice:********"
    assert shown("mcp_servers", settings) == "docs=********, here=********"


@pytest.mark.parametrize(
    ("values", "name", "text"),
    [
        ({}, "model", "not set"),
        ({}, "models", "not set"),
        ({}, "max_frame_bytes", "64KiB"),
        ({"max_frame_bytes": 5000}, "max_frame_bytes", "5000"),
        ({"stall_timeout": 1.5}, "stall_timeout", "1.5"),
        ({}, "log_content", "false"),
        ({"models": ("a", "b")}, "models", "a, b"),
        ({"instructions": "two\nlines"}, "instructions", "two lines"),
        ({}, "port", "8000"),
    ],
)
def test_values_are_shown_as_a_person_writes_them(values: dict[str, Any], name: str, text: str) -> None:
    assert shown(name, Settings(**values)) == text


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.8.8", "::1", "localhost"])
def test_loopback_is_known(host: str) -> None:
    assert is_loopback(host)


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "10.0.0.1", "localhost.example", "myhost"])
def test_whatever_else_may_be_reached(host: str) -> None:
    assert not is_loopback(host)


@pytest.mark.parametrize(
    ("environ", "problem"),
    [
        ({"UNBROKEN_KEY_STORE": "file"}, "UNBROKEN_KEY_FILE"),
        ({"UNBROKEN_KEY_STORE": "redis"}, "UNBROKEN_REDIS_URL"),
        (
            {
                "UNBROKEN_KEY_STORE": "file",
                "UNBROKEN_KEY_FILE": "keys.json",
                "UNBROKEN_REDIS_URL": "redis://h",
                "UNBROKEN_SECRET": "s" * 32,
            },
            "Set UNBROKEN_KEY_STORE to redis",
        ),
        ({"UNBROKEN_JWT_JWKS": "keys.json", "UNBROKEN_JWT_AUDIENCE": "a"}, "UNBROKEN_JWT_ISSUER"),
        ({"UNBROKEN_JWT_JWKS": "keys.json", "UNBROKEN_JWT_ISSUER": "i"}, "UNBROKEN_JWT_AUDIENCE"),
        ({"UNBROKEN_JWT_JWKS": "http://id.example/jwks"}, "https://"),
        ({"UNBROKEN_JWT_JWKS": "https://["}, "https://"),
        ({"UNBROKEN_JWT_ALGORITHMS": "RS256, HS256"}, "should be some of RS256"),
        ({"UNBROKEN_JWT_ALGORITHMS": "none"}, "should be some of RS256"),
        ({"UNBROKEN_ANONYMOUS_PLAN": "a b"}, "letters, digits"),
        ({"UNBROKEN_TENANT_PLANS": "acme"}, "tenant=plan"),
        ({"UNBROKEN_TENANT_PLANS": "acme=a, acme=b"}, "one plan for each tenant"),
        ({"UNBROKEN_CLIENT_SECRET_PLANS": "backend"}, "maker=plan|plan"),
        ({"UNBROKEN_CLIENT_SECRET_PLANS": "backend="}, "maker=plan|plan"),
        ({"UNBROKEN_CLIENT_SECRET_PLANS": "=free"}, "maker=plan|plan"),
        ({"UNBROKEN_CLIENT_SECRET_PLANS": "backend=free||pro"}, "maker=plan|plan"),
        ({"UNBROKEN_CLIENT_SECRET_PLANS": "backend=free, backend=pro"}, "one entry for each plan of makers"),
    ],
)
def test_ways_to_speak_that_do_not_fit_are_said(
    environ: dict[str, str], problem: str, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError) as caught:
        load_settings({}, environ, tmp_path)
    assert any(problem in each for each in caught.value.problems), caught.value.problems


@pytest.mark.parametrize(
    "environ",
    [
        {"UNBROKEN_KEY_STORE": "memory"},
        {"UNBROKEN_JWT_JWKS": "k.json", "UNBROKEN_JWT_ISSUER": "i", "UNBROKEN_JWT_AUDIENCE": "a"},
    ],
)
def test_other_ways_than_keys_of_the_settings_open_the_door_too(
    environ: dict[str, str], tmp_path: Path
) -> None:
    assert load_settings({}, {"UNBROKEN_HOST": "0.0.0.0", **environ}, tmp_path).settings.has_authentication


@pytest.mark.parametrize(
    ("environ", "said"),
    [
        (
            {"UNBROKEN_FIREWALL_FLAG": "0.9"},
            "UNBROKEN_FIREWALL_BLOCK is 0.8 for the plan default, and UNBROKEN_FIREWALL_FLAG 0.9: "
            "what is flagged would be blocked before. Raise the first, or lower the second.",
        ),
        (
            {"UNBROKEN_FIREWALL_BLOCK": "0.8, free=0.4"},
            "UNBROKEN_FIREWALL_BLOCK is 0.4 for the plan free, and UNBROKEN_FIREWALL_FLAG 0.5: ",
        ),
        (
            {"UNBROKEN_FIREWALL_TRUSTED_TOOLS": "tools,wiki"},
            "UNBROKEN_FIREWALL_TRUSTED_TOOLS has the label 'wiki', and UNBROKEN_MCP_SERVERS has no server. ",
        ),
    ],
)
def test_guards_that_would_not_do_what_is_set_are_said(
    tmp_path: Path, environ: dict[str, str], said: str
) -> None:
    (problem,) = problems(tmp_path, environ)
    assert said in problem
