"""Databases for the archive's tests."""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import pytest_asyncio

from tests.fakes.postgres import PostgresServer
from unbroken.server.archive.database import Database
from unbroken.server.archive.postgresql import PostgresDatabase
from unbroken.server.archive.sqlite import SqliteDatabase

_NUMBERS = itertools.count(1)


@pytest.fixture(scope="session")
def postgres() -> Iterator[PostgresServer]:
    with PostgresServer().running() as server:
        yield server


@pytest.fixture
def postgres_url(postgres: PostgresServer) -> str:
    """The address of a database of this test's own."""
    name = f"archive_{next(_NUMBERS)}"
    postgres.sql(f"CREATE DATABASE {name}")
    return postgres.url(name)


@pytest_asyncio.fixture
async def sqlite(tmp_path: Path) -> AsyncIterator[Database]:
    database = SqliteDatabase(tmp_path / "archive.db")
    yield database
    await database.aclose()


@pytest_asyncio.fixture
async def postgresql(postgres_url: str) -> AsyncIterator[Database]:
    database = PostgresDatabase(postgres_url)
    yield database
    await database.aclose()
