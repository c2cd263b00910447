"""The archive and the webhooks, as the settings say: made and joined. For the composition root."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from unbroken.server.archive.archiver import Archiver
from unbroken.server.archive.base import Archive, ArchiveUnavailable, ArchiveUnusable
from unbroken.server.archive.database import Database
from unbroken.server.archive.housekeeping import Housekeeping, Retention
from unbroken.server.archive.queue import SqlQueue
from unbroken.server.archive.records import Records
from unbroken.server.archive.sql import SqlArchive
from unbroken.server.archive_settings import retention_of
from unbroken.server.auth.directory import Directory
from unbroken.server.config import Settings, StartupError
from unbroken.server.metrics import Metrics
from unbroken.server.plan_tables import rows_of
from unbroken.server.webhooks.events import Announcer
from unbroken.server.webhooks.sending import Sender, SendingLimits, Target
from unbroken.sessions.backends.base import SessionStore
from unbroken.sessions.backends.outbox import Outbox
from unbroken.sessions.clock import Clock

__all__ = ["Archiving", "build_archiving", "open_archive"]


@dataclass(frozen=True, slots=True)
class Archiving:
    """Everything that the archive consists of on this node."""

    archive: Archive
    records: Records
    _sql: SqlArchive
    _archiver: Archiver
    _housekeeping: Housekeeping
    _sender: Sender

    async def open(self) -> None:
        """Begin. The store is open already.

        Raises:
            StartupError: The archive can't be used.

        """
        await _opened(self._sql)
        await self._sender.start()
        self._archiver.start()
        self._housekeeping.start()

    async def aclose(self) -> None:
        """Bring what is there into the archive, and end. The store is open still, and nothing is said."""
        await self._housekeeping.aclose()
        await self._archiver.aclose()
        await self._sender.aclose()
        await self._sql.aclose()


def build_archiving(
    settings: Settings,
    store: SessionStore,
    outbox: Outbox | None,
    directory: Directory,
    clock: Clock,
    metrics: Metrics,
) -> Archiving | None:
    """Return the archive that *settings* describe; None: there is none. Nothing is opened yet.

    Raises:
        StartupError: It can't be had.

    """
    if settings.archive_url is None or outbox is None:
        return None
    database = _database(settings)
    archive, queue = SqlArchive(database), SqlQueue(database)
    announcer = Announcer(settings.webhooks)
    by_plan = {plan: retention_of(value) for plan, value in rows_of(settings.archive_retention).items()}
    retention = Retention(by_plan, settings.session_idle_timeout)
    sender = Sender(
        [
            Target(name, each.url, [secret.get_secret_value() for secret in each.secrets])
            for name, each in settings.webhooks.items()
        ],
        queue,
        SendingLimits(
            timeout=settings.webhook_timeout,
            tries=settings.webhook_tries,
            at_once=settings.webhook_concurrency,
        ),
        clock,
        on_outcome=lambda endpoint, outcome: metrics.webhooks.labels(endpoint, outcome).inc(),
        on_passed_over=lambda endpoint, is_so: metrics.webhooks_passed_over.labels(endpoint).set(is_so),
    )
    archiver = Archiver(
        outbox,
        archive,
        directory,
        retention,
        announcer.turn_ended,
        clock,
        on_outcome=lambda outcome, count: metrics.archive_turns.labels(outcome).inc(count),
        on_failure=metrics.archive_failures.inc,
        on_waiting=_waiting(metrics),
        on_written=sender.wake,
        on_lost=metrics.archive_lost.inc,
    )
    housekeeping = Housekeeping(
        archive,
        queue,
        list(settings.webhooks),
        retention,
        store.inspect,
        announcer.session_ended,
        clock,
        on_expired=metrics.archive_expired.inc,
    )
    return Archiving(
        archive,
        Records(archive, clock, announcer.session_ended, sender.wake),
        archive,
        archiver,
        housekeeping,
        sender,
    )


def _waiting(metrics: Metrics) -> Callable[[int, float], None]:
    def note(count: int, oldest: float) -> None:
        metrics.archive_waiting.set(count)
        metrics.archive_oldest.set(oldest)

    return note


async def open_archive(settings: Settings) -> SqlArchive:
    """Return the archive that *settings* describe, opened, for a command: its caller closes it.

    Raises:
        StartupError: There is none, or it can't be used.

    """
    if settings.archive_url is None:
        raise StartupError("There is no archive. Set UNBROKEN_ARCHIVE_URL, here as for the server.")
    archive = SqlArchive(_database(settings))
    await _opened(archive)
    return archive


async def _opened(archive: SqlArchive) -> None:
    try:
        await archive.open()
    except ArchiveUnusable as exc:
        raise StartupError(str(exc)) from None
    except ArchiveUnavailable as exc:
        await archive.aclose()
        raise StartupError(f"The archive can't be used: {exc}. Correct UNBROKEN_ARCHIVE_URL.") from None


def _database(settings: Settings) -> Database:
    assert settings.archive_url is not None
    url = settings.archive_url.get_secret_value()
    if url.startswith("sqlite:"):
        from unbroken.server.archive.sqlite import SqliteDatabase

        return SqliteDatabase(Path(url.removeprefix("sqlite:///")), patience=settings.archive_timeout)
    try:
        from unbroken.server.archive.postgresql import PostgresDatabase
    except ImportError:
        message = (
            "UNBROKEN_ARCHIVE_URL needs PostgreSQL's client. Install it: pip install 'unbroken[postgresql]'"
        )
        raise StartupError(message) from None
    return PostgresDatabase(url, connections=settings.archive_connections, patience=settings.archive_timeout)
