"""Brings a database's tables to what this release needs: numbered files of SQL, each once.

Several nodes may start at once, of two releases: a file only ever adds, so that the release before goes on
with what is there.
"""

from __future__ import annotations

import re
from importlib.resources import files
from typing import Final

import structlog

from unbroken.server.archive.database import Database

__all__ = ["migrate"]

_NAME: Final = re.compile(r"(\d{4})_\w+\.sql")


async def migrate(database: Database) -> None:
    """Apply to *database* what isn't yet.

    Raises:
        ArchiveUnavailable: It can't be used for the moment. Each file is applied wholly or not at all.

    """
    async with database.transaction(alone=True) as transaction:
        await transaction.execute(
            "CREATE TABLE IF NOT EXISTS archive_migrations (number INTEGER PRIMARY KEY)"
        )
        rows = await transaction.fetch("SELECT number FROM archive_migrations")
        applied = {int(number) for (number,) in rows}
        for number, text in _migrations():
            if number in applied:
                continue
            for statement in _statements(text):
                await transaction.execute(statement)
            await transaction.execute("INSERT INTO archive_migrations (number) VALUES ($1)", number)
            structlog.get_logger().info("archive migrated", number=number)


def _migrations() -> list[tuple[int, str]]:
    folder = files("unbroken.server.archive") / "migrations"
    return sorted(
        (int(match[1]), file.read_text("utf-8"))
        for file in folder.iterdir()
        if (match := _NAME.fullmatch(file.name)) is not None
    )


def _statements(text: str) -> list[str]:
    """Return the statements of a file: each ends with a semicolon at the end of its line."""
    bare = "\n".join(line for line in text.splitlines() if not line.lstrip().startswith("--"))
    return [each.strip() for each in bare.split(";\n") if each.strip(" \n;")]
