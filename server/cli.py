"""The ``unbroken`` command.

What can be expected to go wrong is one line on standard error, never a
traceback: exit code 2 for a command or a setting that isn't right, 1 for a
server that can't start.

Imports are few here and in functions otherwise: ``--help`` answers at once.
"""

from __future__ import annotations

import hashlib
import os
import re
import secrets
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

import click

from unbroken import __version__

if TYPE_CHECKING:
    from unbroken.server.config import Loaded, Settings
    from unbroken.server.process import Application

__all__ = ["main"]

_Command = TypeVar("_Command", bound=Callable[..., object])
_T = TypeVar("_T")


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run the command and leave the process with its exit code.

    Args:
        arguments: What stands after the command's name; that of the process by default.

    """
    sys.exit(_run(arguments))


def _run(arguments: Sequence[str] | None) -> int:
    try:
        code = _commands.main(arguments, prog_name="unbroken", standalone_mode=False)
    except click.ClickException as error:
        _complain(error.format_message())
        return error.exit_code
    except (KeyboardInterrupt, click.Abort):
        return 130
    except _Failure as failure:
        _complain(*failure.lines)
        return failure.exit_code
    return code if isinstance(code, int) else 0


class _Failure(Exception):
    """The command can't go on, for a reason that a person can do something about."""

    def __init__(self, lines: Sequence[str], exit_code: int) -> None:
        super().__init__(lines, exit_code)
        self.lines = lines
        self.exit_code = exit_code


def _complain(*lines: str) -> None:
    for line in lines:
        click.echo(f"unbroken: {' '.join(line.split())}", err=True)


def _settings_options(command: _Command) -> _Command:
    """Add the flags that are settings. The settings themselves check the values, wherever they come from."""
    options = (
        click.option("--host", metavar="ADDRESS", help="Address to listen on.  [default: 127.0.0.1]"),
        click.option("--port", metavar="PORT", help="Port to listen on; 0 takes any.  [default: 8000]"),
        click.option("--admin-port", metavar="PORT", help="Port for /metrics; 0 for none.  [default: 8001]"),
        click.option("--workers", metavar="NUMBER", help="Nodes to run, a process each.  [default: 1]"),
        click.option("--agent", metavar="KIND", help="embedded, openai, python or scripted."),
        click.option("--model", metavar="NAME", help="Model that answers, as the agent names it."),
        click.option("--config", metavar="FILE", help="TOML file of settings.  [default: unbroken.toml]"),
    )
    for option in reversed(options):
        command = option(command)
    return command


@click.group(invoke_without_command=True)
@click.version_option(__version__, message="unbroken %(version)s")
@click.pass_context
def _commands(context: click.Context) -> None:
    """Serve conversations with AI agents that survive their connections.

    Settings come from flags, UNBROKEN_* in the environment, .env and
    unbroken.toml, in this order; `unbroken check-config` shows them.
    """
    if context.invoked_subcommand is None:
        click.echo(context.get_help())


@_commands.command()
@_settings_options
def serve(**flags: str | None) -> int:
    """Run the server until SIGTERM or Ctrl+C."""
    from unbroken.server.interpreter import put_off_gc

    put_off_gc()  # before all that is imported from here on

    import structlog

    from unbroken.server import process, workers
    from unbroken.server.config import StartupError
    from unbroken.server.guards.leaks.lines import LineFilter
    from unbroken.server.logs import configure_logs
    from unbroken.server.setting_hints import hints

    loaded = _load(flags)
    settings = loaded.settings
    configure_logs(settings, clean=LineFilter())
    for hint in hints(loaded):
        structlog.get_logger(__name__).warning("a setting does nothing", hint=hint)
    try:
        return workers.run(settings) if settings.workers > 1 else process.run(settings, _build)
    except StartupError as error:
        raise _Failure(str(error).splitlines(), exit_code=1) from None


def _build(settings: Settings) -> Application:
    # Here, after the sockets are bound: this is what takes seconds.
    from unbroken.server.app import build

    return build(settings)


@_commands.command()
@click.option("--url", metavar="URL", help="The admin listener of the node.  [default: the settings' own]")
@click.option("--wait", metavar="SECONDS", type=click.FloatRange(0, 86400), help="Give up after so long.")
@click.option("--undo", is_flag=True, help="Take new work again.")
@click.option("--config", metavar="FILE", help="TOML file of settings.  [default: unbroken.toml]")
def drain(url: str | None, wait: float | None, *, undo: bool, config: str | None) -> None:
    """Have a running server take no new work, and wait until what it has has ended.

    The process goes on until it is told to end. The server's UNBROKEN_ADMIN_KEY must be set here too.
    """
    from unbroken.server.drain_command import DrainFailed, ask_to_drain

    settings = _settings(config)
    try:
        for line in ask_to_drain(settings, url=url, wait=wait, undo=undo):
            click.echo(line)
    except DrainFailed as failed:
        raise _Failure([str(failed)], exit_code=1) from None


@_commands.command()
@click.option("--url", metavar="URL", help="The admin listener of a node.  [default: the settings' own]")
@click.option("--tenant", metavar="NAME", default="default", help="Whose usage.  [default: default]")
@click.option("--user", metavar="NAME", help="Show this user of the tenant alone, such as key:NAME.")
@click.option("--turns", metavar="NUMBER", type=click.IntRange(0, 1000), default=20, help="Turns to show.")
@click.option("--config", metavar="FILE", help="TOML file of settings.  [default: unbroken.toml]")
def usage(url: str | None, tenant: str, user: str | None, turns: int, config: str | None) -> None:
    """Show what a tenant, or one of its users, has used within a minute and a day, and the latest turns.

    Money is in millionths. The server's UNBROKEN_ADMIN_KEY must be set here too.
    """
    from unbroken.server.usage_command import UsageUnknown, ask_for_usage

    settings = _settings(config)
    try:
        for line in ask_for_usage(settings, url=url, tenant=tenant, user=user, most=turns):
            click.echo(line)
    except UsageUnknown as unknown:
        raise _Failure([str(unknown)], exit_code=1) from None


@_commands.command()
@click.option("--url", metavar="URL", help="The admin listener of a node.  [default: the settings' own]")
@click.option("--tenant", metavar="NAME", default="default", help="Whose user it is.  [default: default]")
@click.option("--user", metavar="NAME", required=True, help="Whose data is erased, such as key:NAME.")
@click.option("--config", metavar="FILE", help="TOML file of settings.  [default: unbroken.toml]")
def erase(url: str | None, tenant: str, user: str, config: str | None) -> None:
    """Erase everything of a user's that there is now: conversations, files, and answers that were kept.

    It can't be taken back. The server's UNBROKEN_ADMIN_KEY must be set here too.
    """
    from unbroken.server.erase_command import EraseFailed, ask_to_erase

    settings = _settings(config)
    try:
        for line in ask_to_erase(settings, url=url, tenant=tenant, user=user):
            click.echo(line)
    except EraseFailed as failed:
        raise _Failure([str(failed)], exit_code=1) from None


@_commands.command("check-config")
@click.argument("names", nargs=-1, metavar="[SETTING]...")
@_settings_options
def check_config(names: tuple[str, ...], **flags: str | None) -> None:
    """Show each setting in force and where it comes from, or the values of those that are named."""
    from unbroken.server.config import ConfigError, shown
    from unbroken.server.guards.injection.selection import rule_hints
    from unbroken.server.setting_hints import hints

    try:
        loaded, problems = _load(flags), None
    except _Failure as failure:
        if not isinstance(failure.__cause__, ConfigError) or failure.__cause__.loaded is None:
            raise
        loaded, problems = failure.__cause__.loaded, failure
    if unknown := [name for name in names if name not in loaded.origins]:
        raise click.UsageError(f"{unknown[0]} is not a setting. Leave it out to see all.")
    rows = [(name, shown(name, loaded.settings), origin) for name, origin in loaded.origins.items()]
    widths = [max(len(row[column]) for row in rows) for column in (0, 1)]
    for name, value, origin in rows:
        if name in names:
            click.echo(value)
        elif not names:
            # An instruction may be a page long; it doesn't push the others apart.
            click.echo(f"{name:<{widths[0]}}  {value:<{min(widths[1], 40)}}  {origin}")
    if problems is not None:
        raise problems
    _complain(*hints(loaded), *rule_hints(loaded.settings, loaded.origins))


@_commands.command("new-key")
@click.argument("name")
def new_key(name: str) -> None:
    """Make an API key for NAME: the key for the client, a line for UNBROKEN_API_KEYS.

    The server keeps a digest only: the key can't be shown again.
    """
    if not re.fullmatch(r"[A-Za-z0-9_.-]{1,64}", name):
        raise click.UsageError("A key's name is 1 to 64 letters, digits, dots, dashes or underscores.")
    key = f"ub_{secrets.token_urlsafe(32)}"
    click.echo("Give this key to the client. It is shown this once:", err=True)
    click.echo(key)
    click.echo("Add this to UNBROKEN_API_KEYS (a comma between several):", err=True)
    click.echo(f"{name}:{hashlib.sha256(key.encode()).hexdigest()}")


@_commands.group("keys")
def keys() -> None:
    """Make, list and revoke API keys, in the store that UNBROKEN_KEY_STORE names.

    Running servers see what changes within seconds.
    """


_CONFIG = click.option("--config", metavar="FILE", help="TOML file of settings.  [default: unbroken.toml]")


@keys.command("create")
@click.argument("name")
@click.option("--tenant", metavar="NAME", default="default", show_default=True, help="Whose customer it is.")
@click.option("--user", metavar="NAME", help="Whose key it is.  [default: a backend's, for any user]")
@click.option("--plan", metavar="NAME", default="default", show_default=True, help="What it may use.")
@click.option(
    "--scope", "scopes", metavar="SCOPE", multiple=True, help="What it may do.  [default: everything]"
)
@click.option("--expires-in", metavar="SECONDS", type=float, help="How long it is good.  [default: no end]")
@_CONFIG
def create_key(name: str, config: str | None, scopes: tuple[str, ...], **wanted: Any) -> None:
    """Make a key. It is printed, and shown this once: the server keeps a digest only."""
    from unbroken.server.auth.key_request import BadKeyRequest, KeyRequest
    from unbroken.server.keys_command import create

    request = KeyRequest(name, scopes=scopes or None, **wanted)
    try:
        key, line = _kept(create, config, request)
    except BadKeyRequest as exc:
        raise click.UsageError(str(exc)) from None
    click.echo("Give this key to the client. It is shown this once:", err=True)
    click.echo(key)
    click.echo(line, err=True)


@keys.command("list")
@_CONFIG
def list_keys(config: str | None) -> None:
    """Show all keys, with when each was last used."""
    from unbroken.server.keys_command import listed

    for line in _kept(listed, config):
        click.echo(line)


@keys.command("revoke")
@click.argument("key_id", metavar="ID")
@_CONFIG
def revoke_key(key_id: str, config: str | None) -> None:
    """Revoke the key with this ID for good. Its connections are closed within seconds, on all nodes."""
    from unbroken.server.keys_command import revoke

    click.echo(_kept(revoke, config, key_id))


@_commands.group("transcripts")
def transcripts() -> None:
    """List and export what was said, from the archive that UNBROKEN_ARCHIVE_URL names. No server need run."""


_WHOSE = (
    click.option("--tenant", metavar="NAME", help="Of this tenant's users alone."),
    click.option("--user", metavar="NAME", help="Of this user alone, such as key:NAME."),
)


@transcripts.command("list")
@_WHOSE[0]
@_WHOSE[1]
@click.option("--limit", metavar="NUMBER", type=click.IntRange(1, 100_000), default=100, show_default=True)
@_CONFIG
def list_transcripts(tenant: str | None, user: str | None, limit: int, config: str | None) -> None:
    """Show sessions, the latest first, a line each."""
    from unbroken.server.transcripts_command import listed

    _told(listed(_settings(config), tenant, user, limit))


@transcripts.command("export")
@click.argument("session_id", metavar="[SESSION]", required=False)
@_WHOSE[0]
@_WHOSE[1]
@_CONFIG
def export_transcripts(
    session_id: str | None, tenant: str | None, user: str | None, config: str | None
) -> None:
    """Print turns as JSON lines, one for each: of one session, or of all."""
    from unbroken.server.transcripts_command import exported

    _told(exported(_settings(config), session_id, tenant, user))


def _told(lines: Iterable[str]) -> None:
    from unbroken.server.transcripts_command import TranscriptsFailed

    try:
        for line in lines:
            click.echo(line)
    except TranscriptsFailed as failed:
        raise _Failure([str(failed)], exit_code=1) from None


def _kept(act: Callable[..., _T], config: str | None, *args: object) -> _T:
    from unbroken.server.keys_command import KeysFailed

    settings = _settings(config)
    try:
        return act(settings, *args)
    except KeysFailed as failed:
        raise _Failure([str(failed)], exit_code=1) from None


def _settings(config: str | None) -> Settings:
    """Load the settings of a command, and have what it logs stay out of what it prints."""
    from unbroken.server.logs import configure_logs

    settings = _load({"config": config}).settings
    configure_logs(settings)
    return settings


def _load(flags: dict[str, str | None]) -> Loaded:
    """Load the settings. The one place that looks at the process's environment."""
    from unbroken.server.config import ConfigError
    from unbroken.server.setting_sources import load_settings

    try:
        return load_settings(flags, os.environ, Path.cwd())
    except ConfigError as error:
        raise _Failure(error.problems, exit_code=2) from error
